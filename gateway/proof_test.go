package gateway

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// asked is the proof of an initiator that answers when the test says so.
type asked struct {
	come   chan struct{} // a token for each command
	answer chan struct{} // closed: it has answered
}

// Await implements volume.Proof.
func (p *asked) Await(ctx context.Context) error {
	p.come <- struct{}{}
	select {
	case <-p.answer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// proofs are those of the tenancies of the media of ms, in their order.
func proofs(ms *mediums) chan *asked {
	made := make(chan *asked, 8)
	ms.newProof = func() volume.Proof {
		p := &asked{make(chan struct{}, 64), make(chan struct{})}
		made <- p
		return p
	}
	return made
}

// served returns how many requests the store has got.
func (f *fakeStore) served() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.requests)
}

// TestProofOfEachCommand: whatever a command does with the medium, it is not served before its initiator has shown that it
// still wants it, which it is asked after the epoch was issued; and not at all when it is given up.
func TestProofOfEachCommand(t *testing.T) {
	block := make([]byte, 4096)
	for name, access := range map[string]func(m *medium, ctx context.Context) error{
		"read":  func(m *medium, ctx context.Context) error { return m.Read(ctx, block, 0) },
		"write": func(m *medium, ctx context.Context) error { return m.Write(ctx, block, 0) },
		"unmap": func(m *medium, ctx context.Context) error { return m.Unmap(ctx, 0, 4096) },
		"compare and write": func(m *medium, ctx context.Context) error {
			_, err := m.CompareAndWrite(ctx, 0, block, block)
			return err
		},
		"allocation": func(m *medium, ctx context.Context) error {
			_, _, err := m.Allocated(ctx, 0, 4096)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeStore()
			ms := testMediums(t, f)
			made := proofs(ms)
			m := ms.Open(testVolume, testHost)
			given, giveUp := context.WithCancel(t.Context())
			results := make(chan error, 2)
			go func() { results <- access(m, given) }()
			p := <-made
			<-p.come
			f.mu.Lock()
			if h := f.hosts[testHost]; h == nil || h.epoch != 1 {
				t.Error("asked before there was an epoch")
			}
			f.mu.Unlock()
			giveUp()
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("given up: %v", err)
			}
			go func() { results <- access(m, t.Context()) }()
			<-p.come
			if n := f.served(); n != 0 {
				t.Errorf("%d requests before the answer", n)
			}
			close(p.answer)
			if err := <-results; name != "allocation" && err != nil { // the store knows no runs
				t.Error(err)
			}
			if n := f.served(); n == 0 {
				t.Error("no request")
			}
		})
	}
}

// TestProofOfEachTenancy: each tenancy has a proof of its own, whether it begins with the first command, after it was
// overtaken while no session was there, or because a command that is there was refused; one that goes on keeps its own.
func TestProofOfEachTenancy(t *testing.T) {
	_, _, one, two := twoGateways(t)
	made := proofs(one)
	begins := func(when string, do func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- do() }()
		p := <-made
		<-p.come
		close(p.answer)
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	begins("at first", func() error { return stay(one) })
	must(t, stay(one)) // confirmed
	must(t, stay(two))
	begins("overtaken", func() error { return stay(one) })
	m := one.Open(testVolume, testHost)
	must(t, m.Write(t.Context(), make([]byte, 512), 0))
	must(t, stay(two))
	begins("refused", func() error { return m.Write(t.Context(), make([]byte, 512), 0) })
	if len(made) != 0 {
		t.Errorf("%d proofs more than tenancies", len(made))
	}
}

// TestWakesUp: a gateway goes on that hung since the login, with a write in the socket of a host which has moved meanwhile
// and does not answer any more. The write is not served, and the host goes on at the other gateway as if nothing were.
func TestWakesUp(t *testing.T) {
	f, _, one, two := twoGateways(t)
	made := proofs(one)
	moved := two.Open(testVolume, testHost)
	must(t, moved.Write(t.Context(), make([]byte, 512), 0))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	m := one.Open(testVolume, testHost)
	for range 4 {
		wg.Go(func() {
			if err := m.Write(ctx, make([]byte, 512), 0); !errors.Is(err, context.Canceled) {
				t.Errorf("a stale write: %v", err)
			}
		})
	}
	p := <-made
	for range 4 {
		<-p.come
	}
	must(t, moved.Write(t.Context(), make([]byte, 512), 0))
	cancel() // its connection is found to be gone
	wg.Wait()
	must(t, moved.Write(t.Context(), make([]byte, 512), 0))
	if last := f.last(); f.served() != 3 || last.Fence.Epoch != 1 || two.moves.total.Load() != 0 {
		t.Errorf("%d requests, the last under %v, %d moves", f.served(), last.Fence, two.moves.total.Load())
	}
}

// TestSanitizeIsProven: SANITIZE begins nothing before its initiator has shown that it still wants it. Then it is the volume's, and
// does not end with the path of its initiator.
func TestSanitizeIsProven(t *testing.T) {
	f, _, one, two := twoGateways(t)
	defer one.erasures.stop()
	r := &record{store: f, state: &reservation.State{}, gateways: []*mediums{one}}
	one.erasures.change, one.erasures.rate, one.erasures.every = r.change, 100<<20, time.Millisecond
	made := proofs(one)
	m := one.Open(testVolume, testHost)
	order := sanitize.Order{Passes: 31, Block: make([]byte, 512)}
	given, giveUp := context.WithCancel(t.Context())
	results := make(chan error, 1)
	go func() {
		_, err := m.Sanitize(given, sanitizer, order, 1<<20)
		results <- err
	}()
	p := <-made
	<-p.come
	giveUp()
	if err := <-results; !errors.Is(err, context.Canceled) || m.Sanitizing().State != sanitize.Idle || f.served() != 0 || r.sanitize() != nil {
		t.Fatalf("given up: %v, %+v, %d requests", err, m.Sanitizing(), f.served())
	}
	close(p.answer)
	done, err := m.Sanitize(t.Context(), sanitizer, order, 1<<20)
	must(t, err)
	two.update(testVolumes(f.access), func(layout.VolumeID, string) bool { return true })
	must(t, stay(two))
	awaitDone(t, done)
	if s, bytes := m.Sanitizing(), f.writtenBy(reservation.SanitizeInitiator); s.State != sanitize.Idle || bytes != 31<<20 {
		t.Errorf("%+v, %d bytes", s, bytes)
	}
	if h := f.hosts[testHost]; h.gateway != 2 || h.epoch != 2 || len(made) != 0 {
		t.Errorf("gateway %d has the path, under epoch %d, after %d more tenancies", h.gateway, h.epoch, len(made))
	}
}

// TestNobodyToAsk: without a command of a session nothing begins a tenancy.
func TestNobodyToAsk(t *testing.T) {
	f := newFakeStore()
	ms := testMediums(t, f)
	ms.newProof = newMediums(nil, nil, 1).newProof
	if err := ms.Open(testVolume, testHost).Write(t.Context(), make([]byte, 512), 0); !errors.Is(err, session.ErrNoCommand) {
		t.Errorf("%v", err)
	}
	if n := f.served(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

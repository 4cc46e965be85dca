package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// record is the metaserver's record of a volume, which all gateways of a test are told of.
type record struct {
	mu       sync.Mutex
	store    *fakeStore
	state    *reservation.State
	gateways []*mediums
	// conflicts counts the requests that were answered so.
	conflicts int
}

// gateway makes the media of one more gateway, whose relative target port is its number.
func (r *record) gateway(t *testing.T) *mediums {
	t.Helper()
	port := uint16(len(r.gateways) + 1)
	ms := mediumsOf(t, r.store, fakeNode{r.store, uint64(port)})
	ms.erasures.rate, ms.erasures.every = 1<<40, 10*time.Millisecond
	ms.erasures.change, ms.erasures.port = r.change, func() uint16 { return port }
	t.Cleanup(ms.erasures.stop)
	r.gateways = append(r.gateways, ms)
	return ms
}

func newRecord() *record { return &record{store: newFakeStore(), state: &reservation.State{}} }

func (r *record) change(
	ctx context.Context, id layout.VolumeID, q *reservation.Request,
) (reservation.Status, *scsi.Reservations, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return 0, nil, ctx.Err()
	}
	res := r.state.Apply(q)
	r.state = res.State
	if res.Status == reservation.Conflict {
		r.conflicts++
	}
	r.store.mu.Lock()
	if res.Narrowed {
		r.store.access++
	}
	access := r.store.access
	r.store.mu.Unlock()
	for _, ms := range r.gateways {
		ms.erasures.learn(id, r.state)
	}
	return res.Status, &scsi.Reservations{Access: uint64(access), State: r.state}, nil
}

// loses has a gateway lose the first answer to a request of one kind. Its repetition is answered as a metaserver does, GOOD with
// what is on record when meanwhile has returned.
func (r *record) loses(ms *mediums, a reservation.Action, meanwhile func()) {
	var lost atomic.Bool
	ms.erasures.change = func(ctx context.Context, id layout.VolumeID, q *reservation.Request) (reservation.Status, *scsi.Reservations, error) {
		st, now, err := r.change(ctx, id, q)
		if q.Action != a || err != nil || st != reservation.Good || lost.Swap(true) {
			return st, now, err
		}
		meanwhile()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.store.mu.Lock()
		defer r.store.mu.Unlock()
		return st, &scsi.Reservations{Access: uint64(r.store.access), State: r.state}, nil
	}
}

func (r *record) sanitize() *reservation.Sanitize {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Sanitize
}

// written returns how many bytes were written, and under which epochs, the latest last.
func (f *fakeStore) written() (bytes uint64, epochs []layout.Epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if r.Op == chunkclient.Write {
			bytes += uint64(r.Length)
			epochs = append(epochs, r.Fence.Epoch)
		}
	}
	return bytes, epochs
}

// writtenBy returns how many bytes an initiator has written.
func (f *fakeStore) writtenBy(initiator string) (bytes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if r.Op == chunkclient.Write && r.Initiator == f.hosts[initiator].id {
			bytes += uint64(r.Length)
		}
	}
	return bytes
}

// hold has requests kept for which keep returns true: Start takes them up again. Nil: none is.
func (f *fakeStore) hold(keep func(*chunkclient.Call) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keep = keep
}

// begin begins an overwrite of size bytes.
func begin(t *testing.T, m *medium, passes int, size int64) <-chan struct{} {
	t.Helper()
	done, err := m.Sanitize(t.Context(), sanitizer, sanitize.Order{Passes: passes, Block: make([]byte, 512), Exit: true}, size)
	must(t, err)
	return done
}

var sanitizer = reservation.Nexus{Initiator: "iqn.a", Port: 1}

// awaitDone waits for the end of a SANITIZE.
func awaitDone(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
	}
}

// soon waits until what holds.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// TestSanitizeGoesOverAllOfIt: an overwrite writes each byte as often as it says, an erasure unmaps all and writes the tail
// that is no whole block; every medium of the volume, also of other gateways, sees how it is.
func TestSanitizeGoesOverAllOfIt(t *testing.T) {
	r := newRecord()
	ms, elsewhere := r.gateway(t), r.gateway(t)
	ms.erasures.every = 0 // each piece is recorded
	m, other := ms.Open(testVolume, "iqn.a"), elsewhere.Open(testVolume, "iqn.b")
	const size = 1<<20 - 512
	awaitDone(t, begin(t, m, 3, size))
	if bytes, _ := r.store.written(); bytes != 3*size || r.sanitize() != nil {
		t.Fatalf("%d bytes, %+v", bytes, r.sanitize())
	}
	soon(t, "the other gateway does not see the end", func() bool { return other.Sanitizing().State == sanitize.Idle })
	ms.erasures.wg.Wait()
	if r.conflicts > 0 {
		t.Errorf("%d requests of it were refused", r.conflicts)
	}
	r.store.requests = nil
	done, err := other.Sanitize(t.Context(), sanitizer, sanitize.Order{}, size)
	must(t, err)
	awaitDone(t, done)
	if q := r.store.requests; len(q) != 2 || q[0].Op != chunkclient.Discard || q[0].Length != 1<<20-4096 ||
		q[1].Op != chunkclient.Write || q[1].Length != 3584 {
		t.Fatalf("%+v", q)
	}
}

// TestSanitizeOutlivesItsSession: what was begun goes on when the session has gone, and nobody begins a second one.
func TestSanitizeOutlivesItsSession(t *testing.T) {
	r := newRecord()
	ms, elsewhere := r.gateway(t), r.gateway(t)
	ms.erasures.rate = 1 // never gets on after the first piece
	m, other := ms.Open(testVolume, "iqn.a"), elsewhere.Open(testVolume, "iqn.b")
	begin(t, m, 2, 1<<20)
	ms.Release(m)
	soon(t, "the other gateway does not see how far it is", func() bool { return other.Sanitizing().Progress > 0 })
	if s := other.Sanitizing(); s.State != sanitize.Running || s.Progress != 32768 {
		t.Fatalf("%+v", s)
	}
	if _, err := other.Sanitize(t.Context(), sanitizer, sanitize.Order{}, 1<<20); !errors.Is(err, scsi.ErrSanitizing) {
		t.Fatal(err)
	}
	if err := other.ExitSanitize(t.Context(), sanitizer); !errors.Is(err, scsi.ErrSanitizing) { // is for failures
		t.Fatal(err)
	}
	ms.erasures.stop()
	if r.sanitize() == nil || other.Sanitizing().State != sanitize.Running {
		t.Fatal("a gateway that stops ends it")
	}
	if _, err := m.Sanitize(t.Context(), sanitizer, sanitize.Order{}, 1<<20); err == nil {
		t.Fatal("a stopped gateway begins one")
	}
}

// takes has a gateway claim the SANITIZE of testVolume as often as it takes until it holds the claim with that number.
func (r *record) takes(t *testing.T, ms *mediums, claim uint64) {
	t.Helper()
	soon(t, "it is not taken over", func() bool {
		ms.erasures.claim(t.Context(), ms.erasures.of(testVolume))
		z := r.sanitize()
		return z == nil || z.Claim == claim && z.Port == ms.erasures.port()
	})
}

// TestSanitizeOfALostAnswer: a gateway that learns only by the repetition of a request that it was taken, when another one has the
// claim by then, leaves it to that one.
func TestSanitizeOfALostAnswer(t *testing.T) {
	const passes, size = 3, 1 << 20
	setup := func(t *testing.T) (r *record, one, two *mediums) {
		t.Helper()
		r = newRecord()
		one, two = r.gateway(t), r.gateway(t)
		two.erasures.after = 0
		return r, one, two
	}
	t.Run("begin, the other one is at it", func(t *testing.T) {
		r, one, two := setup(t)
		two.erasures.rate = 1
		r.loses(one, reservation.SanitizeBegin, func() { r.takes(t, two, 2) })
		done := begin(t, one.Open(testVolume, "iqn.a"), passes, size)
		one.erasures.wg.Wait() // nothing runs here
		select {
		case <-done:
			t.Error("the end is told while it runs")
		default:
		}
		if z := r.sanitize(); z == nil || z.Claim != 2 || z.Port != 2 {
			t.Errorf("%+v", z)
		}
	})
	t.Run("begin, all has ended", func(t *testing.T) {
		r, one, two := setup(t)
		r.loses(one, reservation.SanitizeBegin, func() {
			r.takes(t, two, 2)
			soon(t, "it does not end", func() bool { return r.sanitize() == nil })
		})
		awaitDone(t, begin(t, one.Open(testVolume, "iqn.a"), passes, size))
		one.erasures.wg.Wait()
		if bytes, _ := r.store.written(); bytes != passes*size {
			t.Errorf("%d bytes", bytes)
		}
	})
	t.Run("report", func(t *testing.T) {
		r, one, two := setup(t)
		one.erasures.every = 0
		goOn := delayed(two)
		r.loses(one, reservation.SanitizeReport, func() { r.takes(t, two, 2) })
		done := begin(t, one.Open(testVolume, "iqn.a"), passes, size)
		one.erasures.wg.Wait()
		if bytes, _ := r.store.written(); bytes != size {
			t.Errorf("%d bytes before the other one has begun", bytes)
		}
		goOn()
		awaitDone(t, done)
	})
	t.Run("claim", func(t *testing.T) {
		r, one, two := setup(t)
		three := r.gateway(t)
		one.erasures.rate, three.erasures.rate, three.erasures.after = 1, 1, 0
		begin(t, one.Open(testVolume, "iqn.a"), passes, size)
		one.erasures.stop()
		r.loses(two, reservation.SanitizeClaim, func() { r.takes(t, three, 3) })
		two.erasures.claim(t.Context(), two.erasures.of(testVolume))
		two.erasures.wg.Wait()
		if z := r.sanitize(); z == nil || z.Claim != 3 || z.Port != 3 {
			t.Errorf("%+v", z)
		}
	})
}

// delayed has a gateway reach the medium for a SANITIZE only when goOn is called: no copyset hears of its epoch before.
func delayed(ms *mediums) (goOn func()) {
	open, gate := ms.erasures.open, make(chan struct{})
	ms.erasures.open = func(id layout.VolumeID, access layout.AccessGeneration) *volume.Handle {
		<-gate
		return open(id, access)
	}
	return func() { close(gate) }
}

// TestSanitizeIsTakenOver: another gateway goes on from what was recorded when the claim is not renewed.
func TestSanitizeIsTakenOver(t *testing.T) {
	r := newRecord()
	one, two := r.gateway(t), r.gateway(t)
	const passes, size = 5, 1 << 20
	one.erasures.rate = 1
	done := begin(t, one.Open(testVolume, "iqn.a"), passes, size)
	soon(t, "the first pass is not recorded", func() bool { return r.sanitize().Done == size })
	two.erasures.claim(t.Context(), two.erasures.of(testVolume))
	if r.sanitize().Claim != 1 {
		t.Fatal("a claim that is renewed was taken")
	}
	two.erasures.after = 0
	r.takes(t, two, 2)
	awaitDone(t, done)
	one.erasures.wg.Wait() // was told
	two.erasures.wg.Wait()
	bytes, epochs := r.store.written()
	if r.sanitize() != nil || bytes != passes*size || epochs[0] != 1 || epochs[1] != 2 || epochs[passes-1] != 2 {
		t.Errorf("%+v, %d bytes under %v", r.sanitize(), bytes, epochs)
	}
}

// TestSanitizeOfOneThatHung: what a gateway had under way when its claim was taken is refused, before the one that took it writes
// anything (by the access generation alone then) and when that has ended.
func TestSanitizeOfOneThatHung(t *testing.T) {
	for _, ended := range []bool{false, true} {
		r := newRecord()
		one, two := r.gateway(t), r.gateway(t)
		two.erasures.after = 0
		goOn := delayed(two)
		stuck := make(chan *chunkclient.Call, 1)
		r.store.hold(func(c *chunkclient.Call) bool {
			select {
			case stuck <- c:
				return true
			default:
				return false // of two
			}
		})
		const size = 1 << 20
		done := begin(t, one.Open(testVolume, "iqn.a"), 1, size)
		soon(t, "nothing is on its way", func() bool { return len(stuck) == 1 })
		r.takes(t, two, 2)
		if ended {
			goOn()
			awaitDone(t, done)
			two.erasures.wg.Wait()
		}
		before, _ := r.store.written()
		r.store.hold(nil)
		r.store.Start(<-stuck)
		one.erasures.wg.Wait()
		if after, _ := r.store.written(); after != before {
			t.Errorf("ended %v: %d bytes were written by the one that had hung", ended, after-before)
		}
		if !ended {
			goOn()
			awaitDone(t, done)
		}
	}
}

// TestSanitizeGoesOnAfterARestart: a gateway that finds its own claim takes it anew, and does what was not recorded again.
func TestSanitizeGoesOnAfterARestart(t *testing.T) {
	r := newRecord()
	one := r.gateway(t)
	one.erasures.rate, one.erasures.every = 1, time.Hour
	begin(t, one.Open(testVolume, "iqn.a"), 2, 1<<20)
	soon(t, "nothing is written", func() bool { bytes, _ := r.store.written(); return bytes > 0 })
	one.erasures.stop()
	r.gateways = nil
	again := r.gateway(t)
	again.erasures.learn(testVolume, r.state)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = again.erasures.run(ctx) })
	soon(t, "it does not go on", func() bool { return r.sanitize() == nil })
	if bytes, _ := r.store.written(); bytes != 3<<20 {
		t.Errorf("%d bytes", bytes)
	}
}

// TestSanitizeUnderReservations: it goes on when the access generation rises for another reason.
func TestSanitizeUnderReservations(t *testing.T) {
	r := newRecord()
	ms := r.gateway(t)
	ms.erasures.rate = 8 << 20
	done := begin(t, ms.Open(testVolume, "iqn.a"), 4, 1<<20)
	soon(t, "nothing is written", func() bool { bytes, _ := r.store.written(); return bytes > 0 })
	if _, _, err := r.change(t.Context(), testVolume, &reservation.Request{Action: reservation.UnitReset}); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, done)
	if bytes, _ := r.store.written(); bytes != 4<<20 || r.sanitize() != nil {
		t.Errorf("%d bytes, %+v", bytes, r.sanitize())
	}
}

// TestSanitizeFails: no space leaves the volume as failed until somebody says so, on all gateways.
func TestSanitizeFails(t *testing.T) {
	r := newRecord()
	ms, elsewhere := r.gateway(t), r.gateway(t)
	m, other := ms.Open(testVolume, "iqn.a"), elsewhere.Open(testVolume, "iqn.b")
	r.store.answer = chunkclient.NoSpace
	awaitDone(t, begin(t, m, 1, 1<<20))
	r.sanitize() // waits until the other gateway has been told, too
	for _, m := range []*medium{m, other} {
		if s := m.Sanitizing(); s.State != sanitize.Failed || !s.Exit {
			t.Fatalf("%+v", s)
		}
	}
	ms.erasures.wg.Wait()
	ms.erasures.after = 0
	ms.erasures.claim(t.Context(), ms.erasures.of(testVolume))
	if r.sanitize().Claim != 1 {
		t.Fatal("one that has failed was taken over")
	}
	must(t, other.ExitSanitize(t.Context(), sanitizer))
	for _, m := range []*medium{m, other} {
		if s := m.Sanitizing(); s.State != sanitize.Idle {
			t.Fatalf("%+v", s)
		}
	}
}

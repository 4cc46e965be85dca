package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// watchedNode is a metaserver whose answers pass through a function.
type watchedNode struct {
	fakeNode
	asked atomic.Int64 // for an epoch that was had
	// answer, if set, makes the answer of a question for had.
	answer func(ctx context.Context, had layout.Epoch) (volume.Attachment, error)
}

// Attach implements volume.Attacher.
func (n *watchedNode) Attach(ctx context.Context, id layout.VolumeID, initiator string, had layout.Epoch) (volume.Attachment, error) {
	if had != 0 {
		n.asked.Add(1)
		if n.answer != nil {
			return n.answer(ctx, had)
		}
	}
	return n.fakeNode.Attach(ctx, id, initiator, had)
}

const testHost = "iqn.a"

// twoGateways are the media of two gateways before one store. Losing a tenancy at the first one is counted.
func twoGateways(t *testing.T) (f *fakeStore, node *watchedNode, one, two *mediums, losses *atomic.Int64) {
	t.Helper()
	f = newFakeStore()
	node = &watchedNode{fakeNode: fakeNode{f, 1}}
	one, two = mediumsOf(t, f, node), mediumsOf(t, f, fakeNode{f, 2})
	losses = &atomic.Int64{}
	one.lost = func(layout.VolumeID, string, func()) { losses.Add(1) }
	return f, node, one, two, losses
}

// stay is a session of testHost that writes once, if it can, and ends.
func stay(ms *mediums) error {
	m := ms.Open(testVolume, testHost)
	defer ms.Release(m)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return m.Write(ctx, make([]byte, 512), 0)
}

// TestReturn has a host come back to a gateway: if it was away, its first command is served under the next epoch and none
// is refused; else it goes on with the epoch and the sequence that it had.
func TestReturn(t *testing.T) {
	for _, c := range []struct {
		name string
		away bool
		want layout.Fence
		seq  layout.Seq
	}{
		{"stayed", false, layout.Fence{Epoch: 1, Generation: 1}, 2},
		{"was at another gateway", true, layout.Fence{Epoch: 3}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, node, one, two, losses := twoGateways(t)
			must(t, stay(one))
			if c.away {
				must(t, stay(two))
			}
			m := one.Open(testVolume, testHost)
			before := m.mu.handle
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if err := m.Read(context.Background(), make([]byte, 512), 0); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			must(t, m.Write(context.Background(), make([]byte, 512), 0))
			if last := f.last(); last.Fence != c.want || last.Seq != c.seq {
				t.Errorf("writes under %v as number %d, want %v and %d", last.Fence, last.Seq, c.want, c.seq)
			}
			if over := before.Err() != nil; over != c.away {
				t.Errorf("the tenancy before: %v", before.Err())
			}
			again := one.Open(testVolume, testHost) // a second session beside the first one
			must(t, again.Write(context.Background(), make([]byte, 512), 0))
			if n := node.asked.Load(); n != 1 || losses.Load() != 0 {
				t.Errorf("asked %d times, lost %d times", n, losses.Load())
			}
			if last := f.last(); again != m || last.Fence != c.want {
				t.Errorf("the second session writes under %v, want %v", last.Fence, c.want)
			}
		})
	}
}

// TestMovesAreNoticed: a session that lives while its path moves is lost as before, and commands that it sent are not
// repeated.
func TestMovesAreNoticed(t *testing.T) {
	f, node, one, two, losses := twoGateways(t)
	m := one.Open(testVolume, testHost)
	block := make([]byte, 512)
	must(t, m.Write(context.Background(), block, 0))
	must(t, stay(two))
	served := len(f.requests)
	for range 2 {
		if err := m.Write(context.Background(), block, 0); !errors.Is(err, scsi.ErrStaleEpoch) {
			t.Fatalf("got %v, want ErrStaleEpoch", err)
		}
	}
	if node.asked.Load() != 0 || losses.Load() != 1 || len(f.requests) != served {
		t.Errorf("asked %d times, lost %d times, served %d", node.asked.Load(), losses.Load(), len(f.requests)-served)
	}
}

// TestReturnWithoutMetaserver: a host that comes back waits for a metaserver that does not answer, but not for long. Then
// the epoch that it had is used, which is refused if it is old.
func TestReturnWithoutMetaserver(t *testing.T) {
	for _, away := range []bool{false, true} {
		f, node, one, two, losses := twoGateways(t)
		node.answer = func(ctx context.Context, _ layout.Epoch) (volume.Attachment, error) {
			<-ctx.Done()
			return volume.Attachment{}, ctx.Err()
		}
		must(t, stay(one))
		if away {
			must(t, stay(two))
		}
		m := one.Open(testVolume, testHost)
		one.confirmTimeout = time.Minute
		impatient, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		if err := m.Write(impatient, make([]byte, 512), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a command that was given up: %v", err)
		}
		cancel()
		one.confirmTimeout = 50 * time.Millisecond
		begin := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				err := m.Write(context.Background(), make([]byte, 512), 0)
				if stale := errors.Is(err, scsi.ErrStaleEpoch); stale != away || !away && err != nil {
					t.Errorf("away %v: %v", away, err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(begin); d < one.confirmTimeout || node.asked.Load() != 2 {
			t.Errorf("asked %d times, waited %v", node.asked.Load(), d)
		}
		want := layout.Fence{Epoch: 1, Generation: 1}
		if away {
			want = layout.Fence{Epoch: 2}
		}
		if last := f.last(); last.Fence != want || (losses.Load() == 1) != away {
			t.Errorf("away %v: %v, lost %d times", away, last.Fence, losses.Load())
		}
	}
}

// TestAnswerForAnEndedSession: what the metaserver says to one session is not believed by the next one, for the path may
// have moved in between.
func TestAnswerForAnEndedSession(t *testing.T) {
	for _, away := range []bool{false, true} {
		f, node, one, two, losses := twoGateways(t)
		must(t, stay(one))
		want := layout.Epoch(3)
		if away {
			must(t, stay(two))
			want = 5
		}
		m := one.Open(testVolume, testHost)
		node.answer = func(ctx context.Context, had layout.Epoch) (volume.Attachment, error) {
			a, err := node.fakeNode.Attach(ctx, testVolume, testHost, had)
			node.answer = nil
			one.Release(m)
			must(t, stay(two))
			one.Open(testVolume, testHost)
			return a, err
		}
		must(t, m.Write(context.Background(), make([]byte, 512), 0))
		if last := f.last(); last.Fence.Epoch != want || node.asked.Load() != 2 || losses.Load() != 0 {
			t.Errorf("away %v: %v, asked %d times, lost %d times", away, last.Fence, node.asked.Load(), losses.Load())
		}
	}
}

// TestLateRefusal: a command of a session that has ended is refused for its epoch while the initiator is on its way back.
// That ends no session.
func TestLateRefusal(t *testing.T) {
	f, _, one, two, losses := twoGateways(t)
	m := one.Open(testVolume, testHost)
	must(t, m.Write(context.Background(), make([]byte, 512), 0))
	h, _, _, err := m.present(context.Background())
	must(t, err)
	must(t, stay(two))
	one.Release(m)
	for _, back := range []bool{false, true} {
		if back {
			one.Open(testVolume, testHost)
		}
		if err := m.outcome(h, h.WriteAt(context.Background(), make([]byte, 512), 0), 0); !errors.Is(err, scsi.ErrStaleEpoch) {
			t.Errorf("got %v", err)
		}
	}
	must(t, m.Write(context.Background(), make([]byte, 512), 0))
	if last := f.last(); last.Fence.Epoch != 3 || losses.Load() != 0 {
		t.Errorf("%v, lost %d times", last.Fence, losses.Load())
	}
}

// TestForgottenInitiator: the metaserver may forget an initiator and begin again with a new ID, so an epoch of the same
// number need not be the one that was had.
func TestForgottenInitiator(t *testing.T) {
	f, node, one, _, losses := twoGateways(t)
	must(t, stay(one))
	f.mu.Lock()
	f.hosts[testHost] = &fakeHost{id: 77}
	f.byID[77] = f.hosts[testHost]
	f.mu.Unlock()
	must(t, stay(one))
	if last := f.last(); last.Initiator != 77 || last.Fence.Epoch != 2 || last.Seq != 1 {
		t.Errorf("writes as %d under %v, number %d", last.Initiator, last.Fence, last.Seq)
	}
	if node.asked.Load() != 1 || losses.Load() != 0 {
		t.Errorf("asked %d times, lost %d times", node.asked.Load(), losses.Load())
	}
}

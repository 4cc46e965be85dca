package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// watchedNode is a metaserver whose answers pass through a function.
type watchedNode struct {
	fakeNode
	asked atomic.Int64 // for an epoch that was had
	// answer, if set, makes the answer of a question for had; other ones wait until next, if set, is closed.
	answer func(ctx context.Context, had layout.Epoch) (volume.Attachment, error)
	next   chan struct{}
}

// Attach implements volume.Attacher.
func (n *watchedNode) Attach(ctx context.Context, id layout.VolumeID, initiator string, had layout.Epoch) (volume.Attachment, error) {
	if had != 0 {
		n.asked.Add(1)
		if n.answer != nil {
			return n.answer(ctx, had)
		}
	} else if n.next != nil {
		<-n.next
	}
	return n.fakeNode.Attach(ctx, id, initiator, had)
}

const testHost = "iqn.a"

// twoGateways are the media of two gateways before one store.
func twoGateways(t *testing.T) (f *fakeStore, node *watchedNode, one, two *mediums) {
	t.Helper()
	f = newFakeStore()
	node = &watchedNode{fakeNode: fakeNode{f, 1}}
	one, two = mediumsOf(t, f, node), mediumsOf(t, f, fakeNode{f, 2})
	return f, node, one, two
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
		{"was at another gateway", true, layout.Fence{Epoch: 3}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, node, one, two := twoGateways(t)
			must(t, stay(one))
			if c.away {
				must(t, stay(two))
			}
			m := one.Open(testVolume, testHost)
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
			again := one.Open(testVolume, testHost) // a second session beside the first one
			must(t, again.Write(context.Background(), make([]byte, 512), 0))
			if n := node.asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
			if last := f.last(); again != m || last.Fence != c.want {
				t.Errorf("the second session writes under %v, want %v", last.Fence, c.want)
			}
		})
	}
}

// TestReturnWithoutMetaserver: a host that comes back waits for a metaserver that does not answer, but not for long. Then the
// epoch that it had is used; if that one is refused because the path has moved, the command waits for the next one.
func TestReturnWithoutMetaserver(t *testing.T) {
	for _, away := range []bool{false, true} {
		f, node, one, two := twoGateways(t)
		answers := make(chan struct{})
		node.answer = func(ctx context.Context, _ layout.Epoch) (volume.Attachment, error) {
			select {
			case <-ctx.Done():
				return volume.Attachment{}, ctx.Err()
			case <-time.After(20 * time.Millisecond):
				return volume.Attachment{}, context.DeadlineExceeded
			}
		}
		must(t, stay(one))
		if away {
			must(t, stay(two))
			node.next = answers
		}
		m := one.Open(testVolume, testHost)
		impatient, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		if err := m.Write(impatient, make([]byte, 512), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a command that was given up: %v", err)
		}
		cancel()
		results := make(chan error, 4)
		for range cap(results) {
			go func() { results <- m.Write(context.Background(), make([]byte, 512), 0) }()
		}
		want := layout.Fence{Epoch: 1, Generation: 1}
		if away {
			select {
			case err := <-results:
				t.Fatalf("done without a metaserver: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			want = layout.Fence{Epoch: 3}
		}
		close(answers)
		for range cap(results) {
			must(t, <-results)
		}
		if last := f.last(); last.Fence != want || node.asked.Load() != 2 {
			t.Errorf("away %v: %v, asked %d times", away, last.Fence, node.asked.Load())
		}
	}
}

// TestAnswerForAnEndedSession: what the metaserver says to one session is not believed by the next one, for the path may
// have moved in between.
func TestAnswerForAnEndedSession(t *testing.T) {
	for _, away := range []bool{false, true} {
		f, node, one, two := twoGateways(t)
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
		if last := f.last(); last.Fence.Epoch != want || node.asked.Load() != 2 {
			t.Errorf("away %v: %v, asked %d times", away, last.Fence, node.asked.Load())
		}
	}
}

// TestForgottenInitiator: the metaserver may forget an initiator and begin again with a new ID, so an epoch of the same
// number need not be the one that was had.
func TestForgottenInitiator(t *testing.T) {
	f, node, one, _ := twoGateways(t)
	must(t, stay(one))
	f.mu.Lock()
	f.hosts[testHost] = &fakeHost{id: 77}
	f.byID[77] = f.hosts[testHost]
	f.mu.Unlock()
	must(t, stay(one))
	if last := f.last(); last.Initiator != 77 || last.Fence.Epoch != 2 || last.Seq != 2 {
		t.Errorf("writes as %d under %v, number %d", last.Initiator, last.Fence, last.Seq)
	}
	if node.asked.Load() != 1 {
		t.Errorf("asked %d times", node.asked.Load())
	}
}

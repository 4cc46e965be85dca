package checkpoint

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is one that has something to checkpoint while behind is set.
type peer struct {
	cs      *blockstore.Copyset
	behind  bool
	bytes   int64
	stopped bool
	freezes int
	cuts    []Cut
}

func (p *peer) ID() layout.CopysetID { return p.cs.ID() }
func (p *peer) Behind() bool         { return p.behind }
func (p *peer) LogBytes() int64      { return p.bytes }
func (p *peer) Cut(_ uint64, how Cut) {
	p.cuts = append(p.cuts, how)
}

func (p *peer) Freeze(done func(*blockstore.Frozen)) {
	p.freezes++
	p.behind, p.bytes = false, 0
	if p.stopped {
		done(nil)
		return
	}
	done(p.cs.Freeze(nil))
}

// counting is a store that counts commits and has room again after some.
type counting struct {
	*blockstore.Store
	commits []int
	full    int
	err     error
	usage   blockstore.Usage
	poison  chan struct{}
}

func (s *counting) Usage() blockstore.Usage { return s.usage }

func (s *counting) Poisoned() <-chan struct{} { return s.poison }
func (s *counting) Pressure() <-chan struct{} { return nil }
func (s *counting) Err() error                { return s.err }

func (s *counting) Commit(fs []*blockstore.Frozen) error {
	if s.full > 0 {
		s.full--
		return blockstore.ErrNoSpace
	}
	s.commits = append(s.commits, len(fs))
	return s.err
}

type bench struct {
	store  *counting
	peers  []*peer
	c      *Checkpointer[*peer]
	failed []error
	full   int
	short  bool
}

func newBench(t *testing.T, n int) *bench {
	t.Helper()
	st, err := blockstore.Open(vfs.NewMem(), "store", blockstore.Identity{Cluster: [16]byte{1}, Chunkserver: 1},
		blockstore.Options{IndexFS: pebblevfs.NewMem(), GrowStep: 1 << 20, Capacity: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	b := &bench{store: &counting{Store: st}}
	for i := range n {
		cs, err := st.Create(layout.CopysetID(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		b.peers = append(b.peers, &peer{cs: cs})
	}
	return b
}

// run has the checkpointer run for d.
func (b *bench) run(t *testing.T, d time.Duration, with func()) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b.store.poison = make(chan struct{}) // of this bubble
		b.c = New(sched.NewClock(nil), b.store, Options{Every: 10 * time.Second, Bytes: 1000}, Hooks[*peer]{
			Peers:   func() []*peer { return b.peers },
			Look:    func(blockstore.Usage) bool { return b.short },
			Failed:  func(err error) { b.failed = append(b.failed, err) },
			Stopped: func() bool { return len(b.failed) > 0 },
			NoSpace: func(error) { b.full++ },
		})
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		if with != nil {
			with()
		}
		b.c.Run(ctx)
	})
}

// TestDue: what is old enough takes all that have changes with it, into one commit.
func TestDue(t *testing.T) {
	b := newBench(t, 3)
	b.peers[0].behind, b.peers[2].behind = true, true
	b.run(t, 9*time.Second, nil)
	if len(b.store.commits) != 0 {
		t.Fatalf("too early: %v", b.store.commits)
	}
	b.run(t, 11*time.Second, nil)
	if !slices.Equal(b.store.commits, []int{2}) || b.peers[1].freezes != 0 || !slices.Equal(b.peers[0].cuts, []Cut{{}}) {
		t.Errorf("commits %v, %+v", b.store.commits, b.peers[1])
	}
	b.peers[1].behind, b.peers[1].bytes = true, 1000
	b.run(t, time.Second, nil)
	if !slices.Equal(b.store.commits, []int{2, 1}) {
		t.Errorf("a long log: %v", b.store.commits)
	}
}

// TestAsked: Kick takes all, Force whom it names; who has stopped has no part.
func TestAsked(t *testing.T) {
	b := newBench(t, 3)
	b.peers[1].stopped = true
	b.run(t, time.Second, func() { b.c.Kick() })
	if !slices.Equal(b.store.commits, []int{2}) || len(b.peers[1].cuts) != 0 {
		t.Errorf("commits %v", b.store.commits)
	}
	b.run(t, time.Second, func() { b.c.Force([]layout.CopysetID{3}) })
	if !slices.Equal(b.store.commits, []int{2, 1}) || !slices.Equal(b.peers[2].cuts, []Cut{{Reclaim: true}, {All: true}}) {
		t.Errorf("commits %v, cuts %v", b.store.commits, b.peers[2].cuts)
	}
	b.store.usage.Overlay = overlayMax + 1
	b.run(t, lookEvery*3/2, nil)
	if !slices.Equal(b.store.commits, []int{2, 1, 2}) {
		t.Errorf("much memory: %v", b.store.commits)
	}
	b.store.usage.Overlay, b.short = 0, true
	b.run(t, lookEvery*3/2, nil)
	if n := len(b.peers[2].cuts); !slices.Equal(b.store.commits, []int{2, 1, 2, 2}) || b.peers[2].cuts[n-1] != (Cut{Reclaim: true}) {
		t.Errorf("little space: %v, cuts %v", b.store.commits, b.peers[2].cuts)
	}
}

// TestNoSpace: what was frozen is committed when there is room, and cut only then.
func TestNoSpace(t *testing.T) {
	b := newBench(t, 2)
	b.store.full = 3
	b.run(t, 2*time.Second, func() { b.c.Kick() })
	if b.full != 3 || !slices.Equal(b.store.commits, []int{2}) || b.peers[0].freezes != 1 || len(b.peers[0].cuts) != 1 {
		t.Errorf("full %d times, commits %v, %d cuts", b.full, b.store.commits, len(b.peers[0].cuts))
	}
}

// TestFails: a commit that fails, or a store that gave up, is told once, and nothing is tried afterwards.
func TestFails(t *testing.T) {
	b := newBench(t, 1)
	b.store.err = errors.New("the disk is gone")
	b.run(t, 2*time.Second, func() { b.c.Kick() })
	if len(b.failed) != 1 || len(b.store.commits) != 1 || len(b.peers[0].cuts) != 0 {
		t.Errorf("failed %v, commits %v", b.failed, b.store.commits)
	}
	b = newBench(t, 1)
	b.store.err = errors.New("the disk is gone")
	b.peers[0].behind, b.peers[0].bytes = true, 1000
	b.run(t, 2*time.Second, func() { close(b.store.poison) })
	if len(b.failed) != 1 || !errors.Is(b.failed[0], b.store.err) || len(b.store.commits) != 0 {
		t.Errorf("failed %v, commits %v", b.failed, b.store.commits)
	}
}

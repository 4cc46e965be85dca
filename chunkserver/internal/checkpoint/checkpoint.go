// Package checkpoint decides when applied entries are made durable in the store, has it done, and has the log cut behind them.
//
//	applied ──► due? ──► Freeze of each peer that has changes ──► one Commit for all ──► Cut of each peer's log
//	             │            (its applier)
//	             └─ the first change is old, the log is long, space or memory is short, the oldest segment is kept
//
// All peers with changes are checkpointed together: what they wrote lies together in the data file, and they share the syncs.
package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// lookEvery is how often it is looked for what is due.
	lookEvery = 200 * time.Millisecond
	// overlayMax is the memory of changes that are not durable yet, in bytes, above which all peers are checkpointed.
	overlayMax = 128 << 20
)

// Peer is one copyset's peer.
type Peer interface {
	comparable
	ID() layout.CopysetID
	// Behind tells whether entries were applied, or blocks repaired or moved, that no checkpoint covers.
	Behind() bool
	// LogBytes is by how much its log grew since the last checkpoint, in bytes.
	LogBytes() int64
	// Freeze has the content frozen and handed to done, nil if the peer has stopped. It does not block.
	Freeze(done func(*blockstore.Frozen))
	// Cut shortens the log behind an applied index that is durable.
	Cut(applied uint64, how Cut)
}

// Cut says how far a log is shortened.
type Cut struct {
	// All: as far as can be, because it keeps the oldest segment.
	All bool
	// Reclaim: space is short; the tail for followers that lag is to be a short one.
	Reclaim bool
}

// Store is what is committed to; *blockstore.Store is one.
type Store interface {
	Commit(fs []*blockstore.Frozen) error
	Usage() blockstore.Usage
	Pressure() <-chan struct{}
	Poisoned() <-chan struct{}
	Err() error
}

// Hooks are called on the goroutine of Run and must not block for long.
type Hooks[P Peer] struct {
	// Peers are the peers here. The slice is not changed.
	Peers func() []P
	// Look is called at each look, with the space of the store. It returns true when space is to be reclaimed.
	Look func(blockstore.Usage) bool
	// Failed tells that the disk failed, Stopped asks whether it has.
	Failed  func(error)
	Stopped func() bool
	// NoSpace tells that a checkpoint found no room; it is tried again.
	NoSpace func(error)
}

// Options say when a peer is due: Every after its first change since the last checkpoint, or when its log grew by Bytes.
type Options struct {
	Every time.Duration
	Bytes int64
}

// Checkpointer is the goroutine's state.
type Checkpointer[P Peer] struct {
	store Store
	clock *sched.Clock
	bell  *sched.Bell
	opts  Options
	hooks Hooks[P]
	mu    struct {
		sync.Mutex
		forced map[layout.CopysetID]bool
		// reclaim asks for a checkpoint of all peers, and logs with a short tail.
		reclaim bool
		// changed asks for a checkpoint of all peers that have something to checkpoint.
		changed bool
	}
	last    map[P]time.Duration // owned by Run: since when a peer has something to checkpoint
	pending []frozen[P]         // owned by Run: a Commit that found no space
}

// frozen is a peer's part of a checkpoint; f is nil when the peer has stopped.
type frozen[P Peer] struct {
	p P
	f *blockstore.Frozen
}

// New returns a Checkpointer that does nothing before Run.
func New[P Peer](clock *sched.Clock, store Store, opts Options, hooks Hooks[P]) *Checkpointer[P] {
	c := &Checkpointer[P]{store: store, clock: clock, bell: clock.NewBell(), opts: opts, hooks: hooks, last: map[P]time.Duration{}}
	c.mu.forced = map[layout.CopysetID]bool{}
	return c
}

// Kick has space reclaimed soon.
func (c *Checkpointer[P]) Kick() {
	c.mu.Lock()
	c.mu.reclaim = true
	c.mu.Unlock()
	c.bell.Ring()
}

// Force has the peers checkpointed soon, because they keep the log's oldest segment.
func (c *Checkpointer[P]) Force(ids []layout.CopysetID) {
	c.mu.Lock()
	for _, id := range ids {
		c.mu.forced[id] = true
	}
	c.mu.Unlock()
	c.bell.Ring()
}

// Run serves until ctx ends.
func (c *Checkpointer[P]) Run(ctx context.Context) {
	for {
		pressure, poisoned := c.bell.WaitOr(ctx, c.clock.Now()+lookEvery, c.store.Pressure(), c.store.Poisoned())
		if ctx.Err() != nil {
			return
		}
		if poisoned {
			c.hooks.Failed(c.store.Err())
			c.clock.Done(ctx)
			return
		}
		if pressure {
			c.mu.Lock()
			c.mu.changed = true
			c.mu.Unlock()
		}
		if c.hooks.Stopped() {
			continue
		}
		c.look(ctx)
	}
}

// look checkpoints what is due.
func (c *Checkpointer[P]) look(ctx context.Context) {
	u := c.store.Usage()
	reclaim := c.hooks.Look(u)
	c.mu.Lock()
	forced, changed := c.mu.forced, c.mu.changed
	reclaim = reclaim || c.mu.reclaim
	c.mu.forced, c.mu.reclaim, c.mu.changed = map[layout.CopysetID]bool{}, false, false
	c.mu.Unlock()
	all := reclaim || u.Overlay > overlayMax
	peers := c.hooks.Peers()
	for _, p := range peers {
		changed = c.due(p) || changed // in each, because due notes the time
	}
	var due []P
	for _, p := range peers {
		if all || forced[p.ID()] || changed && p.Behind() {
			due = append(due, p)
		}
	}
	if len(due) == 0 && len(c.pending) == 0 {
		return
	}
	if err := c.checkpoint(ctx, due, forced, reclaim); err != nil && ctx.Err() == nil {
		if errors.Is(err, blockstore.ErrNoSpace) {
			c.hooks.NoSpace(err)
			return
		}
		c.hooks.Failed(fmt.Errorf("checkpoint: %w", err))
	}
}

// due tells whether the peer's log is long enough, or its first change old enough.
func (c *Checkpointer[P]) due(p P) bool {
	if !p.Behind() {
		delete(c.last, p)
		return false
	}
	since, ok := c.last[p]
	if !ok {
		c.last[p] = c.clock.Now()
		return false
	}
	return c.clock.Now()-since >= c.opts.Every || p.LogBytes() >= c.opts.Bytes
}

// checkpoint freezes the peers, commits them together, and has the log cut.
func (c *Checkpointer[P]) checkpoint(ctx context.Context, due []P, forced map[layout.CopysetID]bool, reclaim bool) error {
	got := make(chan frozen[P], len(due))
	for _, p := range due {
		delete(c.last, p)
		p.Freeze(func(f *blockstore.Frozen) { got <- frozen[P]{p, f} })
	}
	for range due {
		f, err := sched.Recv(ctx, c.clock, got, nil)
		if err != nil {
			return err
		}
		if f.f != nil {
			c.pending = append(c.pending, f)
		}
	}
	fs := make([]*blockstore.Frozen, 0, len(c.pending))
	for _, f := range c.pending {
		fs = append(fs, f.f)
	}
	if err := c.store.Commit(fs); err != nil {
		return err
	}
	for _, f := range c.pending {
		applied, _ := f.f.Applied()
		f.p.Cut(applied, Cut{All: forced[f.p.ID()], Reclaim: reclaim})
	}
	c.pending = nil
	return nil
}

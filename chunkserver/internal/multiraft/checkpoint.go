package multiraft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

const (
	// checkpointLook is how often the checkpointer looks for what is due.
	checkpointLook = 200 * time.Millisecond
	// shortEntries and shortBytes are what stays in the log for followers that lag when space is to be reclaimed: those that are a
	// moment behind do not need an image.
	shortEntries, shortBytes = 64, 1 << 20
	// overlayMax is the memory of changes that are not durable yet, in bytes, above which all groups are checkpointed.
	overlayMax = 128 << 20
)

// frozen is a group's part of a checkpoint; f is nil when the group has stopped.
type frozen struct {
	g *Group
	f *blockstore.Frozen
}

// checkpointer makes applied entries durable in the store and cuts the log behind them.
type checkpointer struct {
	host *Host
	bell *sched.Bell
	mu   struct {
		sync.Mutex
		forced map[layout.CopysetID]bool
		// reclaim asks for a checkpoint of all groups, and a log with a short tail.
		reclaim bool
		// changed asks for a checkpoint of all groups that have something to checkpoint.
		changed bool
	}
	last    map[*Group]time.Duration // owned by Run: since when a group has something to checkpoint
	pending []frozen                 // owned by Run: a Commit that found no space
}

func newCheckpointer(h *Host) *checkpointer {
	c := &checkpointer{host: h, bell: h.clock.NewBell(), last: map[*Group]time.Duration{}}
	c.mu.forced = map[layout.CopysetID]bool{}
	return c
}

// kick has space reclaimed soon.
func (c *checkpointer) kick() {
	c.mu.Lock()
	c.mu.reclaim = true
	c.mu.Unlock()
	c.bell.Ring()
}

// force has the groups checkpointed soon, because they keep the log's oldest segment.
func (c *checkpointer) force(ids []layout.CopysetID) {
	c.mu.Lock()
	for _, id := range ids {
		c.mu.forced[id] = true
	}
	c.mu.Unlock()
	c.bell.Ring()
}

// Run serves until ctx ends.
func (c *checkpointer) Run(ctx context.Context) {
	for {
		pressure, poisoned := c.bell.WaitOr(
			ctx, c.host.clock.Now()+checkpointLook, c.host.cfg.Store.Pressure(), c.host.cfg.Store.Poisoned(),
		)
		if ctx.Err() != nil {
			return
		}
		if poisoned {
			c.host.fail(c.host.cfg.Store.Err())
			c.host.clock.Done(ctx)
			return
		}
		if pressure {
			c.mu.Lock()
			c.mu.changed = true
			c.mu.Unlock()
		}
		if c.host.failedErr() != nil {
			continue
		}
		c.look(ctx)
	}
}

// look measures the space and checkpoints what is due.
func (c *checkpointer) look(ctx context.Context) {
	u := c.host.cfg.Store.Usage()
	reclaim := c.host.room.Look(c.host.now(), u, c.host.cfg.SpaceMargin)
	if _, err := c.host.cfg.Log.PrepareSpare(); err != nil {
		c.host.event("no spare log segment", nil, err)
	}
	c.mu.Lock()
	forced, changed := c.mu.forced, c.mu.changed
	reclaim = reclaim || c.mu.reclaim
	c.mu.forced, c.mu.reclaim, c.mu.changed = map[layout.CopysetID]bool{}, false, false
	c.mu.Unlock()
	all := reclaim || u.Overlay > overlayMax
	groups := c.host.groups.Load().all
	for _, g := range groups {
		changed = c.due(g) || changed // in each, because due notes the time
	}
	var due []*Group
	for _, g := range groups {
		// All together: what they wrote lies together in the data file, and they share the syncs.
		if all || forced[g.id] || changed && c.behind(g) {
			due = append(due, g)
		}
	}
	if len(due) == 0 && len(c.pending) == 0 {
		return
	}
	if err := c.checkpoint(ctx, due, forced, reclaim); err != nil && ctx.Err() == nil {
		if errors.Is(err, blockstore.ErrNoSpace) {
			c.host.event("checkpoint has no space", nil, err)
			return
		}
		c.host.fail(fmt.Errorf("multiraft: checkpoint: %w", err))
	}
}

// due tells whether the group's log is long enough, or its first change old enough.
func (c *checkpointer) due(g *Group) bool {
	if !c.behind(g) {
		delete(c.last, g)
		return false
	}
	since, ok := c.last[g]
	if !ok {
		c.last[g] = c.host.now()
		return false
	}
	return c.host.now()-since >= c.host.cfg.CheckpointEvery || g.logBytes.Load() >= c.host.cfg.CheckpointBytes
}

// behind tells whether entries were applied, or blocks repaired or moved, that no checkpoint covers.
func (c *checkpointer) behind(g *Group) bool {
	if g.failure.Load() != nil {
		return false // its data may be lost
	}
	cs := g.store.Load()
	durable, _ := cs.Durable()
	return g.applied.Load() != durable || cs.Changed()
}

// checkpoint freezes the groups, commits them together, and cuts the log.
func (c *checkpointer) checkpoint(ctx context.Context, due []*Group, forced map[layout.CopysetID]bool, reclaim bool) error {
	got := make(chan frozen, len(due))
	for _, g := range due {
		delete(c.last, g)
		g.logBytes.Store(0)
		g.ap.post(task{g: g, kind: taskFreeze, frozen: got})
	}
	for range due {
		f, err := sched.Recv(ctx, c.host.clock, got, nil)
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
	if err := c.host.cfg.Store.Commit(fs); err != nil {
		return err
	}
	for _, f := range c.pending {
		c.cut(f, forced[f.g.id], reclaim)
	}
	c.pending = nil
	return nil
}

// cut shortens the log to what the checkpoint does not cover and a tail for followers that lag; to reclaim space a short one,
// and durably at once, because only then the log lets go of the blocks that its entries are in.
func (c *checkpointer) cut(f frozen, all, reclaim bool) {
	applied, _ := f.f.Applied()
	first, err := f.g.log.FirstIndex()
	if err != nil {
		return
	}
	entries, bytes := c.host.cfg.TailEntries, c.host.cfg.TailBytes
	if reclaim {
		entries, bytes = min(entries, shortEntries), min(bytes, shortBytes)
	}
	index := f.g.tail.Cut(applied, entries, bytes)
	if all && index < first {
		index = applied // few entries, but they keep the oldest segment
	}
	index = f.g.tail.Held(index)
	if pin, ok := f.g.offers.Pin(); ok {
		index = min(index, pin)
	}
	if index < first {
		if !reclaim {
			return
		}
		index = 0
	}
	c.host.writer.Post(raftlog.Update{Copyset: f.g.id, TruncateTo: index, MustSync: reclaim}, nil)
}

package multiraft

import (
	"github.com/ashlar-storage/ashlar/chunkserver/internal/checkpoint"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/logtail"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

func (h *Host) newCheckpointer() *checkpoint.Checkpointer[*Group] {
	return checkpoint.New(h.clock, h.cfg.Store, checkpoint.Options{Every: h.cfg.CheckpointEvery, Bytes: h.cfg.CheckpointBytes},
		checkpoint.Hooks[*Group]{
			Peers: func() []*Group { return h.groups.Load().all },
			Look: func(u blockstore.Usage) bool {
				if _, err := h.cfg.Log.PrepareSpare(); err != nil {
					h.event("no spare log segment", nil, err)
				}
				for _, g := range h.groups.Load().all {
					g.offers.Expire(h.now()) // here, because it may wait for the disk
				}
				return h.room.Look(h.now(), u, h.cfg.SpaceMargin)
			},
			Failed:  h.fail,
			Stopped: func() bool { return h.failedErr() != nil },
			NoSpace: func(err error) { h.event("checkpoint has no space", nil, err) },
		})
}

// Behind implements checkpoint.Peer.
func (g *Group) Behind() bool {
	if g.failure.Load() != nil {
		return false // its data may be lost
	}
	cs := g.store.Load()
	durable, _ := cs.Durable()
	return g.applied.Load() != durable || cs.Changed()
}

// LogBytes implements checkpoint.Peer.
func (g *Group) LogBytes() int64 { return g.logBytes.Load() }

// Freeze implements checkpoint.Peer.
func (g *Group) Freeze(done func(*blockstore.Frozen)) {
	g.logBytes.Store(0)
	g.ap.post(task{g: g, kind: taskFreeze, frozen: done})
}

// Cut implements checkpoint.Peer: a tail of the log stays for followers that lag; to reclaim space a short one, and durably at
// once, because only then the log lets go of the blocks that its entries are in.
func (g *Group) Cut(applied uint64, how checkpoint.Cut) {
	first, err := g.log.FirstIndex()
	if err != nil {
		return
	}
	entries, bytes := g.host.cfg.TailEntries, g.host.cfg.TailBytes
	if how.Reclaim {
		entries, bytes = logtail.Short(entries, bytes)
	}
	index := g.tail.Cut(applied, entries, bytes)
	if how.All && index < first {
		index = applied // few entries, but they keep the oldest segment
	}
	index = g.tail.Held(index)
	if pin, ok := g.offers.Pin(); ok {
		index = min(index, pin)
	}
	if index < first {
		if !how.Reclaim {
			return
		}
		index = 0
	}
	g.host.writer.Post(raftlog.Update{Copyset: g.id, TruncateTo: index, MustSync: how.Reclaim}, nil)
}

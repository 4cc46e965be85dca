package multiraft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copies"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// repairQueueMax bounds the damaged blocks that wait. One that finds no place is met again by the next try.
const repairQueueMax = 64

type repairJob struct {
	g *Group
	e *blockstore.ChecksumError
}

// repairer fetches good copies of blocks that an apply met damaged.
type repairer struct {
	host *Host
	jobs chan repairJob
}

func (r *repairer) order(g *Group, e *blockstore.ChecksumError) {
	select {
	case r.jobs <- repairJob{g, e}:
	default:
	}
}

// Run serves until ctx ends.
func (r *repairer) Run(ctx context.Context) {
	for {
		j, err := sched.Recv(ctx, r.host.clock, r.jobs, nil)
		if err != nil {
			return
		}
		err = r.host.fetch(ctx, j.g, j.e, true)
		r.host.event("block repaired", j.g, err)
		if err == nil {
			j.g.ap.post(task{g: j.g, kind: taskRetry})
		}
	}
}

// Repair replaces a damaged block by a good copy of another peer. The store takes only bytes that fit the checksum which
// it has for the block, so a copy that is older or newer changes nothing. The error is that of the last peer asked.
func (h *Host) Repair(ctx context.Context, g *Group, e *blockstore.ChecksumError) error {
	return h.fetch(ctx, g, e, false)
}

// fetch asks the other peers for a block and puts the first copy that fits in its place; with replace, the copy of the first
// peer that has a good one and has applied what this one has.
func (h *Host) fetch(ctx context.Context, g *Group, e *blockstore.ChecksumError, replace bool) error {
	where := slices.Compact(slices.Sorted(maps.Values(g.Members().Chunkservers)))
	where = slices.DeleteFunc(where, func(cs layout.ChunkserverID) bool { return cs == h.cfg.Self })
	off := e.Block * layout.BlockSize
	read := func(ctx context.Context, a copies.Ask) (c copies.Copy, err error) {
		c.From = a.From
		c.Data, c.Through, err = h.cfg.Transport.ReadBlocks(ctx, a.Chunkserver, g.id, e.Chunk, off, layout.BlockSize, a.From)
		return c, err
	}
	put := func(c copies.Copy) error {
		err := g.Own(ctx, func(cs *blockstore.Copyset) error { return cs.Repair(e.Chunk, off, c.Data) })
		if replace && c.From > 0 && errors.As(err, new(*blockstore.ChecksumError)) {
			err = g.ask(ctx, task{g: g, kind: taskReplace, chunk: e.Chunk, off: off, data: c.Data, upTo: c.From, through: c.Through})
		}
		return err
	}
	if err := copies.First(ctx, h.clock, h.stopped, copies.Asks(where, g.Applied()), read, put); err != nil {
		return fmt.Errorf("multiraft: copyset %d: %w", g.id, err)
	}
	h.repaired.Add(1)
	return nil
}

// Own has the owner of the group's content do fn with it, between two entries; fn is quick. When ctx ends first, fn may still be
// done later. What it changes is durable with the next checkpoint.
func (g *Group) Own(ctx context.Context, fn func(*blockstore.Copyset) error) error {
	return g.ask(ctx, task{g: g, kind: taskOwn, own: fn})
}

// ask has the applier do a task that answers.
func (g *Group) ask(ctx context.Context, t task) error {
	t.reply = make(chan error, 1)
	g.ap.post(t)
	return g.host.await(ctx, t.reply)
}

// await waits for an answer of the worker or the applier.
func (h *Host) await(ctx context.Context, reply <-chan error) error {
	answer, err := sched.Recv(ctx, h.clock, reply, h.stopped)
	if err != nil {
		return err
	}
	return answer
}

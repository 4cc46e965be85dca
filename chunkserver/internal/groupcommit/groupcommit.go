// Package groupcommit writes the raft log of a disk: one goroutine gathers what all groups want written into one append
// with one sync, and then tells each.
//
//	group 1 ─┐                       ┌─► Written(nil)
//	group 2 ─┼─► Post ─► one Append ─┼─► Written(nil)
//	group 3 ─┘     (while the last   └─► Written(nil)
//	                one syncs, more gathers)
//
// It owns the log: nobody else appends or compacts. A log without room is tried again until it has some; any other
// failure is final, and everything that is posted afterwards fails with it.
package groupcommit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

const (
	// appendBytesMax bounds the entries that one Append takes, in bytes.
	appendBytesMax = 64 << 20
	// compactEvery is how often it is looked whether segments can be given back, and a full log is tried again.
	compactEvery = 100 * time.Millisecond
	// dozeEvery is how often it is looked when the log is short.
	dozeEvery = 5 * time.Second
	// compactStepsMax bounds the compactions of one look, so that appends do not wait long.
	compactStepsMax = 4
	// entryOverhead is what an entry is counted for besides its data, in bytes.
	entryOverhead = 32
)

// Log is what is written; *raftlog.Log is one.
type Log interface {
	Append(updates []raftlog.Update) error
	Compact() (raftlog.Compaction, error)
	Length() int
}

// Completion is told, on the writer's goroutine, that its update is durable, or why it is not. It must not block.
type Completion interface{ Written(err error) }

// Hooks are called on the writer's goroutine and must not block.
type Hooks struct {
	// Failed tells once that the log failed.
	Failed func(error)
	// NoSpace tells that the log has no room, Pinning that it is longer than wanted because of these copysets.
	NoSpace func()
	Pinning func([]layout.CopysetID)
	// Damaged tells of an entry that can not be read back and keeps the log long, once for each. Its copyset is told by Pinning.
	Damaged func(*raftlog.CorruptError)
}

type request struct {
	update raftlog.Update
	done   Completion
}

// Writer is the goroutine's state.
type Writer struct {
	log      Log
	hooks    Hooks
	segments int
	clock    *sched.Clock
	bell     *sched.Bell
	stopped  chan struct{}
	mu       struct {
		sync.Mutex
		queue []request
	}

	// Owned by Run.
	batch, spare []request
	updates      []raftlog.Update
	compacted    time.Duration
	failure      error
	damaged      raftlog.CorruptError // that was told last
}

// New returns a writer that wants the log to have no more segments than that.
func New(clock *sched.Clock, log Log, segments int, hooks Hooks) *Writer {
	return &Writer{
		log: log, segments: segments, hooks: hooks, clock: clock, bell: clock.NewBell(), stopped: make(chan struct{}),
	}
}

// Post queues an update; done may be nil. It does not block. The updates of one goroutine are written in their order.
func (w *Writer) Post(u raftlog.Update, done Completion) {
	w.mu.Lock()
	w.mu.queue = append(w.mu.queue, request{u, done})
	first := len(w.mu.queue) == 1
	w.mu.Unlock()
	if first {
		w.bell.Ring()
	}
}

type result chan error

func (r result) Written(err error) { r <- err }

// Do writes one update and waits until it is durable.
func (w *Writer) Do(ctx context.Context, u raftlog.Update) error {
	r := make(result, 1)
	w.Post(u, r)
	written, err := sched.Recv(ctx, w.clock, r, w.stopped)
	if err != nil {
		return err
	}
	return written
}

// Run serves until ctx ends, and then writes what was posted before.
func (w *Writer) Run(ctx context.Context) {
	defer close(w.stopped)
	for {
		w.mu.Lock()
		w.batch, w.mu.queue = w.mu.queue, w.spare[:0]
		w.mu.Unlock()
		if len(w.batch) == 0 {
			w.spare = w.batch
			if ctx.Err() != nil {
				return
			}
			if w.compactDue() {
				w.compact()
			}
			pause := compactEvery
			if w.log.Length() <= w.segments/2 {
				pause = dozeEvery // nothing to compact until something is appended
			}
			w.bell.Wait(ctx, w.clock.Now()+pause)
			continue
		}
		for rest := w.batch; len(rest) > 0; {
			n := w.take(rest)
			w.write(ctx, rest[:n])
			rest = rest[n:]
		}
		clear(w.batch)
		w.spare = w.batch
		if w.compactDue() {
			w.compact()
		}
	}
}

func (w *Writer) compactDue() bool { return w.clock.Now()-w.compacted >= compactEvery }

// take fills w.updates with as many requests as one Append takes, and returns their number.
func (w *Writer) take(reqs []request) int {
	clear(w.updates)
	w.updates = w.updates[:0]
	size := 0
	for i := range reqs {
		bytes := 0
		for _, e := range reqs[i].update.Entries {
			bytes += len(e.GetData()) + entryOverhead
		}
		if i > 0 && size+bytes > appendBytesMax {
			return i
		}
		size += bytes
		w.updates = append(w.updates, reqs[i].update)
	}
	return len(reqs)
}

// write appends w.updates, which are those of reqs, and tells.
func (w *Writer) write(ctx context.Context, reqs []request) {
	err := w.failure
	if err == nil {
		err = w.append(ctx)
	}
	var bug *raftlog.UpdateError
	switch {
	case errors.As(err, &bug) && len(reqs) > 1:
		for i := range reqs { // one of them is to blame; the others shall not suffer
			w.updates = append(w.updates[:0], reqs[i].update)
			w.write(ctx, reqs[i:i+1])
		}
		return
	case err != nil && bug == nil && ctx.Err() == nil:
		w.fail(err)
	}
	for i := range reqs {
		if reqs[i].done != nil {
			reqs[i].done.Written(err)
		}
	}
}

// append repeats an Append as long as the disk has no room.
func (w *Writer) append(ctx context.Context) error {
	for {
		err := w.log.Append(w.updates)
		if !errors.As(err, new(*raftlog.NoSpaceError)) {
			return err
		}
		w.hooks.NoSpace()
		w.compact()
		if w.clock.Sleep(ctx, compactEvery, nil) != nil {
			return err
		}
	}
}

func (w *Writer) fail(err error) {
	if w.failure == nil {
		w.failure = fmt.Errorf("groupcommit: %w", err)
		w.hooks.Failed(w.failure)
	}
}

// compact gives segments back.
func (w *Writer) compact() {
	w.compacted = w.clock.Now()
	if w.failure != nil || w.log.Length() <= w.segments/2 {
		return
	}
	for range compactStepsMax {
		c, err := w.log.Compact()
		if err != nil {
			if !errors.As(err, new(*raftlog.NoSpaceError)) {
				w.fail(err)
			}
			return
		}
		if c.Damaged != nil && *c.Damaged != w.damaged {
			w.damaged = *c.Damaged
			w.hooks.Damaged(c.Damaged)
		}
		if len(c.Pinning) > 0 && (c.Damaged != nil || w.log.Length() > w.segments) {
			w.hooks.Pinning(c.Pinning)
		}
		if !c.More {
			return
		}
	}
}

package multiraft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

const (
	// appendBytesMax bounds the entries that one Append takes, in bytes.
	appendBytesMax = 64 << 20
	// compactEvery is how often the log writer looks whether segments can be given back.
	compactEvery = 100 * time.Millisecond
	// compactStepsMax bounds the compactions of one look, so that appends do not wait long.
	compactStepsMax = 4
)

// outgoing is a message and where it goes.
type outgoing struct {
	to layout.ChunkserverID
	m  Message
}

// appendRequest is one thing to write, and what to answer when it is durable.
type appendRequest struct {
	g        *Group // nil for what is not of a group that runs
	hard     *raftpb.HardState
	entries  []*raftpb.Entry
	snapshot *raftpb.Snapshot
	reset    *raftlog.SnapshotMeta
	local    []*raftpb.Message
	remote   []outgoing

	update *raftlog.Update // instead of the above: as it is
	ack    chan error
}

func (r *appendRequest) raftlog() raftlog.Update {
	if r.update != nil {
		return *r.update
	}
	return raftlog.Update{Copyset: r.g.id, HardState: r.hard, Entries: r.entries, Reset: r.reset}
}

// logWriter owns the log: it alone appends and compacts.
type logWriter struct {
	host *Host
	mu   struct {
		sync.Mutex
		queue []appendRequest
	}
	wake chan struct{}

	// Owned by Run.
	batch, spare []appendRequest
	updates      []raftlog.Update
	compacted    time.Duration
}

func newLogWriter(h *Host) *logWriter {
	return &logWriter{host: h, wake: make(chan struct{}, 1)}
}

func (l *logWriter) post(r appendRequest) {
	l.mu.Lock()
	l.mu.queue = append(l.mu.queue, r)
	first := len(l.mu.queue) == 1
	l.mu.Unlock()
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// do writes one update and waits until it is durable.
func (l *logWriter) do(ctx context.Context, u raftlog.Update) error {
	r := appendRequest{update: &u, ack: make(chan error, 1)}
	l.post(r)
	select {
	case err := <-r.ack:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-l.host.stopped:
		return ErrStopped
	}
}

// Run serves until ctx ends, and then writes what it was given before.
func (l *logWriter) Run(ctx context.Context) {
	timer := time.NewTicker(compactEvery)
	defer timer.Stop()
	for {
		l.mu.Lock()
		l.batch, l.mu.queue = l.mu.queue, l.spare[:0]
		l.mu.Unlock()
		if len(l.batch) == 0 {
			l.spare = l.batch
			select {
			case <-l.wake:
			case <-timer.C:
				l.compact()
			case <-ctx.Done():
				return
			}
			continue
		}
		for rest := l.batch; len(rest) > 0; {
			n := l.take(rest)
			l.write(ctx, rest[:n])
			rest = rest[n:]
		}
		clear(l.batch)
		l.spare = l.batch
		if now := l.host.now(); now-l.compacted > compactEvery {
			l.compact()
		}
	}
}

// take fills l.updates with as many requests as one Append takes, and returns their number.
func (l *logWriter) take(reqs []appendRequest) int {
	clear(l.updates)
	l.updates = l.updates[:0]
	size := 0
	for i := range reqs {
		bytes := 0
		for _, e := range reqs[i].entries {
			bytes += len(e.GetData()) + 32
		}
		if i > 0 && size+bytes > appendBytesMax {
			return i
		}
		size += bytes
		if g := reqs[i].g; g != nil && bytes > 0 {
			g.logBytes.Add(int64(bytes))
			g.tail.add(reqs[i].entries[len(reqs[i].entries)-1].GetIndex(), int64(bytes))
		}
		l.updates = append(l.updates, reqs[i].raftlog())
	}
	return len(reqs)
}

// write appends l.updates, which are those of reqs, and answers.
func (l *logWriter) write(ctx context.Context, reqs []appendRequest) {
	err := l.host.failedErr()
	if err == nil {
		err = l.append(ctx)
	}
	var bug *raftlog.UpdateError
	switch {
	case errors.As(err, &bug) && len(reqs) > 1:
		for i := range reqs { // one of them is to blame; the others shall not suffer
			l.updates = append(l.updates[:0], reqs[i].raftlog())
			l.write(ctx, reqs[i:i+1])
		}
		return
	case errors.As(err, &bug):
	case err != nil && ctx.Err() == nil:
		l.host.fail(fmt.Errorf("multiraft: log: %w", err))
	}
	for i := range reqs {
		l.answer(&reqs[i], err)
	}
}

// append repeats an Append as long as the disk has no room.
func (l *logWriter) append(ctx context.Context) error {
	for {
		err := l.host.cfg.Log.Append(l.updates)
		if !errors.As(err, new(*raftlog.NoSpaceError)) {
			return err
		}
		l.host.checkpoints.kick()
		l.compact()
		if err := l.host.pause(ctx, compactEvery); err != nil {
			return err
		}
	}
}

func (l *logWriter) answer(r *appendRequest, err error) {
	if r.ack != nil {
		r.ack <- err
	}
	if r.g == nil {
		return
	}
	if err != nil {
		r.g.w.post(event{g: r.g, kind: evFail, err: err})
		return
	}
	for _, o := range r.remote {
		l.host.cfg.Transport.Send(o.to, []Message{o.m})
	}
	for _, m := range r.local {
		r.g.w.post(event{g: r.g, kind: evLocal, msg: m})
	}
	r.g.appending.Add(-1)
}

// compact gives segments back, and has those copysets checkpointed that keep the oldest one.
func (l *logWriter) compact() {
	l.compacted = l.host.now()
	if l.host.failedErr() != nil || l.host.cfg.Log.Usage().Segments <= l.host.cfg.SegmentsMax/2 {
		return
	}
	for range compactStepsMax {
		c, err := l.host.cfg.Log.Compact()
		if err != nil {
			if !errors.As(err, new(*raftlog.NoSpaceError)) {
				l.host.fail(fmt.Errorf("multiraft: log: %w", err))
			}
			return
		}
		if len(c.Pinning) > 0 && l.host.cfg.Log.Usage().Segments > l.host.cfg.SegmentsMax {
			l.host.checkpoints.force(c.Pinning)
		}
		if !c.More {
			return
		}
	}
}

package digest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// queueMax bounds the contents that wait: each keeps blocks from being reused. One that finds no place has no digest this time.
const queueMax = 64

// Counters count since New.
type Counters struct {
	// Computed digests, those that were Dropped because too many waited or that failed, and the Blocks and Nanos of the computed.
	Computed, Dropped, Blocks, Nanos atomic.Int64
}

// Runner computes digests, one after the other, and keeps the last of each copyset. Run is one goroutine; the other methods are
// for all.
type Runner struct {
	log      *zap.Logger
	counters Counters
	jobs     chan job
	mu       struct {
		sync.Mutex
		closed bool
		of     map[layout.CopysetID]*record
	}
}

type job struct {
	id      layout.CopysetID
	peer    layout.PeerID
	content Content
}

// record is what is known of a copyset.
type record struct {
	asked uint64 // the index of the content that was taken last
	last  *Result
}

// New returns a Runner; log may be nil.
func New(log *zap.Logger) *Runner {
	if log == nil {
		log = zap.NewNop()
	}
	r := &Runner{log: log, jobs: make(chan job, queueMax)}
	r.mu.of = map[layout.CopysetID]*record{}
	return r
}

// Counters returns the counters.
func (r *Runner) Counters() *Counters { return &r.counters }

// Take has the digest of a content computed soon, and closes the content then: at once if too many wait, which frees what it held.
func (r *Runner) Take(id layout.CopysetID, peer layout.PeerID, c Content) {
	if r.queue(job{id, peer, c}) {
		return
	}
	r.counters.Dropped.Add(1)
	c.Close() // may wait for the disk
}

// queue returns false when the job finds no place, or nobody would do it.
func (r *Runner) queue(j job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return false
	}
	select {
	case r.jobs <- j:
		r.recordLocked(j.id).asked, _ = j.content.Applied()
		return true
	default:
		r.log.Warn("digest dropped: too many wait", zap.Uint64("copyset", uint64(j.id)))
		return false
	}
}

func (r *Runner) recordLocked(id layout.CopysetID) *record {
	rec := r.mu.of[id]
	if rec == nil {
		rec = &record{}
		r.mu.of[id] = rec
	}
	return rec
}

// Last returns the last digest of a copyset's replica here, nil when there is none, and the index of the content that was
// taken last. The digest is not to be changed. It stays when its peer is gone, until there is another one.
func (r *Runner) Last(id layout.CopysetID) (last *Result, asked uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.mu.of[id]; rec != nil {
		return rec.last, rec.asked
	}
	return nil, 0
}

// Run computes until ctx ends.
func (r *Runner) Run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case j := <-r.jobs:
			r.do(ctx, j)
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	r.mu.closed = true // from now on nothing is queued
	r.mu.Unlock()
	for {
		select {
		case j := <-r.jobs:
			j.content.Close()
		default:
			return
		}
	}
}

func (r *Runner) do(ctx context.Context, j job) {
	defer j.content.Close()
	began := time.Now()
	res, err := Compute(ctx, j.id, j.peer, j.content)
	if err != nil {
		if ctx.Err() == nil {
			r.counters.Dropped.Add(1)
			r.log.Warn("no digest of a replica", zap.Uint64("copyset", uint64(j.id)), zap.Error(err))
		}
		return
	}
	res.Ended = time.Now()
	res.Took = res.Ended.Sub(began)
	r.counters.Computed.Add(1)
	r.counters.Blocks.Add(int64(res.Blocks))
	r.counters.Nanos.Add(int64(res.Took))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recordLocked(j.id).last = res
}

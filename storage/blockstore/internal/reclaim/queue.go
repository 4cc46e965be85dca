// Package reclaim holds freed blocks until nobody can come across them any more.
//
//	a checkpoint is durable ──► Add ──► waiting ──Run──► no reader of the owner that began before, and
//	                                      ▲              no hold of it that is older than what freed them ──► release
//	                                      └────────────────────────── else ──┘
//
// A hold is an image: it was taken while the owner was about to make checkpoint seq, so what that and later ones free is in it.
package reclaim

import (
	"sync"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
)

// Owner is the content that the blocks were freed of.
type Owner interface {
	// Drained reports whether all readers have ended that began in the epoch or before.
	Drained(epoch uint64) bool
}

// Freed is what one checkpoint freed; the checkpoint is durable.
type Freed struct {
	Owner Owner
	// Seq is the checkpoint: holds that were taken before it or within have the blocks.
	Seq uint64
	// Epoch is the last in which a reader may have begun that has the blocks.
	Epoch                  uint64
	Overwritten, Discarded []extent.Run
}

// Hold keeps what an owner frees.
type Hold struct {
	owner Owner
	seq   uint64
	end   func()
}

// Queue holds freed blocks. Its zero value is empty.
type Queue struct {
	// runMu lets one goroutine at a time reclaim; held while blocks are released.
	runMu sync.Mutex
	mu    struct {
		sync.Mutex
		waiting []Freed
		holds   map[*Hold]struct{}
	}
}

// Add takes freed blocks.
func (q *Queue) Add(f Freed) {
	if len(f.Overwritten) == 0 && len(f.Discarded) == 0 {
		return
	}
	q.mu.Lock()
	q.mu.waiting = append(q.mu.waiting, f)
	q.mu.Unlock()
}

// Hold keeps what checkpoint seq of the owner and later ones free, until LetGo. EndAll calls end, which is to let go.
func (q *Queue) Hold(o Owner, seq uint64, end func()) *Hold {
	h := &Hold{owner: o, seq: seq, end: end}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.holds == nil {
		q.mu.holds = make(map[*Hold]struct{})
	}
	q.mu.holds[h] = struct{}{}
	return h
}

// LetGo ends a hold. It returns false when it had ended.
func (q *Queue) LetGo(h *Hold) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, ok := q.mu.holds[h]
	delete(q.mu.holds, h)
	return ok
}

// EndAll ends the holds that there are.
func (q *Queue) EndAll() {
	q.mu.Lock()
	var all []*Hold
	for h := range q.mu.holds {
		all = append(all, h)
	}
	q.mu.Unlock()
	for _, h := range all {
		h.end()
	}
}

// held reports whether a hold has the blocks.
func (q *Queue) held(f *Freed) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for h := range q.mu.holds {
		if h.owner == f.Owner && h.seq <= f.Seq {
			return true
		}
	}
	return false
}

// Run gives the blocks to release that wait for nothing any more.
func (q *Queue) Run(release func(f *Freed)) {
	q.runMu.Lock()
	defer q.runMu.Unlock()
	q.mu.Lock()
	waiting := q.mu.waiting
	q.mu.waiting = nil
	q.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	var still []Freed
	for i := range waiting {
		if f := &waiting[i]; !f.Owner.Drained(f.Epoch) || q.held(f) {
			still = append(still, *f)
		} else {
			release(f)
		}
	}
	q.mu.Lock()
	q.mu.waiting = append(still, q.mu.waiting...)
	q.mu.Unlock()
}

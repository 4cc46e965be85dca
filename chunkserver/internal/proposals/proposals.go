// Package proposals keeps what was proposed in a raft group until its outcome is known.
//
//	Admit ──► Expect ──► Take (applied here) ──┐
//	  │          └─────► Abandon (term lost) ──┴─► Finish: the waiter is told, once
//	  └─ over a limit, or refused before it was proposed ─► Finish
//
// What waits is bounded in number and bytes for the group, and in bytes for all groups.
package proposals

import (
	"sync"
	"sync/atomic"
)

// Waiter gets the reply, once, on a goroutine that serves other groups too: Done must not block.
type Waiter[R any] interface{ Done(R) }

// Proposal is one that was admitted.
type Proposal[R any] struct {
	// ID is unique among those that are expected.
	ID uint64
	// Data is the entry's.
	Data []byte
	size int64
	w    Waiter[R]
}

// Limits bound what waits: Count and Bytes that of one group, TotalBytes that of all.
type Limits struct{ Count, Bytes, TotalBytes int64 }

// Total is the bytes of all groups' proposals.
type Total struct{ bytes atomic.Int64 }

// Bytes returns how many bytes wait.
func (t *Total) Bytes() int64 { return t.bytes.Load() }

// Set is the proposals of one group. It may be used by several goroutines.
type Set[R any] struct {
	limits       Limits
	total        *Total
	count, bytes atomic.Int64
	mu           struct {
		sync.Mutex
		m      map[uint64]*Proposal[R]
		closed bool
	}
}

// New returns an empty set.
func New[R any](limits Limits, total *Total) *Set[R] {
	s := &Set[R]{limits: limits, total: total}
	s.mu.m = map[uint64]*Proposal[R]{}
	return s
}

// Admit counts a proposal of that many bytes. ok is false when that is more than a limit. Either way it has to be finished.
func (s *Set[R]) Admit(id uint64, size int64, w Waiter[R]) (p *Proposal[R], ok bool) {
	count, bytes, total := s.count.Add(1), s.bytes.Add(size), s.total.bytes.Add(size)
	return &Proposal[R]{ID: id, size: size, w: w}, count <= s.limits.Count && bytes <= s.limits.Bytes && total <= s.limits.TotalBytes
}

// Finish tells the waiter.
func (s *Set[R]) Finish(p *Proposal[R], r R) {
	s.count.Add(-1)
	s.bytes.Add(-p.size)
	s.total.bytes.Add(-p.size)
	p.w.Done(r)
}

// Expect makes the proposal one that will be taken or abandoned. It returns false when nothing is expected any more.
func (s *Set[R]) Expect(p *Proposal[R]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.mu.m[p.ID] = p
	return true
}

// Take returns the proposal and expects it no more; nil when somebody else was quicker.
func (s *Set[R]) Take(id uint64) *Proposal[R] {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.mu.m[id]
	delete(s.mu.m, id)
	return p
}

// Abandon finishes everything that is expected; forGood: nothing is expected afterwards.
func (s *Set[R]) Abandon(r R, forGood bool) {
	s.mu.Lock()
	m := s.mu.m
	s.mu.m = map[uint64]*Proposal[R]{}
	s.mu.closed = s.mu.closed || forGood
	s.mu.Unlock()
	for _, p := range m {
		s.Finish(p, r)
	}
}

// Waiting returns how many are admitted and not finished, and their bytes.
func (s *Set[R]) Waiting() (count, bytes int64) { return s.count.Load(), s.bytes.Load() }

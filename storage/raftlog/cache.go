package raftlog

import (
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	// entryOverhead is what a cached entry takes in memory besides its payload, in bytes.
	entryOverhead = 160
	// ringSlack is how many stale references the cache's queue may hold besides as many as there are entries.
	ringSlack = 1024
)

// cache bounds the entries that groups keep in memory. It is a queue of references in the order of appending; the
// entries themselves hang on the groups' slots. Only the log writer uses it, but for the two counters.
type cache struct {
	limit int64
	bytes atomic.Int64
	count atomic.Int64

	queue []cacheRef
	head  int
	// dropped are the extents of the sideloaded entries that groups have dropped, until releaseTails takes them.
	dropped []Extent
}

// cacheRef names an entry by its place: if the slot of index lies elsewhere now, the reference is stale.
type cacheRef struct {
	group *Group
	index uint64
	seg   *segment
	off   uint32
}

func entryCharge(payload int) int64 { return int64(payload) + entryOverhead }

// admit counts an entry in and tells whether the slot may keep it. evict must follow once no group is locked.
func (c *cache) admit(g *Group, e *raftpb.Entry, s *slot) bool {
	charge := entryCharge(s.full())
	if charge > c.limit {
		return false
	}
	c.bytes.Add(charge)
	c.count.Add(1)
	c.queue = append(c.queue, cacheRef{group: g, index: e.GetIndex(), seg: s.seg, off: s.off})
	return true
}

// forget counts the entry of a slot out.
func (c *cache) forget(s *slot) {
	if s.entry != nil {
		s.entry = nil
		c.bytes.Add(-entryCharge(s.full()))
		c.count.Add(-1)
	}
}

// evict drops the oldest entries until the rest is within the limit, and stale references before they add up.
func (c *cache) evict() {
	for c.head < len(c.queue) && c.bytes.Load() > c.limit {
		r := c.queue[c.head]
		c.queue[c.head] = cacheRef{}
		c.head++
		r.group.evict(r, c)
	}
	if c.head > len(c.queue)/2 {
		n := copy(c.queue, c.queue[c.head:])
		clear(c.queue[n:])
		c.queue, c.head = c.queue[:n], 0
	}
	if int64(len(c.queue)-c.head) > 2*c.count.Load()+ringSlack {
		live := c.queue[:0]
		for _, r := range c.queue[c.head:] {
			if r.group.holds(r) {
				live = append(live, r)
			}
		}
		clear(c.queue[len(live):])
		c.queue, c.head = live, 0
	}
}

// slotOfLocked returns the slot that r names, nil if r is stale.
func (g *Group) slotOfLocked(r cacheRef) *slot {
	if r.index <= g.mu.trunc || r.index > g.lastLocked() {
		return nil
	}
	s := &g.mu.slots[r.index-g.mu.trunc-1]
	if s.seg != r.seg || s.off != r.off || s.entry == nil {
		return nil
	}
	return s
}

func (g *Group) evict(r cacheRef, c *cache) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.slotOfLocked(r); s != nil {
		c.forget(s)
	}
}

func (g *Group) holds(r cacheRef) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.slotOfLocked(r) != nil
}

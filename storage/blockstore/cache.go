package blockstore

import (
	"sync"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// cacheMin is the least number of clean leaves for which there is room.
	cacheMin = 8
	// chunksPerSweep bounds for how many chunks a copyset is locked at a time while leaves are evicted.
	chunksPerSweep = 64
	// loadAttemptsMax is how often a reader tries to have all its leaves in memory before it loads them under the lock.
	loadAttemptsMax = 8
)

// cache bounds the leaves in memory. What is in an overlay does not count and stays.
type cache struct {
	// budget is the number of clean leaves that may be in memory.
	budget int64
	// mu lets one goroutine at a time evict; hand is where it goes on.
	mu   sync.Mutex
	hand int
}

// trim evicts clean leaves until those that are left fit the budget. It does nothing while another goroutine is at it.
func (s *Store) trim() {
	over := func() bool { return s.leaves.Resident.Load()-s.leaves.Overlay.Load() > s.cache.budget }
	if !over() || !s.cache.mu.TryLock() {
		return
	}
	defer s.cache.mu.Unlock()
	all := s.all()
	// Two rounds: the first may only find leaves that were used since the last.
	for range 2 * len(all) {
		s.cache.hand++
		c := all[s.cache.hand%len(all)]
		for at := 0; ; {
			if !over() {
				return
			}
			if at = c.sweep(at); at < 0 {
				break
			}
		}
	}
}

// sweep evicts clean leaves of chunksPerSweep chunks, those that were not used since the last sweep. It returns where to
// go on, or -1 at the end.
func (c *Copyset) sweep(at int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.Sweep(at, chunksPerSweep, c.mu.durable)
}

// lookup fills ents with the entries of consecutive blocks of a chunk, all of one moment, and pins the blocks: the caller
// must give the slot that is returned to unpin when it has read them.
func (c *Copyset) lookup(id layout.ChunkID, first uint32, ents []extent.Entry) (slot int, err error) {
	for range loadAttemptsMax + len(ents)/extent.LeafBlocks {
		c.mu.RLock()
		slot, missing, err := c.fillLocked(id, first, ents)
		var ch *extentmap.Chunk
		var changes uint64
		inc := c.mu.record.Incarnation
		if slot < 0 && err == nil {
			ch = c.mu.Chunks[id]
			changes = ch.Changes
		}
		c.mu.RUnlock()
		if ch == nil {
			return slot, err
		}
		l, err := c.s.index.Leaf(inc, extent.LeafID{Chunk: id, Index: missing})
		if err != nil {
			return -1, err
		}
		c.insert(ch, changes, missing, l)
		c.s.trim()
	}
	return c.lookupSlow(id, first, ents)
}

// lookupSlow is lookup for a reader whose leaves were evicted or changed again and again: it reads the index under the
// lock, which can not go wrong.
func (c *Copyset) lookupSlow(id layout.ChunkID, first uint32, ents []extent.Entry) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		slot, missing, err := c.fillLocked(id, first, ents)
		if slot >= 0 || err != nil {
			return slot, err
		}
		l, err := c.s.index.Leaf(c.mu.record.Incarnation, extent.LeafID{Chunk: id, Index: missing})
		if err != nil {
			return -1, err
		}
		c.insertLocked(c.mu.Chunks[id], missing, l)
	}
}

// insert puts a leaf that was read from the index into memory, unless ch was changed since it had changes: then the
// leaf may be an old one.
func (c *Copyset) insert(ch *extentmap.Chunk, changes uint64, i uint32, l *extent.Leaf) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.Chunks[ch.ID()] == ch && ch.Changes == changes && ch.Leaf(i) == nil {
		c.insertLocked(ch, i, l)
	}
}

// insertLocked puts a leaf that was read from the index into memory; nil when the index has none.
func (c *Copyset) insertLocked(ch *extentmap.Chunk, i uint32, l *extent.Leaf) {
	if l == nil {
		l = new(extent.Leaf)
	}
	l.Used.Store(true)
	c.mu.SetLeaf(ch, i, l)
}

// fillLocked fills ents, pins the blocks and returns the slot. When a leaf is not in memory it returns -1 and the leaf.
func (c *Copyset) fillLocked(id layout.ChunkID, first uint32, ents []extent.Entry) (slot int, missing uint32, err error) {
	if c.mu.removed {
		return -1, 0, ErrRemoved
	}
	ch := c.mu.Chunks[id]
	for k := 0; k < len(ents); {
		i, b := (first+uint32(k))/extent.LeafBlocks, (first+uint32(k))%extent.LeafBlocks
		n := min(extent.LeafBlocks-int(b), len(ents)-k)
		if !ch.Has(i) {
			clear(ents[k : k+n])
			k += n
			continue
		}
		l := ch.Leaf(i)
		if l == nil {
			return -1, i, nil
		}
		if !l.Used.Load() {
			l.Used.Store(true)
		}
		for ; n > 0; n-- {
			ents[k] = extent.Entry{Addr: l.Addr[b], CRC: l.CRC[b]}
			k++
			b++
		}
	}
	slot = int(c.mu.epoch & 1)
	c.readers[slot].Add(1)
	return slot, 0, nil
}

// unpin lets the blocks of a lookup go.
func (c *Copyset) unpin(slot int) { c.readers[slot].Add(-1) }

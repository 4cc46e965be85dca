package blockstore

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Copyset is the content of one copyset on this disk. One goroutine at a time, its owner, changes it; the methods say
// which of them are the owner's. The others may be called from any goroutine at any time.
type Copyset struct {
	s  *Store
	id layout.CopysetID

	// readers counts the reads in progress that began in an even and in an odd epoch. A reader adds itself while it
	// holds mu shared, so that none is overlooked when the epoch is advanced under mu.
	readers [2]atomic.Int64

	mu struct {
		sync.RWMutex
		removed bool
		// record is the durable state, as of the last checkpoint.
		record extent.Record
		// index and term are those of the last applied entry.
		index, term uint64
		// chunks holds the chunks that have a block; cached lists those that have a leaf in memory.
		chunks map[layout.ChunkID]*chunk
		cached []*chunk
		// usage is the number of allocated blocks of each volume that has any.
		usage map[layout.VolumeID]int64
		// gen numbers the times at which all leaves became immutable, seq the checkpoints: active is what checkpoint
		// seq will make durable, frozen are those before it that are not yet, durable the last that is.
		gen, seq, durable uint64
		// imaged is the last seq in which an image was taken.
		imaged uint64
		active overlay
		frozen []*Frozen
		// epoch is the epoch in which readers begin.
		epoch uint64
	}
}

// overlay is what changed since the last Freeze.
type overlay struct {
	// leaves holds every leaf that was changed; one without blocks is to be deleted.
	leaves map[extent.LeafID]*extent.Leaf
	// overwritten and discarded are the blocks that the changes freed, the latter to be given back to the file system.
	overwritten, discarded []extent.Run
	// late are the blocks whose content is to be written to the data file.
	late []extent.Run
}

func newOverlay() overlay { return overlay{leaves: make(map[extent.LeafID]*extent.Leaf)} }

// chunk is what is known of a chunk's leaves. It is guarded by the copyset's mu.
type chunk struct {
	id layout.ChunkID
	// present has a bit for each leaf that has blocks.
	present []uint64
	// leaves holds those leaves that are in memory; it is nil when none is.
	leaves []*extent.Leaf
	// resident is the number of leaves in memory, slot the chunk's place in Copyset.mu.cached when it is not 0.
	resident, slot int
	// changes counts the changes of the map: a leaf that was read from the index is only used if none came between.
	changes uint64
}

// newCopyset returns a copyset in the durable state r, without leaves.
func newCopyset(s *Store, id layout.CopysetID, r extent.Record) *Copyset {
	c := &Copyset{s: s, id: id}
	c.mu.record = r
	c.mu.index, c.mu.term = r.Index, r.Term
	c.mu.chunks = make(map[layout.ChunkID]*chunk)
	c.mu.usage = make(map[layout.VolumeID]int64)
	c.mu.gen, c.mu.seq = 1, 1
	c.mu.active = newOverlay()
	return c
}

// ID returns the copyset's number.
func (c *Copyset) ID() layout.CopysetID { return c.id }

// Applied returns the raft index and term up to which entries were applied: those of the last SetApplied, and after
// Open or the end of an installation those of the durable content.
func (c *Copyset) Applied() (index, term uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.index, c.mu.term
}

// Durable returns the raft index and term of the last durable checkpoint.
func (c *Copyset) Durable() (index, term uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.record.Index, c.mu.record.Term
}

// State returns the state of the last durable checkpoint (nil for a new copyset). The caller must not change it.
func (c *Copyset) State() []byte {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.record.State
}

// SetApplied sets the raft index and term up to which entries were applied. For the owner.
func (c *Copyset) SetApplied(index, term uint64) {
	c.mu.Lock()
	c.mu.index, c.mu.term = index, term
	c.mu.Unlock()
}

// Usage returns the allocated bytes of each volume that has any in this copyset.
func (c *Copyset) Usage() map[layout.VolumeID]int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	u := make(map[layout.VolumeID]int64, len(c.mu.usage))
	for v, n := range c.mu.usage {
		u[v] = n * layout.BlockSize
	}
	return u
}

func (c *Copyset) incarnation() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.record.Incarnation
}

// noteLeaf makes a leaf known that is in the index, while nobody else uses the copyset.
func (c *Copyset) noteLeaf(id extent.LeafID, allocated uint64) {
	c.chunkLocked(id.Chunk).setPresent(id.Index)
	c.addUsageLocked(id.Chunk.Volume, int64(bits.OnesCount64(allocated)))
}

// addUsageLocked changes a volume's number of blocks.
func (c *Copyset) addUsageLocked(v layout.VolumeID, blocks int64) {
	if n := c.mu.usage[v] + blocks; n != 0 {
		c.mu.usage[v] = n
	} else {
		delete(c.mu.usage, v)
	}
}

// chunkLocked returns the chunk, made if it is missing.
func (c *Copyset) chunkLocked(id layout.ChunkID) *chunk {
	ch := c.mu.chunks[id]
	if ch == nil {
		ch = &chunk{id: id}
		c.mu.chunks[id] = ch
	}
	return ch
}

// has reports whether leaf i has blocks.
func (ch *chunk) has(i uint32) bool {
	return int(i/64) < len(ch.present) && ch.present[i/64]&(1<<(i%64)) != 0
}

func (ch *chunk) setPresent(i uint32) {
	if n := int(i/64) + 1; n > len(ch.present) {
		ch.present = append(ch.present, make([]uint64, n-len(ch.present))...)
	}
	ch.present[i/64] |= 1 << (i % 64)
}

// leaf returns leaf i if it is in memory.
func (ch *chunk) leaf(i uint32) *extent.Leaf {
	if int(i) < len(ch.leaves) {
		return ch.leaves[i]
	}
	return nil
}

// setLeafLocked puts leaf i of ch into memory, or out of it (nil).
func (c *Copyset) setLeafLocked(ch *chunk, i uint32, l *extent.Leaf) {
	old := ch.leaf(i)
	switch {
	case old == nil && l != nil:
		if ch.resident == 0 {
			ch.slot = len(c.mu.cached)
			c.mu.cached = append(c.mu.cached, ch)
		}
		if n := int(i) + 1; n > len(ch.leaves) {
			ch.leaves = append(ch.leaves, make([]*extent.Leaf, max(n, 64*len(ch.present))-len(ch.leaves))...)
		}
		ch.resident++
		c.s.cache.resident.Add(1)
	case old != nil && l == nil:
		ch.resident--
		c.s.cache.resident.Add(-1)
	case old == nil:
		return
	}
	ch.leaves[i] = l
	if ch.resident == 0 {
		k := len(c.mu.cached) - 1
		last := c.mu.cached[k]
		c.mu.cached[ch.slot], last.slot = last, ch.slot
		c.mu.cached[k] = nil
		c.mu.cached = c.mu.cached[:k]
		ch.leaves = nil
	}
}

// dropLeafLocked makes leaf i of ch one without blocks; a chunk without leaves goes.
func (c *Copyset) dropLeafLocked(ch *chunk, i uint32) {
	c.setLeafLocked(ch, i, nil)
	ch.changes++
	if ch.has(i) {
		ch.present[i/64] &^= 1 << (i % 64)
	}
	for _, w := range ch.present {
		if w != 0 {
			return
		}
	}
	delete(c.mu.chunks, ch.id)
}

// addDirtyLocked puts a leaf into the active overlay.
func (c *Copyset) addDirtyLocked(id extent.LeafID, l *extent.Leaf) {
	n := len(c.mu.active.leaves)
	c.mu.active.leaves[id] = l
	c.s.overlay.Add(int64(len(c.mu.active.leaves) - n))
}

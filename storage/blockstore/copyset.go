package blockstore

import (
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
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
		// Map is the content: its overlay is what checkpoint Seq will make durable, frozen are those before it that are
		// not yet, durable is the last that is.
		extentmap.Map
		durable uint64
		// imaged is the last seq in which an image was taken.
		imaged uint64
		frozen []*Frozen
		// epoch is the epoch in which readers begin.
		epoch uint64
	}
}

// newCopyset returns a copyset in the durable state r, without leaves.
func newCopyset(s *Store, id layout.CopysetID, r extent.Record) *Copyset {
	c := &Copyset{s: s, id: id}
	c.mu.record = r
	c.mu.index, c.mu.term = r.Index, r.Term
	c.mu.Map = extentmap.New(&s.leaves)
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

// Usage returns the allocated bytes of each volume that has any in this copyset. What only versions have does not count.
func (c *Copyset) Usage() map[layout.VolumeID]int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	u := make(map[layout.VolumeID]int64, len(c.mu.Map.Usage))
	for v, n := range c.mu.Map.Usage {
		u[v] = n * layout.BlockSize
	}
	return u
}

// addSpace adds the space of each volume in this copyset.
func (c *Copyset) addSpace(to map[layout.VolumeID]VolumeSpace) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.mu.AddSpace(to)
}

func (c *Copyset) incarnation() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.record.Incarnation
}

// overlaysLocked returns what changed and is not durable, oldest first.
func (c *Copyset) overlaysLocked() []*extentmap.Overlay {
	all := make([]*extentmap.Overlay, 0, len(c.mu.frozen)+1)
	for _, f := range c.mu.frozen {
		all = append(all, &f.overlay)
	}
	return append(all, &c.mu.Active)
}

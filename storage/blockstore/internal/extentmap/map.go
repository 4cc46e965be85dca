package extentmap

import (
	"math/bits"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Counters count the leaves of all maps of a store.
type Counters struct {
	// Resident are those in memory, Overlay those in overlays, active and frozen.
	Resident, Overlay atomic.Int64
}

// Map is the content of a copyset.
type Map struct {
	// Chunks holds the chunks that have a block; Cached lists those that have a leaf in memory.
	Chunks map[layout.ChunkID]*Chunk
	Cached []*Chunk
	// Usage is the number of allocated blocks of each volume that has any, Kept that of those that only its versions have.
	Usage, Kept map[layout.VolumeID]int64
	// Versions are those of each volume that has or had any.
	Versions map[layout.VolumeID]extent.Versions
	// Gen numbers the times at which all leaves became immutable, Seq the checkpoints: Active is what checkpoint Seq will
	// make durable.
	Gen, Seq uint64
	Active   Overlay
	counters *Counters
}

// Overlay is what changed since the last Freeze.
type Overlay struct {
	// Leaves holds every leaf that was changed; one without blocks is to be deleted. old is how many of them are not the head's.
	Leaves map[extent.LeafID]*extent.Leaf
	old    int64
	// Versions holds the volumes whose versions changed; one whose Last is 0 is to be deleted.
	Versions map[layout.VolumeID]extent.Versions
	// Overwritten and Discarded are the blocks that the changes freed, the latter to be given back to the file system.
	Overwritten, Discarded []extent.Run
	// Late are the blocks whose content is to be written to the data file.
	Late []extent.Run
}

func newOverlay() Overlay {
	return Overlay{Leaves: make(map[extent.LeafID]*extent.Leaf), Versions: make(map[layout.VolumeID]extent.Versions)}
}

// New returns an empty map that counts its leaves in c.
func New(c *Counters) Map {
	return Map{
		Chunks: make(map[layout.ChunkID]*Chunk),
		Usage:  make(map[layout.VolumeID]int64), Kept: make(map[layout.VolumeID]int64),
		Versions: make(map[layout.VolumeID]extent.Versions),
		Gen:      1, Seq: 1, Active: newOverlay(), counters: c,
	}
}

// Freeze takes the overlay: the leaves in it are immutable from now on.
func (m *Map) Freeze() Overlay {
	o := m.Active
	m.Active = newOverlay()
	m.Seq++
	m.Gen++
	return o
}

// Forget counts an overlay out that is durable or obsolete.
func (m *Map) Forget(o *Overlay) {
	m.counters.Overlay.Add(-int64(len(o.Leaves)))
	m.counters.Resident.Add(-o.old)
	*o = Overlay{}
}

// Replace puts the chunks of n, or none (nil), in place of the map's. What the overlay has is lost.
func (m *Map) Replace(n *Map) {
	for _, ch := range m.Cached {
		m.counters.Resident.Add(-int64(ch.resident))
		ch.Changes++
	}
	m.Cached = nil
	_ = m.Freeze()
	m.Chunks, m.Usage, m.Kept, m.Versions = nil, nil, nil, nil
	if n != nil {
		m.Chunks, m.Usage, m.Kept, m.Versions = n.Chunks, n.Usage, n.Kept, n.Versions
	}
}

// Note makes a leaf known that is in the index.
func (m *Map) Note(id extent.LeafID, l *extent.Leaf) {
	v := id.Chunk.Volume
	if id.Version != 0 {
		count(m.Kept, v, int64(bits.OnesCount64(l.Own())))
		return
	}
	m.chunk(id.Chunk).setPresent(id.Index)
	count(m.Usage, v, int64(bits.OnesCount64(l.Allocated)))
	count(m.Kept, v, -int64(bits.OnesCount64(l.Shared)))
}

// count changes a volume's number of blocks.
func count(m map[layout.VolumeID]int64, v layout.VolumeID, blocks int64) {
	if n := m[v] + blocks; n != 0 {
		m[v] = n
	} else {
		delete(m, v)
	}
}

// VolumeSpace is the space of a volume, in bytes.
type VolumeSpace struct {
	// Content is what the volume has allocated now, Versions what only its versions have.
	Content, Versions int64
}

// AddSpace adds the space of each volume.
func (m *Map) AddSpace(to map[layout.VolumeID]VolumeSpace) {
	for v, n := range m.Usage {
		s := to[v]
		s.Content += n * layout.BlockSize
		to[v] = s
	}
	for v, n := range m.Kept {
		s := to[v]
		s.Versions += n * layout.BlockSize
		to[v] = s
	}
}

// chunk returns the chunk, made if it is missing.
func (m *Map) chunk(id layout.ChunkID) *Chunk {
	ch := m.Chunks[id]
	if ch == nil {
		ch = &Chunk{id: id}
		m.Chunks[id] = ch
	}
	return ch
}

// SetLeaf puts leaf i of ch, as it is in the index, into memory, or out of it (nil).
func (m *Map) SetLeaf(ch *Chunk, i uint32, l *extent.Leaf) {
	old := ch.Leaf(i)
	switch {
	case old == nil && l != nil:
		if ch.resident == 0 {
			ch.slot = len(m.Cached)
			m.Cached = append(m.Cached, ch)
		}
		if n := int(i) + 1; n > len(ch.leaves) {
			ch.leaves = append(ch.leaves, make([]*extent.Leaf, max(n, 64*len(ch.present))-len(ch.leaves))...)
		}
		ch.resident++
		m.counters.Resident.Add(1)
	case old != nil && l == nil:
		ch.resident--
		m.counters.Resident.Add(-1)
	case old == nil:
		return
	}
	ch.leaves[i] = l
	if ch.resident == 0 {
		k := len(m.Cached) - 1
		last := m.Cached[k]
		m.Cached[ch.slot], last.slot = last, ch.slot
		m.Cached[k] = nil
		m.Cached = m.Cached[:k]
		ch.leaves = nil
	}
}

// Sweep puts clean leaves of at most n chunks, from Cached[at] on, out of memory: those that were not used since the last
// sweep and that the last durable checkpoint has. It returns where to go on, or -1 at the end.
func (m *Map) Sweep(at, n int, durable uint64) int {
	for ; n > 0; n-- {
		if at >= len(m.Cached) {
			return -1
		}
		ch := m.Cached[at]
		for i, l := range ch.leaves {
			if l == nil || l.Seq > durable || l.Used.Swap(false) {
				continue
			}
			m.SetLeaf(ch, uint32(i), nil)
		}
		if ch.resident > 0 {
			at++
		}
	}
	return at
}

// setDirty puts a changed leaf into memory and into the overlay.
func (m *Map) setDirty(ch *Chunk, i uint32, l *extent.Leaf) {
	m.SetLeaf(ch, i, l)
	m.addDirty(extent.LeafID{Chunk: ch.id, Index: i}, l)
	ch.Changes++
}

// addDirty puts a leaf into the overlay.
func (m *Map) addDirty(id extent.LeafID, l *extent.Leaf) {
	n := len(m.Active.Leaves)
	m.Active.Leaves[id] = l
	more := int64(len(m.Active.Leaves) - n)
	m.counters.Overlay.Add(more)
	if id.Version != 0 { // it is in no chunk
		m.Active.old += more
		m.counters.Resident.Add(more)
	}
}

// drop makes leaf i of ch one without blocks; a chunk without leaves goes.
func (m *Map) drop(ch *Chunk, i uint32) {
	m.SetLeaf(ch, i, nil)
	ch.Changes++
	if ch.Has(i) {
		ch.present[i/64] &^= 1 << (i % 64)
	}
	for _, w := range ch.present {
		if w != 0 {
			return
		}
	}
	delete(m.Chunks, ch.id)
}

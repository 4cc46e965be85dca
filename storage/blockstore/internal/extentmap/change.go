package extentmap

import (
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// eachPart calls fn for the part of each leaf that lies in n blocks from first on: blocks [from, to) of leaf i, of which
// the first is the k-th of the n.
func eachPart(first, n uint32, fn func(i, from, to, k uint32) bool) {
	for k := uint32(0); k < n; {
		i, from := (first+k)/extent.LeafBlocks, (first+k)%extent.LeafBlocks
		to := min(extent.LeafBlocks, from+n-k)
		if !fn(i, from, to, k) {
			return
		}
		k += to - from
	}
}

// Prepare makes all leaves that Switch will change part of the overlay. When one of them is not in memory it returns that
// leaf and false: it is to be read from the index, given to Load, and Prepare called again.
func (m *Map) Prepare(id layout.ChunkID, first, n uint32, ents []extent.Entry) (missing uint32, ok bool) {
	ok = true
	versions := m.Versions[id.Volume]
	newest := versions.Newest()
	eachPart(first, n, func(i, from, to, k uint32) bool {
		ch := m.Chunks[id]
		if !ch.Has(i) {
			if ents == nil || allNowhere(ents[k:k+to-from]) {
				return true
			}
			ch = m.chunk(id)
			ch.setPresent(i)
			l := extent.NewLeaf(m.Gen, m.Seq)
			l.Born = versions.Last
			m.setDirty(ch, i, l)
			return true
		}
		l := ch.Leaf(i)
		if l == nil {
			missing, ok = i, false
			return false
		}
		switch {
		case l.Born < newest:
			// The versions since Born have it too: it is set aside for them, and the head goes on with a copy.
			m.addDirty(extent.LeafID{Chunk: id, Index: i, Version: newest}, l)
			l = l.Clone(m.Gen, m.Seq)
			l.Born, l.Shared = versions.Last, l.Allocated
			m.setDirty(ch, i, l)
		case l.Gen != m.Gen:
			m.setDirty(ch, i, l.Clone(m.Gen, m.Seq))
		}
		return true
	})
	return missing, ok
}

// Load takes leaf i of a chunk that Prepare found missing, as it is in the index, to be changed. Nobody but the owner
// changes a leaf, so what was read is what the chunk has.
func (m *Map) Load(id layout.ChunkID, i uint32, l *extent.Leaf) {
	ch := m.Chunks[id]
	if ch == nil || ch.Leaf(i) != nil {
		return
	}
	l.Gen, l.Seq = m.Gen, m.Seq
	m.setDirty(ch, i, l)
}

// allNowhere reports whether no entry is allocated.
func allNowhere(ents []extent.Entry) bool {
	for _, e := range ents {
		if e.Addr != 0 {
			return false
		}
	}
	return true
}

// Change is what Switch does to n blocks of a chunk, from First on.
type Change struct {
	Chunk    layout.ChunkID
	First, N uint32
	// Entries are where the blocks are now; nil: nowhere.
	Entries []extent.Entry
	// Late says that the content of the new blocks is deferred.
	Late bool
	// Superseded, if set, is told of each block that is freed.
	Superseded func(extent.Addr)
}

// Switch does what Prepare prepared, and returns how many blocks it freed.
func (m *Map) Switch(c Change) (freed uint64) {
	var grown, kept int64
	o := &m.Active
	eachPart(c.First, c.N, func(i, from, to, k uint32) bool {
		ch := m.Chunks[c.Chunk]
		if !ch.Has(i) {
			return true
		}
		l := ch.Leaf(i)
		for b := from; b < to; b++ {
			var e extent.Entry
			if c.Entries != nil {
				e = c.Entries[k+b-from]
			}
			old, shared := l.Set(b, e)
			if e.Addr != 0 {
				grown++
				if c.Late {
					o.Late = extent.AppendRun(o.Late, e.Addr, 1)
				}
			}
			if old == 0 {
				continue
			}
			grown--
			if shared {
				kept++
				continue
			}
			if c.Superseded != nil {
				c.Superseded(old)
			}
			if e.Addr == 0 {
				o.Discarded = extent.AppendRun(o.Discarded, old, 1)
			} else {
				o.Overwritten = extent.AppendRun(o.Overwritten, old, 1)
			}
			freed++
		}
		if l.Allocated == 0 {
			m.drop(ch, i)
		}
		return true
	})
	count(m.Usage, c.Chunk.Volume, grown)
	count(m.Kept, c.Chunk.Volume, kept)
	return freed
}

// DropVolume makes the volume one without blocks and versions. runs are all blocks that it has, old the leaves that are not the
// head's.
func (m *Map) DropVolume(v layout.VolumeID, runs []extent.Run, old []extent.LeafID) {
	gone := new(extent.Leaf)
	for id, ch := range m.Chunks {
		if id.Volume != v {
			continue
		}
		for i, ok := ch.Next(0); ok; i, ok = ch.Next(i + 1) {
			m.addDirty(extent.LeafID{Chunk: id, Index: i}, gone)
			m.drop(ch, i)
		}
	}
	for _, id := range old {
		m.addDirty(id, gone)
	}
	if m.Versions[v].Last != 0 {
		delete(m.Versions, v)
		m.Active.Versions[v] = extent.Versions{}
	}
	delete(m.Usage, v)
	delete(m.Kept, v)
	m.Active.Discarded = append(m.Active.Discarded, runs...)
}

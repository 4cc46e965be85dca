package extentmap

import (
	"math/bits"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The leaves of one place, of a volume with the versions 3, 5 and 8: each is had by the versions after its Born up to its own, the
// head's by those after its Born and by the content of now.
//
//	version 3        version 5        version 8        now
//	│ leaf of version 5, born 0      ││ head's, born 5           │
//	  a b c d                           a b′c d     Shared: a c d
//
// A version is taken by noting its number. The first change of a leaf that it has sets the leaf aside under the newest version.
// When a version is deleted, the leaves of its number are those that it alone has, and go, or those that older ones have too,
// and become those of the one before. So no reference is counted: who owns a block, and whether a change frees it, is seen from
// two neighbours.

// TakeVersion makes the volume's content of now version n, which is above all that were taken before.
func (m *Map) TakeVersion(v layout.VolumeID, n uint64) { m.setVersions(v, m.Versions[v].Take(n)) }

func (m *Map) setVersions(v layout.VolumeID, to extent.Versions) {
	m.Versions[v] = to
	m.Active.Versions[v] = to
}

// Old is a leaf that was set aside, with the next newer one of the same place; Next is nil when there is none.
type Old struct {
	ID     extent.LeafID
	Leaf   *extent.Leaf
	NextID extent.LeafID
	Next   *extent.Leaf
}

// DropVersion forgets version n of the volume, whose leaves are given. It returns how many blocks that freed.
func (m *Map) DropVersion(v layout.VolumeID, n uint64, leaves []Old) (freed uint64) {
	versions := m.Versions[v]
	before := versions.Before(n)
	gone := new(extent.Leaf)
	for _, o := range leaves {
		m.addDirty(o.ID, gone)
		if o.Leaf.Born < before { // older versions have it too
			id := o.ID
			id.Version = before
			m.addDirty(id, o.Leaf)
			continue
		}
		mask := o.Leaf.Own()
		if o.Next != nil {
			mask &^= o.Next.Shared
			m.disinherit(&o)
		}
		m.Active.Discarded = o.Leaf.AppendRuns(m.Active.Discarded, mask)
		freed += uint64(bits.OnesCount64(mask))
	}
	m.setVersions(v, versions.Drop(n))
	count(m.Kept, v, -int64(freed))
	return freed
}

// disinherit has the next newer leaf share only what the one before o.Leaf has too, now that o.Leaf goes.
func (m *Map) disinherit(o *Old) {
	shared := o.Next.Shared & o.Leaf.Shared
	if shared == o.Next.Shared {
		return
	}
	l := o.Next
	if l.Gen != m.Gen || o.NextID.Version != 0 {
		l = l.Clone(m.Gen, m.Seq)
	}
	l.Shared = shared
	if o.NextID.Version != 0 {
		m.addDirty(o.NextID, l)
		return
	}
	m.setDirty(m.Chunks[o.NextID.Chunk], o.NextID.Index, l)
}

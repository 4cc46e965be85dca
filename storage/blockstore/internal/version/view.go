// Package version finds what a version of a volume has.
//
//	leaves that changed, newest checkpoint last ──┐ of one place, from the version on:
//	                                              ├────────────────────────────────────► the first that has blocks ─► entries
//	leaves in the index                         ──┘ the changed first
//
// The leaves of a place lie side by side in the index, oldest first and the head's last (package extentmap draws them), so one seek
// finds what a version has, whoever else has it.
package version

import (
	"slices"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Source is a copyset's content; what it points to is guarded by the copyset's lock, which New and Still need.
type Source struct {
	Maps        *disk.Index
	Incarnation uint64
	// Versions are those of the volume.
	Versions extent.Versions
	// Overlays are what changed and is not durable, oldest first.
	Overlays []*extentmap.Overlay
}

// View is a part of a chunk as a version of its volume has it. What is not durable is of the moment in which the view was made; the
// rest is in the index, and what a checkpoint moves there meanwhile is the same.
type View struct {
	maps        *disk.Index
	incarnation uint64
	chunk       layout.ChunkID
	// versions are those of the volume from the view's on.
	versions []uint64
	// changed are the leaves of these versions and of the head that are newer than those in the index.
	changed map[extent.LeafID]*extent.Leaf
}

// New returns a view of n blocks of a chunk in a version, which is there.
func New(src *Source, version uint64, chunk layout.ChunkID, first, n uint32) *View {
	v := &View{
		maps: src.Maps, incarnation: src.Incarnation, chunk: chunk, versions: src.Versions.From(version),
		changed: make(map[extent.LeafID]*extent.Leaf),
	}
	for _, o := range src.Overlays {
		for i := first / extent.LeafBlocks; i <= (first+n-1)/extent.LeafBlocks; i++ {
			id := extent.LeafID{Chunk: chunk, Index: i}
			if l := o.Leaves[id]; l != nil {
				v.changed[id] = l.Clone(l.Gen, l.Seq) // the owner goes on changing it
			}
			for _, id.Version = range v.versions {
				if l := o.Leaves[id]; l != nil {
					v.changed[id] = l
				}
			}
		}
	}
	return v
}

// Still tells whether what was found is right: to delete a version renames leaves of others, and an image has others.
func (v *View) Still(src *Source) bool {
	now := src.Versions.From(v.versions[0])
	return src.Incarnation == v.incarnation && slices.Equal(v.versions, now[:min(len(v.versions), len(now))])
}

// Fill fills ents with what the version has from block first on.
func (v *View) Fill(first uint32, ents []extent.Entry) error {
	clear(ents)
	version := v.versions[0]
	for k := 0; k < len(ents); {
		i, b := (first+uint32(k))/extent.LeafBlocks, (first+uint32(k))%extent.LeafBlocks
		_, l, err := v.Leaf(extent.LeafID{Chunk: v.chunk, Index: i, Version: version})
		if err != nil {
			return err
		}
		for ; b < extent.LeafBlocks && k < len(ents); b, k = b+1, k+1 {
			if l != nil && l.Born < version {
				ents[k] = extent.Entry{Addr: l.Addr[b], CRC: l.CRC[b]}
			}
		}
	}
	return nil
}

// Leaf returns the first leaf from id on of the same place that has blocks; nil when there is none. The head's is the last.
func (v *View) Leaf(id extent.LeafID) (extent.LeafID, *extent.Leaf, error) {
	at, l, err := v.maps.FirstLeaf(v.incarnation, id, func(at extent.LeafID) bool { return v.changed[at] != nil || v.gone(at) })
	if err != nil {
		return id, nil, err
	}
	better := func(is extent.LeafID) bool {
		changed := v.changed[is]
		return changed != nil && changed.Allocated != 0 && is.Compare(id) >= 0 && (l == nil || is.Compare(at) < 0)
	}
	is := id
	for _, is.Version = range v.versions {
		if better(is) {
			return is, v.changed[is], nil
		}
	}
	if is = id.Head(); better(is) {
		return is, v.changed[is], nil
	}
	return at, l, nil
}

// gone tells that a leaf in the index is one of a version that was deleted; its own deletion is not durable yet.
func (v *View) gone(id extent.LeafID) bool {
	_, there := slices.BinarySearch(v.versions, id.Version)
	return id.Version != 0 && !there
}

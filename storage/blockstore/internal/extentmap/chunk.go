package extentmap

import (
	"math/bits"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Chunk is what is known of a chunk's leaves. A nil Chunk has none.
type Chunk struct {
	id layout.ChunkID
	// present has a bit for each leaf that has blocks.
	present []uint64
	// leaves holds those leaves that are in memory; it is nil when none is.
	leaves []*extent.Leaf
	// resident is the number of leaves in memory, slot the chunk's place in Map.Cached when it is not 0.
	resident, slot int
	// Changes counts the changes of the map: a leaf that was read from the index is only used if none came between.
	Changes uint64
}

// ID returns which chunk it is.
func (ch *Chunk) ID() layout.ChunkID { return ch.id }

// Has reports whether leaf i has blocks.
func (ch *Chunk) Has(i uint32) bool {
	return ch != nil && int(i/64) < len(ch.present) && ch.present[i/64]&(1<<(i%64)) != 0
}

// Leaf returns leaf i if it is in memory.
func (ch *Chunk) Leaf(i uint32) *extent.Leaf {
	if ch != nil && int(i) < len(ch.leaves) {
		return ch.leaves[i]
	}
	return nil
}

// Leaves returns the leaves by number, nil for those that are not in memory. The slice is the chunk's.
func (ch *Chunk) Leaves() []*extent.Leaf { return ch.leaves }

// Next returns the first leaf from leaf i on that has blocks.
func (ch *Chunk) Next(i uint32) (uint32, bool) {
	if ch == nil {
		return 0, false
	}
	for w := int(i / 64); w < len(ch.present); w++ {
		m := ch.present[w]
		if w == int(i/64) {
			m &= ^uint64(0) << (i % 64)
		}
		if m != 0 {
			return uint32(w*64 + bits.TrailingZeros64(m)), true
		}
	}
	return 0, false
}

func (ch *Chunk) setPresent(i uint32) {
	if n := int(i/64) + 1; n > len(ch.present) {
		ch.present = append(ch.present, make([]uint64, n-len(ch.present))...)
	}
	ch.present[i/64] |= 1 << (i % 64)
}

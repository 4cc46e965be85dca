package extent

import (
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// sectorSize is the unit of offsets and lengths, in bytes.
	sectorSize = 512
	// ChunkMax is the most that a chunk can be long, in bytes: what a 32-bit offset reaches.
	ChunkMax = 1 << 32
)

// Span is a range of bytes in terms of blocks.
type Span struct {
	// First is the number of the first block, N the number of blocks that the range touches.
	First, N uint32
	// Head is where the range starts within the first block; Tail is how much of the last block it covers. The first
	// block is partial when Head is not 0 or, if it is also the last, when Tail is not the block size.
	Head, Tail uint32
}

// NewSpan checks a range of bytes and returns it as a span.
func NewSpan(off uint32, length int) (Span, error) {
	if length <= 0 || off%sectorSize != 0 || length%sectorSize != 0 || uint64(off)+uint64(length) > ChunkMax {
		return Span{}, fmt.Errorf("%w: %d bytes at %d", ErrRange, length, off)
	}
	end := uint64(off) + uint64(length)
	sp := Span{First: off / layout.BlockSize, Head: off % layout.BlockSize}
	sp.N = uint32((end+layout.BlockSize-1)/layout.BlockSize) - sp.First
	sp.Tail = uint32((end-1)%layout.BlockSize) + 1
	return sp, nil
}

// Part returns the part of block i of the span that is in the range: from, to within the block.
func (sp Span) Part(i uint32) (from, to uint32) {
	to = layout.BlockSize
	if i == 0 {
		from = sp.Head
	}
	if i == sp.N-1 {
		to = sp.Tail
	}
	return from, to
}

// Whole reports whether all of block i of the span is in the range.
func (sp Span) Whole(i uint32) bool {
	from, to := sp.Part(i)
	return from == 0 && to == layout.BlockSize
}

// WholeBlocks returns the blocks of the span that are wholly in the range: n of them from the from-th.
func (sp Span) WholeBlocks() (from, n uint32) {
	n = sp.N
	if !sp.Whole(0) {
		from, n = 1, n-1
	}
	if n > 0 && !sp.Whole(sp.N-1) {
		n--
	}
	return from, n
}

// At returns where block i of the span lies in the range's bytes; i must not be a block that starts before the range.
func (sp Span) At(i uint32) int {
	if i == 0 {
		return 0
	}
	return int(i)*layout.BlockSize - int(sp.Head)
}

// Edges holds the new content of the partial blocks at the ends of a span that is written; nil where there is none.
type Edges struct {
	Head, Tail       *[layout.BlockSize]byte
	HeadCRC, TailCRC uint32
}

// Block returns the new content of block i of a span to which data is written.
func (sp Span) Block(i uint32, data []byte, e *Edges) []byte {
	switch {
	case i == 0 && e.Head != nil:
		return e.Head[:]
	case i == sp.N-1 && e.Tail != nil:
		return e.Tail[:]
	}
	at := sp.At(i)
	return data[at : at+layout.BlockSize]
}

// CRC returns the checksum of block i of a span to which data is written. crcs are those of the whole blocks; nil: they are
// computed.
func (sp Span) CRC(i uint32, data []byte, crcs []uint32, e *Edges) uint32 {
	switch {
	case i == 0 && e.Head != nil:
		return e.HeadCRC
	case i == sp.N-1 && e.Tail != nil:
		return e.TailCRC
	case crcs != nil:
		from, _ := sp.WholeBlocks()
		return crcs[i-from]
	}
	return Checksum(sp.Block(i, data, e))
}

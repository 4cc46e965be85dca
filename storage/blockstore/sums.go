package blockstore

import (
	"math/bits"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
)

// NextSums is NextRun without Data: it reads the extent maps and no block. Versions are left out as there.
func (im *Image) NextSums() (BlockRun, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.closed {
		return BlockRun{}, ErrImageClosed
	}
	for im.todo == 0 {
		if err := im.nextLeaf(); err != nil {
			return BlockRun{}, err
		}
		if im.curID.Version == 0 {
			im.todo = im.cur.Allocated
		}
	}
	i := bits.TrailingZeros64(im.todo)
	n := bits.TrailingZeros64(^(im.todo >> i))
	im.todo &^= ^uint64(0) >> (64 - n) << i
	return BlockRun{
		Chunk: im.curID.Chunk, First: im.curID.Index*extent.LeafBlocks + uint32(i),
		CRCs: im.crcs[:copy(im.crcs[:], im.cur.CRC[i:i+n])],
	}, nil
}

package blockstore

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestIndexBounded overwrites a volume at random for long, with a checkpoint after each stretch of it: the index does not go on
// growing, and what is gathered leaves it small.
func TestIndexBounded(t *testing.T) {
	const (
		blocks      = 8192
		checkpoints = 240
		writes      = 256 // of a checkpoint: most leaves change
		// A checkpoint writes about 10 bytes per block of the volume, and after 24 of them the index merges: without that it would
		// come to 2400. Gathered a block takes its checksum and a part of its leaf.
		scatteredMax, gatheredMax = 256, 8 // bytes per block
	)
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	p := pattern(1, 1<<20)
	place := func(b int) (layout.ChunkID, uint32) {
		at := uint64(b) * layout.BlockSize
		return layout.ChunkID{Volume: 1, Index: uint32(at / layout.DefaultChunkSize)}, uint32(at % layout.DefaultChunkSize)
	}
	for b := 0; b < blocks; b += stretchBlocks {
		ch, off := place(b)
		mustWrite(t, c, ch, off, p)
	}
	mustCommit(t, s, c.Freeze(nil))
	rng := rand.New(rand.NewPCG(1, 4))
	var most int64
	for range checkpoints {
		for range writes {
			ch, off := place(rng.IntN(blocks))
			mustWrite(t, c, ch, off, p[:layout.BlockSize])
		}
		mustCommit(t, s, c.Freeze(nil))
		most = max(most, s.Space().Index)
	}
	if most > scatteredMax*blocks {
		t.Errorf("the index took up to %d bytes, %d per block", most, most/blocks)
	}
	for _, ch := range c.Chunks() {
		gatherAll(t, c, ch)
	}
	mustCommit(t, s, c.Freeze(nil))
	if err := s.index.DB.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	n := s.Space().Index
	for end := time.Now().Add(10 * time.Second); n > gatheredMax*blocks && time.Now().Before(end); n = s.Space().Index {
		time.Sleep(time.Millisecond) // files that are not needed any more are removed in the background
	}
	if n > gatheredMax*blocks {
		t.Errorf("after it was gathered and merged the index takes %d bytes, %d per block", n, n/blocks)
	}
	t.Logf("at most %d bytes per block, %d in the end", most/blocks, n/blocks)
}

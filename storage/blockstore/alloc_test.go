package blockstore

import (
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The most objects that a call may make on the heap in the steady state, on average.
const (
	readAllocsMax = 0
	// writeAllocsMax: the note of a deferred block; the growth of the overlay's lists is spread over many writes.
	writeAllocsMax = 2
)

// TestAllocations bounds what the hot paths leave to the garbage collector.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and empties pools at random")
	}
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	p := pattern(1, layout.BlockSize)
	crcs := blockCRCs(p)
	const blocks = 256
	for i := range uint32(blocks) {
		mustWrite(t, c, chunk0, i*layout.BlockSize, p)
	}
	i := uint32(0)
	got := testing.AllocsPerRun(1000, func() {
		i++
		if err := c.Write(chunk0, i%blocks*layout.BlockSize, p, crcs); err != nil {
			t.Fatal(err)
		}
	})
	if got > writeAllocsMax {
		t.Errorf("a write of 4 KiB makes %v objects, at most %d are allowed", got, writeAllocsMax)
	}
	mustCommit(t, s, c.Freeze(nil))
	dst, sums := make([]byte, layout.BlockSize), make([]uint32, 0, 1)
	got = testing.AllocsPerRun(1000, func() {
		i++
		if _, err := c.Read(chunk0, i%blocks*layout.BlockSize, dst, sums); err != nil {
			t.Fatal(err)
		}
	})
	if got > readAllocsMax {
		t.Errorf("a read of 4 KiB makes %v objects, at most %d are allowed", got, readAllocsMax)
	}
}

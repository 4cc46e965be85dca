package disk

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// checkAreas counts the free blocks of each area anew.
func checkAreas(t *testing.T, a *allocator) {
	t.Helper()
	for i, got := range a.mu.areas {
		var want uint16
		for b := extent.Addr(i) * areaBlocks; b < a.areaEndLocked(extent.Addr(i)*areaBlocks); b++ {
			if bit(a.mu.free, b) {
				want++
			}
		}
		if got != want {
			t.Fatalf("area %d has %d free blocks, not %d", i, want, got)
		}
	}
}

// TestAreasCrowded: what would begin a crowded area takes nothing until it settles for that.
func TestAreasCrowded(t *testing.T) {
	a := &allocator{limit: ^uint64(0)}
	a.extend(8 * areaBlocks)
	for b := extent.Addr(0); b < 8*areaBlocks; b++ {
		if b%areaBlocks >= crowdedBelow-1 {
			a.reserve(b, 1)
		}
	}
	if runs, res := a.take(1, false, nil); res != allocCrowded || len(runs) > 0 {
		t.Fatalf("%v %v", runs, res)
	}
	if !a.crowded() {
		t.Fatal("not crowded")
	}
	runs, res := a.take(1, true, nil)
	if res != allocDone || len(runs) != 1 {
		t.Fatalf("%v %v", runs, res)
	}
	if runs, res = a.take(1, false, nil); res != allocDone || len(runs) != 1 { // the area has begun
		t.Fatalf("%v %v", runs, res)
	}
	checkAreas(t, a)
	a.release([]extent.Run{{Start: 5*areaBlocks + crowdedBelow, N: 20}}, false)
	runs, _ = a.take(crowdedBelow, true, nil)
	if runs[len(runs)-1].Start/areaBlocks != 5 {
		t.Fatalf("the roomiest area is 5: %v", runs)
	}
	checkAreas(t, a)
}

// TestAreasFarAway: free blocks are found beyond the areas that are examined for the roomiest.
func TestAreasFarAway(t *testing.T) {
	const n = (areasExamined + 10) * areaBlocks
	a := &allocator{limit: ^uint64(0)}
	a.extend(n)
	a.reserve(0, n-3)
	runs, res := a.take(3, true, nil)
	if res != allocDone || len(runs) != 1 || runs[0].Start != n-3 {
		t.Fatalf("%v %v", runs, res)
	}
}

// TestSpread: random overwrites of a full volume lie together, because the file grows, but to not more than twice what is
// used.
func TestSpread(t *testing.T) {
	const used = 64 * areaBlocks
	f := newTestFile(t, 16*areaBlocks*layout.BlockSize)
	rng := rand.New(rand.NewPCG(1, 2))
	blocks := make([]extent.Addr, 0, used)
	for range used {
		runs, err := f.Allocate(1, nil)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, runs[0].Start)
	}
	runs := 0
	var last extent.Addr
	const overwrites = 20 * used
	for range overwrites {
		r, err := f.Allocate(1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r[0].Start != last+1 {
			runs++
		}
		last = r[0].Start
		i := rng.IntN(used)
		f.Retire(1)
		f.Release([]extent.Run{{Start: blocks[i], N: 1}}, false)
		blocks[i] = last
	}
	if size := f.alloc.size(); size > 2*used+16*areaBlocks+areaBlocks {
		t.Fatalf("%d blocks for %d", size, used)
	}
	t.Logf("%.1f blocks a run, file %d for %d", float64(overwrites)/float64(runs), f.alloc.size(), used)
	if overwrites < 3*runs {
		t.Fatal("the runs are short")
	}
	checkAreas(t, &f.alloc)
}

func newTestFile(t *testing.T, growStep int64) *File {
	t.Helper()
	fs := vfs.NewMem()
	f := NewFile(fs, ".", 0, 0, growStep)
	if err := errors.Join(f.Format([16]byte{1}), f.Open([16]byte{1})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

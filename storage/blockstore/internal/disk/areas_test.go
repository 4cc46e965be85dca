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
		if b%areaBlocks >= extent.Addr(crowdedBelow[few])-1 {
			a.reserve(b, 1)
		}
	}
	if runs, res := a.take(1, false, nil); res != allocCrowded || len(runs) > 0 {
		t.Fatalf("%v %v", runs, res)
	}
	if !a.crowded(few) {
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
	a.release([]extent.Run{{Start: 5*areaBlocks + extent.Addr(crowdedBelow[few]), N: 20}}, false)
	for range crowdedBelow[few] {
		runs, _ = a.take(1, true, nil)
	}
	if runs[0].Start/areaBlocks != 5 {
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

// churned returns a file with so many blocks in use, which were overwritten at random 20 times over, where they are, and
// in how many runs they were written.
func churned(t *testing.T, used int) (f *File, blocks []extent.Addr, writes, runs int) {
	t.Helper()
	f = newTestFile(t, 16*areaBlocks*layout.BlockSize)
	rng := rand.New(rand.NewPCG(1, 2))
	for range used {
		runs, err := f.Allocate(1, nil)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, runs[0].Start)
	}
	var last extent.Addr
	for range 20 * used {
		r, err := f.Allocate(1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r[0].Start != last+1 {
			runs++
		}
		writes++
		last = r[0].Start
		i := rng.IntN(used)
		f.Retire(1)
		f.Release([]extent.Run{{Start: blocks[i], N: 1}}, false)
		blocks[i] = last
	}
	return f, blocks, writes, runs
}

// TestSpread: random overwrites of a full volume lie together, because the file grows, but to not more than twice what is
// used.
func TestSpread(t *testing.T) {
	const used = 64 * areaBlocks
	f, _, writes, runs := churned(t, used)
	if size := f.alloc.size(); size > 2*used+16*areaBlocks+areaBlocks {
		t.Fatalf("%d blocks for %d", size, used)
	}
	t.Logf("%.1f blocks a run, file %d for %d", float64(writes)/float64(runs), f.alloc.size(), used)
	if writes < 3*runs {
		t.Fatal("the runs are short")
	}
	checkAreas(t, &f.alloc)
}

// TestSpreadMany: a volume that was overwritten at random is overwritten again in large pieces, three times over. They
// lie together, and the file grows to not more than three times what is used.
func TestSpreadMany(t *testing.T) {
	const used, piece = 64 * areaBlocks, 256
	f, blocks, _, _ := churned(t, used)
	runs := 0
	for i := 0; i < 3*used; i += piece {
		r, err := f.Allocate(piece, nil)
		if err != nil {
			t.Fatal(err)
		}
		runs += len(r)
		old := blocks[i%used : i%used+piece]
		at := 0
		f.Retire(piece)
		for _, r := range r {
			for b := range extent.Addr(r.N) {
				f.Release([]extent.Run{{Start: old[at], N: 1}}, false)
				old[at] = r.Start + b
				at++
			}
		}
		if _, err := f.Allocate(1, nil); err != nil { // small writes go on beside
			t.Fatal(err)
		}
	}
	if size := f.alloc.size(); size > 3*used+16*areaBlocks+areaBlocks {
		t.Fatalf("%d blocks for %d", size, used)
	}
	t.Logf("%.1f blocks a run, file %d for %d", 3*float64(used)/float64(runs), f.alloc.size(), used)
	if 3*used < 16*runs {
		t.Fatal("the runs are short")
	}
	checkAreas(t, &f.alloc)
}

// TestSpreadShort: a disk that is short of room is not asked at each allocation.
func TestSpreadShort(t *testing.T) {
	fs := &counting{FS: vfs.NewMem(), free: 1 << 20}
	f := NewFile(fs, ".", 0, 0, 16*areaBlocks*layout.BlockSize, 1)
	if err := errors.Join(f.Format([16]byte{1}), f.Open([16]byte{1})); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.alloc.extend(8 * areaBlocks)
	for b := extent.Addr(1); b < 8*areaBlocks; b++ {
		if b%4 != 0 {
			f.alloc.reserve(b, 1)
		}
	}
	for range areaBlocks {
		if _, err := f.Allocate(1, nil); err != nil {
			t.Fatal(err)
		}
	}
	if fs.asked != 1 {
		t.Errorf("asked %d times", fs.asked)
	}
}

// counting is a file system with little room that counts how often it is asked for it.
type counting struct {
	vfs.FS
	free  int64
	asked int
}

func (c *counting) Space(dir string) (vfs.Space, error) {
	c.asked++
	s, err := c.FS.Space(dir)
	s.Free = c.free
	return s, err
}

func newTestFile(t *testing.T, growStep int64) *File {
	t.Helper()
	fs := vfs.NewMem()
	f := NewFile(fs, ".", 0, 0, growStep, 1)
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

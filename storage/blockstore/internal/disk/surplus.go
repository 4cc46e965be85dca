package disk

import (
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// surplusRuns bounds the runs that one GiveBack gives back.
const surplusRuns = 1024

// takeSurplus takes up to most blocks that follow each other, whole empty areas, as freed ones that wait, the last of the file
// before b. It returns false when there is no empty area.
func (a *allocator) takeSurplus(b extent.Addr, most uint64) (extent.Run, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	to := min(int(b/areaBlocks), len(a.mu.areas))
	for to > 0 && a.mu.areas[to-1] < areaBlocks {
		to--
	}
	from := to
	for from > 0 && a.mu.areas[from-1] == areaBlocks && uint64(to-from+1)*areaBlocks <= most {
		from--
	}
	r := extent.Run{Start: extent.Addr(from) * areaBlocks, N: uint32(to-from) * areaBlocks}
	if r.N == 0 {
		return r, false
	}
	a.clearLocked(r.Start, uint64(r.N))
	a.mu.freeBlocks -= uint64(r.N)
	a.mu.allocated += uint64(r.N)
	a.mu.pending += uint64(r.N)
	return r, true
}

// GiveBack gives the disk space of empty areas back to the file system, from the end of the file on, as long as there are more
// free blocks than the streams may have (spareOf), and a step of growth besides. Deleted volumes and gathered blocks leave such
// areas. It returns how many blocks that were.
func (b *File) GiveBack() (blocks int64) {
	b.settle.Do(b.digHoles)
	at := b.alloc.size()
	for range surplusRuns {
		c := b.alloc.counts()
		surplus := c.Free - max(spareOf[many]*(c.Used+c.Pending), b.growStep/layout.BlockSize)
		if surplus < areaBlocks {
			break
		}
		r, ok := b.alloc.takeSurplus(at, min(uint64(surplus), uint64(b.growStep)/layout.BlockSize))
		if !ok {
			break
		}
		at = r.Start
		if !b.punch(r) {
			b.alloc.release([]extent.Run{r}, true)
			break
		}
		b.alloc.releaseHole(r)
		blocks += int64(r.N)
	}
	return blocks
}

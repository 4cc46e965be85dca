package disk

import "github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"

// Blocks are given out area by area: the free blocks of one area, in their order, then those of the roomiest area that
// is near. What is written in one stretch of time so lies together, small random writes too, and a checkpoint brings it
// to the file as few large writes. Overwriting empties old areas again, the oldest most.
//
//	file  │####│#··#│····│#·#·│·#··│      # in use   · free
//	        full      ▲next     then the last: three of four are free

const (
	// areaBlocks is the size of an area: a multiple of wordBlocks, and its count of free blocks fits 16 bits.
	areaBlocks = 256
	// areasExamined is among how many areas the roomiest is looked for, so that the search costs the same in a large file.
	areasExamined = 4096
	// crowdedBelow is the number of free blocks below which it is not worth to begin an area if the file may grow: at half,
	// free runs are two blocks long on average.
	crowdedBelow = areaBlocks / 2
)

// areaEndLocked returns the first block behind the area of b.
func (a *allocator) areaEndLocked(b extent.Addr) extent.Addr {
	return min((b/areaBlocks+1)*areaBlocks, a.mu.blocks)
}

// nextInAreaLocked returns the next free block of the area that is being filled, and begins another one when it is full.
// There is a free block.
func (a *allocator) nextInAreaLocked() extent.Addr {
	if a.mu.next < a.mu.blocks && a.mu.next%areaBlocks != 0 {
		if b, ok := a.nextFreeLocked(a.mu.next, a.areaEndLocked(a.mu.next)); ok {
			return b
		}
	}
	start := extent.Addr(a.roomiestLocked()) * areaBlocks
	b, _ := a.nextFreeLocked(start, a.areaEndLocked(start))
	return b
}

// crowdedLocked tells whether the next block would begin an area that is crowded.
func (a *allocator) crowdedLocked() bool {
	if a.mu.next < a.mu.blocks && a.mu.next%areaBlocks != 0 {
		if _, ok := a.nextFreeLocked(a.mu.next, a.areaEndLocked(a.mu.next)); ok {
			return false
		}
	}
	return a.mu.areas[a.roomiestLocked()] < crowdedBelow
}

// crowded tells whether the next block would begin an area that is crowded.
func (a *allocator) crowded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.freeBlocks == 0 || a.crowdedLocked()
}

// roomiestLocked returns the area with the most free blocks among the next ones, the nearest of them. There is a free
// block.
func (a *allocator) roomiestLocked() int {
	n := len(a.mu.areas)
	at := int((a.mu.next + areaBlocks - 1) / areaBlocks)
	var best int
	var most uint16
	for i := range n {
		if i >= areasExamined && most > 0 {
			break
		}
		if at >= n {
			at = 0
		}
		if free := a.mu.areas[at]; free > most {
			best, most = at, free
			if free == areaBlocks {
				break
			}
		}
		at++
	}
	return best
}

// begin lets the search for the next area begin at b.
func (a *allocator) begin(b extent.Addr) {
	a.mu.Lock()
	a.mu.next = (b + areaBlocks - 1) / areaBlocks * areaBlocks
	a.mu.Unlock()
}

package disk

import "github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"

// Blocks are given out area by area: the free blocks of one area, in their order, then those of the roomiest area that
// is near. What is written in one stretch of time so lies together, small random writes too, and a checkpoint brings it
// to the file as few large writes. Overwriting empties old areas again, the oldest most.
//
//	file  │####│#··#│····│#·#·│·#··│      # in use   · free
//	        full      ▲next     then the last: three of four are free
//
// Large payloads have a stream of their own, which is content with emptier areas only: they are written and read at once,
// in as many pieces as they lie in. What is gathered because it lay scattered goes to empty areas only. For that the file may grow
// more than for others: what lay scattered leaves empty areas in the end, and those that are too many are given back (surplus.go).

const (
	// areaBlocks is the size of an area: a multiple of wordBlocks, and its count of free blocks fits 16 bits.
	areaBlocks = 256
	// areasExamined is among how many areas the roomiest is looked for, so that the search costs the same in a large file.
	areasExamined = 4096
	// manyBlocks is from how many blocks on an allocation belongs to the stream of large ones.
	manyBlocks = 16
)

// stream is one of the streams in which blocks are given out.
type stream uint8

const (
	few stream = iota
	many
	together
	streams
)

// streamOf returns the stream of an allocation of n blocks.
func streamOf(n uint32) stream {
	if n >= manyBlocks {
		return many
	}
	return few
}

// crowdedBelow is the number of free blocks below which it is not worth to begin an area if the file may grow. For few, at
// half, free runs are two blocks long on average; for many, at seven eighths, eight blocks.
var crowdedBelow = [streams]uint16{few: areaBlocks / 2, many: areaBlocks * 7 / 8, together: areaBlocks}

// spareOf is how many free blocks the file may have for each one in use, so that a stream need not begin a crowded area.
// With two, a volume that was overwritten at random can be written anew from its start to its end in large pieces.
var spareOf = [streams]int64{few: 1, many: 2, together: 4}

// areaEndLocked returns the first block behind the area of b.
func (a *allocator) areaEndLocked(b extent.Addr) extent.Addr {
	return min((b/areaBlocks+1)*areaBlocks, a.mu.blocks)
}

// restLocked returns the next free block of the area that s is filling, if there is one.
func (a *allocator) restLocked(s stream) (extent.Addr, bool) {
	next := a.mu.next[s]
	if next >= a.mu.blocks || next%areaBlocks == 0 {
		return 0, false
	}
	return a.nextFreeLocked(next, a.areaEndLocked(next))
}

// nextInAreaLocked returns the next free block of the area that s is filling, and begins another one when it is full.
// There is a free block.
func (a *allocator) nextInAreaLocked(s stream) extent.Addr {
	if b, ok := a.restLocked(s); ok {
		return b
	}
	start := extent.Addr(a.roomiestLocked(s)) * areaBlocks
	b, _ := a.nextFreeLocked(start, a.areaEndLocked(start))
	return b
}

// crowdedLocked tells whether the next block of s would begin an area that is crowded.
func (a *allocator) crowdedLocked(s stream) bool {
	if _, ok := a.restLocked(s); ok && s != together {
		return false
	}
	return a.mu.areas[a.roomiestLocked(s)] < crowdedBelow[s]
}

// takeTogether allocates n blocks that follow each other, at most an area: of the area that was begun last, or of an empty one.
// It returns false when there are none.
func (a *allocator) takeTogether(n uint32) (extent.Run, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.allocated+uint64(n) > a.limit || a.mu.freeBlocks < uint64(n) {
		return extent.Run{}, false
	}
	b, ok := a.restLocked(together)
	if !ok || a.runLenLocked(b, min(n, uint32(a.areaEndLocked(b)-b))) < n {
		area := a.roomiestLocked(together)
		if b = extent.Addr(area) * areaBlocks; a.mu.areas[area] < areaBlocks || n > areaBlocks {
			return extent.Run{}, false
		}
	}
	a.clearLocked(b, uint64(n))
	a.mu.freeBlocks -= uint64(n)
	a.mu.allocated += uint64(n)
	a.mu.next[together] = b + extent.Addr(n)
	return extent.Run{Start: b, N: n}, true
}

// crowded tells whether the next block of s would begin an area that is crowded.
func (a *allocator) crowded(s stream) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.freeBlocks == 0 || a.crowdedLocked(s)
}

// roomiestLocked returns the area with the most free blocks among the next ones of s, the nearest of them. There is a free
// block.
func (a *allocator) roomiestLocked(s stream) int {
	n := len(a.mu.areas)
	at := int((a.mu.next[s] + areaBlocks - 1) / areaBlocks)
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

// begin lets the search of s for its next area begin at b.
func (a *allocator) begin(s stream, b extent.Addr) {
	a.mu.Lock()
	a.mu.next[s] = (b + areaBlocks - 1) / areaBlocks * areaBlocks
	a.mu.Unlock()
}

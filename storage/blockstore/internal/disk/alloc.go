package disk

import (
	"math/bits"
	"sync"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
)

const wordBlocks = 64

// allocator knows which blocks of the data file may be written. It is only memory: it is rebuilt at open. A block is in
// one of four states: free (its bit is set), a hole (free, but without disk space behind it), in use, or freed and
// waiting (pending). Invariant: blocks of the file = free + holes + allocated, where pending ones are allocated.
type allocator struct {
	mu struct {
		sync.Mutex
		free  []uint64
		areas []uint16 // see areas.go
		// logged and orphan are as long as free, see logged.go; orphans is the number of bits in orphan.
		logged, orphan []uint64
		orphans        uint64
		// blocks is the size of the data file, in blocks.
		blocks extent.Addr
		// freeBlocks is the number of bits set, allocated the number of blocks in use or pending, the header included.
		freeBlocks, allocated uint64
		pending               uint64
		// next is the block from which on the area that holds it is filled, of each stream.
		next [streams]extent.Addr
		// holes are free runs without disk space, holeBlocks their sum.
		holes      []extent.Run
		holeBlocks uint64
	}
	// limit is how many blocks may be allocated: capacity less reserve.
	limit uint64
}

// Counts is what the allocator has, in blocks. The file is all but Logged together: that is a part of Pending.
type Counts struct {
	// Free have disk space behind them, Holes have not. Used are in use, the header too, Pending freed and waiting; Logged
	// are those of them that only the raft log has.
	Free, Holes, Used, Pending, Logged int64
	// File is the length of the file.
	File int64
}

// extend makes the file's size known: the blocks from the old size on are free. n counts from the file's start.
func (a *allocator) extend(n extent.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.mu.blocks
	if n <= old {
		return
	}
	a.growBitmapLocked(n)
	a.setLocked(old, uint64(n-old))
	a.mu.freeBlocks += uint64(n - old)
}

// growBitmapLocked makes room for n blocks, none of the new ones free.
func (a *allocator) growBitmapLocked(n extent.Addr) {
	words := int((n + wordBlocks - 1) / wordBlocks)
	for len(a.mu.free) < words {
		a.mu.free = append(a.mu.free, make([]uint64, max(words-len(a.mu.free), len(a.mu.free)/8))...)
	}
	for _, m := range []*[]uint64{&a.mu.logged, &a.mu.orphan} {
		*m = append(*m, make([]uint64, len(a.mu.free)-len(*m))...)
	}
	if more := int((n+areaBlocks-1)/areaBlocks) - len(a.mu.areas); more > 0 {
		a.mu.areas = append(a.mu.areas, make([]uint16, more)...)
	}
	a.mu.blocks = n
}

// setLocked marks n blocks at b free in the bitmap; they were not.
func (a *allocator) setLocked(b extent.Addr, n uint64) { a.flipLocked(b, n, true) }

// clearLocked marks n blocks at b not free in the bitmap; they were.
func (a *allocator) clearLocked(b extent.Addr, n uint64) { a.flipLocked(b, n, false) }

func (a *allocator) flipLocked(b extent.Addr, n uint64, free bool) {
	for n > 0 {
		k := min(n, wordBlocks-uint64(b%wordBlocks))
		mask := (^uint64(0) >> (wordBlocks - k)) << (b % wordBlocks)
		w := &a.mu.free[b/wordBlocks]
		if free && *w&mask != 0 || !free && *w&mask != mask {
			panic("blockstore: a block was freed or allocated twice")
		}
		*w ^= mask
		if free {
			a.mu.areas[b/areaBlocks] += uint16(k)
		} else {
			a.mu.areas[b/areaBlocks] -= uint16(k)
		}
		b += extent.Addr(k)
		n -= k
	}
}

// reserve marks n blocks at b in use, while the store is opened. It returns false when one of them is not free.
func (a *allocator) reserve(b extent.Addr, n uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b+extent.Addr(n) > a.mu.blocks || b+extent.Addr(n) < b {
		return false
	}
	for i := range extent.Addr(n) {
		if a.mu.free[(b+i)/wordBlocks]&(1<<((b+i)%wordBlocks)) == 0 {
			return false
		}
	}
	a.clearLocked(b, uint64(n))
	a.mu.freeBlocks -= uint64(n)
	a.mu.allocated += uint64(n)
	return true
}

// allocResult says what take did.
type allocResult uint8

const (
	allocDone    allocResult = iota
	allocGrow                // not enough blocks with disk space behind them
	allocCrowded             // there are enough, but in small pieces
	allocLimit               // the limit is reached
)

// take allocates n blocks, all or none, and appends them to runs, as few as the areas allow. When it would have to begin
// a crowded area it takes nothing, unless the caller settles for that.
func (a *allocator) take(n uint32, settle bool, runs []extent.Run) ([]extent.Run, allocResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.mu.allocated+uint64(n) > a.limit:
		return runs, allocLimit
	case a.mu.freeBlocks < uint64(n):
		return runs, allocGrow
	case !settle && a.crowdedLocked(streamOf(n)):
		return runs, allocCrowded
	}
	for left := n; left > 0; {
		b := a.nextInAreaLocked(streamOf(n))
		k := a.runLenLocked(b, min(left, uint32(a.areaEndLocked(b)-b)))
		a.clearLocked(b, uint64(k))
		runs = extent.AppendRun(runs, b, k)
		left -= k
		a.mu.next[streamOf(n)] = b + extent.Addr(k)
	}
	a.mu.freeBlocks -= uint64(n)
	a.mu.allocated += uint64(n)
	return runs, allocDone
}

// nextFreeLocked returns the first free block in [from, end).
func (a *allocator) nextFreeLocked(from, end extent.Addr) (extent.Addr, bool) {
	for from < end {
		if from%areaBlocks == 0 && a.mu.areas[from/areaBlocks] == 0 {
			from += areaBlocks
			continue
		}
		w := a.mu.free[from/wordBlocks] >> (from % wordBlocks)
		if w != 0 {
			b := from + extent.Addr(bits.TrailingZeros64(w))
			return b, b < end
		}
		from = (from/wordBlocks + 1) * wordBlocks
	}
	return 0, false
}

// runLenLocked returns the number of free blocks at b, at most most.
func (a *allocator) runLenLocked(b extent.Addr, most uint32) uint32 {
	var n uint32
	for n < most && b < a.mu.blocks {
		room := wordBlocks - uint32(b%wordBlocks)
		k := uint32(bits.TrailingZeros64(^(a.mu.free[b/wordBlocks] >> (b % wordBlocks))))
		k = min(k, room)
		n += k
		b += extent.Addr(k)
		if k < room {
			break
		}
	}
	return min(n, most)
}

// release makes allocated blocks free. pending says that they were counted by retire.
func (a *allocator) release(runs []extent.Run, pending bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range runs {
		a.setLocked(r.Start, uint64(r.N))
		a.mu.freeBlocks += uint64(r.N)
		a.uncountLocked(uint64(r.N), pending)
	}
}

// releaseHole makes an allocated run free that has no disk space behind it any more.
func (a *allocator) releaseHole(r extent.Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.holes = append(a.mu.holes, r)
	a.mu.holeBlocks += uint64(r.N)
	a.uncountLocked(uint64(r.N), true)
}

func (a *allocator) uncountLocked(n uint64, pending bool) {
	a.mu.allocated -= n
	if pending {
		a.mu.pending -= n
	}
}

// retire counts n blocks that are in use as freed and waiting.
func (a *allocator) retire(n uint64) {
	a.mu.Lock()
	a.mu.pending += n
	a.mu.Unlock()
}

// takeHole removes a hole of at most n blocks, to be given to fillHole or putHole.
func (a *allocator) takeHole(n uint32) (extent.Run, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := len(a.mu.holes) - 1
	if k < 0 {
		return extent.Run{}, false
	}
	r := a.mu.holes[k]
	if r.N > n {
		a.mu.holes[k] = extent.Run{Start: r.Start + extent.Addr(n), N: r.N - n}
		r.N = n
	} else {
		a.mu.holes = a.mu.holes[:k]
	}
	return r, true
}

// fillHole makes a hole from takeHole, which has disk space now, free.
func (a *allocator) fillHole(r extent.Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setLocked(r.Start, uint64(r.N))
	a.mu.freeBlocks += uint64(r.N)
	a.mu.holeBlocks -= uint64(r.N)
}

// putHole takes a hole from takeHole back.
func (a *allocator) putHole(r extent.Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.holes = append(a.mu.holes, r)
}

// digHoles turns the free runs of at least least blocks into holes: at open it is not known which of them have disk
// space behind them.
func (a *allocator) digHoles(least uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for from := extent.Addr(0); ; {
		b, ok := a.nextFreeLocked(from, a.mu.blocks)
		if !ok {
			return
		}
		n := a.runLenLocked(b, 1<<31)
		from = b + extent.Addr(n)
		if n < least {
			continue
		}
		a.clearLocked(b, uint64(n))
		a.mu.freeBlocks -= uint64(n)
		a.mu.holes = append(a.mu.holes, extent.Run{Start: b, N: n})
		a.mu.holeBlocks += uint64(n)
	}
}

// size returns the size of the data file in blocks.
func (a *allocator) size() extent.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.blocks
}

// counts returns the number of blocks in each state.
func (a *allocator) counts() Counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Counts{
		Free: int64(a.mu.freeBlocks), Holes: int64(a.mu.holeBlocks), File: int64(a.mu.blocks),
		Used: int64(a.mu.allocated - a.mu.pending), Pending: int64(a.mu.pending), Logged: int64(a.mu.orphans),
	}
}

package disk

import (
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
)

// A block can have two owners: the index, or what will become it, and an entry of the raft log that was sideloaded.
// logged has a bit for each block that an entry holds, orphan one for each of those that the index does not have: not
// yet, or not any more. An orphan is counted as pending. A block is free when neither has it.
//
//	log: Log ─► logged, orphan ──index: Adopt──► logged ──index: Release──► logged, orphan ──log: Unlog──► free
//	                 └──────────log: Unlog──► free    └─────log: Unlog──► in use (index)

// orphanLocked makes a block one that only the log has.
func (a *allocator) orphanLocked(b extent.Addr) {
	set(a.mu.orphan, b)
	a.mu.orphans++
}

// unorphanLocked takes that back.
func (a *allocator) unorphanLocked(b extent.Addr) {
	unset(a.mu.orphan, b)
	a.mu.orphans--
}

func bit(m []uint64, b extent.Addr) bool { return m[b/wordBlocks]&(1<<(b%wordBlocks)) != 0 }
func set(m []uint64, b extent.Addr)      { m[b/wordBlocks] |= 1 << (b % wordBlocks) }
func unset(m []uint64, b extent.Addr)    { m[b/wordBlocks] &^= 1 << (b % wordBlocks) }

// eachBlock calls fn for the blocks of runs until it returns false.
func eachBlock(runs []extent.Run, fn func(b extent.Addr) bool) bool {
	for _, r := range runs {
		for i := range extent.Addr(r.N) {
			if !fn(r.Start + i) {
				return false
			}
		}
	}
	return true
}

// log makes blocks that were just taken those of an entry.
func (a *allocator) log(runs []extent.Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	eachBlock(runs, func(b extent.Addr) bool {
		set(a.mu.logged, b)
		a.orphanLocked(b)
		a.mu.pending++
		return true
	})
}

// hold makes blocks those of an entry, at open, when the index has told which blocks it has. It returns false, and
// changes nothing, when one of them is not in the file, or is another entry's.
func (a *allocator) hold(runs []extent.Run) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !eachBlock(runs, func(b extent.Addr) bool { return b > 0 && b < a.mu.blocks && !bit(a.mu.logged, b) }) {
		return false
	}
	eachBlock(runs, func(b extent.Addr) bool {
		set(a.mu.logged, b)
		if bit(a.mu.free, b) {
			a.clearLocked(b, 1)
			a.mu.freeBlocks--
			a.mu.allocated++
			a.mu.pending++
			a.orphanLocked(b)
		}
		return true
	})
	return true
}

// adopt gives orphans of the log to the index. It returns false, and changes nothing, when one of them is none.
func (a *allocator) adopt(runs []extent.Run) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !eachBlock(runs, func(b extent.Addr) bool { return b < a.mu.blocks && bit(a.mu.orphan, b) }) {
		return false
	}
	eachBlock(runs, func(b extent.Addr) bool {
		a.unorphanLocked(b)
		a.mu.pending--
		return true
	})
	return true
}

// disown takes back what adopt did.
func (a *allocator) disown(runs []extent.Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	eachBlock(runs, func(b extent.Addr) bool {
		a.orphanLocked(b)
		a.mu.pending++
		return true
	})
}

// leave makes those of the index's freed blocks orphans that the log holds, and returns the others.
func (a *allocator) leave(runs []extent.Run) []extent.Run {
	a.mu.Lock()
	defer a.mu.Unlock()
	if eachBlock(runs, func(b extent.Addr) bool { return !bit(a.mu.logged, b) }) {
		return runs
	}
	var rest []extent.Run
	eachBlock(runs, func(b extent.Addr) bool {
		if bit(a.mu.logged, b) {
			a.orphanLocked(b)
		} else {
			rest = extent.AppendRun(rest, b, 1)
		}
		return true
	})
	return rest
}

// unlog ends an entry's hold on blocks; orphans become free.
func (a *allocator) unlog(runs []extent.Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	eachBlock(runs, func(b extent.Addr) bool {
		if !bit(a.mu.logged, b) {
			panic("blockstore: the log released a block twice")
		}
		unset(a.mu.logged, b)
		if bit(a.mu.orphan, b) {
			a.unorphanLocked(b)
			a.setLocked(b, 1)
			a.mu.freeBlocks++
			a.uncountLocked(1, true)
		}
		return true
	})
}

// Log makes blocks that Allocate gave those of an entry of the raft log, until Unlog.
func (b *File) Log(runs []extent.Run) { b.alloc.log(runs) }

// Hold makes blocks those of an entry of the raft log, after Open and before the first Allocate. It returns false when
// they can not be.
func (b *File) Hold(runs []extent.Run) bool { return b.alloc.hold(runs) }

// Adopt gives blocks that only the log has to the index too. It returns false when one of them is no such block.
func (b *File) Adopt(runs []extent.Run) bool { return b.alloc.adopt(runs) }

// Disown takes back what Adopt did.
func (b *File) Disown(runs []extent.Run) { b.alloc.disown(runs) }

// Unlog ends the log's hold on blocks.
func (b *File) Unlog(runs []extent.Run) { b.alloc.unlog(runs) }

// Logged tells whether an entry of the raft log holds a block of the file.
func (b *File) Logged(at extent.Addr) bool {
	b.alloc.mu.Lock()
	defer b.alloc.mu.Unlock()
	return bit(b.alloc.mu.logged, at)
}

package blockstore

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// What was overwritten in small pieces lies scattered in the data file. To gather it is to copy a stretch of a chunk to blocks
// that lie together, and to move the extent map there:
//
//	Gather, by anybody          Exchange, by the owner         a checkpoint
//	pin, read, verify, write ─► is each block still the one ─► the new place is durable,
//	to new blocks               that was copied? move it       only now are the old blocks free
//
// A crash before the checkpoint leaves the index, and the blocks that it points to, as they were. The copies have the same
// bytes and checksums, so nothing that is compared between replicas changes. Blocks stay where they are that a version has too,
// that the raft log holds, or that changed since the last checkpoint.

const (
	// stretchLeaves is how much of a chunk is gathered at a time: 1 MiB, as much as an area of the data file.
	stretchLeaves = 4
	stretchBlocks = stretchLeaves * extent.LeafBlocks
	// gatherMin is by how many pieces a stretch has to become less, so that it is worth to be copied.
	gatherMin = 8
)

// Scatter tells how the blocks of a chunk lie in the data file.
type Scatter struct {
	extent.Fragments
	// Changes is another number after each change of the chunk's map.
	Changes uint64
}

// Scatter returns how the blocks of a chunk lie. It reads extent maps and leaves their cache as it is. A chunk that is not there
// has no blocks.
func (c *Copyset) Scatter(id layout.ChunkID) (Scatter, error) {
	var x Scatter
	c.mu.RLock()
	if ch := c.mu.Chunks[id]; ch != nil {
		x.Changes = ch.Changes
	}
	c.mu.RUnlock()
	for leaf := uint32(0); ; leaf++ {
		l, at, slot, err := c.peek(id, leaf)
		if l == nil || err != nil {
			return x, err
		}
		c.unpin(slot)
		leaf = at
		for i, a := range l.Addr {
			if a != 0 {
				x.Add(leaf*extent.LeafBlocks+uint32(i), a)
			}
		}
	}
}

// Gathered is a stretch of a chunk whose blocks were copied. It is for Copyset.Exchange, or Drop: the first of them ends it.
type Gathered struct {
	c     *Copyset
	chunk layout.ChunkID
	ended atomic.Bool
	// newest is the newest version of the volume when the blocks were copied.
	newest uint64
	// from are the blocks that were copied, in the order of the chunk, to where the copies are, in the same order.
	from []disk.Placed
	to   Blocks
	pins [2]int64
}

// Bytes returns how much was copied.
func (g *Gathered) Bytes() int64 { return int64(len(g.from)) * layout.BlockSize }

// Gather copies what is scattered in the stretch of a chunk that begins at block first, a multiple of 256, or in the first one
// behind it that has blocks; nil when it lies well enough, or there is no free space where it would. next is the block to go on
// with, 0 when nothing is left of the chunk. *ChecksumError when a block is damaged, *IOError and *PoisonedError leave
// everything as it is.
func (c *Copyset) Gather(id layout.ChunkID, first uint32) (g *Gathered, next uint32, err error) {
	if err := c.s.ready(); err != nil {
		return nil, 0, err
	}
	g = &Gathered{c: c, chunk: id}
	all, next, err := g.look(first)
	if err == nil && g.worth(all) {
		err = g.copy()
	} else {
		g.from = nil
	}
	if err != nil || len(g.from) == 0 {
		g.unpin()
		return nil, next, err
	}
	return g, next, nil
}

// look pins the stretch and returns its blocks; g.from gets those of them that can be moved.
func (g *Gathered) look(first uint32) (all []disk.Placed, next uint32, err error) {
	c := g.c
	c.mu.RLock()
	g.newest = c.mu.Versions[g.chunk.Volume].Newest()
	durable := c.mu.durable
	c.mu.RUnlock()
	end := uint32(0) // of the stretch, once its first leaf was found
	for leaf := first / extent.LeafBlocks; ; leaf++ {
		l, at, slot, err := c.peek(g.chunk, leaf)
		if l == nil || err != nil {
			return all, 0, err
		}
		g.pins[slot]++
		leaf = at
		if end == 0 {
			end = (leaf/stretchLeaves + 1) * stretchLeaves
		}
		if leaf >= end {
			return all, leaf / stretchLeaves * stretchBlocks, nil
		}
		movable := l.Seq <= durable && l.Born >= g.newest
		for i, a := range l.Addr {
			if a == 0 {
				continue
			}
			b := disk.Placed{Block: leaf*extent.LeafBlocks + uint32(i), Entry: extent.Entry{Addr: a, CRC: l.CRC[i]}}
			all = append(all, b)
			if movable && l.Own()&(1<<i) != 0 && !c.s.file.Logged(a) {
				g.from = append(g.from, b)
			}
		}
	}
}

// worth tells whether the blocks of a stretch would lie in few pieces, half as many as now at most, if those that were looked
// for lay together.
func (g *Gathered) worth(all []disk.Placed) bool {
	const elsewhere = Addr(1) << 60
	var now, then extent.Fragments
	moved := 0
	for _, b := range all {
		now.Add(b.Block, b.Addr)
		at := b.Addr
		if moved < len(g.from) && g.from[moved].Block == b.Block {
			at = elsewhere + Addr(moved)
			moved++
		}
		then.Add(b.Block, at)
	}
	return now.Pieces-then.Pieces >= gatherMin && 2*then.Pieces <= now.Pieces
}

// copy copies the blocks to where they lie together. Without such a place it forgets them.
func (g *Gathered) copy() error {
	file := g.c.s.file
	to, ok := file.AllocateTogether(uint32(len(g.from)))
	if !ok {
		g.from = nil
		return nil
	}
	if err := file.Copy(g.c.id, g.chunk, g.from, to.Start); err != nil {
		file.TakeBack([]Blocks{to})
		g.from = nil
		return err
	}
	g.to = to
	g.c.s.incoming.Add(int64(len(g.from)))
	return nil
}

func (g *Gathered) unpin() {
	g.c.readers[0].Add(-g.pins[0])
	g.c.readers[1].Add(-g.pins[1])
	g.pins = [2]int64{}
}

// Drop gives the copies back, unless the Gathered has ended.
func (g *Gathered) Drop() {
	if g.ended.Swap(true) {
		return
	}
	g.c.s.incoming.Add(-int64(len(g.from)))
	g.unpin()
	g.c.s.file.TakeBack([]Blocks{g.to})
}

// Exchange puts the copies in the place of the blocks that were gathered, as far as those are still what the chunk has, and
// returns how many were. On an error those that were exchanged stay so. For the owner.
func (c *Copyset) Exchange(g *Gathered) (blocks int, err error) {
	if g.c != c {
		return 0, fmt.Errorf("%w: gathered in another copyset", ErrRange)
	}
	if g.ended.Swap(true) {
		return 0, nil
	}
	defer g.unpin()
	from, to := g.from, g.to.Start
	c.s.incoming.Add(-int64(len(from)))
	same, err := c.stillThere(g.chunk, g.newest, from)
	var back []Blocks
	for i := 0; i < len(from); {
		n := i
		var ents []extent.Entry
		for n < len(from) && err == nil && same[n] && (n == i || from[n].Block == from[n-1].Block+1) {
			ents = append(ents, extent.Entry{Addr: to + Addr(n), CRC: from[n].CRC})
			n++
		}
		if n > i {
			err = c.remap(g.chunk, from[i].Block, uint32(n-i), ents, false)
		}
		if n > i && err == nil {
			blocks += n - i
			i = n
			continue
		}
		back = extent.AppendRun(back, to+Addr(i), 1)
		i++
	}
	c.s.file.TakeBack(back)
	return blocks, err
}

// stillThere returns which of the blocks are where they were, none of them when another version was taken meanwhile: it has them
// too. Nobody but the owner can change that. For the owner.
func (c *Copyset) stillThere(id layout.ChunkID, newest uint64, from []disk.Placed) ([]bool, error) {
	same := make([]bool, len(from))
	c.mu.RLock()
	now := c.mu.Versions[id.Volume].Newest()
	c.mu.RUnlock()
	if err := c.s.ready(); err != nil || now != newest {
		return same, err
	}
	first := from[0].Block
	ents := make([]extent.Entry, from[len(from)-1].Block-first+1)
	slot, err := c.lookup(id, first, ents)
	if err != nil {
		if errors.Is(err, ErrRemoved) {
			err = nil
		}
		return same, err
	}
	c.unpin(slot)
	for i, b := range from {
		same[i] = ents[b.Block-first] == b.Entry
	}
	return same, nil
}

// Changed tells whether the content has changes that no checkpoint has made durable.
func (c *Copyset) Changed() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.mu.frozen) > 0 || len(c.mu.Active.Leaves) > 0 || len(c.mu.Active.Versions) > 0
}

package blockstore

import (
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Discard gives back the blocks that lie wholly in the range, which then read as zeroes; others keep their data. off
// and length are multiples of 512 bytes. For the owner.
func (c *Copyset) Discard(ch layout.ChunkID, off, length uint32) error {
	sp, err := extent.NewSpan(off, int(length))
	if err != nil {
		return err
	}
	if err := c.s.ready(); err != nil {
		return err
	}
	from, n := sp.WholeBlocks()
	if n == 0 {
		return nil
	}
	return c.remap(ch, sp.First+from, n, nil, false)
}

// WriteZeroes makes the range read as zeroes. It gives whole blocks back and writes partial ones like Write. off and
// length are multiples of 512 bytes. For the owner.
func (c *Copyset) WriteZeroes(ch layout.ChunkID, off, length uint32) error {
	sp, err := extent.NewSpan(off, int(length))
	if err != nil {
		return err
	}
	if sp.Whole(0) && sp.Whole(sp.N-1) {
		return c.Discard(ch, off, length)
	}
	if err := c.s.ready(); err != nil {
		return err
	}
	ents := make([]extent.Entry, sp.N)
	var taken []extent.Run
	for _, i := range []uint32{0, sp.N - 1} {
		if sp.Whole(i) || ents[i].Addr != 0 {
			continue
		}
		ents[i], err = c.zeroPart(ch, sp, i)
		if err != nil {
			break
		}
		if ents[i].Addr != 0 {
			taken = append(taken, extent.Run{Start: ents[i].Addr, N: 1})
		}
	}
	if err == nil {
		err = c.remap(ch, sp.First, sp.N, ents, true)
	}
	if err != nil {
		c.s.file.TakeBack(taken)
	}
	return err
}

// zeroPart writes block i of a span anew with zeroes in the range; a block that is not allocated stays so.
func (c *Copyset) zeroPart(ch layout.ChunkID, sp extent.Span, i uint32) (extent.Entry, error) {
	var ent [1]extent.Entry
	slot, err := c.lookup(ch, sp.First+i, ent[:])
	if err != nil {
		return extent.Entry{}, err
	}
	c.unpin(slot)
	if ent[0].Addr == 0 {
		return extent.Entry{}, nil
	}
	from, to := sp.Part(i)
	part := extent.Span{First: sp.First + i, N: 1, Head: from, Tail: to}
	zeroes := c.s.fullBlock()
	defer c.s.putBlock(zeroes)
	clear(zeroes[:])
	var e extent.Edges
	defer c.s.putEdges(&e)
	if err := c.merge(ch, part, zeroes[:to-from], &e); err != nil {
		return extent.Entry{}, err
	}
	var few [1]extent.Run
	runs, err := c.s.allocate(1, few[:0])
	if err != nil {
		return extent.Entry{}, err
	}
	// A single block is deferred even if the bound is reached.
	c.s.file.Defer(runs[0].Start, e.Head[:], c.seq())
	return extent.Entry{Addr: runs[0].Start, CRC: e.HeadCRC}, nil
}

// DeleteVolume gives back all blocks of the volume in this copyset, those of its versions too. For the owner.
func (c *Copyset) DeleteVolume(v layout.VolumeID) error {
	if err := c.s.ready(); err != nil {
		return err
	}
	runs, old, err := c.collect(&v)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.removed {
		return ErrRemoved
	}
	c.mu.DropVolume(v, runs, old)
	c.s.file.Retire(countBlocks(runs))
	return nil
}

// countBlocks returns the number of blocks in runs.
func countBlocks(runs []extent.Run) (n uint64) {
	for _, r := range runs {
		n += uint64(r.N)
	}
	return n
}

// collect returns the blocks of a volume, or of all (nil), that the content and its versions have now, and the leaves that only
// versions have. For the owner.
func (c *Copyset) collect(v *layout.VolumeID) (runs []extent.Run, old []extent.LeafID, err error) {
	done := make(map[extent.LeafID]struct{})
	c.mu.RLock()
	inc := c.mu.record.Incarnation
	overlays := c.overlaysLocked()
	for i := len(overlays) - 1; i >= 0; i-- { // the newest says what there is
		for id, l := range overlays[i].Leaves {
			if _, ok := done[id]; ok || id.Version == 0 || v != nil && id.Chunk.Volume != *v {
				continue
			}
			done[id] = struct{}{}
			if l.Allocated != 0 {
				runs = l.AppendRuns(runs, l.Own())
				old = append(old, id)
			}
		}
	}
	for _, ch := range c.mu.Cached {
		if v != nil && ch.ID().Volume != *v {
			continue
		}
		for i, l := range ch.Leaves() {
			if l != nil {
				done[extent.LeafID{Chunk: ch.ID(), Index: uint32(i)}] = struct{}{}
				runs = l.AppendRuns(runs, l.Own())
			}
		}
	}
	c.mu.RUnlock()
	// What was not in memory is durable, so the index has it; what the index has besides was deleted since.
	from, to := extent.AppendIncarnationKey(nil, extent.KeyLeaf, inc), extent.AppendIncarnationKey(nil, extent.KeyLeaf, inc+1)
	if v != nil {
		from, to = extent.VolumeRange(inc, *v)
	}
	err = c.s.index.EachLeaf(from, to, func(_ uint64, id extent.LeafID, l *extent.Leaf) error {
		if _, ok := done[id]; ok {
			return nil
		}
		if id.Version != 0 {
			old = append(old, id)
			runs = l.AppendRuns(runs, l.Own())
			return nil
		}
		c.mu.RLock()
		live := c.mu.Chunks[id.Chunk].Has(id.Index)
		c.mu.RUnlock()
		if live {
			runs = l.AppendRuns(runs, l.Own())
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return runs, old, nil
}

package blockstore

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// lookedMax is at how many leaves one VerifyVersions looks, most of which are the content's.
const lookedMax = 4096

// verifyMax is the most that one Verify reads, in bytes.
const verifyMax = disk.ScanMax * layout.BlockSize

// Verified is what Verify found.
type Verified struct {
	// Next is the block of the chunk to go on with; 0 when nothing is left of it.
	Next uint32
	// Blocks is how many blocks were read.
	Blocks int
	// Damaged are those of them that do not fit their checksums, or can not be read.
	Damaged []*ChecksumError
}

// Chunks returns the chunks that have a block, by volume and index.
func (c *Copyset) Chunks() []layout.ChunkID {
	c.mu.RLock()
	ids := make([]layout.ChunkID, 0, len(c.mu.Chunks))
	for id := range c.mu.Chunks {
		ids = append(ids, id)
	}
	c.mu.RUnlock()
	slices.SortFunc(ids, func(a, b layout.ChunkID) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(a.Index, b.Index))
	})
	return ids
}

// Verify reads the allocated blocks of a chunk from block first on, at most verifyMax bytes of them, and compares them with
// their checksums. It reads the disk, not the page cache, in the order of the file, and leaves both that cache and the one of
// extent maps as they are. Damage is no error. A chunk that is not there (any more) has no blocks.
func (c *Copyset) Verify(id layout.ChunkID, first uint32) (Verified, error) {
	var v Verified
	var pins [2]int64
	defer func() {
		c.readers[0].Add(-pins[0])
		c.readers[1].Add(-pins[1])
	}()
	found := make([]disk.Placed, 0, disk.ScanMax)
	for leaf := first / extent.LeafBlocks; ; leaf++ {
		l, at, slot, err := c.peek(id, leaf)
		if err != nil {
			return v, err
		}
		if l == nil {
			break
		}
		pins[slot]++
		if leaf = at; len(found)+bits.OnesCount64(l.Allocated) > disk.ScanMax {
			v.Next = leaf * extent.LeafBlocks
			break
		}
		for m := l.Allocated; m != 0; m &= m - 1 {
			i := uint32(bits.TrailingZeros64(m))
			if b := leaf*extent.LeafBlocks + i; b >= first {
				found = append(found, disk.Placed{Block: b, Entry: extent.Entry{Addr: l.Addr[i], CRC: l.CRC[i]}})
			}
		}
	}
	v.Blocks, v.Damaged = len(found), c.s.file.Compare(c.id, id, found)
	return v, nil
}

// peek returns a copy of the first leaf from leaf from on that has blocks, and its number, and pins the blocks in the slot; nil
// when there is none. Unlike lookup it puts no leaf into memory: a scan would push out those that are in use.
func (c *Copyset) peek(id layout.ChunkID, from uint32) (l *extent.Leaf, at uint32, slot int, err error) {
	var read *extent.Leaf // leaf at of chunk was, read from the index when it had seen changes
	var was *extentmap.Chunk
	var changes uint64
	for try := 0; ; try++ {
		c.mu.RLock()
		if c.mu.removed {
			c.mu.RUnlock()
			return nil, 0, 0, ErrRemoved
		}
		ch := c.mu.Chunks[id]
		i, ok := ch.Next(from)
		if !ok {
			c.mu.RUnlock()
			return nil, 0, 0, nil
		}
		found := ch.Leaf(i)
		if found == nil && read != nil && ch == was && ch.Changes == changes && i == at {
			found = read
		}
		if found == nil && try >= loadAttemptsMax {
			if found, err = c.s.index.Leaf(c.mu.record.Incarnation, extent.LeafID{Chunk: id, Index: i}); found == nil && err == nil {
				found = new(extent.Leaf)
			}
		}
		if found != nil {
			l = found.Clone(found.Gen, found.Seq)
			slot = int(c.mu.epoch & 1)
			c.readers[slot].Add(1)
		}
		was, changes, at = ch, ch.Changes, i
		inc := c.mu.record.Incarnation
		c.mu.RUnlock()
		if l != nil || err != nil {
			return l, at, slot, err
		}
		if read, err = c.s.index.Leaf(inc, extent.LeafID{Chunk: id, Index: at}); err != nil {
			return nil, 0, 0, err
		}
	}
}

// VersionLeaf names 64 blocks of a chunk as versions of its volume have them. The zero VersionLeaf is before all others.
type VersionLeaf = extent.LeafID

// VersionLeafOf returns the leaf in which VerifyVersions met a damaged block.
func VersionLeafOf(e *ChecksumError) VersionLeaf {
	return VersionLeaf{Chunk: e.Chunk, Index: e.Block / extent.LeafBlocks, Version: e.Version}
}

// VerifyVersions is Verify of the blocks that only versions have, of all volumes, from a leaf on. next is the leaf to go on with, the
// zero one when nothing is left; Verified.Next has no meaning. What the last checkpoint does not have is left to the next time.
func (c *Copyset) VerifyVersions(from VersionLeaf) (v Verified, next VersionLeaf, err error) {
	c.mu.RLock()
	if c.mu.removed {
		c.mu.RUnlock()
		return v, next, ErrRemoved
	}
	inc := c.mu.record.Incarnation
	var volumes []layout.VolumeID
	for id := range c.mu.Kept {
		if id >= from.Chunk.Volume {
			volumes = append(volumes, id)
		}
	}
	slot := int(c.mu.epoch & 1) // pinned before the index is read: what is found there is not reused
	c.readers[slot].Add(1)
	c.mu.RUnlock()
	defer c.unpin(slot)
	slices.Sort(volumes)
	found := make([]disk.Placed, 0, disk.ScanMax)
	var leaves []VersionLeaf // those whose blocks were found
	looked := 0
	for _, id := range volumes {
		begin, end := extent.VolumeRange(inc, id)
		if id == from.Chunk.Volume {
			begin = extent.AppendLeafKey(nil, inc, from)
		}
		err := c.s.index.EachLeaf(begin, end, func(_ uint64, id extent.LeafID, l *extent.Leaf) error {
			if looked++; looked > lookedMax {
				next = id
				return io.EOF
			}
			if id.Version == 0 || l.Own() == 0 {
				return nil
			}
			if len(found)+bits.OnesCount64(l.Own()) > disk.ScanMax {
				next = id
				return io.EOF
			}
			for m := l.Own(); m != 0; m &= m - 1 {
				i := bits.TrailingZeros64(m)
				found = append(found, disk.Placed{Block: uint32(i), Entry: extent.Entry{Addr: l.Addr[i], CRC: l.CRC[i]}})
				leaves = append(leaves, id)
			}
			return nil
		})
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return v, next, err
		}
	}
	v.Blocks = len(found)
	for k := 0; k < len(found); { // leaf by leaf
		n := k + 1
		for n < len(found) && leaves[n] == leaves[k] {
			n++
		}
		for _, e := range c.s.file.Compare(c.id, leaves[k].Chunk, found[k:n]) {
			e.Block, e.Version = leaves[k].Index*extent.LeafBlocks+e.Block, leaves[k].Version
			v.Damaged = append(v.Damaged, e)
		}
		k = n
	}
	return v, next, nil
}

// RepairVersion is Repair of a block as version n has it: it writes what the block should hold in its place, for everybody who has
// the block. ErrNoVersion when the version is gone. Anybody may call it.
func (c *Copyset) RepairVersion(n uint64, ch layout.ChunkID, off uint32, data []byte) error {
	if off%layout.BlockSize != 0 || len(data) != layout.BlockSize {
		return fmt.Errorf("%w: %d bytes at %d", ErrRange, len(data), off)
	}
	if err := c.s.ready(); err != nil {
		return err
	}
	block := off / layout.BlockSize
	var ent [1]extent.Entry
	slot, err := c.lookupVersion(n, ch, block, ent[:])
	if err != nil {
		return err
	}
	defer c.unpin(slot)
	if ent[0].Addr == 0 {
		return nil
	}
	if extent.Checksum(data) != ent[0].CRC {
		return &ChecksumError{Copyset: c.id, Chunk: ch, Block: block, Version: n}
	}
	return c.s.file.Write(ent[0].Addr, data)
}

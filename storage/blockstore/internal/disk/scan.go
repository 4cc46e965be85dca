package disk

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"syscall"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// ScanMax is the most that one Scan reads, in blocks.
const ScanMax = flushMax / layout.BlockSize

// Scan reads n blocks that follow each other and gives their bytes, which are borrowed, to fn. Unlike Read it passes by the
// page cache where the file system lets it: what it shows is on the disk, and what the cache holds for others stays. Blocks
// that were not written yet come from memory. An error is the file's own; fn is not called then.
func (b *File) Scan(at extent.Addr, n int, fn func(p []byte)) error {
	buf := b.buffer()
	defer b.buffers.Put(buf)
	all := (*buf)[:n*layout.BlockSize]
	for p := all; len(p) > 0; {
		here, absent := 0, len(p)/layout.BlockSize
		if b.late.bytes.Load() > 0 {
			here, absent = b.late.read(at, p)
		}
		p, at = p[here*layout.BlockSize:], at+extent.Addr(here)
		if absent > 0 {
			if err := b.readDisk(at, p[:absent*layout.BlockSize]); err != nil {
				return err
			}
			p, at = p[absent*layout.BlockSize:], at+extent.Addr(absent)
		}
	}
	fn(all)
	return nil
}

// readDisk fills p, which is aligned, past the page cache if it can.
func (b *File) readDisk(at extent.Addr, p []byte) error {
	d := b.direct.Load()
	if d == nil {
		return b.readFile(at, p)
	}
	n, err := d.ReadAt(p, int64(at)*layout.BlockSize)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, syscall.EINVAL):
		return b.readFile(at, p)
	case err == nil:
		return io.ErrUnexpectedEOF
	}
	return err
}

// Placed is a block of a chunk and where it is.
type Placed struct {
	Block uint32
	extent.Entry
}

// Copy copies blocks of a chunk, verified, past the page cache, to as many from to on. *extent.ChecksumError names one that is
// damaged, or can not be read. There are at most ScanMax of them.
func (b *File) Copy(copyset layout.CopysetID, id layout.ChunkID, blocks []Placed, to extent.Addr) error {
	buf := b.buffer()
	defer b.buffers.Put(buf)
	place := make(map[uint32]int, len(blocks))
	for i, x := range blocks {
		place[x.Block] = i
	}
	bad := b.read(copyset, id, slices.Clone(blocks), func(x Placed, p []byte) {
		copy((*buf)[place[x.Block]*layout.BlockSize:], p)
	})
	if len(bad) > 0 {
		return bad[0]
	}
	return b.writeAligned(to, (*buf)[:len(blocks)*layout.BlockSize])
}

// Compare reads blocks of a chunk past the page cache, in the order of the file, in which it leaves them, and returns those
// that do not fit their checksums, or can not be read, by number.
func (b *File) Compare(copyset layout.CopysetID, id layout.ChunkID, blocks []Placed) []*extent.ChecksumError {
	return b.read(copyset, id, blocks, func(Placed, []byte) {})
}

// read is Compare that gives the blocks that are good, borrowed, to fn.
func (b *File) read(copyset layout.CopysetID, id layout.ChunkID, blocks []Placed, fn func(x Placed, p []byte)) []*extent.ChecksumError {
	slices.SortFunc(blocks, func(a, b Placed) int { return cmp.Compare(a.Addr, b.Addr) })
	var bad []*extent.ChecksumError
	check := func(run []Placed) error {
		return b.Scan(run[0].Addr, len(run), func(p []byte) {
			for i, x := range run {
				p := p[i*layout.BlockSize : (i+1)*layout.BlockSize]
				if extent.Checksum(p) != x.CRC {
					bad = append(bad, &extent.ChecksumError{Copyset: copyset, Chunk: id, Block: x.Block})
					continue
				}
				fn(x, p)
			}
		})
	}
	for len(blocks) > 0 {
		n := 1
		for n < len(blocks) && n < ScanMax && blocks[n].Addr == blocks[0].Addr+extent.Addr(n) {
			n++
		}
		run := blocks[:n]
		blocks = blocks[n:]
		if check(run) == nil {
			continue
		}
		for i := range run { // which of them can not be read?
			if err := check(run[i : i+1]); err != nil {
				bad = append(bad, &extent.ChecksumError{Copyset: copyset, Chunk: id, Block: run[i].Block, Err: err})
			}
		}
	}
	slices.SortFunc(bad, func(a, b *extent.ChecksumError) int { return cmp.Compare(a.Block, b.Block) })
	return bad
}

package blockstore

import (
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// fewBlocks is the number of blocks up to which a read needs no memory from the heap.
const fewBlocks = 9

// Run is a run of blocks in the same state.
type Run struct {
	// Offset and Length are in bytes, within the chunk.
	Offset, Length uint32
	// Allocated says that the blocks hold data; blocks that are not allocated read as zeroes.
	Allocated bool
}

// Read fills dst with the bytes at off, both multiples of 512 bytes, each block verified; blocks that are not
// allocated are zeroes. It appends the CRC32C of each block that lies wholly in the range to crcs and returns that. On
// *ChecksumError, and any other error, dst holds nothing of use.
func (c *Copyset) Read(ch layout.ChunkID, off uint32, dst []byte, crcs []uint32) ([]uint32, error) {
	sp, err := extent.NewSpan(off, len(dst))
	if err != nil {
		return crcs, err
	}
	var few [fewBlocks]extent.Entry
	ents := few[:min(sp.N, fewBlocks)]
	if sp.N > fewBlocks {
		p := c.s.entries.Get().(*[]extent.Entry)
		defer c.s.entries.Put(p)
		if cap(*p) < int(sp.N) {
			*p = make([]extent.Entry, sp.N)
		}
		ents = (*p)[:sp.N]
	}
	slot, err := c.lookup(ch, sp.First, ents)
	if err != nil {
		return crcs, err
	}
	defer c.unpin(slot)
	if err := c.readSpan(ch, sp, ents, dst); err != nil {
		return crcs, err
	}
	from, n := sp.WholeBlocks()
	for _, e := range ents[from : from+n] {
		if e.Addr == 0 {
			e.CRC = extent.ZeroCRC
		}
		crcs = append(crcs, e.CRC)
	}
	return crcs, nil
}

// readSpan reads and verifies the blocks of a span, with one read per run of blocks that follow each other in the file.
func (c *Copyset) readSpan(ch layout.ChunkID, sp extent.Span, ents []extent.Entry, dst []byte) error {
	c.prefetch(ents)
	for i := uint32(0); i < sp.N; {
		from, to := sp.Part(i)
		at := sp.At(i)
		switch {
		case ents[i].Addr == 0:
			clear(dst[at : at+int(to-from)])
			i++
		case from != 0 || to != layout.BlockSize:
			b := c.s.fullBlock()
			err := c.readBlocks(ch, sp.First+i, ents[i:i+1], b[:])
			copy(dst[at:], b[from:to])
			c.s.putBlock(b)
			if err != nil {
				return err
			}
			i++
		default:
			n := uint32(1)
			for i+n < sp.N && sp.Whole(i+n) && ents[i+n].Addr == ents[i].Addr+extent.Addr(n) {
				n++
			}
			if err := c.readBlocks(ch, sp.First+i, ents[i:i+n], dst[at:at+int(n)*layout.BlockSize]); err != nil {
				return err
			}
			i += n
		}
	}
	return nil
}

// prefetch has the disk begin with all the runs of a long read that lies in several, for they are read one after the other.
func (c *Copyset) prefetch(ents []extent.Entry) {
	if len(ents) <= fewBlocks {
		return
	}
	for from, i := 0, 1; i <= len(ents); i++ {
		if i < len(ents) && (ents[i].Addr == ents[i-1].Addr+1 || ents[i].Addr == 0 && ents[i-1].Addr == 0) {
			continue
		}
		if from == 0 && i == len(ents) {
			return // one run
		}
		if ents[from].Addr != 0 {
			c.s.file.Prefetch(ents[from].Addr, uint32(i-from))
		}
		from = i
	}
}

// readBlocks reads and verifies whole blocks that follow each other in the file and, from block first, in the chunk.
func (c *Copyset) readBlocks(ch layout.ChunkID, first uint32, ents []extent.Entry, p []byte) error {
	whole := c.s.file.Read(ents[0].Addr, p)
	for i, e := range ents {
		b := p[i*layout.BlockSize : (i+1)*layout.BlockSize]
		err := whole
		if err != nil && len(ents) > 1 {
			// Which of the blocks can not be read? Reads may be repeated.
			err = c.s.file.Read(e.Addr, b)
		}
		if err != nil || extent.Checksum(b) != e.CRC {
			return &ChecksumError{Copyset: c.id, Chunk: ch, Block: first + uint32(i), Err: err}
		}
	}
	return nil
}

// Allocated appends to runs which blocks of the range are allocated, as adjacent runs that alternate and cover the
// range, and returns that. off and length are multiples of 512 bytes.
func (c *Copyset) Allocated(ch layout.ChunkID, off, length uint32, runs []Run) ([]Run, error) {
	sp, err := extent.NewSpan(off, int(length))
	if err != nil {
		return runs, err
	}
	const step = 4096 // blocks looked up at a time
	ents := make([]extent.Entry, min(sp.N, step))
	start := len(runs)
	for i := uint32(0); i < sp.N; i += step {
		part := ents[:min(step, sp.N-i)]
		slot, err := c.lookup(ch, sp.First+i, part)
		if err != nil {
			return runs[:start], err
		}
		c.unpin(slot)
		for j, e := range part {
			from, to := sp.Part(i + uint32(j))
			if k := len(runs) - 1; k >= start && runs[k].Allocated == (e.Addr != 0) {
				runs[k].Length += to - from
				continue
			}
			runs = append(runs, Run{
				Offset: (sp.First+i+uint32(j))*layout.BlockSize + from, Length: to - from, Allocated: e.Addr != 0,
			})
		}
	}
	return runs, nil
}

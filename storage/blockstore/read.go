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
	if err := c.s.file.ReadSpan(c.id, ch, sp, ents, dst); err != nil {
		return crcs, err
	}
	from, n := sp.WholeBlocks()
	return appendCRCs(crcs, ents[from:from+n]), nil
}

// appendCRCs appends the checksums of what the entries read as.
func appendCRCs(crcs []uint32, ents []extent.Entry) []uint32 {
	for _, e := range ents {
		if e.Addr == 0 {
			e.CRC = extent.ZeroCRC
		}
		crcs = append(crcs, e.CRC)
	}
	return crcs
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

package blockstore

import (
	"errors"
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// fewRuns is the number of runs up to which a write needs no memory from the heap.
const fewRuns = 4

// Write writes data at off, both multiples of 512 bytes. crcs holds the CRC32C of each block that lies wholly in the
// range, in order, and is trusted: it was verified where the data came from the network. nil crcs are computed here.
// A block that is only partly in the range is read, verified (*ChecksumError), merged and gets a new checksum. Readers
// see all or nothing of it. A small write (Options.DeferBelow) goes to memory and to the file at the next checkpoint; so
// only others meet a file that can not be written. On any error (ErrNoSpace, *IOError, *PoisonedError, ErrRange) nothing is changed. data is
// borrowed until Write returns. For the owner.
func (c *Copyset) Write(ch layout.ChunkID, off uint32, data []byte, crcs []uint32) error {
	sp, err := extent.NewSpan(off, len(data))
	if err != nil {
		return err
	}
	_, whole := sp.WholeBlocks()
	if crcs != nil && len(crcs) != int(whole) {
		return fmt.Errorf("%w: %d checksums of %d whole blocks", ErrRange, len(crcs), whole)
	}
	if err := c.s.ready(); err != nil {
		return err
	}
	var e extent.Edges
	defer c.s.putEdges(&e)
	if err := c.merge(ch, sp, data, &e); err != nil {
		return err
	}
	var fewR [fewRuns]extent.Run
	runs, err := c.s.allocate(sp.N, fewR[:0])
	if err != nil {
		return err
	}
	late := len(data) < c.s.opts.DeferBelow && c.s.defers()
	if late {
		c.deferSpan(sp, runs, data, &e)
	} else if err := c.writeSpan(sp, runs, data, &e); err != nil {
		c.s.file.TakeBack(runs)
		return err
	}
	var fewE [fewBlocks]extent.Entry
	ents := fewE[:0]
	if sp.N > fewBlocks {
		p := c.s.entries.Get().(*[]extent.Entry)
		defer c.s.entries.Put(p)
		if cap(*p) < int(sp.N) {
			*p = make([]extent.Entry, 0, sp.N)
		}
		ents = (*p)[:0]
	}
	for _, r := range runs {
		for k := range r.N {
			i := uint32(len(ents))
			ents = append(ents, extent.Entry{Addr: r.Start + extent.Addr(k), CRC: sp.CRC(i, data, crcs, &e)})
		}
	}
	if err := c.remap(ch, sp.First, sp.N, ents, late); err != nil {
		c.s.file.TakeBack(runs)
		return err
	}
	return nil
}

// defers reports whether there is room for another deferred write, and asks for a checkpoint when there is little.
func (s *Store) defers() bool {
	have := s.file.Deferred()
	if have >= s.opts.DeferredBytes {
		select {
		case s.pressure <- struct{}{}:
		default:
		}
	}
	return have < 2*s.opts.DeferredBytes
}

// deferSpan keeps the blocks of a span for the next checkpoint, which writes them to the runs.
func (c *Copyset) deferSpan(sp extent.Span, runs []extent.Run, data []byte, e *extent.Edges) {
	seq := c.seq()
	i := uint32(0)
	for _, r := range runs {
		for k := range extent.Addr(r.N) {
			c.s.file.Defer(r.Start+k, sp.Block(i, data, e), seq)
			i++
		}
	}
}

// seq returns the number of the checkpoint that will make changes of now durable. For the owner.
func (c *Copyset) seq() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.Seq
}

// allocate takes n blocks, after freed ones that wait no longer were reclaimed if need be.
func (s *Store) allocate(n uint32, runs []extent.Run) ([]extent.Run, error) {
	out, err := s.file.Allocate(n, runs)
	if errors.Is(err, ErrNoSpace) {
		s.reclaim()
		out, err = s.file.Allocate(n, runs)
	}
	return out, err
}

// putEdges gives the buffers of e back.
func (s *Store) putEdges(e *extent.Edges) {
	if e.Head != nil {
		s.putBlock(e.Head)
	}
	if e.Tail != nil {
		s.putBlock(e.Tail)
	}
}

// merge fills e with the partial blocks at the ends of the span: what they hold now, verified, with the part that is in
// the range replaced by data.
func (c *Copyset) merge(ch layout.ChunkID, sp extent.Span, data []byte, e *extent.Edges) (err error) {
	if !sp.Whole(0) {
		e.Head, e.HeadCRC, err = c.mergeBlock(ch, sp, 0, data)
	}
	if err == nil && sp.N > 1 && !sp.Whole(sp.N-1) {
		e.Tail, e.TailCRC, err = c.mergeBlock(ch, sp, sp.N-1, data)
	}
	return err
}

func (c *Copyset) mergeBlock(ch layout.ChunkID, sp extent.Span, i uint32, data []byte) (*[layout.BlockSize]byte, uint32, error) {
	var ent [1]extent.Entry
	slot, err := c.lookup(ch, sp.First+i, ent[:])
	if err != nil {
		return nil, 0, err
	}
	defer c.unpin(slot)
	b := c.s.fullBlock()
	if ent[0].Addr == 0 {
		clear(b[:])
	} else if err := c.s.file.ReadVerified(c.id, ch, sp.First+i, ent[:], b[:]); err != nil {
		c.s.putBlock(b)
		return nil, 0, err
	}
	from, to := sp.Part(i)
	at := sp.At(i)
	copy(b[from:to], data[at:at+int(to-from)])
	return b, extent.Checksum(b[:]), nil
}

// writeSpan writes the blocks of a span to the runs, in order: one write per run, and one more for each partial block
// that shares a run with others.
func (c *Copyset) writeSpan(sp extent.Span, runs []extent.Run, data []byte, e *extent.Edges) error {
	i := uint32(0)
	for _, r := range runs {
		at, n := r.Start, r.N
		if i == 0 && e.Head != nil {
			if err := c.s.file.Write(at, e.Head[:]); err != nil {
				return err
			}
			i, at, n = 1, at+1, n-1
		}
		last := i+n == sp.N && n > 0 && e.Tail != nil
		if last {
			n--
		}
		if n > 0 {
			from := sp.At(i)
			if err := c.s.file.Write(at, data[from:from+int(n)*layout.BlockSize]); err != nil {
				return err
			}
			i, at = i+n, at+extent.Addr(n)
		}
		if last {
			if err := c.s.file.Write(at, e.Tail[:]); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// remap moves n blocks of a chunk, from first on, to the entries in ents, all at once; nil: to nowhere. The blocks where
// they were are freed. late says that the content of the new blocks is deferred. On an error nothing is changed.
func (c *Copyset) remap(id layout.ChunkID, first, n uint32, ents []extent.Entry, late bool) error {
	c.mu.Lock()
	for {
		if c.mu.removed {
			c.mu.Unlock()
			return ErrRemoved
		}
		missing, ok := c.mu.Prepare(id, first, n, ents)
		if ok {
			break
		}
		inc := c.mu.record.Incarnation
		c.mu.Unlock()
		l, err := c.s.index.Leaf(inc, extent.LeafID{Chunk: id, Index: missing})
		if err != nil {
			return err
		}
		if l == nil {
			l = new(extent.Leaf)
		}
		c.mu.Lock()
		c.mu.Load(id, missing, l)
	}
	change := extentmap.Change{Chunk: id, First: first, N: n, Entries: ents, Late: late}
	if seq := c.mu.Seq; c.mu.imaged != seq { // no image has seen what this checkpoint will make durable
		change.Superseded = func(a extent.Addr) { c.s.file.Supersede(a, seq) }
	}
	freed := c.mu.Switch(change)
	c.mu.Unlock()
	if freed > 0 {
		c.s.file.Retire(freed)
	}
	return nil
}

// Repair replaces a damaged block by data, one block that a peer has. It changes nothing and returns *ChecksumError
// when data is not what the block's checksum says, and nothing when the block is not allocated. off is a multiple of
// the block size. For the owner.
func (c *Copyset) Repair(ch layout.ChunkID, off uint32, data []byte) error {
	if off%layout.BlockSize != 0 || len(data) != layout.BlockSize {
		return fmt.Errorf("%w: %d bytes at %d", ErrRange, len(data), off)
	}
	block := off / layout.BlockSize
	var ent [1]extent.Entry
	slot, err := c.lookup(ch, block, ent[:])
	if err != nil {
		return err
	}
	defer c.unpin(slot)
	if ent[0].Addr == 0 {
		return nil
	}
	crc := extent.Checksum(data)
	if crc != ent[0].CRC {
		return &ChecksumError{Copyset: c.id, Chunk: ch, Block: block}
	}
	// The raft log or an image may have the damaged block too. It gets what it should have held; if the disk refuses, they go
	// without.
	_ = c.s.file.Write(ent[0].Addr, data)
	return c.Write(ch, off, data, []uint32{crc})
}

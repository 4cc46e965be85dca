package disk

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	// flushMax is the most that one write of a flush carries, in bytes.
	flushMax = 1 << 20
	// FlushWriters is how many writes of a flush are under way at a time.
	FlushWriters = 4
)

// late holds the blocks that are allocated and have content, but are not in the data file yet. A block leaves it when
// it was written there, or when it becomes free: a free block is never in it.
type late struct {
	// bytes is the memory of the blocks; no more than that when it is 0, so that reads need not look.
	bytes atomic.Int64
	free  sync.Pool // of *[BlockSize]byte
	mu    struct {
		sync.RWMutex
		blocks map[extent.Addr]*lateBlock
	}
}

// lateBlock is one block. data never changes.
type lateBlock struct {
	data *[layout.BlockSize]byte
	// seq is the checkpoint that will make it durable, of whatever copyset it belongs to.
	seq uint64
	// dead says that no checkpoint and no image will need it in the file; who found its address before may still read.
	dead bool
}

// block returns the memory of a block, to be given back to free.
func (l *late) block() *[layout.BlockSize]byte {
	if b, ok := l.free.Get().(*[layout.BlockSize]byte); ok {
		return b
	}
	return new([layout.BlockSize]byte)
}

// put takes a block; p is borrowed.
func (l *late) put(at extent.Addr, p []byte, seq uint64) {
	b := l.block()
	copy(b[:], p)
	l.mu.Lock()
	if l.mu.blocks == nil {
		l.mu.blocks = make(map[extent.Addr]*lateBlock)
	}
	l.mu.blocks[at] = &lateBlock{data: b, seq: seq}
	l.mu.Unlock()
	l.bytes.Add(layout.BlockSize)
}

// kill marks a block as one that need not be written, if checkpoint seq was to do it.
func (l *late) kill(at extent.Addr, seq uint64) {
	if l.bytes.Load() == 0 {
		return
	}
	l.mu.Lock()
	if b := l.mu.blocks[at]; b != nil && b.seq == seq {
		b.dead = true
	}
	l.mu.Unlock()
}

// drop forgets the blocks of runs.
func (l *late) drop(runs []extent.Run) {
	if l.bytes.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range runs {
		if int(r.N) <= len(l.mu.blocks) {
			for i := range extent.Addr(r.N) {
				l.dropLocked(r.Start + i)
			}
			continue
		}
		for at := range l.mu.blocks {
			if at >= r.Start && at-r.Start < extent.Addr(r.N) {
				l.dropLocked(at)
			}
		}
	}
}

func (l *late) dropLocked(at extent.Addr) {
	if b := l.mu.blocks[at]; b != nil {
		delete(l.mu.blocks, at)
		l.free.Put(b.data) // readers copy under the lock
		l.bytes.Add(-layout.BlockSize)
	}
}

// span returns how many of n blocks from at on are here, and how many behind them are not.
func (l *late) span(at extent.Addr, n uint32) (here, absent uint32) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for here < n && l.mu.blocks[at+extent.Addr(here)] != nil {
		here++
	}
	for here+absent < n && l.mu.blocks[at+extent.Addr(here+absent)] == nil {
		absent++
	}
	return here, absent
}

// read copies the blocks from at on into p as long as they are here, and returns how many those were, and how many
// behind them are not.
func (l *late) read(at extent.Addr, p []byte) (here, absent int) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	n := len(p) / layout.BlockSize
	for ; here < n; here++ {
		b := l.mu.blocks[at+extent.Addr(here)]
		if b == nil {
			break
		}
		copy(p[here*layout.BlockSize:], b.data[:])
	}
	for here+absent < n && l.mu.blocks[at+extent.Addr(here+absent)] == nil {
		absent++
	}
	return here, absent
}

// piece is a part of a flush: blocks that follow each other in the file.
type piece struct {
	at   extent.Addr
	data []*[layout.BlockSize]byte
}

// pieces returns the blocks of runs that have to be written, in the order of the file.
func (l *late) pieces(runs []extent.Run) []piece {
	runs = slices.Clone(runs)
	slices.SortFunc(runs, func(a, b extent.Run) int { return cmp.Compare(a.Start, b.Start) })
	var out []piece
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, r := range runs {
		for i := range extent.Addr(r.N) {
			b := l.mu.blocks[r.Start+i]
			if b == nil || b.dead {
				continue
			}
			k := len(out) - 1
			if k < 0 || out[k].at+extent.Addr(len(out[k].data)) != r.Start+i || len(out[k].data) == flushMax/layout.BlockSize {
				out = append(out, piece{at: r.Start + i})
				k++
			}
			out[k].data = append(out[k].data, b.data)
		}
	}
	return out
}

// Defer takes the content of an allocated block, which no index and no reader has seen, to be written by a later Flush
// of it. seq is the checkpoint that will need it. p is borrowed.
func (b *File) Defer(at extent.Addr, p []byte, seq uint64) { b.late.put(at, p, seq) }

// Supersede tells that a block will be freed by checkpoint seq. If that is the one that would have made it durable, it
// needs not be written.
func (b *File) Supersede(at extent.Addr, seq uint64) { b.late.kill(at, seq) }

// Deferred returns the memory of the blocks that were not written yet, in bytes.
func (b *File) Deferred() int64 { return b.late.bytes.Load() }

// Flush writes the blocks of runs that were deferred, as few large writes where they follow each other. The caller sees
// to it that none of them becomes free meanwhile, and calls it once at a time. After an error it can be tried again.
func (b *File) Flush(runs []extent.Run) error {
	if b.late.bytes.Load() == 0 {
		return nil
	}
	all := b.late.pieces(runs)
	var next, failed atomic.Int64
	errs := make([]error, max(1, min(b.writers, len(all))))
	write := func(w int) {
		for failed.Load() == 0 {
			i := int(next.Add(1)) - 1
			if i >= len(all) {
				return
			}
			if errs[w] = b.flushPiece(&all[i]); errs[w] != nil {
				failed.Store(1)
			}
		}
	}
	var wg sync.WaitGroup
	for w := range errs[1:] {
		wg.Go(func() { write(w + 1) })
	}
	write(0)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// flushPiece writes a piece, and only then are its blocks read from the file.
func (b *File) flushPiece(p *piece) error {
	buf := b.buffer()
	defer b.buffers.Put(buf)
	n := len(p.data) * layout.BlockSize
	for i, d := range p.data {
		copy((*buf)[i*layout.BlockSize:], d[:])
	}
	if err := b.writeAligned(p.at, (*buf)[:n]); err != nil {
		return err
	}
	b.late.drop([]extent.Run{{Start: p.at, N: uint32(len(p.data))}})
	return nil
}

// buffer returns flushMax aligned bytes, to be given back to buffers.
func (b *File) buffer() *[]byte {
	if p, ok := b.buffers.Get().(*[]byte); ok {
		return p
	}
	p := vfs.Aligned(flushMax)
	return &p
}

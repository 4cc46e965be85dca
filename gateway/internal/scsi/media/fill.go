package media

import (
	"context"
	"sync"
)

// bufferSize is the length of the buffers that a Backend is worked through, in bytes.
const bufferSize = 1 << 20

// Buffers are shared by the operations on one logical unit. The zero value is ready.
type Buffers struct{ pool sync.Pool }

// take borrows a buffer of bufferSize bytes; give takes it back.
func (b *Buffers) take() *[]byte {
	if p, _ := b.pool.Get().(*[]byte); p != nil {
		return p
	}
	p := make([]byte, bufferSize)
	return &p
}

func (b *Buffers) give(p *[]byte) { b.pool.Put(p) }

// Fill writes pattern, whose length divides Block, over and over from off for length bytes.
func Fill(ctx context.Context, b Backend, buffers *Buffers, off, length int64, pattern []byte) error {
	if length == 0 {
		return nil
	}
	buf := buffers.take()
	defer buffers.give(buf)
	most := min(length, bufferSize)
	p := (*buf)[:most]
	for n := copy(p, pattern); n < len(p); {
		n += copy(p[n:], p[:n])
	}
	for length > 0 {
		n := min(length, most)
		if err := b.Write(ctx, p[:n], off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// Deallocate makes the range read as zeroes: the whole Blocks in it are unmapped, the parts of blocks at
// its edges are written. So all of an unmapped range reads as zeroes, whatever its alignment.
func Deallocate(ctx context.Context, b Backend, buffers *Buffers, off, length int64) error {
	const mask = Block - 1
	end := off + length
	first := (off + mask) &^ mask
	last := end &^ mask
	if first >= last {
		return Fill(ctx, b, buffers, off, length, Zeroes[:])
	}
	if err := Fill(ctx, b, buffers, off, first-off, Zeroes[:]); err != nil {
		return err
	}
	if err := b.Unmap(ctx, first, last-first); err != nil {
		return err
	}
	return Fill(ctx, b, buffers, last, end-last, Zeroes[:])
}

// Zeroes is one logical block of the longest kind. It is never written.
var Zeroes [Block]byte

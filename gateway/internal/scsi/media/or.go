package media

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
)

// Or sets the bits of data at off. It is made of CompareAndWrites of at most one Block each, so no write of any path between
// reading a block and writing it is lost; a block that has all the bits already is not written.
func Or(ctx context.Context, b Backend, buffers *Buffers, off int64, data []byte) error {
	buf := buffers.take()
	defer buffers.give(buf)
	for len(data) > 0 {
		// Pieces end where a Block does.
		n := min(int64(len(data)), bufferSize-off%Block)
		if err := or(ctx, b, (*buf)[:n], data[:n], off); err != nil {
			return err
		}
		data, off = data[n:], off+n
	}
	return nil
}

// orWorkers bounds the CompareAndWrites of one Or that are on their way at once.
const orWorkers = 16

// or sets the bits of data on the medium at off. was is for what is there, as long as data.
func or(ctx context.Context, b Backend, was, data []byte, off int64) error {
	if err := b.Read(ctx, was, off); err != nil {
		return err
	}
	// Block i of the medium from where off lies; the first and the last may be cut.
	begin := off &^ (Block - 1)
	blocks := (off + int64(len(data)) - begin + Block - 1) / Block
	var next atomic.Int64
	work := func() error {
		for i := next.Add(1) - 1; i < blocks; i = next.Add(1) - 1 {
			from := max(begin+i*Block, off) - off
			to := min(begin+(i+1)*Block-off, int64(len(data)))
			if err := orBlock(ctx, b, was[from:to], data[from:to], off+from); err != nil {
				next.Store(blocks)
				return err
			}
		}
		return nil
	}
	errs := make([]error, min(blocks, orWorkers))
	var wg sync.WaitGroup
	for i := 1; i < len(errs); i++ {
		wg.Go(func() { errs[i] = work() })
	}
	errs[0] = work()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// orBlock sets the bits of data, which does not go beyond one Block, at off. was is what is there.
func orBlock(ctx context.Context, b Backend, was, data []byte, off int64) error {
	var buf [Block]byte
	next := buf[:len(data)]
	for {
		for i := range data {
			next[i] = was[i] | data[i]
		}
		if bytes.Equal(next, was) {
			return nil
		}
		mismatch, err := b.CompareAndWrite(ctx, off, was, next)
		if err != nil || mismatch < 0 {
			return err
		}
		// Somebody else wrote the block since: they got on, so this ends when they pause.
		if err := b.Read(ctx, was, off); err != nil {
			return err
		}
	}
}

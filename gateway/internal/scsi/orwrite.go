package scsi

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
)

// orwrite16 is ORWRITE(16) (SBC-3 5.7): each bit of the data-out that is set is set on the medium. It is made of
// COMPARE AND WRITEs of at most one ProvisioningBlock each, so no write of any path between reading a block and
// writing it is lost; a block that has all the bits already is not written.
func orwrite16(ctx context.Context, a *attachment, c *Command) {
	e := extent16(c)
	if !a.transferable(c, e) || e.blocks == 0 {
		return
	}
	data, ok := a.parameterList(c, int(a.bytes(e)))
	if !ok {
		return
	}
	buf := a.unit.buffer()
	defer a.unit.release(buf)
	for off := a.offset(e); len(data) > 0; {
		// Pieces end where a ProvisioningBlock does.
		n := min(int64(len(data)), bufferSize-off%ProvisioningBlock)
		if err := a.or(ctx, (*buf)[:n], data[:n], off); err != nil {
			a.failBackend(ctx, c, err, true)
			return
		}
		data, off = data[n:], off+n
	}
}

// orWorkers bounds the COMPARE AND WRITEs of one ORWRITE that are on their way at once.
const orWorkers = 16

// or sets the bits of data on the medium at off. was is for what is there, as long as data.
func (a *attachment) or(ctx context.Context, was, data []byte, off int64) error {
	if err := a.backend.Read(ctx, was, off); err != nil {
		return err
	}
	// Block i of the medium from where off lies; the first and the last may be cut.
	begin := off &^ (ProvisioningBlock - 1)
	blocks := (off + int64(len(data)) - begin + ProvisioningBlock - 1) / ProvisioningBlock
	var next atomic.Int64
	work := func() error {
		for i := next.Add(1) - 1; i < blocks; i = next.Add(1) - 1 {
			from := max(begin+i*ProvisioningBlock, off) - off
			to := min(begin+(i+1)*ProvisioningBlock-off, int64(len(data)))
			if err := a.orBlock(ctx, was[from:to], data[from:to], off+from); err != nil {
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

// orBlock sets the bits of data, which does not go beyond one ProvisioningBlock, at off. was is what is there.
func (a *attachment) orBlock(ctx context.Context, was, data []byte, off int64) error {
	var buf [ProvisioningBlock]byte
	next := buf[:len(data)]
	for {
		for i := range data {
			next[i] = was[i] | data[i]
		}
		if bytes.Equal(next, was) {
			return nil
		}
		mismatch, err := a.backend.CompareAndWrite(ctx, off, was, next)
		if err != nil || mismatch < 0 {
			return err
		}
		// Somebody else wrote the block since: they got on, so this ends when they pause.
		if err := a.backend.Read(ctx, was, off); err != nil {
			return err
		}
	}
}

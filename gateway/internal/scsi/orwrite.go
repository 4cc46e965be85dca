package scsi

import (
	"bytes"
	"context"
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

// or sets the bits of data on the medium at off. was is for what is there, as long as data.
func (a *attachment) or(ctx context.Context, was, data []byte, off int64) error {
	if err := a.backend.Read(ctx, was, off); err != nil {
		return err
	}
	var next [ProvisioningBlock]byte
	for len(data) > 0 {
		n := min(int64(len(data)), ProvisioningBlock-off%ProvisioningBlock)
		for {
			for i := range data[:n] {
				next[i] = was[i] | data[i]
			}
			if bytes.Equal(next[:n], was[:n]) {
				break
			}
			mismatch, err := a.backend.CompareAndWrite(ctx, off, was[:n], next[:n])
			if err != nil {
				return err
			}
			if mismatch < 0 {
				break
			}
			// Somebody else wrote the block since: they got on, so this ends when they pause.
			if err := a.backend.Read(ctx, was[:n], off); err != nil {
				return err
			}
		}
		was, data, off = was[n:], data[n:], off+n
	}
	return nil
}

package scsi

import (
	"bytes"
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/media"
)

// WRITE SAME(10), WRITE SAME(16) (SBC-3 5.40, 5.41).

func writeSame10(ctx context.Context, a *attachment, c *Command) {
	a.writeSame(ctx, c, extent10(c), false)
}

func writeSame16(ctx context.Context, a *attachment, c *Command) {
	a.writeSame(ctx, c, extent16(c), c.CDB[1]&0x01 != 0)
}

// writeSame writes one logical block of data-out to all of e; with NDOB (no data-out buffer) the block is zeroes.
// With UNMAP a block of zeroes deallocates instead, which reads back the same; any other block is written, for the
// initiator may rely on what it reads. A length of 0 is refused, as WSNZ of the Block Limits page says.
func (a *attachment) writeSame(ctx context.Context, c *Command, e extent, ndob bool) {
	if !a.within(c, e) {
		return
	}
	if e.blocks == 0 || e.blocks > uint64(a.unit.Config().Limits.MaxWriteSame)>>a.unit.Shift() {
		a.refuse(c, InvalidFieldInCDB, cdbField(e.length, -1))
		return
	}
	block := media.Zeroes[:1<<a.unit.Shift()]
	if !ndob {
		c.Transfer = uint64(len(block))
		if len(c.DataOut) != len(block) {
			a.fail(c, senseData{Code: InvalidFieldInCommandIU})
			return
		}
		block = c.DataOut
	}
	var err error
	if unmap := c.CDB[1]&0x08 != 0; unmap && bytes.Equal(block, media.Zeroes[:len(block)]) {
		err = a.deallocate(ctx, a.offset(e), a.bytes(e))
	} else {
		err = a.fill(ctx, a.offset(e), a.bytes(e), block)
	}
	if err != nil {
		a.failBackend(ctx, c, err, true)
	}
}

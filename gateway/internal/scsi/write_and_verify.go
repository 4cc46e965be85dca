package scsi

import "context"

// WRITE AND VERIFY(10), WRITE AND VERIFY(12), WRITE AND VERIFY(16) (SBC-3 5.37 to 5.39).

func writeAndVerify10(ctx context.Context, a *attachment, c *Command) {
	a.writeAndVerify(ctx, c, extent10(c))
}

func writeAndVerify12(ctx context.Context, a *attachment, c *Command) {
	a.writeAndVerify(ctx, c, extent12(c))
}

func writeAndVerify16(ctx context.Context, a *attachment, c *Command) {
	a.writeAndVerify(ctx, c, extent16(c))
}

// writeAndVerify writes, then reads back what it wrote: with BYTCHK 0 it must be readable, with 1 equal. Other
// values are not for this command.
func (a *attachment) writeAndVerify(ctx context.Context, c *Command, e extent) {
	mode := c.bytchk()
	if mode > bytchkCompare {
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 2))
		return
	}
	data, ok := a.write(ctx, c, e)
	if !ok || len(data) == 0 {
		return
	}
	e.blocks = uint64(len(data)) >> a.unit.Shift()
	if mode == bytchkMedium {
		data = nil
	}
	a.compare(ctx, c, e, data)
}

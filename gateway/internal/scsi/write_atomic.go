package scsi

import "context"

// writeAtomic16 is WRITE ATOMIC(16) (SBC-4 5.45): all of it is written or nothing. Limits.MaxAtomic is its longest
// transfer, its alignment and its granularity, so it is exactly one unit that the store writes at once and never goes
// across a chunk. ATOMIC BOUNDARY, which would allow several units, is refused by the table. Data that are not all there
// are not written.
func writeAtomic16(ctx context.Context, a *attachment, c *Command) {
	e := extent{lba: c.u64(2), blocks: uint64(c.u16(12)), length: 12}
	if !a.within(c, e) || e.blocks == 0 {
		return
	}
	unit := uint64(a.unit.Config().Limits.MaxAtomic) >> a.unit.Shift()
	switch {
	case e.blocks != unit:
		a.refuse(c, InvalidFieldInCDB, cdbField(e.length, 7))
		return
	case e.lba%unit != 0:
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 7))
		return
	}
	data, ok := a.parameterList(c, int(a.bytes(e)))
	if !ok {
		return
	}
	if err := a.backend.Write(ctx, data, a.offset(e)); err != nil {
		a.failBackend(ctx, c, err, true)
	}
}

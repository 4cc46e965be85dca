package scsi

import "context"

// compareAndWriteMax is the MAXIMUM COMPARE AND WRITE LENGTH, in logical blocks: one block is one operation of the
// Backend, so it is atomic against every other path.
const compareAndWriteMax = 1

// compareAndWrite is COMPARE AND WRITE (SBC-3 5.4). The data-out is the block to compare with and then the block to
// write. The first byte that differs ends it with MISCOMPARE, its offset as INFORMATION. A length of 0 does nothing.
func compareAndWrite(ctx context.Context, a *attachment, c *Command) {
	e := extent{lba: c.u64(2), blocks: uint64(c.CDB[13]), length: 13}
	if !a.within(c, e) {
		return
	}
	// 256 blocks do not fit the field and arrive as 0, with their data: that is not "do nothing".
	if e.blocks > compareAndWriteMax || e.blocks == 0 && len(c.DataOut) > 0 {
		a.refuse(c, InvalidFieldInCDB, cdbField(13, 7))
		return
	}
	half := int(a.bytes(e))
	c.Transfer = uint64(2 * half)
	if len(c.DataOut) != 2*half {
		a.fail(c, senseData{Code: InvalidFieldInCommandIU})
		return
	}
	if half == 0 {
		return
	}
	at, err := a.backend.CompareAndWrite(ctx, a.offset(e), c.DataOut[:half], c.DataOut[half:])
	switch {
	case err != nil:
		a.failBackend(ctx, c, err, true)
	case at >= 0:
		a.fail(c, senseData{Code: MiscompareDuringVerify, Info: uint64(at), HasInfo: true})
	}
}

package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/media"
)

// extent is the range of logical blocks that a CDB names, and where the CDB says it, for field pointers.
type extent struct {
	lba    uint64
	blocks uint64
	length int // first byte of the transfer length field
}

// The layouts of SBC-3: the LBA begins at byte 2 (6-byte CDBs: in byte 1), the length where the name says.
func extent6(c *Command) extent {
	e := extent{lba: uint64(c.u24(1) & 0x1FFFFF), blocks: uint64(c.CDB[4]), length: 4}
	if e.blocks == 0 {
		e.blocks = 256
	}
	return e
}
func extent10(c *Command) extent { return extent{uint64(c.u32(2)), uint64(c.u16(7)), 7} }
func extent12(c *Command) extent { return extent{uint64(c.u32(2)), uint64(c.u32(6)), 6} }
func extent16(c *Command) extent { return extent{c.u64(2), uint64(c.u32(10)), 10} }

// within checks that e lies in the logical unit; when not, it ends c. An empty extent may begin right behind the
// last block.
func (a *attachment) within(c *Command, e extent) bool {
	total := a.unit.Blocks()
	if e.lba > total || e.blocks > total-e.lba {
		at := 2
		if len(c.CDB) > 0 && c.CDB[0] < 0x20 {
			at = 1
		}
		a.refuse(c, LBAOutOfRange, cdbField(at, -1))
		return false
	}
	return true
}

// transferable checks that e lies in the logical unit and is not longer than one command may be (SBC-3 6.5.3,
// MAXIMUM TRANSFER LENGTH); when not, it ends c.
func (a *attachment) transferable(c *Command, e extent) bool {
	if !a.within(c, e) {
		return false
	}
	if e.blocks > uint64(a.unit.Config().Limits.MaxTransfer)>>a.unit.Shift() {
		a.refuse(c, InvalidFieldInCDB, cdbField(e.length, -1))
		return false
	}
	return true
}

// offset and bytes give an extent that is within the logical unit in bytes.
func (a *attachment) offset(e extent) int64 { return int64(e.lba << a.unit.Shift()) }
func (a *attachment) bytes(e extent) int64  { return int64(e.blocks << a.unit.Shift()) }

// parameterList returns the n bytes of data-out that the CDB announces, or ends c when they are not all there.
func (a *attachment) parameterList(c *Command, n int) (list []byte, ok bool) {
	c.Transfer = uint64(n)
	if len(c.DataOut) < n {
		a.fail(c, senseData{Code: InvalidFieldInCommandIU})
		return nil, false
	}
	return c.DataOut[:n], true
}

// fill writes pattern, whose length divides ProvisioningBlock, over and over from off for length bytes.
func (a *attachment) fill(ctx context.Context, off, length int64, pattern []byte) error {
	return media.Fill(ctx, a.backend, &a.unit.Buffers, off, length, pattern)
}

// deallocate makes the range read as zeroes; see media.Deallocate.
func (a *attachment) deallocate(ctx context.Context, off, length int64) error {
	return media.Deallocate(ctx, a.backend, &a.unit.Buffers, off, length)
}

package scsi

import (
	"context"
	"encoding/binary"
)

// reassignBlocks is REASSIGN BLOCKS (SBC-3 5.20). The store repairs and moves blocks on its own, so the list is only
// checked. Its header has the length in bytes 2 and 3, with LONGLIST in all four; an LBA has 4 bytes, with LONGLBA 8.
func reassignBlocks(_ context.Context, a *attachment, c *Command) {
	const header = 4
	list := c.DataOut
	if len(list) < header {
		a.fail(c, senseData{Code: ParameterListLengthError})
		return
	}
	length, size := uint64(binary.BigEndian.Uint16(list[2:])), 4
	if c.CDB[1]&0x01 != 0 {
		length = uint64(binary.BigEndian.Uint32(list))
	}
	if c.CDB[1]&0x02 != 0 {
		size = 8
	}
	c.Transfer = header + length
	if length > uint64(len(list)-header) || length%uint64(size) != 0 {
		a.fail(c, senseData{Code: ParameterListLengthError})
		return
	}
	for at := header; at < header+int(length); at += size {
		block := uint64(binary.BigEndian.Uint32(list[at:]))
		if size == 8 {
			block = binary.BigEndian.Uint64(list[at:])
		}
		if block >= a.unit.Blocks() {
			a.refuse(c, LBAOutOfRange, dataField(at, -1))
			return
		}
	}
}

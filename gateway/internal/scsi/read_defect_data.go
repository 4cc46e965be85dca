package scsi

import (
	"context"
	"encoding/binary"
)

// READ DEFECT DATA(10), READ DEFECT DATA(12) (SBC-3 5.17, 5.18). A replicated volume has neither a primary nor a grown
// defect list: both are empty, in whatever format they are asked for.

// defectFormats is the number of DEFECT LIST FORMAT values that the standard gives a meaning; the last two are the
// vendor's and reserved.
const defectFormats = 6

// readDefectData10 answers reserved, PLISTV(4) GLISTV(3) FORMAT(2..0), LENGTH(2).
func readDefectData10(_ context.Context, a *attachment, c *Command) {
	if c.CDB[2]&7 >= defectFormats {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 2))
		return
	}
	c.reply(append(c.small[:0], 0, c.CDB[2]&0x1F, 0, 0), uint64(c.u16(7)))
}

// readDefectData12 answers reserved, PLISTV(4) GLISTV(3) FORMAT(2..0), GENERATION CODE(2), LENGTH(4). Nothing lies at an
// ADDRESS DESCRIPTOR INDEX but 0.
func readDefectData12(_ context.Context, a *attachment, c *Command) {
	switch {
	case c.CDB[1]&7 >= defectFormats:
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 2))
	case binary.BigEndian.Uint32(c.CDB[2:]) != 0:
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 7))
	default:
		c.reply(append(c.small[:0], 0, c.CDB[1]&0x1F, 0, 0, 0, 0, 0, 0), uint64(c.u32(6)))
	}
}

package scsi

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
)

// MODE SENSE(6), MODE SENSE(10) (SPC-4 6.13, 6.14): a header, a block descriptor unless DBD, and pages.
//
//	(6)   0 length-1  1 medium type  2 WP DPOFUA  3 descriptor length
//	(10)  0 length-2(2)  2 medium type  3 WP DPOFUA  4 LONGLBA  5 reserved  6 descriptor length(2)

func modeSense6(_ context.Context, a *attachment, c *Command) {
	p := append(c.small[:0], 0, 0, a.modeParameter(), 0)
	if dbd := c.CDB[1]&0x08 != 0; !dbd {
		p = a.unit.appendBlockDescriptor(p, false)
		p[3] = byte(len(p) - 4)
	}
	p, ok := a.appendModePages(c, p)
	if !ok {
		return
	}
	p[0] = byte(len(p) - 1)
	c.reply(p, uint64(c.CDB[4]))
}

func modeSense10(_ context.Context, a *attachment, c *Command) {
	p := append(c.small[:0], 0, 0, 0, a.modeParameter(), 0, 0, 0, 0)
	if dbd := c.CDB[1]&0x08 != 0; !dbd {
		long := c.CDB[1]&0x10 != 0 // LLBAA
		p = a.unit.appendBlockDescriptor(p, long)
		if long {
			p[4] = 0x01
		}
		p[7] = byte(len(p) - 8)
	}
	p, ok := a.appendModePages(c, p)
	if !ok {
		return
	}
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	c.reply(p, uint64(c.u16(7)))
}

// Device specific parameter of the mode parameter header (SBC-3 6.4.1).
const (
	modeWriteProtected = 0x80 // WP
	modeDPOFUA         = 0x10 // DPO and FUA are accepted
)

// modeParameter is the device specific parameter of the header.
func (a *attachment) modeParameter() byte {
	if a.readOnly || a.unit.modes().Now&mode.WriteProtect != 0 {
		return modeDPOFUA | modeWriteProtected
	}
	return modeDPOFUA
}

// appendModePages appends the pages that the CDB asks for; ok is false when it ended c.
func (a *attachment) appendModePages(c *Command, p []byte) (pages []byte, ok bool) {
	values, page, subpage := mode.Values(c.CDB[2]>>6), c.CDB[2]&0x3F, c.CDB[3]
	if values == mode.Saved {
		a.refuse(c, SavingNotSupported, cdbField(2, 7))
		return nil, false
	}
	if !mode.Known(page) {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 5))
		return nil, false
	}
	before := len(p)
	if p = a.unit.modes().Append(p, page, subpage, values); len(p) == before {
		a.refuse(c, InvalidFieldInCDB, cdbField(3, 7))
		return nil, false
	}
	return p, true
}

// appendBlockDescriptor appends the short (8 bytes) or long (16 bytes) LBA mode parameter block descriptor
// (SBC-3 6.4.2). A capacity that the short one can not hold is FFFFFFFFh.
func (u *LogicalUnit) appendBlockDescriptor(p []byte, long bool) []byte {
	if long {
		p = binary.BigEndian.AppendUint64(p, u.Blocks())
		p = append(p, 0, 0, 0, 0)
	} else {
		p = binary.BigEndian.AppendUint32(p, uint32(min(u.Blocks(), math.MaxUint32)))
	}
	return binary.BigEndian.AppendUint32(p, uint32(u.BlockLength()))
}

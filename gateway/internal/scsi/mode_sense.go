package scsi

import (
	"context"
	"encoding/binary"
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

// modeParameter is the device specific parameter of the header.
func (a *attachment) modeParameter() byte {
	if a.readOnly {
		return modeDPOFUA | modeWriteProtected
	}
	return modeDPOFUA
}

// Page control values (SPC-4 6.13.1).
const (
	pageControlChangeable = 1
	pageControlSaved      = 3
)

// appendModePages appends the pages that the CDB asks for; ok is false when it ended c.
func (a *attachment) appendModePages(c *Command, p []byte) (pages []byte, ok bool) {
	control, page, subpage := c.CDB[2]>>6, c.CDB[2]&0x3F, c.CDB[3]
	if control == pageControlSaved {
		a.refuse(c, SavingNotSupported, cdbField(2, 7))
		return nil, false
	}
	if subpage != 0 && subpage != subpageAll {
		a.refuse(c, InvalidFieldInCDB, cdbField(3, 7))
		return nil, false
	}
	before := len(p)
	for _, have := range modePages {
		if page == pageAll || page == have {
			p = a.unit.appendModePage(p, have, control == pageControlChangeable)
		}
	}
	if len(p) == before {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 5))
		return nil, false
	}
	return p, true
}

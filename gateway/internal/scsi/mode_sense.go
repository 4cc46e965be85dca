package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
)

// MODE SENSE(6), MODE SENSE(10) (SPC-4 6.13, 6.14): a header, a block descriptor unless DBD, and pages.

func modeSense6(_ context.Context, a *attachment, c *Command) {
	dbd := c.CDB[1]&0x08 != 0
	if p, ok := a.appendModePages(c, a.modeMedium().Begin6(c.small[:0], dbd)); ok {
		c.reply(mode.End6(p), uint64(c.CDB[4]))
	}
}

func modeSense10(_ context.Context, a *attachment, c *Command) {
	dbd, llbaa := c.CDB[1]&0x08 != 0, c.CDB[1]&0x10 != 0
	if p, ok := a.appendModePages(c, a.modeMedium().Begin10(c.small[:0], dbd, llbaa)); ok {
		c.reply(mode.End10(p), uint64(c.u16(7)))
	}
}

// Device specific parameter of the mode parameter header (SBC-3 6.4.1).
const (
	modeWriteProtected = 0x80 // WP
	modeDPOFUA         = 0x10 // DPO and FUA are accepted
)

// modeMedium is what mode parameter headers and block descriptors say.
func (a *attachment) modeMedium() mode.Medium {
	m := mode.Medium{Blocks: a.unit.Blocks(), Length: uint32(a.unit.BlockLength()), Specific: modeDPOFUA}
	if a.readOnly || a.unit.Modes().Now&mode.WriteProtect != 0 {
		m.Specific |= modeWriteProtected
	}
	return m
}

// appendModePages appends the pages that the CDB asks for; ok is false when it ended c.
func (a *attachment) appendModePages(c *Command, p []byte) (pages []byte, ok bool) {
	values, page, subpage := mode.Values(c.CDB[2]>>6), c.CDB[2]&0x3F, c.CDB[3]
	if values == mode.Saved && !a.unit.Modes().Saves {
		a.refuse(c, SavingNotSupported, cdbField(2, 7))
		return nil, false
	}
	if !mode.Known(page) {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 5))
		return nil, false
	}
	before := len(p)
	if p = a.unit.Modes().Append(p, page, subpage, values); len(p) == before {
		a.refuse(c, InvalidFieldInCDB, cdbField(3, 7))
		return nil, false
	}
	return p, true
}

package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
)

// inquiry is INQUIRY (SPC-4 6.6): standard data, or a vital product data page.
func inquiry(_ context.Context, a *attachment, c *Command) {
	evpd, page, allocation := c.CDB[1]&0x01 != 0, c.CDB[2], uint64(c.u16(3))
	switch {
	case evpd:
		a.inquiryVPD(c, page, allocation)
	case page != 0:
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 7))
	default:
		data := vpd.Inquiry{Peripheral: vpd.Disk, TPGS: tpgsImplicit, MultiPort: a.multiPort(), ThirdParty: true}
		c.reply(data.Append(c.small[:0], a.unit.Identity()), allocation)
	}
}

// inquiryAbsent answers INQUIRY at a LUN without a logical unit. There are no VPD pages to ask for. It returns the
// field that is wrong, if one is.
func (n *Nexus) inquiryAbsent(c *Command, zero bool) (field fieldPointer, bad bool) {
	if c.CDB[1]&0x01 != 0 {
		return cdbField(1, 0), true
	}
	if c.CDB[2] != 0 {
		return cdbField(2, 7), true
	}
	data := vpd.Inquiry{Peripheral: vpd.Absent}
	if zero {
		data.Peripheral = vpd.Nothing
	}
	nothing := Identity{Vendor: DefaultVendor, Product: "NO LOGICAL UNIT", Revision: "0"}
	c.reply(data.Append(c.small[:0], nothing), uint64(c.u16(3)))
	return fieldPointer{}, false
}

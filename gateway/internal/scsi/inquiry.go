package scsi

import (
	"context"
	"encoding/binary"
)

// Peripheral qualifier and device type (SPC-4 6.6.2), byte 0 of all INQUIRY data.
const (
	peripheralDisk    = 0x00 // connected, direct access block device
	peripheralNothing = 0x3F // qualifier 001b, type 1Fh: LUN 0 with nothing mapped, keeps enumeration going
	peripheralAbsent  = 0x7F // qualifier 011b, type 1Fh: no logical unit can be at this LUN now
)

// inquiryLength is the length of the standard INQUIRY data, in bytes.
const inquiryLength = 96

// versionDescriptors are the standards that the device server claims (SPC-4 6.6.2, table 142).
var versionDescriptors = [...]uint16{
	0x00A0, // SAM-5
	0x0960, // iSCSI
	0x0460, // SPC-4
	0x04C0, // SBC-3
}

// inquiry is INQUIRY (SPC-4 6.6): standard data, or a vital product data page.
func inquiry(_ context.Context, a *attachment, c *Command) {
	evpd, page, allocation := c.CDB[1]&0x01 != 0, c.CDB[2], uint64(c.u16(3))
	switch {
	case evpd:
		a.inquiryVPD(c, page, allocation)
	case page != 0:
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 7))
	default:
		id := a.unit.config.Identity
		data := appendInquiry(c.small[:0], peripheralDisk, id)
		data[5] = a.unit.config.TPGS << 4
		if a.unit.config.MultiPort {
			data[6] = 0x10 // MULTIP
		}
		c.reply(data, allocation)
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
	peripheral := byte(peripheralAbsent)
	if zero {
		peripheral = peripheralNothing
	}
	nothing := Identity{Vendor: DefaultVendor, Product: "NO LOGICAL UNIT", Revision: "0"}
	c.reply(appendInquiry(c.small[:0], peripheral, nothing), uint64(c.u16(3)))
	return fieldPointer{}, false
}

// appendInquiry appends standard INQUIRY data (SPC-4 6.6.2):
//
//	0 peripheral  1 RMB  2 VERSION  3 HISUP, format  4 length-5  5 TPGS  6 MULTIP  7 CMDQUE
//	8 vendor(8)  16 product(16)  32 revision(4)  58 version descriptors(16)  74 zero(22)
func appendInquiry(p []byte, peripheral byte, id Identity) []byte {
	start := len(p)
	p = append(p, make([]byte, inquiryLength)...)
	d := p[start:]
	d[0] = peripheral
	d[2] = 0x06        // SPC-4
	d[3] = 0x10 | 0x02 // HISUP: LUNs are those of SAM; response data format 2
	d[4] = inquiryLength - 5
	d[7] = 0x02 // CMDQUE
	padded(d[8:16], id.Vendor)
	padded(d[16:32], id.Product)
	padded(d[32:36], id.Revision)
	for i, v := range versionDescriptors {
		binary.BigEndian.PutUint16(d[58+2*i:], v)
	}
	return p
}

// padded copies s to field, cut or filled up with spaces (SPC-4 4.3.1).
func padded(field []byte, s string) {
	for i := copy(field, s); i < len(field); i++ {
		field[i] = ' '
	}
}

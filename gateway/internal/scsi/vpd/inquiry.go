// Package vpd makes INQUIRY data: the standard data (SPC-4 6.6.2) and the vital product data pages (SPC-4 7.8,
// SBC-4 6.6). It has no state. Each page is
//
//	0 qualifier and device type  1 PAGE CODE  2 PAGE LENGTH(2)  4 the page's own
//
// and a page's length is what follows the header. Multi-byte integers are big-endian.
package vpd

import "encoding/binary"

// Peripheral qualifier and device type (SPC-4 6.6.2), byte 0 of all INQUIRY data.
const (
	Disk    = 0x00 // connected, direct access block device
	Nothing = 0x3F // qualifier 001b, type 1Fh: LUN 0 with nothing mapped, keeps enumeration going
	Absent  = 0x7F // qualifier 011b, type 1Fh: no logical unit can be at this LUN now
)

// Identity is what a volume is known by; it is the same on every path and never changes.
type Identity struct {
	NAA      [16]byte // NAA IEEE Registered Extended designator: the first four bits are 6
	Serial   string   // unit serial number, 1..32 printable ASCII characters
	Vendor   string   // T10 vendor identification, 1..8 characters; DefaultVendor unless there is a reason
	Product  string   // product identification, 1..16 characters, the first 8 unique to the volume (ESXi)
	Revision string   // product revision level, 1..4 characters
}

// inquiryLength is the length of the standard INQUIRY data, in bytes.
const inquiryLength = 96

// versionDescriptors are the standards that the device server claims (SPC-4 6.6.2, table 142): the architecture, the
// transport, the primary commands, the device type.
var versionDescriptors = [...]uint16{
	0x00A0, // SAM-5
	0x0960, // iSCSI
	0x0460, // SPC-4
	0x04C0, // SBC-3
}

// Inquiry is what the standard INQUIRY data say beside the identity.
type Inquiry struct {
	Peripheral byte // Disk, Nothing or Absent
	TPGS       byte // asymmetric access: 0 none, 1 implicit, 2 explicit, 3 both
	MultiPort  bool // MULTIP: more than one target port
	ThirdParty bool // 3PC: commands of third-party copy
}

// Append appends standard INQUIRY data, 96 bytes:
//
//	0 peripheral  1 RMB  2 VERSION  3 HISUP, format  4 length-5  5 TPGS 3PC  6 MULTIP  7 CMDQUE
//	8 vendor(8)  16 product(16)  32 revision(4)  58 version descriptors(16)  74 zero(22)
func (i Inquiry) Append(p []byte, id Identity) []byte {
	start := len(p)
	p = append(p, make([]byte, inquiryLength)...)
	d := p[start:]
	d[0] = i.Peripheral
	d[2] = 0x06        // SPC-4
	d[3] = 0x10 | 0x02 // HISUP: LUNs are those of SAM; response data format 2
	d[4] = inquiryLength - 5
	d[5] = i.TPGS << 4
	if i.ThirdParty {
		d[5] |= 0x08
	}
	if i.MultiPort {
		d[6] = 0x10
	}
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

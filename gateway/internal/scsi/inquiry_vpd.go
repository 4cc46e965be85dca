package scsi

import "encoding/binary"

// vpdPages are the vital product data pages, in ascending order.
var vpdPages = [...]byte{vpdSupported, vpdSerial, vpdIdentification, vpdBlockLimits, vpdBlockCharacteristics, vpdProvisioning}

// VPD page codes (SPC-4 7.8, SBC-3 6.5).
const (
	vpdSupported            = 0x00
	vpdSerial               = 0x80
	vpdIdentification       = 0x83
	vpdBlockLimits          = 0xB0
	vpdBlockCharacteristics = 0xB1
	vpdProvisioning         = 0xB2
)

// inquiryVPD answers INQUIRY with EVPD. Every page begins with peripheral, page code, page length(2).
func (a *attachment) inquiryVPD(c *Command, page byte, allocation uint64) {
	p := append(c.small[:0], peripheralDisk, page, 0, 0)
	switch page {
	case vpdSupported:
		p = append(p, vpdPages[:]...)
	case vpdSerial:
		p = append(p, a.unit.config.Identity.Serial...)
	case vpdIdentification:
		p = a.appendIdentification(p)
	case vpdBlockLimits:
		p = a.unit.appendBlockLimits(p)
	case vpdBlockCharacteristics:
		p = append(p, make([]byte, 0x3C)...)
		binary.BigEndian.PutUint16(p[4:], 1) // MEDIUM ROTATION RATE: non-rotating
	case vpdProvisioning:
		// THRESHOLD EXPONENT (log2 of logical blocks); LBPU LBPWS LBPWS10 LBPRZ=001b; PROVISIONING TYPE thin.
		p = append(p, byte(thresholdSet-a.unit.shift), 0xE4, 0x02, 0)
	default:
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 7))
		return
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-4))
	c.reply(p, allocation)
}

// thresholdSet is what one threshold set resource holds (SBC-3 6.5.4), log2 of bytes: the unit in which space runs
// out when AttentionSpaceThreshold is established. The thresholds are the pool's; an initiator can not set them.
const thresholdSet = 24

// Designator header bytes (SPC-4 7.8.6.1): code set in byte 0, association and type in byte 1.
const (
	codeSetBinary = 1
	codeSetASCII  = 2
	codeSetUTF8   = 3

	associationPort = 0x90 // PIV, target port

	designatorT10    = 1
	designatorNAA    = 3
	designatorPort   = 4 // relative target port identifier
	designatorGroup  = 5 // target port group
	designatorString = 8 // SCSI name string
)

// appendIdentification appends the designators of the logical unit, equal on every path, then those of the port.
func (a *attachment) appendIdentification(p []byte) []byte {
	id, port := a.unit.config.Identity, a.nexus.config.TargetPort
	protocol := port.Protocol << 4

	p = append(p, codeSetBinary, designatorNAA, 0, 16)
	p = append(p, id.NAA[:]...)

	p = append(p, codeSetASCII, designatorT10, 0, byte(8+len(id.Serial)))
	vendor := len(p)
	p = append(p, make([]byte, 8)...)
	padded(p[vendor:], id.Vendor)
	p = append(p, id.Serial...)

	p = append(p, protocol|codeSetBinary, associationPort|designatorPort, 0, 4, 0, 0)
	p = binary.BigEndian.AppendUint16(p, port.RelativeID)

	p = append(p, protocol|codeSetBinary, associationPort|designatorGroup, 0, 4, 0, 0)
	p = binary.BigEndian.AppendUint16(p, port.Group)

	// A name string ends with at least one zero and is a multiple of 4 long.
	name := port.Name[:min(len(port.Name), portNameMax)]
	length := (len(name) + 4) &^ 3
	p = append(p, protocol|codeSetUTF8, associationPort|designatorString, 0, byte(length))
	p = append(p, name...)
	return append(p, make([]byte, length-len(name))...)
}

// portNameMax is the longest SCSI name string of a port that fits a designator with its terminating zero, in bytes.
const portNameMax = 251

// appendBlockLimits appends the Block Limits page (SBC-3 6.5.3), 3Ch bytes after the header. Lengths are logical
// blocks; a granularity of ProvisioningBlock is both the physical block and the unit of UNMAP.
func (u *LogicalUnit) appendBlockLimits(p []byte) []byte {
	start := len(p) - 4
	p = append(p, make([]byte, 0x3C)...)
	d, l := p[start:], u.config.Limits
	granularity := uint32(ProvisioningBlock >> u.shift)
	d[5] = compareAndWriteMax
	binary.BigEndian.PutUint16(d[6:], uint16(granularity)) // OPTIMAL TRANSFER LENGTH GRANULARITY
	binary.BigEndian.PutUint32(d[8:], uint32(l.MaxTransfer>>u.shift))
	binary.BigEndian.PutUint32(d[12:], uint32(l.OptimalTransfer>>u.shift))
	binary.BigEndian.PutUint32(d[20:], uint32(l.MaxUnmap>>u.shift))
	binary.BigEndian.PutUint32(d[24:], uint32(l.MaxUnmapDescriptors))
	binary.BigEndian.PutUint32(d[28:], granularity) // OPTIMAL UNMAP GRANULARITY
	binary.BigEndian.PutUint32(d[32:], 1<<31)       // UGAVALID, alignment 0
	binary.BigEndian.PutUint64(d[36:], uint64(l.MaxWriteSame>>u.shift))
	return p
}

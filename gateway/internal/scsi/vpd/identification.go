package vpd

import "encoding/binary"

// Port is the target's side of a nexus. It belongs to the portal, never to a volume.
type Port struct {
	Name       string // SCSI name string of the port, e.g. "iqn.2026-11.dev.ashlar:demo,t,0x0001"; 1..248 bytes
	RelativeID uint16 // relative target port identifier, 1..65535, unique among the ports of a volume
	Group      uint16 // target port group, unique among the port groups of a volume
	Protocol   byte   // protocol identifier (SPC-4 7.6.1); 5 is iSCSI
}

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

// AppendIdentification appends what follows the header of the Device Identification page (SPC-4 7.8.6): the designators
// of the logical unit, equal on every path, then those of the port. Each is code set, association and type, zero,
// length, designator.
func AppendIdentification(p []byte, id Identity, port Port) []byte {
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

package mode

import (
	"encoding/binary"
	"math"
)

// Lengths of the mode parameter headers (SPC-4 7.5.5), in bytes:
//
//	(6)   0 length-1     1 medium type  2 device specific  3 descriptor length
//	(10)  0 length-2(2)  2 medium type  3 device specific  4 LONGLBA  5 reserved  6 descriptor length(2)
const (
	header6  = 4
	header10 = 8
)

// Medium is what headers and block descriptors say of the medium.
type Medium struct {
	Blocks   uint64 // capacity in logical blocks
	Length   uint32 // logical block length in bytes
	Specific byte   // device specific parameter
}

// Begin6 appends the header of MODE SENSE(6) and, unless dbd, the short block descriptor. End6 completes it.
func (m Medium) Begin6(p []byte, dbd bool) []byte {
	p = append(p, 0, 0, m.Specific, 0)
	if !dbd {
		p[3] = 8
		p = m.appendDescriptor(p, false)
	}
	return p
}

// End6 writes the length of the answer that p is.
func End6(p []byte) []byte {
	p[0] = byte(len(p) - 1)
	return p
}

// Begin10 appends the header of MODE SENSE(10) and, unless dbd, a block descriptor: with long the long one. End10 completes
// it.
func (m Medium) Begin10(p []byte, dbd, long bool) []byte {
	p = append(p, 0, 0, 0, m.Specific, 0, 0, 0, 0)
	switch {
	case dbd:
	case long:
		p[4], p[7] = 0x01, 16
		p = m.appendDescriptor(p, true)
	default:
		p[7] = 8
		p = m.appendDescriptor(p, false)
	}
	return p
}

// End10 writes the length of the answer that p is.
func End10(p []byte) []byte {
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	return p
}

// appendDescriptor appends the short (8 bytes) or long (16 bytes) LBA mode parameter block descriptor (SBC-3 6.4.2). A
// capacity that the short one can not hold is FFFFFFFFh.
func (m Medium) appendDescriptor(p []byte, long bool) []byte {
	if long {
		p = binary.BigEndian.AppendUint64(p, m.Blocks)
		p = append(p, 0, 0, 0, 0)
	} else {
		p = binary.BigEndian.AppendUint32(p, uint32(min(m.Blocks, math.MaxUint32)))
	}
	return binary.BigEndian.AppendUint32(p, m.Length)
}

// Pages returns where the pages of the parameter list of MODE SELECT(6), or with ten of MODE SELECT(10), begin. The block
// descriptor may only say what is so; if not, the Fault points at it.
func (m Medium) Pages(list []byte, ten bool) (at int, fault *Fault) {
	header := header6
	if ten {
		header = header10
	}
	if len(list) < header {
		return 0, &Fault{Cut: true}
	}
	descriptor, long := int(list[3]), false
	if ten {
		descriptor, long = int(binary.BigEndian.Uint16(list[6:])), list[4]&0x01 != 0
	}
	if at = header + descriptor; at > len(list) {
		return 0, &Fault{Cut: true}
	}
	if !m.same(list[header:at], long) {
		return 0, &Fault{At: header, Bit: -1}
	}
	return at, nil
}

// same tells whether a block descriptor asks for what is so. A number of blocks of 0 or all ones means "as it is" (SBC-3
// 6.4.2).
func (m Medium) same(d []byte, long bool) bool {
	if len(d) == 0 {
		return true
	}
	var blocks, length, all uint64
	switch {
	case !long && len(d) == 8:
		blocks, all = uint64(binary.BigEndian.Uint32(d)), math.MaxUint32
		length = uint64(binary.BigEndian.Uint32(d[4:]) & 0xFFFFFF)
	case long && len(d) == 16:
		blocks, all = binary.BigEndian.Uint64(d), math.MaxUint64
		length = uint64(binary.BigEndian.Uint32(d[12:]))
	default:
		return false
	}
	return length == uint64(m.Length) && (blocks == 0 || blocks == all || blocks == m.Blocks)
}

// SelectList judges a whole parameter list of MODE SELECT, as Pages and Select do. A Fault points into the list.
func (u Unit) SelectList(m Medium, list []byte, ten bool) (Settings, *Fault) {
	at, fault := m.Pages(list, ten)
	if fault != nil {
		return 0, fault
	}
	next, fault := u.Select(list[at:])
	if fault != nil {
		fault.At += at
	}
	return next, fault
}

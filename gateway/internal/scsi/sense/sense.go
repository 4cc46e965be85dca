// Package sense encodes and decodes sense data (SPC-4 4.5). It has no state.
//
//	fixed       70 | 00 | FLAGS KEY | INFORMATION(4) | 0A | 0(4) | ASC ASCQ | 00 | SKS(3)
//	descriptor  72 | KEY | ASC ASCQ | 0(3) | LENGTH | { 00 0A 80 00 INFORMATION(8) } { 02 06 0 0 SKS(3) 0 }
//	            { 01 0A 00 00 COMMAND-SPECIFIC INFORMATION(8) }
//
// The sense key specific bytes (SKS) say where a bad field begins, or how far an operation is:
//
//	field     SKSV(7) C/D(6) BPV(3) BIT POINTER(2..0) | FIELD POINTER(2)
//	segment   SKSV(7) SD(5) BPV(3) BIT POINTER(2..0) | FIELD POINTER(2)
//	progress  SKSV(7) | PROGRESS INDICATION(2), in 65536th
package sense

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Code is sense key, additional sense code and qualifier as one number: key<<16 | ASC<<8 | ASCQ.
type Code uint32

// New builds a Code. key is 0..15.
func New(key, asc, ascq byte) Code {
	return Code(key&0x0F)<<16 | Code(asc)<<8 | Code(ascq)
}

// Key returns the sense key (SPC-4 4.5.6).
func (c Code) Key() byte { return byte(c >> 16) }

// ASC returns the additional sense code.
func (c Code) ASC() byte { return byte(c >> 8) }

// ASCQ returns the additional sense code qualifier.
func (c Code) ASCQ() byte { return byte(c) }

// String returns key/ASC/ASCQ in hexadecimal, as in 05/24/00.
func (c Code) String() string {
	return fmt.Sprintf("%02X/%02X/%02X", c.Key(), c.ASC(), c.ASCQ())
}

// CodeOf returns the code within sense data of either format, of which there are at least 14 or 8 bytes.
func CodeOf(data []byte) Code {
	if data[0]&0x7F == 0x72 {
		return New(data[1], data[2], data[3])
	}
	return New(data[2], data[12], data[13])
}

// Max is the longest sense data that this package makes, in bytes.
const Max = 28

// specific tells what the sense key specific bytes are.
type specific uint8

const (
	none specific = iota
	pointer
	segment
	progress
)

// Field is the sense key specific information: of ILLEGAL REQUEST where the bad field begins (SPC-4 4.5.2.4.2), of NO
// SENSE and NOT READY how far an operation is (4.5.2.4.4). The zero value is "none".
type Field struct {
	kind specific
	data bool   // false: in the CDB; true: in the parameter list
	at   uint16 // byte, or progress
	bit  int8   // most significant bit of the field, or -1
}

// InCDB points at bit (7 is the most significant, -1 none) of byte at of the CDB.
func InCDB(at, bit int) Field { return Field{kind: pointer, at: uint16(at), bit: int8(bit)} }

// InData points into the parameter list.
func InData(at, bit int) Field {
	return Field{kind: pointer, data: true, at: uint16(at), bit: int8(bit)}
}

// InSegment points into the segment descriptor at which EXTENDED COPY failed (SPC-4 4.5.2.4.5).
func InSegment(at int) Field { return Field{kind: segment, at: uint16(at), bit: -1} }

// Progress tells how much of an operation is done, in 65536th.
func Progress(done uint16) Field { return Field{kind: progress, at: done} }

// put writes the three SKS bytes.
func (f Field) put(p []byte) {
	p[0] = 0x80
	if f.kind == segment {
		p[0] |= 0x20
	}
	if f.kind == pointer {
		if !f.data {
			p[0] |= 0x40
		}
		if f.bit >= 0 {
			p[0] |= 0x08 | byte(f.bit)
		}
	}
	binary.BigEndian.PutUint16(p[1:], f.at)
}

// Data is one sense report before it is encoded.
type Data struct {
	Code    Code
	Info    uint64 // INFORMATION: an LBA or an offset
	HasInfo bool
	Field   Field

	// Specific is COMMAND-SPECIFIC INFORMATION: of COPY ABORTED the number of the segment descriptor. It does not go
	// with INFORMATION.
	Specific    uint64
	HasSpecific bool
}

// Put encodes d into p, which must have room for Max bytes, and returns the encoding's length.
func (d Data) Put(p []byte, descriptor bool) int {
	if descriptor {
		return d.putDescriptor(p)
	}
	return d.putFixed(p)
}

// putFixed writes the fixed format (SPC-4 4.5.3), 18 bytes. An INFORMATION that needs more than 32 bits is left
// out, as the standard asks.
func (d Data) putFixed(p []byte) int {
	p = p[:18]
	clear(p)
	p[0] = 0x70
	if d.HasInfo && d.Info <= math.MaxUint32 {
		p[0] |= 0x80
		binary.BigEndian.PutUint32(p[3:], uint32(d.Info))
	}
	p[2] = d.Code.Key()
	p[7] = 10
	if d.HasSpecific && d.Specific <= math.MaxUint32 {
		binary.BigEndian.PutUint32(p[8:], uint32(d.Specific))
	}
	p[12], p[13] = d.Code.ASC(), d.Code.ASCQ()
	if d.Field.kind != none {
		d.Field.put(p[15:])
	}
	return len(p)
}

// putDescriptor writes the descriptor format (SPC-4 4.5.2), 8 to Max bytes.
func (d Data) putDescriptor(p []byte) int {
	p = p[:Max]
	clear(p)
	p[0] = 0x72
	p[1] = d.Code.Key()
	p[2], p[3] = d.Code.ASC(), d.Code.ASCQ()
	n := 8
	if d.HasInfo {
		p[n], p[n+1], p[n+2] = 0x00, 0x0A, 0x80
		binary.BigEndian.PutUint64(p[n+4:], d.Info)
		n += 12
	}
	if d.HasSpecific && !d.HasInfo {
		p[n], p[n+1] = 0x01, 0x0A
		binary.BigEndian.PutUint64(p[n+4:], d.Specific)
		n += 12
	}
	if d.Field.kind != none {
		p[n], p[n+1] = 0x02, 0x06
		d.Field.put(p[n+4:])
		n += 8
	}
	p[7] = byte(n - 8)
	return n
}

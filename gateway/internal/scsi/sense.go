package scsi

import (
	"encoding/binary"
	"fmt"
	"math"
)

// SenseCode is sense key, additional sense code and qualifier as one number: key<<16 | ASC<<8 | ASCQ.
type SenseCode uint32

// Sense builds a SenseCode. key is 0..15.
func Sense(key, asc, ascq byte) SenseCode {
	return SenseCode(key&0x0F)<<16 | SenseCode(asc)<<8 | SenseCode(ascq)
}

// Key returns the sense key (SPC-4 4.5.6).
func (s SenseCode) Key() byte { return byte(s >> 16) }

// ASC returns the additional sense code.
func (s SenseCode) ASC() byte { return byte(s >> 8) }

// ASCQ returns the additional sense code qualifier.
func (s SenseCode) ASCQ() byte { return byte(s) }

// String returns key/ASC/ASCQ in hexadecimal, as in 05/24/00.
func (s SenseCode) String() string {
	return fmt.Sprintf("%02X/%02X/%02X", s.Key(), s.ASC(), s.ASCQ())
}

// Sense codes that this package answers.
const (
	NoSense                    SenseCode = 0x000000
	UnrecoveredReadError       SenseCode = 0x031100
	WriteError                 SenseCode = 0x030C00
	InternalTargetFailure      SenseCode = 0x044400
	ParameterListLengthError   SenseCode = 0x051A00
	InvalidOperationCode       SenseCode = 0x052000
	AccessDenied               SenseCode = 0x052002
	LBAOutOfRange              SenseCode = 0x052100
	InvalidFieldInCDB          SenseCode = 0x052400
	LogicalUnitNotSupported    SenseCode = 0x052500
	InvalidFieldInParameters   SenseCode = 0x052600
	SavingNotSupported         SenseCode = 0x053900
	InvalidFieldInCommandIU    SenseCode = 0x050E03
	WriteProtected             SenseCode = 0x072700
	SpaceAllocationFailed      SenseCode = 0x072707
	CommandsClearedByServer    SenseCode = 0x0B2F02
	MiscompareDuringVerify     SenseCode = 0x0E1D00
	AttentionPowerOn           SenseCode = 0x062900 // power on, reset, or bus device reset occurred
	AttentionTargetReset       SenseCode = 0x062902 // the whole target was reset (SCSI BUS RESET OCCURRED)
	AttentionDeviceReset       SenseCode = 0x062903 // logical unit reset
	AttentionNexusLoss         SenseCode = 0x062907 // I_T nexus loss, e.g. session reinstatement
	AttentionCapacityChanged   SenseCode = 0x062A09
	AttentionModeChanged       SenseCode = 0x062A01
	AttentionAccessChanged     SenseCode = 0x062A06 // asymmetric access state changed
	AttentionLUNsChanged       SenseCode = 0x063F0E // reported LUNs data has changed
	AttentionInquiryChanged    SenseCode = 0x063F03
	AttentionSpaceThreshold    SenseCode = 0x063807 // thin provisioning soft threshold reached
	AttentionReservationsFreed SenseCode = 0x062A04
)

// SenseMax is the longest sense data that this package makes, in bytes.
const SenseMax = 28

// fieldPointer is the sense-key specific information of ILLEGAL REQUEST (SPC-4 4.5.2.4.2): where the bad field
// begins. The zero value is "none".
type fieldPointer struct {
	valid bool
	data  bool   // false: in the CDB; true: in the parameter list
	at    uint16 // byte
	bit   int8   // most significant bit of the field, or -1
}

// cdbField points at bit (7 is the most significant, -1 none) of byte at of the CDB.
func cdbField(at, bit int) fieldPointer {
	return fieldPointer{valid: true, at: uint16(at), bit: int8(bit)}
}

// dataField points into the parameter list.
func dataField(at, bit int) fieldPointer {
	return fieldPointer{valid: true, data: true, at: uint16(at), bit: int8(bit)}
}

// put writes the three SKS bytes.
func (f fieldPointer) put(p []byte) {
	p[0] = 0x80
	if !f.data {
		p[0] |= 0x40
	}
	if f.bit >= 0 {
		p[0] |= 0x08 | byte(f.bit)
	}
	binary.BigEndian.PutUint16(p[1:], f.at)
}

// senseData is one sense report before it is encoded.
type senseData struct {
	code    SenseCode
	info    uint64 // INFORMATION: an LBA or an offset
	hasInfo bool
	field   fieldPointer
}

// put encodes d into p, which must have room for SenseMax bytes, and returns the encoding's length.
func (d senseData) put(p []byte, descriptor bool) int {
	if descriptor {
		return d.putDescriptor(p)
	}
	return d.putFixed(p)
}

// putFixed writes the fixed format (SPC-4 4.5.3), 18 bytes. An INFORMATION that needs more than 32 bits is left
// out, as the standard asks.
func (d senseData) putFixed(p []byte) int {
	p = p[:18]
	clear(p)
	p[0] = 0x70
	if d.hasInfo && d.info <= math.MaxUint32 {
		p[0] |= 0x80
		binary.BigEndian.PutUint32(p[3:], uint32(d.info))
	}
	p[2] = d.code.Key()
	p[7] = 10
	p[12], p[13] = d.code.ASC(), d.code.ASCQ()
	if d.field.valid {
		d.field.put(p[15:])
	}
	return len(p)
}

// putDescriptor writes the descriptor format (SPC-4 4.5.2), 8 to SenseMax bytes.
func (d senseData) putDescriptor(p []byte) int {
	p = p[:SenseMax]
	clear(p)
	p[0] = 0x72
	p[1] = d.code.Key()
	p[2], p[3] = d.code.ASC(), d.code.ASCQ()
	n := 8
	if d.hasInfo {
		p[n], p[n+1], p[n+2] = 0x00, 0x0A, 0x80
		binary.BigEndian.PutUint64(p[n+4:], d.info)
		n += 12
	}
	if d.field.valid {
		p[n], p[n+1] = 0x02, 0x06
		d.field.put(p[n+4:])
		n += 8
	}
	p[7] = byte(n - 8)
	return n
}

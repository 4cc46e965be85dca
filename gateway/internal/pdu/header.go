package pdu

import (
	"encoding/binary"
	"fmt"
)

const (
	// BHSLen is the length of the basic header segment, in bytes.
	BHSLen = 48
	// MaxAHSLen is the most that TotalAHSLength can announce, in bytes.
	MaxAHSLen = 255 * 4
	// MaxDataSegmentLen is the most that DataSegmentLength can announce, in bytes.
	MaxDataSegmentLen = 1<<24 - 1
)

// Bits of the first two bytes that several PDUs share.
const (
	flagImmediate = 0x40 // byte 0: I
	maskOpcode    = 0x3f // byte 0
	flagFinal     = 0x80 // byte 1: F, in login PDUs T
	flagContinue  = 0x40 // byte 1: C, in text and login PDUs
)

// Header is a basic header segment as it is on the wire, RFC 7143 section 11.2.1. Its accessors read what all or most
// PDUs share; the rest is read by the ParseXxx of the opcode.
type Header [BHSLen]byte

// Opcode returns the operation code; it may be one that RFC 7143 does not define.
func (h *Header) Opcode() Opcode { return Opcode(h[0] & maskOpcode) }

// Immediate reports the I bit: the command is for immediate delivery and does not advance CmdSN.
func (h *Header) Immediate() bool { return h[0]&flagImmediate != 0 }

// Final reports the F bit (the T bit in login PDUs).
func (h *Header) Final() bool { return h[1]&flagFinal != 0 }

// AHSLen returns the length of all additional header segments, 0 to MaxAHSLen bytes.
func (h *Header) AHSLen() int { return int(h[4]) * 4 }

// DataSegmentLen returns the length of the data segment without padding, 0 to MaxDataSegmentLen bytes.
func (h *Header) DataSegmentLen() int { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }

// LUN returns bytes 8 to 15. They are a LUN except in login, logout, SCSI Response and TMF Response PDUs.
func (h *Header) LUN() LUN { return LUN(h[8:16]) }

// ITT returns the Initiator Task Tag.
func (h *Header) ITT() ITT { return ITT(h.u32(16)) }

// TTT returns the Target Transfer Tag of PDUs that have one (NOP, Text, Data, R2T, SNACK).
func (h *Header) TTT() TTT { return TTT(h.u32(20)) }

// CmdSN returns the CmdSN of PDUs that an initiator sends, except Data-Out and SNACK, which have none.
func (h *Header) CmdSN() CmdSN { return CmdSN(h.u32(24)) }

// ExpStatSN returns the ExpStatSN of PDUs that an initiator sends.
func (h *Header) ExpStatSN() StatSN { return StatSN(h.u32(28)) }

func (h *Header) u16(at int) uint16      { return binary.BigEndian.Uint16(h[at:]) }
func (h *Header) u32(at int) uint32      { return binary.BigEndian.Uint32(h[at:]) }
func (h *Header) put16(at int, v uint16) { binary.BigEndian.PutUint16(h[at:], v) }
func (h *Header) put32(at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }

// InitiatorSNs are the serial numbers in bytes 24 to 31 of most PDUs that an initiator sends.
type InitiatorSNs struct {
	CmdSN     CmdSN
	ExpStatSN StatSN
}

// TargetSNs are the serial numbers in bytes 24 to 35 of all PDUs that a target sends. In a Data-In without status
// StatSN is reserved and 0.
type TargetSNs struct {
	StatSN   StatSN
	ExpCmdSN CmdSN
	MaxCmdSN CmdSN
}

func (h *Header) initiatorSNs() InitiatorSNs { return InitiatorSNs{h.CmdSN(), h.ExpStatSN()} }

func (h *Header) putInitiatorSNs(s InitiatorSNs) {
	h.put32(24, uint32(s.CmdSN))
	h.put32(28, uint32(s.ExpStatSN))
}

func (h *Header) targetSNs() TargetSNs {
	return TargetSNs{StatSN(h.u32(24)), CmdSN(h.u32(28)), CmdSN(h.u32(32))}
}

func (h *Header) putTargetSNs(s TargetSNs) {
	h.put32(24, uint32(s.StatSN))
	h.put32(28, uint32(s.ExpCmdSN))
	h.put32(32, uint32(s.MaxCmdSN))
}

// appendBHS appends a zeroed BHS with opcode, byte 1, and length fields set, and returns it for the rest to be filled
// in. It panics if dataLen does not fit the field: the caller cuts data to what was negotiated, which does.
func appendBHS(dst []byte, op Opcode, flags byte, dataLen int) ([]byte, *Header) {
	if dataLen < 0 || dataLen > MaxDataSegmentLen {
		panic(fmt.Sprintf("pdu: data segment of %d bytes", dataLen))
	}
	at := len(dst)
	dst = append(dst, make([]byte, BHSLen)...)
	h := (*Header)(dst[at:])
	h[0] = byte(op)
	h[1] = flags
	h[5], h[6], h[7] = byte(dataLen>>16), byte(dataLen>>8), byte(dataLen)
	return dst, h
}

// expect checks what every ParseXxx demands: the opcode it parses, a data slice as long as the header says, and no
// AHS. Lengths that disagree are the caller's mistake, but they come from bytes of a peer, so it is an error as well.
func (h *Header) expect(op Opcode, ahs, data []byte) error {
	if h.Opcode() != op {
		return formatErrorf(RejectProtocolError, "%v where %v was expected", h.Opcode(), op)
	}
	if len(data) != h.DataSegmentLen() {
		return formatErrorf(RejectInvalidPDUField, "%v: DataSegmentLength %d, got %d bytes", op, h.DataSegmentLen(), len(data))
	}
	if len(ahs) != h.AHSLen() {
		return formatErrorf(RejectInvalidPDUField, "%v: TotalAHSLength %d bytes, got %d", op, h.AHSLen(), len(ahs))
	}
	if op != OpSCSICommand && len(ahs) != 0 {
		return formatErrorf(RejectInvalidPDUField, "%v with an additional header segment", op)
	}
	return nil
}

// expectNoData is expect for PDUs that have no data segment.
func (h *Header) expectNoData(op Opcode, ahs, data []byte) error {
	if err := h.expect(op, ahs, data); err != nil {
		return err
	}
	if len(data) != 0 {
		return formatErrorf(RejectInvalidPDUField, "%v with a data segment of %d bytes", op, len(data))
	}
	return nil
}

// expectITT refuses the reserved tag where a task must be named.
func (h *Header) expectITT() error {
	if h.ITT().IsReserved() {
		return formatErrorf(RejectInvalidPDUField, "%v with the reserved Initiator Task Tag", h.Opcode())
	}
	return nil
}

func (h *Header) setImmediate(on bool) {
	if on {
		h[0] |= flagImmediate
	}
}

// putTask sets LUN, ITT and TTT of the PDUs that have all three.
func (h *Header) putTask(lun LUN, itt ITT, ttt TTT) {
	copy(h[8:16], lun[:])
	h.put32(16, uint32(itt))
	h.put32(20, uint32(ttt))
}

// bit returns mask if on, else 0.
func bit(on bool, mask byte) byte {
	if on {
		return mask
	}
	return 0
}

// mustBeZero panics if a PDU without data segment is given one.
func mustBeZero(dataLen int) int {
	if dataLen != 0 {
		panic("pdu: data segment for a PDU that has none")
	}
	return 0
}

package wire

import "encoding/binary"

// Opcodes (RFC 7143 section 11.2.1.2).
const (
	OpNopOut    = 0x00
	OpCommand   = 0x01
	OpTMF       = 0x02
	OpLogin     = 0x03
	OpText      = 0x04
	OpDataOut   = 0x05
	OpLogout    = 0x06
	OpSNACK     = 0x10
	OpNopIn     = 0x20
	OpResponse  = 0x21
	OpTMFRsp    = 0x22
	OpLoginRsp  = 0x23
	OpTextRsp   = 0x24
	OpDataIn    = 0x25
	OpLogoutRsp = 0x26
	OpR2T       = 0x31
	OpAsync     = 0x32
	OpReject    = 0x3f
)

// Bits of the first two bytes of a header.
const (
	Immediate = 0x40 // byte 0
	Final     = 0x80 // byte 1: F, and T of a login
	Continue  = 0x40 // byte 1: C of login and text
	Read      = 0x40 // byte 1 of a command
	Write     = 0x20 // byte 1 of a command
	Ack       = 0x40 // byte 1 of Data-In: A
	HasStatus = 0x01 // byte 1 of Data-In: S
	Overflow  = 0x04 // byte 1 of a response: O
	Underflow = 0x02 // byte 1 of a response: U
)

// Reserved is the value of a task tag that names no task.
const Reserved = 0xffffffff

// BHSLen is the length of the basic header segment, bytes.
const BHSLen = 48

// PDU is one protocol data unit. Its length fields are filled in by Conn.Send, unless Raw is set.
type PDU struct {
	BHS  [BHSLen]byte
	AHS  []byte // whole words
	Data []byte
	Raw  bool // the length fields of BHS are sent as they are
}

// Opcode returns the operation code.
func (p *PDU) Opcode() byte { return p.BHS[0] & 0x3f }

// Flags returns byte 1.
func (p *PDU) Flags() byte { return p.BHS[1] }

// U32 returns the number at a byte offset of the header.
func (p *PDU) U32(at int) uint32 { return binary.BigEndian.Uint32(p.BHS[at:]) }

// Put32 sets the number at a byte offset of the header.
func (p *PDU) Put32(at int, v uint32) { binary.BigEndian.PutUint32(p.BHS[at:], v) }

// ITT returns the initiator task tag.
func (p *PDU) ITT() uint32 { return p.U32(16) }

// TTT returns the target transfer tag of the PDUs that have one.
func (p *PDU) TTT() uint32 { return p.U32(20) }

// StatSN returns it from a PDU of a target.
func (p *PDU) StatSN() uint32 { return p.U32(24) }

// ExpCmdSN returns it from a PDU of a target.
func (p *PDU) ExpCmdSN() uint32 { return p.U32(28) }

// MaxCmdSN returns it from a PDU of a target.
func (p *PDU) MaxCmdSN() uint32 { return p.U32(32) }

// DataLen returns the DataSegmentLength field.
func (p *PDU) DataLen() int { return int(p.BHS[5])<<16 | int(p.BHS[6])<<8 | int(p.BHS[7]) }

// SetDataLen sets the DataSegmentLength field, for a PDU that is sent raw.
func (p *PDU) SetDataLen(n int) { p.BHS[5], p.BHS[6], p.BHS[7] = byte(n>>16), byte(n>>8), byte(n) }

// New returns a PDU with opcode, flags and task tag, delivered in CmdSN order.
func New(opcode, flags byte, itt uint32) PDU {
	var p PDU
	p.BHS[0], p.BHS[1] = opcode, flags
	p.Put32(16, itt)
	return p
}

// Command returns a SCSI Command with the SIMPLE attribute (RFC 7143 section 11.3). flags are F, R and W; length is the
// expected data transfer length. CmdSN and ExpStatSN are filled in by Host.Send.
func Command(flags byte, itt uint32, lun uint64, length uint32, cdb []byte, data []byte) PDU {
	p := New(OpCommand, flags|1, itt)
	binary.BigEndian.PutUint64(p.BHS[8:], lun)
	p.Put32(20, length)
	copy(p.BHS[32:], cdb)
	p.Data = data
	return p
}

// DataOut returns a SCSI Data-Out (RFC 7143 section 11.7).
func DataOut(flags byte, itt, ttt uint32, lun uint64, dataSN, offset uint32, data []byte) PDU {
	p := New(OpDataOut, flags, itt)
	binary.BigEndian.PutUint64(p.BHS[8:], lun)
	p.Put32(20, ttt)
	p.Put32(36, dataSN)
	p.Put32(40, offset)
	p.Data = data
	return p
}

// NopOut returns a NOP-Out (RFC 7143 section 11.18).
func NopOut(itt, ttt uint32, data []byte) PDU {
	p := New(OpNopOut, Final, itt)
	p.Put32(20, ttt)
	p.Data = data
	return p
}

// Functions of task management (RFC 7143 section 11.5.1, RFC 7144 section 4.1).
const (
	AbortTask        = 1
	AbortTaskSet     = 2
	ClearACA         = 3
	ClearTaskSet     = 4
	LogicalUnitReset = 5
	TargetWarmReset  = 6
	TargetColdReset  = 7
	TaskReassign     = 8
	QueryTask        = 9
	QueryTaskSet     = 10
	NexusReset       = 11
	QueryAsyncEvent  = 12
)

// Responses of task management (RFC 7143 section 11.6.1, RFC 7144 section 5.1).
const (
	TMFComplete     = 0
	TMFNoTask       = 1
	TMFNoUnit       = 2
	TMFStillThere   = 3
	TMFNoReassign   = 4
	TMFNotSupported = 5
	TMFNotAllowed   = 6
	TMFSucceeded    = 7
	TMFRejected     = 255
)

// TMF returns a Task Management Function Request (RFC 7143 section 11.5) for immediate delivery.
func TMF(function byte, itt uint32, lun uint64, ref, refCmdSN uint32) PDU {
	p := New(OpTMF|Immediate, Final|function, itt)
	binary.BigEndian.PutUint64(p.BHS[8:], lun)
	p.Put32(20, ref)
	p.Put32(32, refCmdSN)
	return p
}

// Text returns a Text Request (RFC 7143 section 11.10).
func Text(flags byte, itt, ttt uint32, data []byte) PDU {
	p := New(OpText, flags, itt)
	p.Put32(20, ttt)
	p.Data = data
	return p
}

// Reasons of a logout (RFC 7143 section 11.14.1).
const (
	LogoutSession    = 0
	LogoutConnection = 1
	LogoutRecovery   = 2
)

// Logout returns a Logout Request (RFC 7143 section 11.14) for immediate delivery.
func Logout(reason byte, itt uint32, cid uint16) PDU {
	p := New(OpLogout|Immediate, Final|reason, itt)
	binary.BigEndian.PutUint16(p.BHS[20:], cid)
	return p
}

// Types of SNACK (RFC 7143 section 11.16.1).
const (
	SNACKData    = 0 // data and R2T
	SNACKStatus  = 1
	SNACKDataACK = 2
	SNACKRData   = 3
)

// SNACK returns a SNACK Request (RFC 7143 section 11.16).
func SNACK(kind byte, itt, ttt, begRun, runLength uint32) PDU {
	p := New(OpSNACK, Final|kind, itt)
	p.Put32(20, ttt)
	p.Put32(40, begRun)
	p.Put32(44, runLength)
	return p
}

// LUN encodes a logical unit number of a single level (SAM-5 4.7): peripheral addressing below 256, flat above.
func LUN(n uint16) uint64 {
	if n < 256 {
		return uint64(n) << 48
	}
	return uint64(0x4000|n&0x3fff) << 48
}

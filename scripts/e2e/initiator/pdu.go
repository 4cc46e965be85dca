package initiator

import "encoding/binary"

// bhsLen is the length of the basic header segment (RFC 7143 11.2.1).
const bhsLen = 48

// Opcodes that this initiator sends and understands (RFC 7143 11.2.1.2).
const (
	opNopOut    = 0x00
	opCommand   = 0x01
	opLogin     = 0x03
	opDataOut   = 0x05
	opLogout    = 0x06
	opNopIn     = 0x20
	opResponse  = 0x21
	opTaskMgmt  = 0x02
	opTaskRsp   = 0x22
	opLoginRsp  = 0x23
	opDataIn    = 0x25
	opLogoutRsp = 0x26
	opR2T       = 0x31
	opAsync     = 0x32
	opReject    = 0x3f
)

const (
	immediate = 0x40
	final     = 0x80
	noTag     = 0xffffffff
)

// bhs is a basic header segment.
type bhs [bhsLen]byte

func (h *bhs) opcode() byte           { return h[0] & 0x3f }
func (h *bhs) put32(at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }
func (h *bhs) get32(at int) uint32    { return binary.BigEndian.Uint32(h[at:]) }
func (h *bhs) dataLen() int           { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }

func (h *bhs) setDataLen(n int) {
	h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n)
}

// padded rounds a data segment's length up to whole words.
func padded(n int) int { return (n + 3) &^ 3 }

// commandPDU is a SCSI Command (RFC 7143 11.3).
func commandPDU(itt, cmdSN, expStatSN uint32, lun uint64, c *Command, immediateLen int, more bool) bhs {
	var h bhs
	h[0] = opCommand
	h[1] = 1 // simple task attribute
	if !more {
		h[1] |= final
	}
	length := 0
	if len(c.In) > 0 {
		h[1] |= 0x40
		length = len(c.In)
	}
	if len(c.Out) > 0 {
		h[1] |= 0x20
		length = len(c.Out)
	}
	h.setDataLen(immediateLen)
	binary.BigEndian.PutUint64(h[8:], lun)
	h.put32(16, itt)
	h.put32(20, uint32(length))
	h.put32(24, cmdSN)
	h.put32(28, expStatSN)
	copy(h[32:], c.CDB[:])
	return h
}

// dataOutPDU is a SCSI Data-Out (RFC 7143 11.7).
func dataOutPDU(itt, ttt, expStatSN, dataSN uint32, lun uint64, offset, n int, last bool) bhs {
	var h bhs
	h[0] = opDataOut
	if last {
		h[1] = final
	}
	h.setDataLen(n)
	binary.BigEndian.PutUint64(h[8:], lun)
	h.put32(16, itt)
	h.put32(20, ttt)
	h.put32(28, expStatSN)
	h.put32(36, dataSN)
	h.put32(40, uint32(offset))
	return h
}

// taskMgmtPDU is a Task Management Function Request with immediate delivery (RFC 7143 11.5).
func taskMgmtPDU(function byte, itt, refTag, cmdSN, expStatSN, refCmdSN uint32, lun uint64) bhs {
	var h bhs
	h[0] = opTaskMgmt | immediate
	h[1] = final | function
	binary.BigEndian.PutUint64(h[8:], lun)
	h.put32(16, itt)
	h.put32(20, refTag)
	h.put32(24, cmdSN)
	h.put32(28, expStatSN)
	h.put32(32, refCmdSN)
	return h
}

// serialLess compares sequence numbers in 32-bit serial arithmetic (RFC 1982).
func serialLess(a, b uint32) bool { return int32(a-b) < 0 }

// lunField is a single-level LUN in the 8-byte form of SAM-5: peripheral addressing below 256, flat above.
func lunField(lun uint16) uint64 {
	if lun < 256 {
		return uint64(lun) << 48
	}
	return uint64(0x4000|lun&0x3fff) << 48
}

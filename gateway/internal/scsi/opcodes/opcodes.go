// Package opcodes encodes the data of REPORT SUPPORTED OPERATION CODES (SPC-4 6.35). It has no state.
//
//	all commands  LENGTH(4) { OPCODE  0  SERVICE ACTION(2)  0  CTDP(1) SERVACTV(0)  CDB LENGTH(2)  [timeouts(12)] }...
//	one command   0  CTDP(7) SUPPORT(2..0)  CDB SIZE(2)  CDB USAGE DATA  [timeouts(12)]
//	timeouts      000A  0  COMMAND SPECIFIC  NOMINAL(4)  RECOMMENDED(4)
//
// NOMINAL COMMAND PROCESSING TIMEOUT is not told, RECOMMENDED COMMAND TIMEOUT is in seconds.
package opcodes

import (
	"encoding/binary"
	"iter"
)

// Values of REPORTING OPTIONS (SPC-4 6.35.1).
const (
	All          = 0
	Opcode       = 1 // operation code without service actions
	Action       = 2 // operation code with service action
	OpcodeAction = 3 // either, the service action 0 where there is none
)

// Values of SUPPORT (SPC-4 6.35.3).
const (
	supportNone     = 1
	supportStandard = 3
)

// actionMask is the SERVICE ACTION field in byte 1 of a CDB.
const actionMask = 0x1F

// Command is one command as it is reported.
type Command struct {
	// Usage is the CDB usage data: the operation code, the service action where there is one, and a one for each bit
	// that is looked at. Its length is the CDB's.
	Usage   []byte
	Action  bool   // byte 1 of Usage has a service action
	Timeout uint32 // recommended command timeout, seconds
}

// AppendAll appends the all_commands data.
func AppendAll(p []byte, commands iter.Seq[Command], timeouts bool) []byte {
	start := len(p)
	p = append(p, 0, 0, 0, 0)
	for c := range commands {
		var flags byte
		var action uint16
		if c.Action {
			flags |= 0x01
			action = uint16(c.Usage[1] & actionMask)
		}
		if timeouts {
			flags |= 0x02
		}
		p = append(p, c.Usage[0], 0)
		p = binary.BigEndian.AppendUint16(p, action)
		p = append(p, 0, flags)
		p = binary.BigEndian.AppendUint16(p, uint16(len(c.Usage)))
		if timeouts {
			p = c.appendTimeouts(p)
		}
	}
	binary.BigEndian.PutUint32(p[start:], uint32(len(p)-start-4))
	return p
}

// AppendNone appends the one_command data of a command that is not supported.
func AppendNone(p []byte) []byte { return append(p, 0, supportNone, 0, 0) }

// Append appends the one_command data of c.
func (c Command) Append(p []byte, timeouts bool) []byte {
	support := byte(supportStandard)
	if timeouts {
		support |= 0x80
	}
	p = append(p, 0, support)
	p = binary.BigEndian.AppendUint16(p, uint16(len(c.Usage)))
	p = append(p, c.Usage...)
	if timeouts {
		p = c.appendTimeouts(p)
	}
	return p
}

func (c Command) appendTimeouts(p []byte) []byte {
	p = append(p, 0, 0x0A, 0, 0, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(p, c.Timeout)
}

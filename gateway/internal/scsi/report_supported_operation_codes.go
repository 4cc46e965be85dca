package scsi

import (
	"context"
	"encoding/binary"
)

// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES (SPC-4 6.35.1).
const (
	reportAll          = 0
	reportOpcode       = 1 // operation code without service actions
	reportAction       = 2 // operation code with service action
	reportOpcodeAction = 3 // either, the service action 0 where there is none
)

// SUPPORT values (SPC-4 6.35.3).
const (
	supportNone     = 1
	supportStandard = 3
)

// reportSupportedOperationCodes is REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), made from the command table. RCTD
// adds a command timeouts descriptor to each command.
func reportSupportedOperationCodes(_ context.Context, a *attachment, c *Command) {
	timeouts := c.CDB[2]&0x80 != 0
	option, opcode, action := c.CDB[2]&7, c.CDB[3], c.u16(4)
	allocation := uint64(c.u32(6))
	if option == reportAll {
		c.reply(a.unit.operations.appendAll(c.small[:0], timeouts), allocation)
		return
	}
	if option > reportOpcodeAction {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 2))
		return
	}
	op := a.unit.operations.report(opcode, action, option == reportOpcode)
	if entry := a.unit.operations.index[opcode]; entry != nil {
		actions := entry.actions != nil
		if actions && option == reportOpcode || !actions && option == reportAction {
			a.refuse(c, InvalidFieldInCDB, cdbField(2, 2))
			return
		}
	}
	c.reply(appendOne(c.small[:0], op, timeouts), allocation)
}

// report returns the operation for an operation code and service action, or nil.
func (l *operationList) report(opcode byte, action uint16, anyAction bool) *operation {
	e := l.index[opcode]
	switch {
	case e == nil:
		return nil
	case e.actions == nil:
		if anyAction || action == 0 {
			return e.plain
		}
		return nil
	case action > serviceActionMask:
		return nil
	}
	return e.actions[action]
}

// appendAll appends the all_commands data (SPC-4 6.35.2): length(4), then for each command
//
//	0 OPCODE  1 reserved  2 SERVICE ACTION(2)  4 reserved  5 CTDP(1) SERVACTV(0)  6 CDB LENGTH(2)  8 [timeouts(12)]
func (l *operationList) appendAll(p []byte, timeouts bool) []byte {
	p = append(p, 0, 0, 0, 0)
	for i := range l.all {
		o := &l.all[i]
		var flags byte
		if o.action {
			flags |= 0x01
		}
		if timeouts {
			flags |= 0x02
		}
		p = append(p, o.opcode(), 0)
		p = binary.BigEndian.AppendUint16(p, o.serviceAction())
		p = append(p, 0, flags)
		p = binary.BigEndian.AppendUint16(p, uint16(len(o.usage)))
		if timeouts {
			p = o.appendTimeouts(p)
		}
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// appendOne appends the one_command data (SPC-4 6.35.3): reserved, CTDP(7) SUPPORT(2..0), CDB SIZE(2), CDB USAGE
// DATA, [timeouts(12)]. For a command that is not supported, o is nil and only the header is there.
func appendOne(p []byte, o *operation, timeouts bool) []byte {
	if o == nil {
		return append(p, 0, supportNone, 0, 0)
	}
	support := byte(supportStandard)
	if timeouts {
		support |= 0x80
	}
	p = append(p, 0, support)
	p = binary.BigEndian.AppendUint16(p, uint16(len(o.usage)))
	p = append(p, o.usage...)
	if timeouts {
		p = o.appendTimeouts(p)
	}
	return p
}

// appendTimeouts appends a command timeouts descriptor (SPC-4 6.35.4): length 000Ah, reserved, command specific,
// NOMINAL COMMAND PROCESSING TIMEOUT(4) not told, RECOMMENDED COMMAND TIMEOUT(4) in seconds.
func (o *operation) appendTimeouts(p []byte) []byte {
	p = append(p, 0, 0x0A, 0, 0, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(p, o.timeout)
}

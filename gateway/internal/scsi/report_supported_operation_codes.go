package scsi

import (
	"context"
	"iter"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/opcodes"
)

// reportSupportedOperationCodes is REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), made from the command table. RCTD
// adds a command timeouts descriptor to each command.
func reportSupportedOperationCodes(_ context.Context, a *attachment, c *Command) {
	timeouts := c.CDB[2]&0x80 != 0
	option, opcode, action := c.CDB[2]&7, c.CDB[3], c.u16(4)
	allocation := uint64(c.u32(6))
	if option == opcodes.All {
		c.reply(opcodes.AppendAll(c.small[:0], a.unit.operations.reports(), timeouts), allocation)
		return
	}
	entry := a.unit.operations.index[opcode]
	wrong := option > opcodes.OpcodeAction
	if entry != nil {
		wrong = wrong || entry.actions != nil && option == opcodes.Opcode || entry.actions == nil && option == opcodes.Action
	}
	if wrong {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 2))
		return
	}
	if op := entry.report(action, option == opcodes.Opcode); op != nil {
		c.reply(op.reported().Append(c.small[:0], timeouts), allocation)
		return
	}
	c.reply(opcodes.AppendNone(c.small[:0]), allocation)
}

// report returns the operation for a service action, or nil; without service actions there is only 0.
func (e *opcodeEntry) report(action uint16, anyAction bool) *operation {
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

func (o *operation) reported() opcodes.Command {
	return opcodes.Command{Usage: o.usage, Action: o.action, Timeout: o.timeout}
}

// reports yields every operation as it is reported.
func (l *operationList) reports() iter.Seq[opcodes.Command] {
	return func(yield func(opcodes.Command) bool) {
		for i := range l.all {
			if !yield(l.all[i].reported()) {
				return
			}
		}
	}
}

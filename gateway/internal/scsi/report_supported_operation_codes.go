package scsi

import "context"

// reportSupportedOperationCodes is REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), made from the command table. RCTD
// adds a command timeouts descriptor to each command.
func reportSupportedOperationCodes(_ context.Context, a *attachment, c *Command) {
	rctd, option, opcode, action := c.CDB[2]&0x80 != 0, c.CDB[2]&7, c.CDB[3], c.u16(4)
	p, ok := a.nexus.operations.AppendReport(c.small[:0], option, opcode, action, rctd)
	if !ok {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 2))
		return
	}
	c.reply(p, uint64(c.u32(6)))
}

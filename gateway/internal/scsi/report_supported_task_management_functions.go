package scsi

import (
	"context"
	"encoding/binary"
)

// taskReportLength is the length of the data with REPD, in bytes.
const taskReportLength = 16

// reportSupportedTaskManagementFunctions is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36): 4 bytes, or 16
// with REPD, whose timeouts are not told.
func reportSupportedTaskManagementFunctions(_ context.Context, a *attachment, c *Command) {
	allocation := c.u32(6)
	if allocation < 4 {
		a.refuse(c, InvalidFieldInCDB, cdbField(6, -1))
		return
	}
	p := append(c.small[:0], make([]byte, taskReportLength)...)
	binary.BigEndian.PutUint16(p, uint16(a.nexus.config.TaskManagement))
	if c.CDB[2]&0x80 != 0 {
		p[3] = taskReportLength - 4
	} else {
		p = p[:4]
	}
	c.reply(p, uint64(allocation))
}

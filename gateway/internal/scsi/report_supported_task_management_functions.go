package scsi

import (
	"context"
	"encoding/binary"
)

// TaskManagement is the set of task management functions that a transport supports, as bytes 0 and 1 of the data of
// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: the first in the upper byte.
type TaskManagement uint16

// Task management functions (SPC-4 6.36.2).
const (
	TaskAbort        TaskManagement = 0x8000
	TaskAbortSet     TaskManagement = 0x4000
	TaskClearACA     TaskManagement = 0x2000
	TaskClearSet     TaskManagement = 0x1000
	TaskUnitReset    TaskManagement = 0x0800
	TaskQuery        TaskManagement = 0x0400
	TaskTargetReset  TaskManagement = 0x0200
	TaskQueryAsync   TaskManagement = 0x0004
	TaskQuerySet     TaskManagement = 0x0002
	TaskNexusReset   TaskManagement = 0x0001
	taskReportLength                = 16
)

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

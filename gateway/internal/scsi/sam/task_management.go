package sam

// TaskManagement is the set of task management functions that a transport supports, as bytes 0 and 1 of the data of
// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: the first in the upper byte.
type TaskManagement uint16

// Task management functions (SPC-4 6.36.2).
const (
	TaskAbort       TaskManagement = 0x8000
	TaskAbortSet    TaskManagement = 0x4000
	TaskClearACA    TaskManagement = 0x2000
	TaskClearSet    TaskManagement = 0x1000
	TaskUnitReset   TaskManagement = 0x0800
	TaskQuery       TaskManagement = 0x0400
	TaskTargetReset TaskManagement = 0x0200
	TaskQueryAsync  TaskManagement = 0x0004
	TaskQuerySet    TaskManagement = 0x0002
	TaskNexusReset  TaskManagement = 0x0001
)

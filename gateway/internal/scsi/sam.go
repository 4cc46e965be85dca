package scsi

import "github.com/ashlar-storage/ashlar/gateway/internal/scsi/sam"

// LUN is the 8-byte logical unit number of a command, Number its number; see package sam.
type LUN = sam.LUN

// Status is a SCSI status code.
type Status = sam.Status

// TaskManagement is the set of task management functions that a transport supports.
type TaskManagement = sam.TaskManagement

// LUNMax is the highest LUN that can be mapped.
const LUNMax = sam.LUNMax

// FlatLUN encodes n, 0..LUNMax.
func FlatLUN(n uint16) LUN { return sam.FlatLUN(n) }

// Status codes and task management functions.
const (
	StatusGood                = sam.StatusGood
	StatusCheckCondition      = sam.StatusCheckCondition
	StatusConditionMet        = sam.StatusConditionMet
	StatusBusy                = sam.StatusBusy
	StatusReservationConflict = sam.StatusReservationConflict
	StatusTaskSetFull         = sam.StatusTaskSetFull
	StatusTaskAborted         = sam.StatusTaskAborted
	TaskAbort                 = sam.TaskAbort
	TaskAbortSet              = sam.TaskAbortSet
	TaskClearACA              = sam.TaskClearACA
	TaskClearSet              = sam.TaskClearSet
	TaskUnitReset             = sam.TaskUnitReset
	TaskQuery                 = sam.TaskQuery
	TaskTargetReset           = sam.TaskTargetReset
	TaskQueryAsync            = sam.TaskQueryAsync
	TaskQuerySet              = sam.TaskQuerySet
	TaskNexusReset            = sam.TaskNexusReset
)

package scsi

import "github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"

// SenseCode is sense key, additional sense code and qualifier as one number: key<<16 | ASC<<8 | ASCQ.
type SenseCode = sense.Code

// Sense builds a SenseCode. key is 0..15.
func Sense(key, asc, ascq byte) SenseCode { return sense.New(key, asc, ascq) }

// The sense codes that the device server answers; package sense says what they are.
const (
	NoSense                         = sense.NoSense
	UnrecoveredReadError            = sense.UnrecoveredReadError
	WriteError                      = sense.WriteError
	InternalTargetFailure           = sense.InternalTargetFailure
	ParameterListLengthError        = sense.ParameterListLengthError
	InvalidOperationCode            = sense.InvalidOperationCode
	AccessDenied                    = sense.AccessDenied
	LBAOutOfRange                   = sense.LBAOutOfRange
	InvalidFieldInCDB               = sense.InvalidFieldInCDB
	LogicalUnitNotSupported         = sense.LogicalUnitNotSupported
	InvalidFieldInParameters        = sense.InvalidFieldInParameters
	SavingNotSupported              = sense.SavingNotSupported
	InvalidFieldInCommandIU         = sense.InvalidFieldInCommandIU
	WriteProtected                  = sense.WriteProtected
	SanitizeInProgress              = sense.SanitizeInProgress
	SanitizeFailed                  = sense.SanitizeFailed
	SoftwareWriteProtected          = sense.SoftwareWriteProtected
	SpaceAllocationFailed           = sense.SpaceAllocationFailed
	CommandsClearedByServer         = sense.CommandsClearedByServer
	MiscompareDuringVerify          = sense.MiscompareDuringVerify
	OperationInProgress             = sense.OperationInProgress
	InsufficientResources           = sense.InsufficientResources
	AttentionPowerOn                = sense.AttentionPowerOn
	AttentionTargetReset            = sense.AttentionTargetReset
	AttentionDeviceReset            = sense.AttentionDeviceReset
	AttentionNexusLoss              = sense.AttentionNexusLoss
	AttentionCapacityChanged        = sense.AttentionCapacityChanged
	AttentionModeChanged            = sense.AttentionModeChanged
	AttentionAccessChanged          = sense.AttentionAccessChanged
	AttentionLUNsChanged            = sense.AttentionLUNsChanged
	AttentionInquiryChanged         = sense.AttentionInquiryChanged
	AttentionSpaceThreshold         = sense.AttentionSpaceThreshold
	AttentionReservationsFreed      = sense.AttentionReservationsFreed
	AttentionReservationsPreempted  = sense.AttentionReservationsPreempted
	AttentionRegistrationsPreempted = sense.AttentionRegistrationsPreempted
	InvalidRelease                  = sense.InvalidRelease
	InsufficientRegistrations       = sense.InsufficientRegistrations
)

// SenseMax is the longest sense data that this package makes, in bytes.
const SenseMax = sense.Max

// senseData is one sense report before it is encoded; fieldPointer is where in it a bad field is named.
type (
	senseData    = sense.Data
	fieldPointer = sense.Field
)

// cdbField points at bit (7 is the most significant, -1 none) of byte at of the CDB.
func cdbField(at, bit int) fieldPointer { return sense.InCDB(at, bit) }

// senseProgress tells how much of an operation is done, in 65536th.
func senseProgress(done uint16) fieldPointer { return sense.Progress(done) }

// dataField points into the parameter list.
func dataField(at, bit int) fieldPointer { return sense.InData(at, bit) }

package scsi

import "github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"

// SenseCode is sense key, additional sense code and qualifier as one number: key<<16 | ASC<<8 | ASCQ.
type SenseCode = sense.Code

// Sense builds a SenseCode. key is 0..15.
func Sense(key, asc, ascq byte) SenseCode { return sense.New(key, asc, ascq) }

// Sense codes that this package answers.
const (
	NoSense                    SenseCode = 0x000000
	UnrecoveredReadError       SenseCode = 0x031100
	WriteError                 SenseCode = 0x030C00
	InternalTargetFailure      SenseCode = 0x044400
	ParameterListLengthError   SenseCode = 0x051A00
	InvalidOperationCode       SenseCode = 0x052000
	AccessDenied               SenseCode = 0x052002
	LBAOutOfRange              SenseCode = 0x052100
	InvalidFieldInCDB          SenseCode = 0x052400
	LogicalUnitNotSupported    SenseCode = 0x052500
	InvalidFieldInParameters   SenseCode = 0x052600
	SavingNotSupported         SenseCode = 0x053900
	InvalidFieldInCommandIU    SenseCode = 0x050E03
	WriteProtected             SenseCode = 0x072700
	SanitizeInProgress         SenseCode = 0x02041B
	SanitizeFailed             SenseCode = 0x033103
	SoftwareWriteProtected     SenseCode = 0x072702 // SWP of the Control mode page
	SpaceAllocationFailed      SenseCode = 0x072707
	CommandsClearedByServer    SenseCode = 0x0B2F02
	MiscompareDuringVerify     SenseCode = 0x0E1D00
	OperationInProgress        SenseCode = 0x050016 // of a list identifier that is in use
	InsufficientResources      SenseCode = 0x055503
	AttentionPowerOn           SenseCode = 0x062900 // power on, reset, or bus device reset occurred
	AttentionTargetReset       SenseCode = 0x062902 // the whole target was reset (SCSI BUS RESET OCCURRED)
	AttentionDeviceReset       SenseCode = 0x062903 // logical unit reset
	AttentionNexusLoss         SenseCode = 0x062907 // I_T nexus loss, e.g. session reinstatement
	AttentionCapacityChanged   SenseCode = 0x062A09
	AttentionModeChanged       SenseCode = 0x062A01
	AttentionAccessChanged     SenseCode = 0x062A06 // asymmetric access state changed
	AttentionLUNsChanged       SenseCode = 0x063F0E // reported LUNs data has changed
	AttentionInquiryChanged    SenseCode = 0x063F03
	AttentionSpaceThreshold    SenseCode = 0x063807 // thin provisioning soft threshold reached
	AttentionReservationsFreed SenseCode = 0x062A04 // reservations released

	AttentionReservationsPreempted  SenseCode = 0x062A03
	AttentionRegistrationsPreempted SenseCode = 0x062A05
	InvalidRelease                  SenseCode = 0x052604 // of a persistent reservation
	InsufficientRegistrations       SenseCode = 0x055504 // insufficient registration resources
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

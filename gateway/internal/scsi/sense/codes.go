package sense

// The sense codes that the device server answers.
const (
	NoSense                         Code = 0x000000
	UnrecoveredReadError            Code = 0x031100
	WriteError                      Code = 0x030C00
	InternalTargetFailure           Code = 0x044400
	ParameterListLengthError        Code = 0x051A00
	InvalidOperationCode            Code = 0x052000
	AccessDenied                    Code = 0x052002
	LBAOutOfRange                   Code = 0x052100
	InvalidFieldInCDB               Code = 0x052400
	LogicalUnitNotSupported         Code = 0x052500
	InvalidFieldInParameters        Code = 0x052600
	SavingNotSupported              Code = 0x053900
	InvalidFieldInCommandIU         Code = 0x050E03
	WriteProtected                  Code = 0x072700
	SanitizeInProgress              Code = 0x02041B
	SanitizeFailed                  Code = 0x033103
	SoftwareWriteProtected          Code = 0x072702 // SWP of the Control mode page
	SpaceAllocationFailed           Code = 0x072707
	CommandsClearedByServer         Code = 0x0B2F02
	MiscompareDuringVerify          Code = 0x0E1D00
	OperationInProgress             Code = 0x050016 // of a list identifier that is in use
	InsufficientResources           Code = 0x055503
	AttentionPowerOn                Code = 0x062900 // power on, reset, or bus device reset occurred
	AttentionTargetReset            Code = 0x062902 // the whole target was reset (SCSI BUS RESET OCCURRED)
	AttentionDeviceReset            Code = 0x062903 // logical unit reset
	AttentionNexusLoss              Code = 0x062907 // I_T nexus loss, e.g. session reinstatement
	AttentionCapacityChanged        Code = 0x062A09
	AttentionModeChanged            Code = 0x062A01
	AttentionAccessChanged          Code = 0x062A06 // asymmetric access state changed
	AttentionLUNsChanged            Code = 0x063F0E // reported LUNs data has changed
	AttentionInquiryChanged         Code = 0x063F03
	AttentionSpaceThreshold         Code = 0x063807 // thin provisioning soft threshold reached
	AttentionReservationsFreed      Code = 0x062A04 // reservations released
	AttentionReservationsPreempted  Code = 0x062A03
	AttentionRegistrationsPreempted Code = 0x062A05
	InvalidRelease                  Code = 0x052604 // of a persistent reservation
	InsufficientRegistrations       Code = 0x055504 // insufficient registration resources
)

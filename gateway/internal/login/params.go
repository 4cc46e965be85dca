package login

// Digest is a digest that can be negotiated, RFC 7143 section 13.1.
type Digest uint8

// The digests.
const (
	DigestNone Digest = iota
	DigestCRC32C
)

func (d Digest) String() string {
	if d == DigestCRC32C {
		return "CRC32C"
	}
	return "None"
}

// TaskReporting says how the completion of aborted tasks is reported, RFC 7143 section 13.23.
type TaskReporting uint8

// The values of TaskReporting.
const (
	TaskReportingRFC3720 TaskReporting = iota
	TaskReportingResponseFence
	TaskReportingFastAbort
)

func (t TaskReporting) String() string {
	switch t {
	case TaskReportingResponseFence:
		return "ResponseFence"
	case TaskReportingFastAbort:
		return "FastAbort"
	}
	return "RFC3720"
}

// SessionType is RFC 7143 section 13.21.
type SessionType uint8

// The session types.
const (
	SessionNormal SessionType = iota
	SessionDiscovery
)

func (t SessionType) String() string {
	if t == SessionDiscovery {
		return "Discovery"
	}
	return "Normal"
}

// Params are the operational parameters that hold after a login, RFC 7143 section 13. Lengths are in bytes. A field
// that has the name of a key holds its negotiated value.
//
// Invariants after a login: 512 <= FirstBurstLength <= MaxBurstLength < 2^24; both MaxRecvDataSegmentLengths are 512
// to 2^24-1; MaxConnections and MaxOutstandingR2T are at least 1.
type Params struct {
	HeaderDigest   Digest
	DataDigest     Digest
	MaxConnections uint16
	InitialR2T     bool // unsolicited Data-Out is not allowed
	ImmediateData  bool // data in a SCSI Command is allowed
	// TargetMaxRecvDataSegmentLength is the longest data segment that the initiator may send after the login.
	TargetMaxRecvDataSegmentLength uint32
	// InitiatorMaxRecvDataSegmentLength is the longest data segment that the target may send after the login.
	InitiatorMaxRecvDataSegmentLength uint32
	MaxBurstLength                    uint32
	FirstBurstLength                  uint32 // bounds immediate and unsolicited data together
	DefaultTime2Wait                  uint16 // seconds
	DefaultTime2Retain                uint16 // seconds
	MaxOutstandingR2T                 uint16 // per task
	DataPDUInOrder                    bool
	DataSequenceInOrder               bool
	ErrorRecoveryLevel                uint8
	TaskReporting                     TaskReporting
	ISCSIProtocolLevel                uint8 // 1 is RFC 7143, 2 adds RFC 7144
}

// Default returns the values of RFC 7143 section 13, which hold for every key that is not negotiated.
func Default() Params {
	return Params{
		HeaderDigest:                      DigestNone,
		DataDigest:                        DigestNone,
		MaxConnections:                    1,
		InitialR2T:                        true,
		ImmediateData:                     true,
		TargetMaxRecvDataSegmentLength:    DefaultMaxRecvDataSegmentLength,
		InitiatorMaxRecvDataSegmentLength: DefaultMaxRecvDataSegmentLength,
		MaxBurstLength:                    262144,
		FirstBurstLength:                  65536,
		DefaultTime2Wait:                  2,
		DefaultTime2Retain:                20,
		MaxOutstandingR2T:                 1,
		DataPDUInOrder:                    true,
		DataSequenceInOrder:               true,
		ErrorRecoveryLevel:                0,
		TaskReporting:                     TaskReportingRFC3720,
		ISCSIProtocolLevel:                1,
	}
}

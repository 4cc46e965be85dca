package login

import (
	"fmt"
	"io"
	"slices"
)

// Ranges of the numeric keys, RFC 7143 section 13.
const (
	// DefaultMaxRecvDataSegmentLength is the largest data segment before another was declared, in bytes. It holds
	// during the whole login phase, in both directions.
	DefaultMaxRecvDataSegmentLength = 8192

	lengthMin   = 512
	lengthMax   = 1<<24 - 1
	secondsMax  = 3600
	countMax    = 65535
	erlMax      = 2
	levelMax    = 31
	windowLimit = 1 << 16
)

// Config is what a target accepts and offers in every login. It is read only after NewLogin.
type Config struct {
	// HeaderDigests and DataDigests are the acceptable digests; the initiator's order decides among them.
	HeaderDigests, DataDigests []Digest
	// CHAPAlgorithms are the acceptable algorithms; the initiator's order decides among them.
	CHAPAlgorithms []CHAPAlgorithm
	// TaskReporting are the acceptable values; the initiator's order decides among them.
	TaskReporting []TaskReporting

	MaxConnections           uint16 // 1 to 65535; the result is the smaller of both sides
	InitialR2T               bool   // require it; the result is Yes if either side says so
	ImmediateData            bool   // allow it; the result is Yes if both sides do
	MaxRecvDataSegmentLength uint32 // bytes, 512 to 2^24-1; what the target declares for itself
	MaxBurstLength           uint32 // bytes, 512 to 2^24-1; the smaller of both sides
	FirstBurstLength         uint32 // bytes, 512 to MaxBurstLength; the smaller of both sides
	DefaultTime2Wait         uint16 // seconds, 0 to 3600; the larger of both sides
	DefaultTime2Retain       uint16 // seconds, 0 to 3600; the smaller of both sides
	MaxOutstandingR2T        uint16 // 1 to 65535; the smaller of both sides
	ErrorRecoveryLevel       uint8  // 0 to 2; the smaller of both sides
	ISCSIProtocolLevel       uint8  // 0 to 31; the smaller of both sides

	// CommandWindow is how many commands a new session may have under way, 1 to 65536: MaxCmdSN of the login responses
	// is ExpCmdSN + CommandWindow - 1.
	CommandWindow uint32
	// Challenges remembers the challenges of all connections; nil: only those of the same connection are recognized.
	Challenges *Challenges
	// Rand makes CHAP identifiers and challenges; it must be a cryptographic generator. Nil is crypto/rand.Reader.
	Rand io.Reader
}

// DefaultConfig returns what suits the common initiators: unsolicited and immediate data, large bursts, both digests,
// ErrorRecoveryLevel 0.
func DefaultConfig() Config {
	return Config{
		HeaderDigests:            []Digest{DigestNone, DigestCRC32C},
		DataDigests:              []Digest{DigestNone, DigestCRC32C},
		CHAPAlgorithms:           []CHAPAlgorithm{CHAPMD5, CHAPSHA1, CHAPSHA256, CHAPSHA3},
		TaskReporting:            []TaskReporting{TaskReportingRFC3720, TaskReportingResponseFence},
		MaxConnections:           1,
		InitialR2T:               false,
		ImmediateData:            true,
		MaxRecvDataSegmentLength: 262144,
		MaxBurstLength:           16776192,
		FirstBurstLength:         262144,
		DefaultTime2Wait:         2,
		DefaultTime2Retain:       0,
		MaxOutstandingR2T:        1,
		ErrorRecoveryLevel:       0,
		ISCSIProtocolLevel:       2,
		CommandWindow:            128,
	}
}

// Validate reports the first field that is out of its range.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name      string
		v, lo, hi uint64
	}{
		{"MaxConnections", uint64(c.MaxConnections), 1, countMax},
		{"MaxRecvDataSegmentLength", uint64(c.MaxRecvDataSegmentLength), lengthMin, lengthMax},
		{"MaxBurstLength", uint64(c.MaxBurstLength), lengthMin, lengthMax},
		{"FirstBurstLength", uint64(c.FirstBurstLength), lengthMin, uint64(c.MaxBurstLength)},
		{"DefaultTime2Wait", uint64(c.DefaultTime2Wait), 0, secondsMax},
		{"DefaultTime2Retain", uint64(c.DefaultTime2Retain), 0, secondsMax},
		{"MaxOutstandingR2T", uint64(c.MaxOutstandingR2T), 1, countMax},
		{"ErrorRecoveryLevel", uint64(c.ErrorRecoveryLevel), 0, erlMax},
		{"ISCSIProtocolLevel", uint64(c.ISCSIProtocolLevel), 0, levelMax},
		{"CommandWindow", uint64(c.CommandWindow), 1, windowLimit},
	} {
		if f.v < f.lo || f.v > f.hi {
			return fmt.Errorf("login: %s is %d, must be %d to %d", f.name, f.v, f.lo, f.hi)
		}
	}
	if len(c.HeaderDigests) == 0 || len(c.DataDigests) == 0 || len(c.TaskReporting) == 0 {
		return fmt.Errorf("login: HeaderDigests, DataDigests and TaskReporting must each allow something")
	}
	for _, a := range c.CHAPAlgorithms {
		if !slices.Contains(chapAlgorithms, a) {
			return fmt.Errorf("login: CHAP algorithm %d is unknown", a)
		}
	}
	return nil
}

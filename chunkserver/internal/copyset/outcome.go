package copyset

import (
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Code says how a command ended. The numbers are part of the state's format.
type Code uint8

// The codes.
const (
	// OK: it took effect.
	OK Code = 1
	// StaleFence: a newer (epoch, generation) was seen; Outcome.Fence holds it.
	StaleFence Code = 2
	// StaleAccess: access rights changed since; Outcome.Access holds the newer generation.
	StaleAccess Code = 3
	// Miscompare: a compare and write found other data; Outcome.Offset is the first byte that differs, counted from
	// the start of the compared range.
	Miscompare Code = 4
	// Forgotten: the sequence number is below the low-water mark.
	Forgotten Code = 5
	// Invalid: the command breaks the protocol: it does not parse, or is beyond the window or another limit.
	Invalid Code = 6
)

// String names the code as the data protocol does.
func (c Code) String() string {
	switch c {
	case OK:
		return "OK"
	case StaleFence:
		return "STALE_FENCE"
	case StaleAccess:
		return "STALE_ACCESS"
	case Miscompare:
		return "MISCOMPARE"
	case Forgotten:
		return "FORGOTTEN"
	case Invalid:
		return "INVALID"
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Outcome is how a command ended.
type Outcome struct {
	Code   Code
	Fence  layout.Fence
	Access layout.AccessGeneration
	Offset uint32
}

// Result is what an applied entry tells its proposer.
type Result struct {
	Outcome Outcome
	// Proposer is 0 for an entry that nobody waits for.
	Proposer layout.PeerID
	Proposal uint64
	// Digest asks for a digest of the replica as it is now.
	Digest bool
}

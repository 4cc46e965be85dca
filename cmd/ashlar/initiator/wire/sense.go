package wire

import "fmt"

// SCSI status codes (SAM-5 section 5.3.1).
const (
	Good                = 0x00
	CheckCondition      = 0x02
	ConditionMet        = 0x04
	Busy                = 0x08
	ReservationConflict = 0x18
	TaskSetFull         = 0x28
	TaskAborted         = 0x40
)

// Sense is a sense key with its additional sense code and qualifier.
type Sense struct{ Key, ASC, ASCQ byte }

func (s Sense) String() string { return fmt.Sprintf("%02x/%02x/%02x", s.Key, s.ASC, s.ASCQ) }

// ParseSense reads the data segment of a SCSI Response: a 2-byte length and sense data in fixed or descriptor format
// (SPC-4 section 4.5).
func ParseSense(data []byte) Sense {
	if len(data) < 2 {
		return Sense{}
	}
	n := int(data[0])<<8 | int(data[1])
	b := data[2:]
	if n < len(b) {
		b = b[:n]
	}
	switch {
	case len(b) >= 4 && b[0]&0x7f >= 0x72:
		return Sense{b[1] & 0x0f, b[2], b[3]}
	case len(b) >= 14:
		return Sense{b[2] & 0x0f, b[12], b[13]}
	}
	return Sense{}
}

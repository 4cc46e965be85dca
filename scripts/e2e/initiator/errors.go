package initiator

import (
	"errors"
	"fmt"
)

// ErrClosed is wrapped by every error of a command that was in flight when the connection ended, and of
// every later one.
var ErrClosed = errors.New("session closed")

// LoginError is a login that the target refused (RFC 7143 11.13.5).
type LoginError struct {
	Class, Detail byte
}

func (e *LoginError) Error() string {
	return fmt.Sprintf("login refused: status %02x%02x", e.Class, e.Detail)
}

// StatusError is a command that ended with a SCSI status other than GOOD. Key, ASC and ASCQ are those of
// fixed or descriptor sense data with CHECK CONDITION, else zero.
type StatusError struct {
	Status         byte
	Key, ASC, ASCQ byte
}

func (e *StatusError) Error() string {
	if e.Status == StatusCheckCondition {
		return fmt.Sprintf("check condition: sense %02x/%02x/%02x", e.Key, e.ASC, e.ASCQ)
	}
	return fmt.Sprintf("SCSI status 0x%02x", e.Status)
}

// SCSI status codes (SAM-5 5.3.1) that tests tell apart.
const (
	StatusGood                = 0x00
	StatusCheckCondition      = 0x02
	StatusBusy                = 0x08
	StatusReservationConflict = 0x18
	StatusTaskSetFull         = 0x28
	StatusTaskAborted         = 0x40
)

// Retryable tells whether an initiator's SCSI layer would send the command again at once or after a pause:
// unit attention, BUSY, TASK SET FULL, and a logical unit that is becoming ready or changing its state.
func Retryable(err error) bool {
	var s *StatusError
	if !errors.As(err, &s) {
		return false
	}
	switch s.Status {
	case StatusBusy, StatusTaskSetFull:
		return true
	case StatusCheckCondition:
		return s.Key == 0x06 || s.Key == 0x02 && s.ASC == 0x04
	}
	return false
}

// Aborted tells whether the target gave the command up, which leaves its outcome unknown: ABORTED COMMAND or
// TASK ABORTED. Hosts send such a command again; it is no error that an application sees.
func Aborted(err error) bool {
	var s *StatusError
	return errors.As(err, &s) && (s.Status == StatusTaskAborted || s.Status == StatusCheckCondition && s.Key == 0x0b)
}

// statusError reads the sense data of a SCSI Response (SPC-4 4.5); data begins with its 2-byte length.
func statusError(status byte, data []byte) error {
	if status == StatusGood {
		return nil
	}
	e := &StatusError{Status: status}
	if len(data) < 2 {
		return e
	}
	sense := data[2:]
	if n := int(data[0])<<8 | int(data[1]); n < len(sense) {
		sense = sense[:n]
	}
	switch {
	case len(sense) >= 4 && sense[0]&0x7f >= 0x72:
		e.Key, e.ASC, e.ASCQ = sense[1]&0x0f, sense[2], sense[3]
	case len(sense) >= 14:
		e.Key, e.ASC, e.ASCQ = sense[2]&0x0f, sense[12], sense[13]
	}
	return e
}

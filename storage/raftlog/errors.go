package raftlog

import (
	"errors"
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// ErrClosed is returned by calls on a closed Log.
var ErrClosed = errors.New("raftlog: closed")

// ErrNoLog is returned by Open when Options.MustExist is set and there is no segment.
var ErrNoLog = errors.New("raftlog: there is no log")

// ErrNoGroup is returned by the methods of a Group whose copyset was removed.
var ErrNoGroup = errors.New("raftlog: copyset was removed")

// CorruptError tells that the log holds damage that no crash explains. Open returns it and touches nothing; Entries
// returns it, and Compact tells it, for a record that no longer reads back as it was written. The copysets of the log, or the one
// named, have lost state: their peers must not vote again under their ids.
type CorruptError struct {
	// Segment is the file name of the segment, without its directory.
	Segment string
	// Offset is where in the segment the damage was met, in bytes.
	Offset int64
	// Copyset is the group whose record is damaged, 0 if it is not known or not one.
	Copyset layout.CopysetID
	// Reason says what was found.
	Reason string
}

func (e *CorruptError) Error() string {
	if e.Copyset != 0 {
		return fmt.Sprintf("raftlog: corrupt: %s offset %d, copyset %d: %s", e.Segment, e.Offset, e.Copyset, e.Reason)
	}
	return fmt.Sprintf("raftlog: corrupt: %s offset %d: %s", e.Segment, e.Offset, e.Reason)
}

// ForeignError tells that a segment belongs to another log: the directory or the disk is not the one expected.
type ForeignError struct {
	// Segment is the file name of the segment.
	Segment string
	// Got is the identity in the file, Want the one in Options.
	Got, Want [16]byte
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("raftlog: %s belongs to log %x, this is %x", e.Segment, e.Got, e.Want)
}

// VersionError tells that the log was written by a newer release. Open touches nothing.
type VersionError struct {
	// Segment is the file name of the segment.
	Segment string
	// Got is the version found, Max the highest that this release reads.
	Got, Max uint32
	// What names the thing that is versioned: "segment", "batch flags", "record type" or "record flags".
	What string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("raftlog: %s: %s %#x is newer than %#x, run a newer release", e.Segment, e.What, e.Got, e.Max)
}

// FailedError tells that a write or sync of the log failed. What reached the disk is unknown from then on, so the
// log takes no more: every later Append, Compact and PrepareSpare returns the same error. So does, as far as the disk
// still let the log write it down, a later Open: the peers of this log must not vote again under their ids.
type FailedError struct {
	// Op says what failed.
	Op string
	// Err is the cause.
	Err error
}

func (e *FailedError) Error() string { return fmt.Sprintf("raftlog: failed: %s: %v", e.Op, e.Err) }

// Unwrap returns the cause.
func (e *FailedError) Unwrap() error { return e.Err }

// NoSpaceError tells that an Append needed a new segment and the disk has no room for it. Nothing was written and
// the log still works: an Append without entries (a truncation, a vote, a removal) and Compact have a reserve.
type NoSpaceError struct {
	// Err is the cause, syscall.ENOSPC among others.
	Err error
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("raftlog: no space for a segment: %v", e.Err)
}

// Unwrap returns the cause.
func (e *NoSpaceError) Unwrap() error { return e.Err }

// UpdateError tells that an Update breaks a rule of Append. Nothing of the whole Append was written and the log still
// works; the caller has a bug and should stop the copyset.
type UpdateError struct {
	// Copyset is the update's.
	Copyset layout.CopysetID
	// Reason says which rule.
	Reason string
}

func (e *UpdateError) Error() string {
	return fmt.Sprintf("raftlog: update of copyset %d refused: %s", e.Copyset, e.Reason)
}

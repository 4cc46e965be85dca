// Package media is what commands do with the medium of a logical unit: the Backend that they do it by, its errors, and what
// is made of several of its operations. It knows no command.
package media

import (
	"context"
	"errors"
	"fmt"
)

// Block is the unit of allocation of every Backend, in bytes: what Unmap frees and what the UNMAP GRANULARITY of the Block
// Limits VPD page announces.
const Block = 4096

// Backend is the medium of one volume as one initiator reaches it. Offsets and lengths are bytes, are never
// negative and never pass the capacity that the logical unit was given; a length is never zero. Only Unmap promises
// alignment. All methods are called from many goroutines at the same time and may block; they return soon after
// ctx is done. Buffers are borrowed until the method returns.
//
// An error is judged with errors.Is against the errors below; anything else becomes HARDWARE ERROR, INTERNAL
// TARGET FAILURE. An error after ctx is done ends the command without a status.
type Backend interface {
	// Read fills p from off. Bytes that were never written, or were unmapped, are zero.
	Read(ctx context.Context, p []byte, off int64) error

	// Write stores p at off; the bytes are on stable storage when it returns nil. A write of a part of a
	// Block keeps the rest of it, also against concurrent writes of that rest. One unit of
	// Limits.MaxAtomic is written whole or not at all.
	Write(ctx context.Context, p []byte, off int64) error

	// Unmap deallocates; off and length are multiples of Block. The range reads as zeroes afterwards.
	Unmap(ctx context.Context, off, length int64) error

	// CompareAndWrite atomically compares the medium at off with compare and, when equal, replaces it with write,
	// which has the same length; neither goes beyond one Block. It returns -1 when it wrote and else the index of the
	// first byte that differs, having written nothing. An outcome is exact also when the operation was retried below.
	CompareAndWrite(ctx context.Context, off int64, compare, write []byte) (mismatch int, err error)

	// Allocated tells whether the byte at off lies in an allocated Block, and for how many bytes from
	// off, at most length and at least one, the answer is the same.
	Allocated(ctx context.Context, off, length int64) (allocated bool, run int64, err error)
}

// Errors of a Backend and the sense data that they become.
var (
	// ErrStaleEpoch: the initiator's path moved to another gateway, and the operation may have been done before, as a whole or
	// in part; it will not be done later. It becomes ABORTED COMMAND, COMMANDS CLEARED BY DEVICE SERVER (0B/2F/02): the command
	// is over, the medium is fine, and an initiator that still wants it sends it again, on whichever path it now prefers. NOT
	// READY or ILLEGAL REQUEST would fail the path or the device instead.
	ErrStaleEpoch = errors.New("scsi: the path moved to another gateway")

	// ErrNoSpace: no space is left to allocate. DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT (07/27/07).
	ErrNoSpace = errors.New("scsi: no space left for the volume")

	// ErrMedium: the data are lost. MEDIUM ERROR, UNRECOVERED READ ERROR (03/11/00) or, for a write, WRITE ERROR
	// (03/0C/00). A *Error also names the place.
	ErrMedium = errors.New("scsi: medium error")

	// ErrReservationConflict: a reservation forbids the operation. Status RESERVATION CONFLICT, no sense data.
	ErrReservationConflict = errors.New("scsi: reservation conflict")

	// ErrAccessRevoked: the initiator's right to the volume was taken away.
	// ILLEGAL REQUEST, ACCESS DENIED - NO ACCESS RIGHTS (05/20/02).
	ErrAccessRevoked = errors.New("scsi: access to the volume was revoked")

	// ErrGone: the volume was deleted. ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED (05/25/00).
	ErrGone = errors.New("scsi: volume is gone")
)

// Error is an ErrMedium that knows its place; the sense data carry it as INFORMATION.
type Error struct {
	Offset int64 // first byte of the volume that could not be read or written
	Err    error // cause, may be nil
}

func (e *Error) Error() string {
	return fmt.Sprintf("scsi: medium error at byte %d: %v", e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports that an Error is an ErrMedium.
func (e *Error) Is(target error) bool { return target == ErrMedium }

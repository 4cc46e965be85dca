package scsi

import (
	"context"
	"errors"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// Sanitizer is a Backend that can make all of its volume unreadable. What it does belongs to the volume: it goes on
// whatever becomes of the command that asked for it, of its session, and of other backends of the volume.
type Sanitizer interface {
	// Sanitizing tells how things are with the volume. Every command asks, so it answers at once.
	Sanitizing() sanitize.Status

	// Sanitize begins what o asks for on the size bytes of the volume; done is closed when that has ended. An
	// ErrSanitizing says that it was begun before and still runs. ctx is the command's: it bounds what is to be done before.
	Sanitize(ctx context.Context, by reservation.Nexus, o sanitize.Order, size int64) (done <-chan struct{}, err error)

	// ExitSanitize has the volume used again after Sanitizing told of a failure.
	ExitSanitize(ctx context.Context, by reservation.Nexus) error
}

// ErrSanitizing says that the volume is being sanitized. NOT READY, SANITIZE IN PROGRESS (02/04/1B).
var ErrSanitizing = errors.New("scsi: volume is being sanitized")

// sanitizeOverwrite and sanitizeBlockErase are SANITIZE (SBC-4 5.34): all of the medium is overwritten, or unmapped. With
// IMMED the command ends when that has begun. An abort of the command does not end the operation.

func sanitizeOverwrite(ctx context.Context, a *attachment, c *Command) {
	n, block := int(c.u16(7)), a.unit.BlockLength()
	if !sanitize.Fits(n, block) {
		a.refuse(c, InvalidFieldInCDB, cdbField(7, 7))
		return
	}
	list, ok := a.parameterList(c, n)
	if !ok {
		return
	}
	o, at, bit, ok := sanitize.ParseOverwrite(list, block)
	if !ok {
		a.refuse(c, InvalidFieldInParameters, dataField(at, bit))
		return
	}
	a.sanitize(ctx, c, o)
}

func sanitizeBlockErase(ctx context.Context, a *attachment, c *Command) {
	a.sanitize(ctx, c, sanitize.Order{})
}

// sanitize begins o and, without IMMED, waits for its end.
func (a *attachment) sanitize(ctx context.Context, c *Command, o sanitize.Order) {
	if a.sanitizer == nil {
		a.refuse(c, InvalidOperationCode, cdbField(0, 7))
		return
	}
	o.Exit = c.CDB[1]&0x20 != 0
	done, err := a.sanitizer.Sanitize(ctx, a.nexus.config.Reservation, o, int64(a.unit.Blocks()<<a.unit.Shift()))
	if err != nil {
		a.failBackend(ctx, c, err, true)
		return
	}
	if immed := c.CDB[1]&0x80 != 0; immed {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
		a.failBackend(ctx, c, ctx.Err(), true)
		return
	}
	if a.sanitizer.Sanitizing().State == sanitize.Failed {
		a.fail(c, senseData{Code: SanitizeFailed})
	}
}

// sanitizeExitFailure is SANITIZE with EXIT FAILURE MODE: after a failure, if the SANITIZE that failed allowed it, the
// medium is used again with whatever is on it. Without a failure it does nothing.
func sanitizeExitFailure(ctx context.Context, a *attachment, c *Command) {
	if a.sanitizer == nil {
		a.refuse(c, InvalidOperationCode, cdbField(0, 7))
		return
	}
	switch s := a.sanitizer.Sanitizing(); {
	case s.State != sanitize.Failed:
	case !s.Exit:
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 4))
	default:
		if err := a.sanitizer.ExitSanitize(ctx, a.nexus.config.Reservation); err != nil {
			a.failBackend(ctx, c, err, true)
		}
	}
}

// sanitized judges a command by what the volume's last SANITIZE came to; when it can not run, it ends c. While one runs only
// those with the traits whileErased and ignoreUA do, after a failure another SANITIZE does too.
func (a *attachment) sanitized(c *Command, op *operation) bool {
	if a.sanitizer == nil {
		return true
	}
	s := a.sanitizer.Sanitizing()
	switch {
	case s.State == sanitize.Idle || op.traits&(whileErased|ignoreUA) != 0:
		return true
	case s.State == sanitize.Failed && op.opcode() == opSanitize:
		return true
	}
	a.fail(c, sanitizeSense(s))
	return false
}

// sanitizeSense is what a command finds that can not run because of s, which is not Idle.
func sanitizeSense(s sanitize.Status) senseData {
	if s.State == sanitize.Failed {
		return senseData{Code: SanitizeFailed}
	}
	return senseData{Code: SanitizeInProgress, Field: senseProgress(s.Progress)}
}

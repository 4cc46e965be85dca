package scsi

import (
	"context"
	"errors"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/conflict"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// Reserver is what a Backend implements whose logical unit can be reserved. It is the medium as one initiator reaches it;
// the reservations are the logical unit's, whichever process serves it. What Reserve and Reservations learn they give to
// LogicalUnit.SetReservations before they return.
type Reserver interface {
	// Reserve asks for a change; it is committed when Reserve returns. Ports of the request need not be set. The error is
	// ErrAccessRevoked, or that of ctx.
	Reserve(ctx context.Context, r *reservation.Request) (reservation.Status, error)

	// Reservations returns the reservations as they are at some time during the call.
	Reservations(ctx context.Context) (*Reservations, error)

	// Refresh has the reservations read anew, unless newer ones than seen are known by now. It returns soon, also when they
	// can not be read. The error is ErrAccessRevoked, or nil.
	Refresh(ctx context.Context, seen *Reservations) error

	// EndLegacy has the SPC-2 reservation of a nexus ended (NexusLost). It does not block; until it is done, Reserve and
	// Reservations for the same logical unit wait in the same process.
	EndLegacy(r *reservation.Request)

	// Reset has other processes told that the logical unit was reset (UnitReset), and done called when they have acted on it,
	// or after a bounded time: once, on any goroutine, perhaps before the return. It does not block; Reserve and Reservations
	// wait as for EndLegacy.
	Reset(r *reservation.Request, done func())
}

// ErrAccessChanged is the error of a Backend for an operation that was judged by reservations which may have changed. It
// changed and read nothing; the command is judged again and begins anew.
var ErrAccessChanged = errors.New("scsi: reservations may have changed")

// ErrReset is the outcome of a command that another process's reset of the logical unit aborted: it gets no status.
var ErrReset = errors.New("scsi: the logical unit was reset through another process")

// permits judges a command by what is known of the reservations; seen is that, nil before SetReservations.
func (a *attachment) permits(op *operation, c *Command) (seen *Reservations, ok bool) {
	return a.allows(conflict.Class(c.CDB, op.traits&writes != 0))
}

// allows judges commands of a class.
func (a *attachment) allows(class reservation.Class) (seen *Reservations, ok bool) {
	seen = a.unit.Reservations()
	if seen == nil || !seen.State.Restricts() {
		return seen, true
	}
	p := a.permit.Load()
	if p == nil || p.Of != seen.State {
		p = conflict.NewPermit(seen.State, a.nexus.config.Reservation)
		a.permit.Store(p)
	}
	return seen, p.Allows(class)
}

// perform runs a command that was admitted, if the reservations let it. A command that waits for the medium anyway is not
// refused before they were read anew, for they may have been released through another gateway. It is bound to the state that
// it was judged by, also where nothing is reserved: something may be by now.
func (a *attachment) perform(ctx context.Context, op *operation, c *Command) {
	reserver, _ := a.backend.(Reserver)
	for asked := false; ; {
		seen, ok := a.permits(op, c)
		if !ok {
			if !asked && op.traits&medium != 0 && reserver != nil {
				asked = true
				if err := reserver.Refresh(ctx, seen); err != nil {
					a.failBackend(ctx, c, err, false)
					return
				}
				continue
			}
			c.Status = StatusReservationConflict
			return
		}
		if !a.sanitized(c, op) || op.traits&writes != 0 && !a.writable(c) { // as it is in what was seen, or later
			return
		}
		bound := ctx
		if seen != nil && op.traits&medium != 0 {
			bound = reservation.WithAccess(ctx, seen.Access)
		}
		op.run(bound, a, c)
		if !c.again {
			return
		}
		c.clearResult()
		if reserver == nil {
			continue
		}
		if err := reserver.Refresh(ctx, seen); err != nil {
			a.failBackend(ctx, c, err, false)
			return
		}
		if a.overtaken(c, seen) {
			return
		}
	}
}

// overtaken ends a command that is not to begin anew, because another process has reset the logical unit since it was judged by
// what was seen. It came before the reset was known here, so either it is aborted, or it reports the reset: that is so where the
// reset was answered before it was known here, and the command may have been sent after the answer.
func (a *attachment) overtaken(c *Command, seen *Reservations) bool {
	now := a.unit.Reservations()
	if seen == nil || now == seen {
		return false
	}
	reset, abort := false, false
	now.State.Told(a.nexus.config.Reservation, seen.State.Version, func(t reservation.Attention, over bool) {
		reset = reset || t == reservation.UnitWasReset
		abort = abort || t == reservation.UnitWasReset && over
	})
	switch {
	case abort:
		c.aborted = ErrReset
	case reset:
		code, ok := a.Attentions.Take()
		if !ok {
			code = AttentionDeviceReset
		}
		a.fail(c, senseData{Code: code})
	}
	return reset
}

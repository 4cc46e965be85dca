package scsi

import (
	"context"
	"errors"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/prwire"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// persistentReserveOut is PERSISTENT RESERVE OUT (SPC-4 6.16), all service actions: their codes are those of
// reservation.Action.
func persistentReserveOut(ctx context.Context, a *attachment, c *Command) {
	reserver, ok := a.backend.(Reserver)
	if !ok {
		a.refuse(c, InvalidOperationCode, cdbField(0, 7))
		return
	}
	length := c.u32(5)
	c.Transfer = uint64(length)
	switch {
	case length < prwire.OutLength || uint64(length) > uint64(prwire.OutMax):
		a.fail(c, senseData{Code: ParameterListLengthError})
		return
	case uint64(len(c.DataOut)) < uint64(length):
		a.fail(c, senseData{Code: InvalidFieldInCommandIU})
		return
	}
	r := &reservation.Request{
		Nexus: a.nexus.config.Reservation, Action: reservation.Action(c.CDB[1] & serviceActionMask),
		Scope: c.CDB[2] >> 4, Type: reservation.Type(c.CDB[2] & 0x0F),
	}
	if err := prwire.ParseOut(c.DataOut[:length], r); err != nil {
		a.fail(c, senseData{Code: parameterError(err)})
		return
	}
	a.reserve(ctx, c, reserver, r)
}

// parameterError is the sense code of what prwire refuses.
func parameterError(err error) SenseCode {
	switch {
	case errors.Is(err, prwire.ErrLength):
		return ParameterListLengthError
	case errors.Is(err, prwire.ErrMany):
		return InsufficientRegistrations
	}
	return InvalidFieldInParameters
}

// reserve asks for a change of the reservations and answers c with what came of it.
func (a *attachment) reserve(ctx context.Context, c *Command, reserver Reserver, r *reservation.Request) {
	status, err := reserver.Reserve(ctx, r)
	if err != nil {
		a.failBackend(ctx, c, err, false)
		return
	}
	switch status {
	case reservation.Good:
	case reservation.Conflict:
		c.Status = StatusReservationConflict
	case reservation.InvalidFieldInCDB:
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 7))
	case reservation.InvalidFieldInParameters:
		a.fail(c, senseData{Code: InvalidFieldInParameters})
	case reservation.InvalidRelease:
		a.fail(c, senseData{Code: InvalidRelease})
	case reservation.NoResources:
		a.fail(c, senseData{Code: InsufficientRegistrations})
	default:
		a.fail(c, senseData{Code: InternalTargetFailure})
	}
}

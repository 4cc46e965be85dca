package scsi

import (
	"context"
	"errors"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
)

// fail ends c with CHECK CONDITION, in the format that the logical unit's D_SENSE asks for.
func (a *attachment) fail(c *Command, d senseData) {
	c.check(d, a.unit.Settings()&mode.DescriptorSense != 0)
}

// refuse ends c with a field pointer, which is for ILLEGAL REQUEST only.
func (a *attachment) refuse(c *Command, code SenseCode, field fieldPointer) {
	a.fail(c, senseData{Code: code, Field: field})
}

// failBackend ends c because the Backend returned err. When ctx is done, c has no status.
func (a *attachment) failBackend(ctx context.Context, c *Command, err error, writing bool) {
	if c.trial == trialLater { // Try takes c back
		return
	}
	if done := ctx.Err(); done != nil {
		c.clearResult()
		c.aborted = done
		return
	}
	var place *MediumError
	var protected protectedError
	switch {
	case errors.Is(err, ErrAccessChanged):
		c.again = true
	case errors.Is(err, ErrReservationConflict):
		c.Status = StatusReservationConflict
	case errors.Is(err, ErrSanitizing):
		a.fail(c, senseData{Code: SanitizeInProgress})
	case errors.As(err, &protected):
		a.fail(c, senseData{Code: protected.code})
	case errors.Is(err, ErrStaleEpoch):
		a.fail(c, senseData{Code: CommandsClearedByServer})
	case errors.Is(err, ErrNoSpace):
		a.fail(c, senseData{Code: SpaceAllocationFailed})
	case errors.Is(err, ErrAccessRevoked):
		a.fail(c, senseData{Code: AccessDenied})
	case errors.Is(err, ErrGone):
		a.fail(c, senseData{Code: LogicalUnitNotSupported})
	case errors.Is(err, ErrMedium):
		d := senseData{Code: UnrecoveredReadError}
		if writing {
			d.Code = WriteError
		}
		if errors.As(err, &place) && place.Offset >= 0 {
			d.Info, d.HasInfo = uint64(place.Offset)>>a.unit.Shift(), true
		}
		a.fail(c, d)
	default:
		a.fail(c, senseData{Code: InternalTargetFailure})
	}
}

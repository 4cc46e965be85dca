package scsi

import (
	"context"
	"errors"
	"io"
	"math/bits"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/thirdparty"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// What EXTENDED COPY, POPULATE TOKEN and WRITE USING TOKEN share. Package thirdparty does the work.

// CopyManager is what the third-party copies of a gateway share: tokens, and room to copy in.
type CopyManager = thirdparty.Manager

// copiesMax bounds the third-party copies that run at a time on a gateway; each has a buffer of 1 MiB. More wait.
const copiesMax = 32

// NewCopyManager returns a copy manager. random is a cryptographic generator; now tells the time and never goes back.
func NewCopyManager(now func() time.Time, random io.Reader) *CopyManager {
	return thirdparty.New(now, random, copiesMax)
}

// Fencer is a Backend that can be fenced: after Fence, writes whose context had ended before are without effect. A Backend
// that is no Fencer has no writes that outlive their context. Fence does not block.
type Fencer interface{ Fence() }

// FenceElsewhere makes without effect what the command wrote to other logical units than its own, as EXTENDED COPY does.
// It is called after the context of Execute was ended, while Execute may still run, from any goroutine.
func (c *Command) FenceElsewhere() { c.running.Fence() }

// copyMedium is the medium of an attachment as package thirdparty wants it. Each access is judged as a command of its own
// would be, by the reservations and the sanitizing of this logical unit, not of the one that got the command.
type copyMedium struct{ a *attachment }

func (m copyMedium) Read(ctx context.Context, p []byte, off int64) error {
	return m.judged(ctx, reservation.Read, func(ctx context.Context) error { return m.a.backend.Read(ctx, p, off) })
}

func (m copyMedium) Write(ctx context.Context, p []byte, off int64) error {
	return m.judged(ctx, reservation.Write, func(ctx context.Context) error { return m.a.backend.Write(ctx, p, off) })
}

func (m copyMedium) Zero(ctx context.Context, off, length int64) error {
	return m.judged(ctx, reservation.Write, func(ctx context.Context) error { return m.a.deallocate(ctx, off, length) })
}

func (m copyMedium) Allocated(ctx context.Context, off, length int64) (allocated bool, run int64, err error) {
	err = m.judged(ctx, reservation.Read, func(ctx context.Context) error {
		var err error
		allocated, run, err = m.a.backend.Allocated(ctx, off, length)
		return err
	})
	return allocated, run, err
}

// protectedError says that a medium may not be written any more, with the code of attachment.protection.
type protectedError struct{ code SenseCode }

func (protectedError) Error() string { return "scsi: write protected" }

// judged makes one access, if the reservations let it, under the state that they were in; see attachment.perform. How things are
// with SANITIZE and with the protection is asked after that state was looked at: it is as in that state, or later.
func (m copyMedium) judged(ctx context.Context, class reservation.Class, access func(context.Context) error) error {
	reserver, _ := m.a.backend.(Reserver)
	for asked := false; ; {
		seen, ok := m.a.allows(class)
		if s := m.a.sanitizer; s != nil && s.Sanitizing().State != sanitize.Idle {
			return ErrSanitizing
		}
		code := m.a.protection()
		switch {
		case class == reservation.Write && code != NoSense:
			return protectedError{code}
		case !ok && (asked || reserver == nil):
			return ErrReservationConflict
		case !ok:
			asked = true
			if err := reserver.Refresh(ctx, seen); err != nil {
				return err
			}
			continue
		}
		bound := reservation.Unbound(ctx)
		if seen != nil {
			bound = reservation.WithAccess(ctx, seen.Access)
		}
		err := access(bound)
		if !errors.Is(err, ErrAccessChanged) || reserver == nil || ctx.Err() != nil {
			return err
		}
		if err := reserver.Refresh(ctx, seen); err != nil {
			return err
		}
	}
}

// copyUnit describes the logical unit as a source or destination.
func (a *attachment) copyUnit() *thirdparty.Unit {
	u := &thirdparty.Unit{
		ID: a.unit, NAA: a.unit.Config().Identity.NAA, Shift: a.unit.Shift(), Blocks: a.unit.Blocks(),
		Physical:  byte(bits.TrailingZeros(ProvisioningBlock) - int(a.unit.Shift())),
		Medium:    copyMedium{a},
		Protected: a.protection() != NoSense,
		Copies:    &a.unit.Copies,
		Fence:     func() {},
	}
	u.Present = func() bool {
		now := a.nexus.view.Load().byLUN[a.LUN]
		return now != nil && now.listener == a.listener && now.backend == a.backend && now.readOnly == a.readOnly
	}
	if f, ok := a.backend.(Fencer); ok {
		u.Fence = f.Fence
	}
	return u
}

// copyUnit finds the logical unit of a NAA designator among those that the nexus sees, and no others: not those of other
// targets, nor those of other initiators. Of several LUNs that lead to it, one that can be written goes first.
func (n *Nexus) copyUnit(naa []byte) *thirdparty.Unit {
	var found *attachment
	for _, a := range n.view.Load().sorted {
		if id := a.unit.Config().Identity.NAA; string(id[:]) == string(naa) && (found == nil || found.readOnly) {
			found = a
		}
	}
	if found == nil {
		return nil
	}
	return found.copyUnit()
}

// copyOut runs a command of third-party copy, whose list identifier begins at byte id of the CDB, and keeps for who asks
// how it ended. A list of no bytes is no error and does nothing.
func (a *attachment) copyOut(
	ctx context.Context, c *Command, id int,
	run func(*CopyManager, context.Context, *thirdparty.Request, []byte) *thirdparty.Failure,
) {
	n := c.u32(10)
	if n == 0 {
		return
	}
	list, ok := a.parameterList(c, int(n))
	if !ok {
		return
	}
	r := &thirdparty.Request{
		Self: a.copyUnit(), Find: a.nexus.copyUnit, Results: &a.results, Running: &c.running,
		ID: c.u32(id), Owner: a.nexus.config.InitiatorName, Explain: explainCopy,
	}
	failure := run(a.nexus.config.Copies, ctx, r, list)
	switch {
	case failure == nil:
	case ctx.Err() != nil || failure.Err != nil:
		a.failBackend(ctx, c, failure.Err, failure.Writing)
	default:
		a.fail(c, failure.Sense)
	}
	r.End(byte(c.Status), c.Sense(), c.aborted != nil)
}

// explainCopy gives the errors of a Backend that say more than that a device failed.
func explainCopy(err error) uint16 {
	var protected protectedError
	switch {
	case errors.As(err, &protected):
		return uint16(protected.code & 0xFFFF)
	case errors.Is(err, ErrNoSpace):
		return uint16(SpaceAllocationFailed & 0xFFFF)
	case errors.Is(err, ErrAccessRevoked):
		return uint16(AccessDenied & 0xFFFF)
	}
	return 0
}

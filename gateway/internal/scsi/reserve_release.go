package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// RESERVE and RELEASE of SPC-2 (7.21, 7.24), for the whole logical unit. Third parties, extents and long identifiers, long
// obsolete, are refused by the table.

func reserveUnit(ctx context.Context, a *attachment, c *Command) {
	a.legacy(ctx, c, reservation.LegacyReserve)
}

func releaseUnit(ctx context.Context, a *attachment, c *Command) {
	a.legacy(ctx, c, reservation.LegacyRelease)
}

func (a *attachment) legacy(ctx context.Context, c *Command, action reservation.Action) {
	reserver, ok := a.backend.(Reserver)
	if !ok {
		a.refuse(c, InvalidOperationCode, cdbField(0, 7))
		return
	}
	a.reserve(ctx, c, reserver, &reservation.Request{Nexus: a.nexus.config.Reservation, Action: action})
	if ctx.Err() != nil && action == reservation.LegacyReserve {
		a.endLegacy() // the nexus may have been lost before it was known what it held
	}
}

// endLegacy has the SPC-2 reservation of this nexus ended: it does not outlive it.
func (a *attachment) endLegacy() {
	r, ok := a.backend.(Reserver)
	now := a.unit.Reservations()
	if !ok || now == nil {
		return
	}
	q := &reservation.Request{Nexus: a.nexus.config.Reservation, Action: reservation.NexusLost}
	if l := now.State.Legacy; l != nil && l.Nexus == q.Nexus {
		q.Since = l.Since
		r.EndLegacy(q)
	}
}

// tellReset has a reset of the logical unit told to other processes, which have nexuses of their own, and done called when that
// was done. Any SPC-2 reservation ends by it.
func (a *attachment) tellReset(done func()) {
	r, ok := a.backend.(Reserver)
	now := a.unit.Reservations()
	if !ok || now == nil {
		done()
		return
	}
	q := &reservation.Request{Nexus: a.nexus.config.Reservation, Action: reservation.UnitReset}
	if l := now.State.Legacy; l != nil {
		q.Since = l.Since
	}
	r.Reset(q, done)
}

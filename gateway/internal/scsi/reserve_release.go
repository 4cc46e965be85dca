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
		a.endLegacy(reservation.NexusLost) // the nexus may have been lost before it was known what it held
	}
}

// endLegacy has an SPC-2 reservation ended: that of this nexus (NexusLost), or any (UnitReset). Such a reservation does not
// outlive its nexus, nor a reset. A reset is told anyway, for other processes have nexuses of their own.
func (a *attachment) endLegacy(action reservation.Action) {
	now := a.unit.Reservations()
	if now == nil {
		return
	}
	q := &reservation.Request{Nexus: a.nexus.config.Reservation, Action: action}
	if l := now.State.Legacy; l != nil && (action == reservation.UnitReset || l.Nexus == q.Nexus) {
		q.Since = l.Since
	} else if action == reservation.NexusLost {
		return
	}
	if r, ok := a.backend.(Reserver); ok {
		r.EndLegacy(q)
	}
}

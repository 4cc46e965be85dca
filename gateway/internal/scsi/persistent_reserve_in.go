package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/prwire"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// READ KEYS, READ RESERVATION, REPORT CAPABILITIES and READ FULL STATUS of PERSISTENT RESERVE IN (SPC-4 6.15).

func readKeys(ctx context.Context, a *attachment, c *Command) {
	a.persistentReserveIn(ctx, c, prwire.ReadKeys)
}

func readReservation(ctx context.Context, a *attachment, c *Command) {
	a.persistentReserveIn(ctx, c, prwire.ReadReservation)
}

func reportCapabilities(ctx context.Context, a *attachment, c *Command) {
	a.persistentReserveIn(ctx, c, prwire.ReportCapabilities)
}

func readFullStatus(ctx context.Context, a *attachment, c *Command) {
	a.persistentReserveIn(ctx, c, prwire.ReadFullStatus)
}

// persistentReserveIn answers with what data makes of the reservations as they are, whoever changed them last.
func (a *attachment) persistentReserveIn(ctx context.Context, c *Command, data func(*reservation.State) []byte) {
	reserver, ok := a.backend.(Reserver)
	if !ok {
		a.refuse(c, InvalidOperationCode, cdbField(0, 7))
		return
	}
	now, err := reserver.Reservations(ctx)
	if err != nil {
		a.failBackend(ctx, c, err, false)
		return
	}
	if !now.State.Allows(a.nexus.config.Reservation, reservation.Query) {
		c.Status = StatusReservationConflict
		return
	}
	c.reply(data(now.State), uint64(c.u16(7)))
}

package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// MODE SELECT(6), MODE SELECT(10) (SPC-4 6.11, 6.12). Package mode says what can be changed; a list that asks for
// anything else is refused whole. What changes is told to all other nexuses by the unit attention 2A/01. A logical unit that
// other processes serve too has its settings where its reservations are, and there SP saves them.

func modeSelect6(ctx context.Context, a *attachment, c *Command) {
	a.modeSelect(ctx, c, int(c.CDB[4]), false)
}

func modeSelect10(ctx context.Context, a *attachment, c *Command) {
	a.modeSelect(ctx, c, int(c.u16(7)), true)
}

// modeSelect judges a parameter list of n bytes; ten says that it is that of MODE SELECT(10).
func (a *attachment) modeSelect(ctx context.Context, c *Command, n int, ten bool) {
	modes, medium := a.unit.Modes(), a.modeMedium()
	reserver, ok := a.backend.(Reserver)
	shared := ok && modes.Saves
	pf, sp := c.CDB[1]&0x10 != 0, c.CDB[1]&0x01 != 0
	switch {
	case sp && !shared:
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 0))
		return
	case n == 0 && !sp:
		return
	case n > 0 && !pf:
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 4))
		return
	}
	next := modes.Now
	var fault *mode.Fault
	if n > 0 {
		list, ok := a.parameterList(c, n)
		if !ok {
			return
		}
		if shared {
			next, fault = modes.SelectList(medium, list, ten)
		} else {
			fault = a.unit.SelectModes(&a.nexus.peer, medium, list, ten)
		}
	}
	switch {
	case fault == nil && shared:
		a.reserve(ctx, c, reserver, &reservation.Request{
			Nexus: a.nexus.config.Reservation, Action: reservation.ModeSelect, Settings: next, Save: sp,
		})
	case fault == nil:
	case fault.Cut:
		a.fail(c, senseData{Code: ParameterListLengthError})
	default:
		a.refuse(c, InvalidFieldInParameters, dataField(fault.At, fault.Bit))
	}
}

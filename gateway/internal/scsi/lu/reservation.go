package lu

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// Reservations are the reservations of a logical unit, with the access generation of the medium that came with them.
// Immutable.
type Reservations struct {
	Access uint64
	State  *reservation.State
}

// SetReservations takes over r unless what is known is newer. Nexuses that the changes are to be told to find unit
// attentions, and those whose commands are over are told through Peer.Aborted.
func (u *Unit) SetReservations(r *Reservations) {
	u.mu.Lock()
	old := u.reservations.Load()
	if old != nil && (r.State.Version < old.State.Version || r.Access < old.Access ||
		r.State.Version == old.State.Version && r.Access == old.Access) {
		u.mu.Unlock()
		return
	}
	u.settings.Store(uint32(r.State.Modes.Now)) // first: who sees r sees it
	u.reservations.Store(r)
	var over []*Listener
	reset := false
	for l := range u.mu.listeners {
		if old == nil || r.State.Version == old.State.Version {
			continue
		}
		r.State.Told(l.Peer.Reservation, old.State.Version, func(a reservation.Attention, abort bool) {
			if a == reservation.UnitWasReset {
				reset = true
				l.Attentions.Reset(sense.AttentionDeviceReset)
			} else {
				l.Attentions.Add(reservationAttentions[a])
			}
			if abort {
				over = append(over, l)
			}
		})
	}
	u.mu.Unlock()
	if reset {
		u.Copies.Reset()
	}
	for _, l := range over {
		l.aborted()
	}
}

// Reservations returns what is known of the reservations, nil before SetReservations.
func (u *Unit) Reservations() *Reservations { return u.reservations.Load() }

// reservationAttentions are the unit attentions of reservation.Attention.
var reservationAttentions = [...]sense.Code{
	reservation.ReservationsPreempted:  sense.AttentionReservationsPreempted,
	reservation.ReservationsReleased:   sense.AttentionReservationsFreed,
	reservation.RegistrationsPreempted: sense.AttentionRegistrationsPreempted,
	reservation.ModesChanged:           sense.AttentionModeChanged,
}

package target

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// reservationNexus is the session as reservations know it.
func (s *Session) reservationNexus() reservation.Nexus {
	return reservation.Nexus{Initiator: s.initiator, ISID: reservation.ISID(s.isid), Port: s.port.RelativeID}
}

// SetReservations takes over the reservations of volumes as far as there are logical units for them. Apply does it for those
// that it makes.
func (r *Registry) SetReservations(all map[uint64]*scsi.Reservations) {
	for id, now := range all {
		if u := r.Unit(id); u != nil {
			u.SetReservations(now)
		}
	}
}

// HasNexus tells whether there is a session of a nexus.
func (r *Registry) HasNexus(n reservation.Nexus) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.mu.sessions {
		if !s.Discovery() && s.reservationNexus() == n {
			return true
		}
	}
	return false
}

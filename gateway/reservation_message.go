package gateway

import (
	"fmt"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// reserveRequest makes the message of a request, without gateway, volume and name.
func reserveRequest(q *reservation.Request) *metav1.ReserveRequest {
	m := &metav1.ReserveRequest{
		Nexus: nexusMessage(q.Nexus), Action: uint32(q.Action), Scope: uint32(q.Scope), Type: uint32(q.Type), Key: uint64(q.Key),
		ServiceKey: uint64(q.ServiceKey), Aptpl: q.APTPL, AllPorts: q.AllPorts, SpecIPt: q.SpecIPT, Unregister: q.Unregister,
		Since: q.Since, Settings: uint32(q.Settings), Save: q.Save,
	}
	if z := q.Sanitize; z != nil {
		m.Sanitize = &metav1.Sanitize{
			Id: z.ID, Passes: uint32(z.Passes), Pattern: z.Pattern, Invert: z.Invert, Exit: z.Exit, Size: uint64(z.Size),
			Done: uint64(z.Done), Failed: z.Failed, Claim: z.Claim,
		}
	}
	for _, i := range q.Initiators {
		m.Initiators = append(m.Initiators, nexusMessage(i))
	}
	if q.Destination.Initiator != "" {
		m.Destination = nexusMessage(q.Destination)
	}
	return m
}

func nexusMessage(n reservation.Nexus) *metav1.Nexus {
	m := &metav1.Nexus{Initiator: n.Initiator, Port: uint32(n.Port)}
	if !n.AnyISID {
		m.Isid = n.ISID[:]
	}
	return m
}

func newNexus(m *metav1.Nexus) reservation.Nexus {
	n := reservation.Nexus{Initiator: m.GetInitiator(), Port: uint16(m.GetPort()), AnyISID: len(m.GetIsid()) == 0}
	copy(n.ISID[:], m.GetIsid())
	return n
}

// newReservations checks and translates what the metaserver sent.
func newReservations(m *metav1.VolumeReservations) (*scsi.Reservations, error) {
	s := &reservation.State{
		Version: m.GetVersion(), Generation: m.GetGeneration(), Type: reservation.Type(m.GetType()), APTPL: m.GetAptpl(),
		IgnoreISID: m.GetIgnoreIsid(),
		Modes:      reservation.Modes{Now: reservation.Settings(m.GetSettings()), Saved: reservation.Settings(m.GetSavedSettings())},
	}
	for _, r := range m.GetRegistrations() {
		s.Registrations = append(s.Registrations, reservation.Registration{Nexus: newNexus(r.GetNexus()), Key: reservation.Key(r.GetKey())})
	}
	if m.GetHolder() != nil {
		s.Holder = newNexus(m.GetHolder())
	}
	if m.GetLegacy() != nil {
		s.Legacy = &reservation.Legacy{Nexus: newNexus(m.GetLegacy()), Since: m.GetLegacySince()}
	}
	for _, e := range m.GetEvents() {
		ev := reservation.Event{
			Version: e.GetVersion(), Attention: reservation.Attention(e.GetAttention()), Abort: e.GetAbort(),
			Everybody: e.GetEverybody(), Except: uint16(e.GetExceptPort()),
		}
		if ev.Attention < reservation.ReservationsPreempted || ev.Attention > reservation.ModesChanged {
			continue // of a later version
		}
		if e.GetBy() != nil {
			ev.By = newNexus(e.GetBy())
		}
		for _, n := range e.GetNexuses() {
			ev.Nexuses = append(ev.Nexuses, newNexus(n))
		}
		s.Events = append(s.Events, ev)
	}
	if z := m.GetSanitize(); z != nil {
		s.Sanitize = &reservation.Sanitize{
			ID: z.GetId(), Passes: uint8(z.GetPasses()), Pattern: z.GetPattern(), Invert: z.GetInvert(), Exit: z.GetExit(),
			Size: int64(z.GetSize()), Done: int64(z.GetDone()), Failed: z.GetFailed(), Claim: z.GetClaim(), Port: uint16(z.GetPort()),
			Beat: z.GetBeat(),
		}
	}
	if !s.Valid() {
		return nil, fmt.Errorf("gateway: the reservations of volume %d contradict themselves", m.GetVolume())
	}
	return &scsi.Reservations{Access: m.GetAccessGeneration(), State: s}, nil
}

// reservationsOf returns the reservations of an exported volume; m is nil if it never had any. The access generation is the
// exports', for it is under that one that the access lists beside it were judged.
func reservationsOf(v *metav1.Volume, m *metav1.VolumeReservations) (*scsi.Reservations, error) {
	now := &scsi.Reservations{State: &reservation.State{}}
	if m != nil {
		var err error
		if now, err = newReservations(m); err != nil {
			return nil, err
		}
	}
	now.Access = v.GetAccessGeneration()
	return now, nil
}

package reservation

import "slices"

// Attention says by which unit attention a nexus is told (SPC-4 5.13.10, 5.13.11).
type Attention byte

// Attentions, with the additional sense code and qualifier that they are told by.
const (
	ReservationsPreempted  Attention = 1 // 2A/03: another nexus cleared all registrations
	ReservationsReleased   Attention = 2 // 2A/04
	RegistrationsPreempted Attention = 3 // 2A/05
	UnitWasReset           Attention = 4 // 29/03, in the place of all others
	ModesChanged           Attention = 5 // 2A/01
)

// Event is what a change means for nexuses other than the one that made it.
type Event struct {
	// Version is that of the state that came with it.
	Version   uint64    `json:"version"`
	Attention Attention `json:"attention"`
	// Abort: the commands of the nexuses are over. A reset is stored without it: whether the commands that a process has are
	// older than the answer to the reset is known to that process only, which sets it for itself (AbortResets).
	Abort   bool    `json:"abort,omitempty"`
	Nexuses []Nexus `json:"nexuses,omitempty"`
	// Everybody: the event is for all nexuses but those that know of it: By, or if there is none those of the target port Except.
	Everybody bool   `json:"everybody,omitempty"`
	Except    uint16 `json:"except,omitempty"`
	By        Nexus  `json:"by,omitzero"`
}

// Bounds of the events that are kept for those who have not heard of them.
const (
	eventsMax       = 32
	eventNexusesMax = 2 * RegistrationsMax
)

// tell adds an event for some nexuses.
func (s *State) tell(a Attention, abort bool, to []Nexus) {
	if len(to) > 0 {
		s.add(Event{Attention: a, Abort: abort, Nexuses: to})
	}
}

// add adds an event of the version that s is about to get. The oldest ones go when there are too many.
func (s *State) add(e Event) {
	e.Version = s.Version + 1
	events := append(append([]Event(nil), s.Events...), e)
	total := 0
	first := len(events)
	for first > 0 && len(events)-first < eventsMax {
		total += len(events[first-1].Nexuses)
		if total > eventNexusesMax && first < len(events) {
			break
		}
		first--
	}
	s.Events = events[first:]
}

// Told calls f for what concerns a nexus in the events after version since, in order.
func (s *State) Told(n Nexus, since uint64, f func(a Attention, abort bool)) {
	for _, e := range s.Events {
		if e.Version <= since {
			continue
		}
		if e.Everybody && !e.knows(n) {
			f(e.Attention, e.Abort)
		}
		for _, to := range e.Nexuses {
			if s.same(to, n) {
				f(e.Attention, e.Abort)
				break
			}
		}
	}
}

// ResetSince returns the version of the last event after version since that tells the nexuses of a target port of a reset, 0 if
// there is none.
func (s *State) ResetSince(since uint64, port uint16) uint64 {
	for _, e := range slices.Backward(s.Events) {
		if e.Version > since && e.resets(port) {
			return e.Version
		}
	}
	return 0
}

// AbortResets sets Abort of the events after version since that tell the nexuses of a target port of a reset. Nobody else may
// have s yet.
func (s *State) AbortResets(since uint64, port uint16) {
	for i := range s.Events {
		if e := &s.Events[i]; e.Version > since && e.resets(port) {
			e.Abort = true
		}
	}
}

// knows tells whether a nexus knows of an event for everybody.
func (e *Event) knows(n Nexus) bool {
	if e.By != (Nexus{}) {
		return n == e.By
	}
	return n.Port == e.Except
}

// resets tells whether e tells the nexuses of a target port of a reset.
func (e *Event) resets(port uint16) bool {
	return e.Attention == UnitWasReset && e.Everybody && e.Except != port
}

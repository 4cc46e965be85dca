package reservation

import "slices"

// Action is what a request asks for: a service action of PERSISTENT RESERVE OUT by its code, or one of the others below.
type Action byte

// Actions.
const (
	Register          Action = 0
	Reserve           Action = 1
	Release           Action = 2
	Clear             Action = 3
	Preempt           Action = 4
	PreemptAndAbort   Action = 5
	RegisterAndIgnore Action = 6
	RegisterAndMove   Action = 7

	// LegacyReserve and LegacyRelease are RESERVE and RELEASE of SPC-2.
	LegacyReserve Action = 0x40
	LegacyRelease Action = 0x41
	// NexusLost ends the SPC-2 reservation of Nexus that came with version Since.
	NexusLost Action = 0x42
	// UnitReset ends any SPC-2 reservation that came with version Since or before, and tells the nexuses of other target
	// ports than that of Nexus that the logical unit was reset. The mode pages have their saved values. What they have under way has to be refused from then on, so it
	// is Narrowed.
	UnitReset Action = 0x43
	// ModeSelect changes the settings of the Control mode page, and saves them with Save.
	ModeSelect Action = 0x44
	// SanitizeBegin begins a SANITIZE, and SanitizeExit ends what one that failed has left. By SanitizeReport the gateway that
	// has the claim tells how far it is, and keeps the claim; by SanitizeClaim another one takes it.
	SanitizeBegin  Action = 0x45
	SanitizeExit   Action = 0x46
	SanitizeReport Action = 0x47
	SanitizeClaim  Action = 0x48
)

// Request is one change that a nexus asks for.
type Request struct {
	Nexus  Nexus
	Action Action
	// Scope and Type are those of the CDB.
	Scope byte
	Type  Type
	// Key and ServiceKey are RESERVATION KEY and SERVICE ACTION RESERVATION KEY.
	Key, ServiceKey Key
	// APTPL, AllPorts (ALL_TG_PT), SpecIPT and Unregister (UNREG) are the bits of the parameter list.
	APTPL, AllPorts, SpecIPT, Unregister bool
	// Initiators are the ports that SPEC_I_PT names; the target port is not looked at.
	Initiators []Nexus
	// Destination is where REGISTER AND MOVE moves the reservation.
	Destination Nexus
	// Since is for NexusLost and UnitReset.
	Since uint64
	// Settings and Save are for ModeSelect.
	Settings Settings
	Save     bool
	// Sanitize is for the actions of that name but SanitizeExit: what is to be done, or ID, Claim, Done and Failed.
	Sanitize *Sanitize
	// Ports are the relative target port identifiers of all target ports; the caller fills them in.
	Ports []uint16
}

// Status is the answer to a request.
type Status byte

// Statuses.
const (
	Good                     Status = iota
	Conflict                        // RESERVATION CONFLICT
	InvalidFieldInCDB               // 05/24/00
	InvalidFieldInParameters        // 05/26/00
	InvalidRelease                  // 05/26/04
	NoResources                     // 05/55/04
	Sanitizing                      // 02/04/1B
)

// Result is what a request led to.
type Result struct {
	// State is the next state; the same as before unless Changed.
	State  *State
	Status Status
	// Changed: the state has to be stored. Narrowed: some nexus may do less than before, or is not to do what it began.
	Changed, Narrowed bool
}

// Apply judges a request. s is not changed.
func (s *State) Apply(r *Request) Result {
	next := *s
	status := next.do(r)
	if status != Good || next.equal(s) && r.Action != UnitReset {
		return Result{State: s, Status: status}
	}
	next.Version++
	if next.Legacy != nil && s.Legacy == nil {
		l := *next.Legacy
		l.Since = next.Version
		next.Legacy = &l
	}
	return Result{State: &next, Changed: true, Narrowed: r.outdates() || s.protects(&next) || s.narrows(&next)}
}

// outdates tells whether what was begun before a change is not to be done, whoever did.
func (r *Request) outdates() bool {
	return r.Action == UnitReset || r.Action == SanitizeBegin || r.Action == SanitizeClaim
}

// equal compares all that a request can change, but the events, which come with other changes only.
func (s *State) equal(o *State) bool {
	return s.Generation == o.Generation && s.Type == o.Type && s.Holder == o.Holder && s.APTPL == o.APTPL &&
		s.Legacy == o.Legacy && s.Modes == o.Modes && s.Sanitize == o.Sanitize && slices.Equal(s.Registrations, o.Registrations)
}

// do changes s, which nobody else has but whose slices are shared.
func (s *State) do(r *Request) Status {
	switch r.Action {
	case LegacyReserve, LegacyRelease, NexusLost, UnitReset:
		return s.legacy(r)
	case ModeSelect:
		return s.selectModes(r)
	case SanitizeBegin, SanitizeExit, SanitizeReport, SanitizeClaim:
		return s.sanitize(r)
	}
	if s.Legacy != nil {
		return Conflict
	}
	switch r.Action {
	case Register:
		return s.register(r)
	case RegisterAndIgnore:
		return s.registerAndIgnore(r)
	}
	if own := s.KeyOf(r.Nexus); own == 0 || own != r.Key {
		return Conflict
	}
	switch r.Action {
	case Reserve:
		return s.reserve(r)
	case Release:
		return s.release(r)
	case Clear:
		return s.clear(r)
	case Preempt, PreemptAndAbort:
		return s.preempt(r)
	case RegisterAndMove:
		return s.move(r)
	}
	return InvalidFieldInCDB
}

// legacy is the reservations of SPC-2 (SPC-2 7.21, 7.24).
func (s *State) legacy(r *Request) Status {
	own := s.Legacy != nil && s.same(s.Legacy.Nexus, r.Nexus)
	switch r.Action {
	case LegacyReserve, LegacyRelease:
		switch {
		case len(s.Registrations) > 0:
			return Conflict
		case r.Action == LegacyRelease && own:
			s.Legacy = nil
		case r.Action == LegacyReserve && s.Legacy == nil:
			s.Legacy = &Legacy{Nexus: r.Nexus}
		case r.Action == LegacyReserve && !own:
			return Conflict
		}
	case NexusLost:
		if own && s.Legacy.Since == r.Since {
			s.Legacy = nil
		}
	case UnitReset:
		if s.Legacy != nil && s.Legacy.Since <= r.Since {
			s.Legacy = nil
		}
		s.Modes.Now = s.Modes.Saved
		s.add(Event{Attention: UnitWasReset, Everybody: true, Except: r.Nexus.Port})
	}
	return Good
}

// reserve is RESERVE (SPC-4 5.13.9).
func (s *State) reserve(r *Request) Status {
	if r.Scope != 0 || !r.Type.Valid() {
		return InvalidFieldInCDB
	}
	own := s.Registrations[s.find(r.Nexus)]
	switch {
	case s.Type == 0:
		s.establish(r.Type, own.Nexus)
	case s.Type != r.Type || !s.Holds(own):
		return Conflict
	}
	return Good
}

func (s *State) establish(t Type, holder Nexus) {
	s.Type, s.Holder = t, Nexus{}
	if !t.all() {
		s.Holder = holder
	}
}

// release is RELEASE (SPC-4 5.13.11.2).
func (s *State) release(r *Request) Status {
	own := s.Registrations[s.find(r.Nexus)]
	switch {
	case s.Type == 0 || !s.Holds(own):
		return Good
	case r.Scope != 0 || r.Type != s.Type:
		return InvalidRelease
	}
	s.free(own.Nexus)
	return Good
}

// free ends the reservation. Registrants that could use the medium under it are told, but for the one that ended it.
func (s *State) free(by Nexus) {
	if s.Type.registrants() {
		s.tell(ReservationsReleased, false, s.others(by))
	}
	s.Type, s.Holder = 0, Nexus{}
}

// others returns the registered nexuses but one.
func (s *State) others(by Nexus) []Nexus {
	var out []Nexus
	for _, r := range s.Registrations {
		if r.Nexus != by {
			out = append(out, r.Nexus)
		}
	}
	return out
}

// clear is CLEAR (SPC-4 5.13.11.5).
func (s *State) clear(r *Request) Status {
	own := s.Registrations[s.find(r.Nexus)]
	s.tell(ReservationsPreempted, false, s.others(own.Nexus))
	s.Registrations, s.Type, s.Holder = nil, 0, Nexus{}
	s.Generation++
	return Good
}

// preempt is PREEMPT and PREEMPT AND ABORT (SPC-4 5.13.11.3, 5.13.11.4).
func (s *State) preempt(r *Request) Status {
	own := s.Registrations[s.find(r.Nexus)].Nexus
	takes := s.Type != 0 && r.ServiceKey == s.HolderKey() // the reservation, and not only registrations
	if takes && (r.Scope != 0 || !r.Type.Valid()) {
		return InvalidFieldInCDB
	}
	if !takes && r.ServiceKey == 0 {
		return InvalidFieldInParameters
	}
	everybody := takes && r.ServiceKey == 0 // of a reservation that all registrants hold
	var gone, told []Nexus
	for _, g := range s.Registrations {
		if !everybody && g.Key != r.ServiceKey || takes && g.Nexus == own {
			continue
		}
		gone = append(gone, g.Nexus)
		if g.Nexus != own {
			told = append(told, g.Nexus)
		}
	}
	if !takes && len(gone) == 0 {
		return Conflict
	}
	s.remove(gone)
	s.tell(RegistrationsPreempted, r.Action == PreemptAndAbort, told)
	if takes {
		if s.Type != r.Type {
			s.tell(ReservationsReleased, false, s.others(own))
		}
		s.establish(r.Type, own)
	} else if s.Type.all() && len(s.Registrations) == 0 {
		s.Type = 0
	}
	s.Generation++
	return Good
}

// remove takes registrations away.
func (s *State) remove(gone []Nexus) {
	s.Registrations = slices.DeleteFunc(slices.Clone(s.Registrations), func(r Registration) bool {
		return slices.Contains(gone, r.Nexus)
	})
	if len(s.Registrations) == 0 {
		s.Registrations = nil
	}
}

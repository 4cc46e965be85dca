package reservation

import (
	"cmp"
	"slices"
	"strings"
)

// RegistrationsMax bounds the registrations of a logical unit: 64 hosts with 8 paths each. One more is answered by
// INSUFFICIENT REGISTRATION RESOURCES.
const RegistrationsMax = 512

// ISID names a port of an iSCSI initiator together with its name (RFC 7143 section 4.4.3).
type ISID [6]byte

// Nexus is an I_T nexus: an initiator port and a target port.
type Nexus struct {
	// Initiator is the initiator's name, folded to lower case.
	Initiator string `json:"initiator"`
	ISID      ISID   `json:"isid"`
	// AnyISID: the registration is for all ports of the initiator, as a TransportID without an ISID asks for.
	AnyISID bool `json:"any_isid,omitempty"`
	// Port is the relative target port identifier, 1..65535.
	Port uint16 `json:"port"`
}

// compare orders nexuses.
func (n Nexus) compare(o Nexus) int {
	c := cmp.Or(strings.Compare(n.Initiator, o.Initiator), cmp.Compare(n.Port, o.Port), slices.Compare(n.ISID[:], o.ISID[:]))
	switch {
	case c != 0 || n.AnyISID == o.AnyISID:
		return c
	case n.AnyISID:
		return 1
	}
	return -1
}

// Key is a reservation key; 0 is none.
type Key uint64

// Type is the type of a persistent reservation (SPC-4 table 172); 0 is none.
type Type byte

// Types.
const (
	WriteExclusive             Type = 1
	ExclusiveAccess            Type = 3
	WriteExclusiveRegistrants  Type = 5
	ExclusiveAccessRegistrants Type = 6
	WriteExclusiveAll          Type = 7
	ExclusiveAccessAll         Type = 8
)

// Valid tells whether t is a type.
func (t Type) Valid() bool {
	switch t {
	case WriteExclusive, ExclusiveAccess, WriteExclusiveRegistrants, ExclusiveAccessRegistrants, WriteExclusiveAll, ExclusiveAccessAll:
		return true
	}
	return false
}

// all tells whether every registrant holds a reservation of type t.
func (t Type) all() bool { return t == WriteExclusiveAll || t == ExclusiveAccessAll }

// registrants tells whether a reservation of type t lets every registrant use the medium.
func (t Type) registrants() bool { return t >= WriteExclusiveRegistrants }

// exclusiveAccess tells whether a reservation of type t forbids reading too.
func (t Type) exclusiveAccess() bool {
	return t == ExclusiveAccess || t == ExclusiveAccessRegistrants || t == ExclusiveAccessAll
}

// Registration is a registered nexus.
type Registration struct {
	Nexus
	Key Key `json:"key"` // not 0
}

// Legacy is a reservation of SPC-2.
type Legacy struct {
	Nexus
	// Since is the version of the state that it came with.
	Since uint64 `json:"since"`
}

// State is the reservations of one logical unit. The zero value is that of a new one.
//
// Invariants, kept by Apply and checked by Valid: registrations are in order, none twice, at most RegistrationsMax, each with
// a key and a port; a reservation has a valid type; one of a type that not all registrants hold has a registered holder;
// one that all hold has a registrant; a Legacy excludes registrations; a Sanitize has a size, and a pattern if it overwrites.
type State struct {
	// Version rises with every change.
	Version uint64 `json:"version"`
	// Generation is PRGENERATION (SPC-4 6.15.2).
	Generation    uint32         `json:"generation"`
	Registrations []Registration `json:"registrations,omitempty"`
	// Type of the persistent reservation, 0 when there is none, and who holds it, unless all registrants do.
	Type   Type  `json:"type,omitempty"`
	Holder Nexus `json:"holder,omitzero"`
	// APTPL is what the last registration asked for.
	APTPL bool `json:"aptpl,omitempty"`
	// IgnoreISID: an initiator is known by its name alone, whichever ISID it logs in with.
	IgnoreISID bool    `json:"ignore_isid,omitempty"`
	Legacy     *Legacy `json:"legacy,omitempty"`
	Modes      Modes   `json:"modes,omitzero"`
	// Sanitize is the SANITIZE that is under way or has failed, nil when there is none. Immutable.
	Sanitize *Sanitize `json:"sanitize,omitempty"`
	// Events are the last ones, oldest first.
	Events []Event `json:"events,omitempty"`
}

// same tells whether a registration of a is one for b.
func (s *State) same(a, b Nexus) bool {
	return a.Port == b.Port && a.Initiator == b.Initiator && (s.IgnoreISID || a.AnyISID || a.ISID == b.ISID && !b.AnyISID)
}

// find returns the place of the registration of n, -1 if it has none. One with n's own ISID goes before one for any.
func (s *State) find(n Nexus) int {
	found := -1
	for i := range s.Registrations {
		r := &s.Registrations[i]
		switch {
		case !s.same(r.Nexus, n):
		case r.Nexus == n:
			return i
		case found < 0:
			found = i
		}
	}
	return found
}

// KeyOf returns the key that a nexus has registered, 0 if it has not.
func (s *State) KeyOf(n Nexus) Key {
	if i := s.find(n); i >= 0 {
		return s.Registrations[i].Key
	}
	return 0
}

// Holds tells whether a registration is that of a holder of the persistent reservation.
func (s *State) Holds(r Registration) bool {
	return s.Type != 0 && (s.Type.all() || r.Nexus == s.Holder)
}

// HolderKey returns the key of the persistent reservation as READ RESERVATION shows it: 0 when all registrants hold it.
func (s *State) HolderKey() Key {
	if s.Type == 0 || s.Type.all() {
		return 0
	}
	return s.KeyOf(s.Holder)
}

// Class is what a command needs of a logical unit that is reserved.
type Class byte

// Classes. Under an SPC-2 reservation only Free ones are for everybody.
const (
	Read  Class = iota // conflicts with exclusive access
	Write              // conflicts with every reservation
	Query              // conflicts with an SPC-2 reservation only, as TEST UNIT READY
	Free               // conflicts with nothing, as INQUIRY
)

// Allows tells whether a nexus may execute a command of a class (SPC-4 table 65).
func (s *State) Allows(n Nexus, c Class) bool {
	switch {
	case c == Free:
		return true
	case s.Legacy != nil:
		return s.same(s.Legacy.Nexus, n)
	case c == Query || s.Type == 0 || c == Read && !s.Type.exclusiveAccess():
		return true
	}
	i := s.find(n)
	return i >= 0 && (s.Type.registrants() || s.Registrations[i].Nexus == s.Holder)
}

// Restricts tells whether there is a nexus that Allows refuses something.
func (s *State) Restricts() bool { return s.Type != 0 || s.Legacy != nil }

// narrows tells whether some nexus may do less under next than under s.
func (s *State) narrows(next *State) bool {
	if !next.Restricts() {
		return false
	}
	less := func(n Nexus) bool {
		return s.Allows(n, Read) && !next.Allows(n, Read) || s.Allows(n, Write) && !next.Allows(n, Write)
	}
	if less(Nexus{}) || s.Legacy != nil && less(s.Legacy.Nexus) {
		return true
	}
	return slices.ContainsFunc(s.Registrations, func(r Registration) bool { return less(r.Nexus) })
}

// Valid tells whether the invariants of State hold.
func (s *State) Valid() bool {
	if len(s.Registrations) > RegistrationsMax || s.Legacy != nil && (len(s.Registrations) > 0 || s.Type != 0) {
		return false
	}
	for i, r := range s.Registrations {
		if r.Key == 0 || r.Port == 0 || r.Initiator == "" || i > 0 && s.Registrations[i-1].compare(r.Nexus) >= 0 {
			return false
		}
	}
	if z := s.Sanitize; z != nil && (z.Size <= 0 || z.Passes > 0 && len(z.Pattern) == 0) {
		return false
	}
	switch {
	case s.Type == 0:
		return s.Holder == Nexus{}
	case !s.Type.Valid():
		return false
	case s.Type.all():
		return len(s.Registrations) > 0 && s.Holder == Nexus{}
	}
	return slices.ContainsFunc(s.Registrations, func(r Registration) bool { return r.Nexus == s.Holder })
}

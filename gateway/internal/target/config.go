package target

import (
	"fmt"
	"maps"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// AnyInitiator is the Initiator of an Access that is for all which have none of their own.
const AnyInitiator = "*"

// Config is all that a gateway exports. Apply takes it over whole; it is not changed afterwards.
type Config struct {
	// Portals are the portals of all gateways, for SendTargets.
	Portals []Portal
	// Gateways are all gateways, by target port group tag, for what initiators are told of their paths; with none they are
	// told of the port that they came in at.
	Gateways []Gateway
	// Volumes are the logical units by volume ID.
	Volumes map[uint64]scsi.UnitConfig
	// Reservations are those of the volumes; a volume may have none here.
	Reservations map[uint64]*scsi.Reservations
	Targets      []Target
}

// Portal is one address that initiators can connect to.
type Portal struct {
	Address string // "host:port", IPv6 in brackets, as the initiator reaches it
	Group   uint16 // target portal group tag
}

// Target is one iSCSI target.
type Target struct {
	Name  string // iSCSI name
	Alias string // up to 255 bytes, empty for none
	LUNs  []LUN
	// Access is who may log in. The entry with the initiator's own name goes before the one of AnyInitiator.
	Access []Access
	// Redirect is where initiators are sent that log in; nil: the target is served here.
	Redirect *login.Redirect
	// Elsewhere are the IDs of the gateways that send initiators to another portal.
	Elsewhere []uint64
}

// LUN puts a volume at a logical unit number.
type LUN struct {
	Number   uint16 // 0..scsi.LUNMax
	Volume   uint64 // a key of Config.Volumes
	ReadOnly bool
}

// Access is the right of one initiator, or of any.
type Access struct {
	Initiator string // iSCSI name, or AnyInitiator
	// Auth is how it proves who it is, and how the target does. Its zero value asks for nothing.
	Auth login.Auth
}

// target is a Target made ready for questions.
type target struct {
	name   string
	alias  string
	luns   []LUN
	access map[string]login.Auth
	moved  *login.Redirect
	// elsewhere are the IDs of the gateways that send initiators to another portal.
	elsewhere []uint64
}

// find returns the entry for an initiator.
func (t *target) find(initiator string) (login.Auth, bool) {
	if a, ok := t.access[initiator]; ok {
		return a, true
	}
	a, ok := t.access[AnyInitiator]
	return a, ok
}

// snapshot is a Config made ready for questions, immutable.
type snapshot struct {
	portals  []Portal
	gateways []Gateway
	targets  map[string]*target
	sorted   []*target // by name
	volumes  map[uint64]scsi.UnitConfig
	// reservations are for the logical units that are made.
	reservations map[uint64]*scsi.Reservations
}

// newSnapshot checks c.
func newSnapshot(c Config) (*snapshot, error) {
	s := &snapshot{
		portals:  append([]Portal(nil), c.Portals...),
		gateways: append([]Gateway(nil), c.Gateways...),
		targets:  make(map[string]*target, len(c.Targets)),
		volumes:  maps.Clone(c.Volumes), reservations: c.Reservations,
	}
	for id, v := range c.Volumes {
		if err := v.Validate(); err != nil {
			return nil, fmt.Errorf("target: volume %d: %w", id, err)
		}
	}
	for i := range c.Targets {
		t, err := s.newTarget(&c.Targets[i])
		if err != nil {
			return nil, err
		}
		if s.targets[t.name] != nil {
			return nil, fmt.Errorf("target: %s is there twice", t.name)
		}
		s.targets[t.name] = t
	}
	s.sort()
	return s, nil
}

func (s *snapshot) newTarget(c *Target) (*target, error) {
	name, ok := login.NormalizeName(c.Name)
	if !ok {
		return nil, fmt.Errorf("target: %q is not an iSCSI name", c.Name)
	}
	if len(c.Alias) > login.MaxValueLen {
		return nil, fmt.Errorf("target: alias of %s has %d bytes", name, len(c.Alias))
	}
	t := &target{
		name: name, alias: c.Alias, moved: c.Redirect, elsewhere: c.Elsewhere, access: make(map[string]login.Auth, len(c.Access)),
	}
	seen := map[uint16]bool{}
	for _, l := range c.LUNs {
		if _, ok := s.volumes[l.Volume]; !ok {
			return nil, fmt.Errorf("target: LUN %d of %s leads to volume %d, which is not there", l.Number, name, l.Volume)
		}
		if l.Number > scsi.LUNMax || seen[l.Number] {
			return nil, fmt.Errorf("target: LUN %d of %s is there twice or more than %d", l.Number, name, scsi.LUNMax)
		}
		seen[l.Number] = true
		t.luns = append(t.luns, l)
	}
	for _, a := range c.Access {
		initiator := a.Initiator
		if initiator != AnyInitiator {
			if initiator, ok = login.NormalizeName(initiator); !ok {
				return nil, fmt.Errorf("target: initiator %q of %s is not an iSCSI name", a.Initiator, name)
			}
		}
		if _, dup := t.access[initiator]; dup {
			return nil, fmt.Errorf("target: initiator %s of %s is there twice", initiator, name)
		}
		t.access[initiator] = a.Auth
	}
	return t, nil
}

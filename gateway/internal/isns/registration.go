package isns

import (
	"cmp"
	"slices"
)

// Portal is a portal of a gateway.
type Portal struct {
	Address [16]byte // IPv6, or IPv4 as ::ffff:a.b.c.d
	Port    uint16
	Group   uint16 // target portal group tag
}

// Registration is what a cluster registers.
type Registration struct {
	// Entity is the Entity Identifier, 3 to 255 bytes.
	Entity string
	// Period is for how long the server keeps the registration without hearing of a gateway, in seconds; not 0.
	Period uint32
	// Portals, at most PortalsMax; the rest is left out.
	Portals []Portal
	// Targets are iSCSI names in lower case.
	Targets []string
}

const (
	// PortalsMax bounds the portals that are registered: all of one target fit a request.
	PortalsMax = 512
	// requestMax is about how long the payload of a request gets, in bytes; one target with its groups may go beyond it.
	requestMax = PayloadMax - PortalsMax*groupLen - 512
	// groupLen is the length of a group tag with its portal.
	groupLen = 12 + 24 + 12
)

// Equal reports whether r and o register the same.
func (r *Registration) Equal(o *Registration) bool {
	return r.Entity == o.Entity && r.Period == o.Period && slices.Equal(r.Portals, o.Portals) && slices.Equal(r.Targets, o.Targets)
}

// Sort puts r in the order in which equal registrations are Equal, without repetitions.
func (r *Registration) Sort() {
	slices.SortFunc(r.Portals, func(a, b Portal) int {
		return cmp.Or(slices.Compare(a.Address[:], b.Address[:]), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Group, b.Group))
	})
	// A portal that two gateways claim has one tag only.
	r.Portals = slices.CompactFunc(r.Portals, func(a, b Portal) bool { return a.Address == b.Address && a.Port == b.Port })
	r.Portals = r.Portals[:min(len(r.Portals), PortalsMax)]
	slices.Sort(r.Targets)
	r.Targets = slices.Compact(r.Targets)
}

// Register returns the requests that register r, to be sent one after the other; none if r has no target or no portal. With
// replace what the server knows of the entity and is not in r goes away. source is a target that the server knows to be of the
// entity; empty: the first of r.
func (r *Registration) Register(source string, replace bool) []Request {
	if len(r.Targets) == 0 || len(r.Portals) == 0 {
		return nil
	}
	if source == "" {
		source = r.Targets[0]
	}
	var out []Request
	q := Request{DevAttrReg, replace, r.head(source)}
	for _, p := range r.Portals {
		q.Payload = appendBytes(q.Payload, TagPortalAddress, p.Address[:])
		q.Payload = appendUint32(q.Payload, TagPortalPort, uint32(p.Port))
	}
	for _, t := range r.Targets {
		if len(q.Payload) > requestMax {
			out = append(out, q)
			q = Request{DevAttrReg, false, r.head(r.Targets[0])}
		}
		q.Payload = appendText(q.Payload, TagISCSIName, t)
		q.Payload = appendUint32(q.Payload, TagISCSINodeType, nodeTypeTarget)
		for _, p := range r.Portals {
			q.Payload = appendUint32(q.Payload, TagGroupTag, uint32(p.Group))
			q.Payload = appendBytes(q.Payload, TagGroupAddress, p.Address[:])
			q.Payload = appendUint32(q.Payload, TagGroupPort, uint32(p.Port))
		}
	}
	return append(out, q)
}

// head is what all registrations begin with.
func (r *Registration) head(source string) []byte {
	b := appendText(nil, TagISCSIName, source)
	b = appendText(b, TagEntityIdentifier, r.Entity)
	b = appendBytes(b, TagDelimiter, nil)
	b = appendText(b, TagEntityIdentifier, r.Entity)
	b = appendUint32(b, TagEntityProtocol, protocolISCSI)
	return appendUint32(b, TagRegistrationPeriod, r.Period)
}

// Deregister returns the request that takes the entity with all that belongs to it out.
func (r *Registration) Deregister(source string) Request {
	b := appendText(nil, TagISCSIName, source)
	b = appendBytes(b, TagDelimiter, nil)
	return Request{Function: DevDereg, Payload: appendText(b, TagEntityIdentifier, r.Entity)}
}

// DeregisterPortals returns the request that takes portals out.
func (r *Registration) DeregisterPortals(source string, portals []Portal) Request {
	b := appendText(nil, TagISCSIName, source)
	b = appendBytes(b, TagDelimiter, nil)
	for _, p := range portals[:min(len(portals), PortalsMax)] {
		b = appendBytes(b, TagPortalAddress, p.Address[:])
		b = appendUint32(b, TagPortalPort, uint32(p.Port))
	}
	return Request{Function: DevDereg, Payload: b}
}

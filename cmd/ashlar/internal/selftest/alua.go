package selftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// aluaChecks are about the paths to the logical unit and what the target says of them (asymmetric logical unit access).
func aluaChecks() map[string]check {
	return map[string]check{
		"rtpg": {
			area: "ALUA", title: "REPORT TARGET PORT GROUPS",
			want:   "if TPGS is not 0: the group and the port of page 83h, active; each port once; states that the group says it can have",
			advice: "The host takes the path for one that does not work.", run: targetPortGroups,
		},
		"stpg": {
			area: "ALUA", title: "SET TARGET PORT GROUPS", want: "if TPGS is not 0: there and reported with TPGS 2 and 3, neither with 1",
			advice: "The host tries to set states that the target does not let it set, or does not try where it has to.", run: setTargetPortGroups,
		},
		"alua portals": {
			area: "ALUA", title: "all portals", want: "the same designators of the logical unit; a relative port for each portal group tag, in a group that every path reports",
			advice: "Multipath software puts paths together that do not belong together, or does not know some.", run: aluaPortals,
		},
	}
}

// Operation codes and service action of asymmetric access.
const (
	opMaintenanceIn  = 0xa3
	opMaintenanceOut = 0xa4
	actionPortGroups = 0x0a
	actionOperations = 0x0c
)

// portGroup is a target port group descriptor.
type portGroup struct {
	tag              uint16
	state, supported byte
	ports            []uint16
}

// supports tells whether the group says that it can be in its state; transitioning and offline are looked at, too.
func (g *portGroup) supports() bool {
	bit, ok := map[byte]byte{0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 14: 6, 15: 7}[g.state]
	return ok && g.supported>>bit&1 != 0
}

// tpgs returns the field of that name.
func (p *probe) tpgs() (byte, error) {
	b, err := p.inquiry(p.h, -1, 36)
	if err == nil && len(b) < 36 {
		err = fmt.Errorf("INQUIRY of %d bytes", len(b))
	}
	if err != nil {
		return 0, err
	}
	return b[5] >> 4 & 3, nil
}

// portGroups reads the report over a session, with or without the extended header.
func portGroups(h *wire.Host, extended bool) ([]portGroup, error) {
	cdb := make([]byte, 12)
	cdb[0], cdb[1] = opMaintenanceIn, actionPortGroups
	if extended {
		cdb[1] |= 0x20
	}
	binary.BigEndian.PutUint32(cdb[6:], 4096)
	d, err := dataOf(h, cdb, 4096)
	if err != nil {
		return nil, err
	}
	return parsePortGroups(d, extended)
}

func parsePortGroups(d []byte, extended bool) ([]portGroup, error) {
	if len(d) < 4 || uint64(len(d)) != 4+uint64(binary.BigEndian.Uint32(d)) {
		return nil, fmt.Errorf("%d bytes whose length does not fit", len(d))
	}
	at := 4
	if extended {
		if len(d) < 8 || d[4]>>4&7 != 1 {
			return nil, errors.New("no extended header, though it was asked for")
		}
		at = 8
	}
	var out []portGroup
	for d = d[at:]; len(d) > 0; {
		n := 8
		if len(d) >= n {
			n += 4 * int(d[7])
		}
		if len(d) < n {
			return nil, errors.New("a descriptor is cut off")
		}
		g := portGroup{tag: binary.BigEndian.Uint16(d[2:]), state: d[0] & 15, supported: d[1]}
		for i := 8; i < n; i += 4 {
			g.ports = append(g.ports, binary.BigEndian.Uint16(d[i+2:]))
		}
		out, d = append(out, g), d[n:]
	}
	return out, nil
}

// judgeGroups checks a report against the port that it came through.
func judgeGroups(groups []portGroup, rel, tag uint16) (*portGroup, error) {
	var own *portGroup
	seen := map[uint16]bool{}
	for i := range groups {
		g := &groups[i]
		if !g.supports() {
			return nil, fmt.Errorf("group %d is in state %d, of %02Xh that it can have", g.tag, g.state, g.supported)
		}
		for _, port := range g.ports {
			if seen[port] {
				return nil, fmt.Errorf("port %d is there twice", port)
			}
			seen[port] = true
			if port == rel && g.tag == tag {
				own = g
			}
		}
	}
	switch {
	case own == nil:
		return nil, fmt.Errorf("port %d of group %d, which page 83h has, is not in the report", rel, tag)
	case own.state > 1:
		return nil, fmt.Errorf("group %d is in state %d", tag, own.state)
	}
	return own, nil
}

// ownPort returns the relative port and the group of page 83h; 0 for what it does not have.
func ownPort(ds []designator) (rel, group uint16) {
	for _, d := range ds {
		if d.association == 1 && len(d.id) == 4 {
			switch d.kind {
			case 4:
				rel = binary.BigEndian.Uint16(d.id[2:])
			case 5:
				group = binary.BigEndian.Uint16(d.id[2:])
			}
		}
	}
	return rel, group
}

func targetPortGroups(p *probe) (string, error) {
	if tpgs, err := p.tpgs(); err != nil || tpgs == 0 {
		return "", orSkip(err, "TPGS is 0: all paths are equal")
	}
	ds, err := p.designators(p.h)
	if err != nil {
		return "", err
	}
	rel, tag := ownPort(ds)
	groups, err := portGroups(p.h, false)
	if err != nil {
		return "", err
	}
	own, err := judgeGroups(groups, rel, tag)
	if err != nil {
		return "", err
	}
	found := fmt.Sprintf("%d groups, this one active/optimized", len(groups))
	if own.state == 1 {
		found = fmt.Sprintf("%d groups, this one active/non-optimized", len(groups))
	}
	extended, err := portGroups(p.h, true)
	switch {
	case notThere(err):
		return found + ", no extended header", nil
	case err != nil:
		return "", fmt.Errorf("extended header: %w", err)
	}
	if _, err := judgeGroups(extended, rel, tag); err != nil {
		return "", fmt.Errorf("extended header: %w", err)
	}
	return found, nil
}

// orSkip is err or, without one, a skip.
func orSkip(err error, why string) error {
	if err != nil {
		return err
	}
	return skip("%s", why)
}

func setTargetPortGroups(p *probe) (string, error) {
	tpgs, err := p.tpgs()
	if err != nil || tpgs == 0 {
		return "", orSkip(err, "TPGS is 0: all paths are equal")
	}
	explicit := tpgs&2 != 0
	cdb := make([]byte, 12)
	cdb[0], cdb[1], cdb[2], cdb[3], cdb[5] = opMaintenanceIn, actionOperations, 2, opMaintenanceOut, actionPortGroups
	binary.BigEndian.PutUint32(cdb[6:], 64)
	d, err := p.data(cdb, 64)
	switch {
	case notThere(err): // nothing is reported
	case err != nil || len(d) < 2:
		return "", fmt.Errorf("REPORT SUPPORTED OPERATION CODES: %d bytes: %w", len(d), orGood(err))
	case explicit != (d[1]&7 == 3):
		return "", fmt.Errorf("TPGS %d, but reported with SUPPORT %d", tpgs, d[1]&7)
	}
	if explicit {
		return "reported", nil
	}
	return p.sense([]byte{opMaintenanceOut, actionPortGroups, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, nil, 5, 0)
}

// portalsMax bounds the portals that are tried.
const portalsMax = 16

func aluaPortals(p *probe) (string, error) {
	if tpgs, err := p.tpgs(); err != nil || tpgs == 0 {
		return "", orSkip(err, "TPGS is 0: all paths are equal")
	}
	addresses, _, err := p.addresses()
	if err != nil {
		return "", err
	}
	first, err := p.designators(p.h)
	if err != nil {
		return "", err
	}
	id, err := name(first)
	if err != nil {
		return "", err
	}
	ports := tagPorts{}
	away := 0
	for _, a := range addresses[:min(len(addresses), portalsMax)] {
		portal, tag, _ := strings.Cut(a, ",")
		h, err := p.dialAt(portal, p.o.Initiator, nil)
		if refused, ok := errors.AsType[*wire.LoginError](err); ok && refused.Class > 1 { // 1 is a redirection
			return "", fmt.Errorf("%s: %w", portal, err)
		}
		if err != nil { // down, of a network that this host is not in, or moved away
			away++
			continue
		}
		p.others = append(p.others, h)
		ds, err := p.designators(h)
		if err != nil {
			return "", fmt.Errorf("%s: %w", portal, err)
		}
		if a, b := ofUnit(first), ofUnit(ds); a != b {
			return "", fmt.Errorf("%s has designators %s, here they are %s", portal, b, a)
		}
		rel, group := ownPort(ds)
		for _, over := range []*wire.Host{h, p.h} {
			groups, err := portGroups(over, false)
			if err == nil {
				_, err = judgeGroups(groups, rel, group)
			}
			if err != nil {
				return "", fmt.Errorf("%s: %w", portal, err)
			}
		}
		if err := ports.add(tag, rel); err != nil {
			return "", fmt.Errorf("%s: %w", portal, err)
		}
	}
	if len(ports) < 2 {
		return "", skip("%d of %d portals can be reached, of %d portal groups", len(addresses)-away, len(addresses), len(ports))
	}
	found := fmt.Sprintf("%d portal groups, %s", len(ports), id)
	if away > 0 {
		found += fmt.Sprintf(", %d portals can not be reached", away)
	}
	return found, nil
}

// tagPorts are the relative port identifiers of portal group tags. An iSCSI portal group is a SCSI target port, and each port has a
// relative port identifier of its own.
type tagPorts map[string]uint16

// add notes what a portal of the group with that tag says, and returns an error if another one says otherwise.
func (m tagPorts) add(tag string, port uint16) error {
	for t, p := range m {
		if (t == tag) != (p == port) {
			return fmt.Errorf("relative port %d with portal group tag %s, and relative port %d with tag %s elsewhere", port, tag, p, t)
		}
	}
	m[tag] = port
	return nil
}

// ofUnit writes out the designators of the logical unit, which have to be the same on every path.
func ofUnit(ds []designator) string {
	var out []string
	for _, d := range ds {
		if d.association == 0 {
			out = append(out, fmt.Sprintf("%d/%d:%x", d.kind, d.codeSet, d.id))
		}
	}
	return strings.Join(out, " ")
}

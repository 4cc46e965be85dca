package checks

import (
	"errors"
	"net"
	"slices"
	"strings"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Status details of redirection, class 1 (RFC 7143 section 11.13.5).
const (
	movedTemporarily = 1
	movedPermanently = 2
)

// loginMoved wants each login to a target that has moved to be sent elsewhere, in whatever stage it begins, and the
// target to be served there.
func loginMoved(permanent bool) func(peer.T, *peer.Target) {
	return func(t peer.T, g *peer.Target) {
		i := slices.IndexFunc(g.Moved, func(m peer.Moved) bool { return m.Permanent == permanent })
		if i < 0 {
			t.Skipf("no target that has moved so is known")
		}
		moved := *g
		moved.Name = g.Moved[i].Name
		for _, c := range []struct {
			csg, nsg byte
			keys     []string
		}{
			{wire.Security, wire.Operational, []string{"AuthMethod=None"}},
			{wire.Security, wire.Operational, []string{"AuthMethod=CHAP,None"}},
			{wire.Security, wire.FullFeature, nil},
			{wire.Operational, wire.FullFeature, peer.Keys()},
		} {
			p := moved.Dial(t)
			r, err := p.Step(wire.Final, c.csg, c.nsg, append(moved.Names(), c.keys...)...)
			wantMoved(p, g.Moved[i], r, err)
		}
		moved.Portal = g.Moved[i].Address
		p := moved.Session(t)
		p.Leave()
	}
}

// wantMoved judges a Login Response with a redirection: TargetAddress once, where the target is, without the portal group
// tag that it has in SendTargets (RFC 7143 section 13.8); and the connection is closed.
func wantMoved(p *peer.Peer, to peer.Moved, r wire.PDU, err error) {
	p.Helper()
	detail := byte(movedTemporarily)
	if to.Permanent {
		detail = movedPermanently
	}
	var l *wire.LoginError
	if !errors.As(err, &l) {
		p.Fatalf("%v, want status 01%02x", err, detail)
	}
	if h := uint16(r.BHS[14])<<8 | uint16(r.BHS[15]); h != 0 {
		p.Errorf("TSIH %d of a login that made no session", h)
	}
	address, n := wire.Lookup(r.Data, "TargetAddress")
	switch host, port, err := net.SplitHostPort(address); {
	case n != 1:
		p.Errorf("TargetAddress comes %d times", n)
	case strings.Contains(address, ","):
		p.Errorf("TargetAddress=%s has a portal group tag", address)
	case err != nil || host == "" || port == "":
		p.Errorf("TargetAddress=%s is no address with a port: %v", address, err)
	case address != to.Address:
		p.Errorf("TargetAddress=%s, want %s", address, to.Address)
	}
	p.RefusedWith(1, detail, err)
}

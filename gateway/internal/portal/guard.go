package portal

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// loginEnv is the surroundings of the login of one connection: what the registry knows, and who failed too often.
type loginEnv struct {
	*target.Env
	p     *Portal
	from  string // who is held off together, see guardKey
	local string // where the connection came in, as TargetAddress has it
}

func newLoginEnv(c *conn) *loginEnv {
	return &loginEnv{
		Env: c.p.registry.NewEnv(c.p.cfg.Port), p: c.p,
		from: guardKey(c.host), local: c.nc.LocalAddr().String(),
	}
}

// moveSeconds is how long an initiator has to log out of a target that moved. One that does not is left alone.
const moveSeconds = 30

// Move asks the initiators of targets to log out (asynchronous message 1), so that they log in again and learn where the
// targets moved. It returns how many sessions that is.
func (p *Portal) Move(targets []string) int {
	asked := 0
	for _, r := range p.runners() {
		if slices.Contains(targets, r.place.Target()) {
			r.requestLogout(moveSeconds)
			asked++
		}
	}
	return asked
}

// localHost returns the address that the connection came to, as TargetAddress has it.
func (c *conn) localHost() string {
	a, ok := c.nc.LocalAddr().(*net.TCPAddr)
	switch {
	case !ok:
		return ""
	case a.IP.To4() != nil:
		return a.IP.String()
	}
	return "[" + a.IP.String() + "]"
}

// LookupTarget implements login.Env. An initiator that came where it was sent to is served.
func (e *loginEnv) LookupTarget(initiator, name string) login.TargetInfo {
	info := e.Env.LookupTarget(initiator, name)
	if info.Redirect != nil && info.Redirect.Address == e.local {
		info.Redirect = nil
	}
	return info
}

// Permit implements login.Env.
func (e *loginEnv) Permit(initiator string) error {
	wait := e.p.backoff.Wait(time.Now(), e.from, initiator)
	if wait == 0 {
		return nil
	}
	e.p.counters.heldOff.Add(1)
	return &login.StatusError{
		Status: login.StatusServiceUnavailable,
		Detail: fmt.Sprintf("%s from %s failed to authenticate too often, for %v it is not asked again", initiator, e.from, wait.Round(time.Second)),
	}
}

// Authenticated implements login.Env.
func (e *loginEnv) Authenticated(initiator string, ok bool) {
	if ok {
		e.p.backoff.Succeeded(time.Now(), e.from, initiator)
		return
	}
	e.p.counters.authFailed.Add(1)
	e.p.backoff.Failed(time.Now(), e.from, initiator)
}

// guardPrefix is how many bits of an IPv6 address name a network in which one host can take any address.
const guardPrefix = 64

// guardKey returns what failures from a host are counted for: its IPv4 address, or its IPv6 network.
func guardKey(host string) string {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Unmap().Is4() {
		return host
	}
	network, err := ip.WithZone("").Prefix(guardPrefix)
	if err != nil {
		return host
	}
	return network.String()
}

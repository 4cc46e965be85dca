package namespace

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
)

// redirectsMax bounds the redirects of a target.
const redirectsMax = 64

// Redirect is where a gateway sends the initiators of a target that log in there (login status 0101 or 0102, RFC 7143
// section 11.13.5).
type Redirect struct {
	// Gateway is the name of the gateway that sends them away; empty: every one that has no redirect of its own.
	Gateway string `json:"gateway,omitempty"`
	// Address is HOST:PORT, IPv6 in brackets. A gateway that listens there serves the target itself.
	Address   string `json:"address"`
	Permanent bool   `json:"permanent,omitempty"`
}

// SetRedirect puts a redirect in the place of the one of the same gateway; an empty Address ends that. Sessions that live
// stay where they are.
func (n *Namespace) SetRedirect(ctx context.Context, iqn string, r Redirect) (*TargetRecord, error) {
	if r.Address != "" {
		if err := checkRedirectAddress(r.Address); err != nil {
			return nil, err
		}
	}
	return n.change(ctx, iqn, func(_ *tx, t *TargetRecord) (bool, error) {
		i, found := slices.BinarySearchFunc(t.Redirects, r.Gateway, func(a Redirect, name string) int { return cmp.Compare(a.Gateway, name) })
		switch {
		case found && r.Address == "":
			t.Redirects = slices.Delete(t.Redirects, i, i+1)
		case r.Address == "":
			return false, refuse.As(refuse.NotFound, "target %s has no such redirect: see ashlar target show %s", t.IQN, t.IQN)
		case found && t.Redirects[i] == r:
			return false, nil
		case found:
			t.Redirects[i] = r
		case len(t.Redirects) >= redirectsMax:
			return false, refuse.As(refuse.Exhausted, "target %s has %d redirects, which is the limit", t.IQN, len(t.Redirects))
		default:
			t.Redirects = slices.Insert(t.Redirects, i, r)
		}
		return true, nil
	})
}

// hostForm is a DNS name as TargetAddress may have it.
var hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?$`)

// checkRedirectAddress checks HOST:PORT where an initiator is to connect.
func checkRedirectAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return refuse.As(refuse.Invalid, "%q is not HOST:PORT (an IPv6 address is in brackets)", address)
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return refuse.As(refuse.Invalid, "%q has no port from 1 to 65535", address)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" {
			return refuse.As(refuse.Invalid, "%q is not an address that another host can connect to", address)
		}
		return nil
	}
	if len(host) > nameMax || strings.Contains(host, "..") || !hostForm.MatchString(host) {
		return refuse.As(refuse.Invalid, "%q is neither an IP address nor a host name", host)
	}
	return nil
}

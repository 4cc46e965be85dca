package target

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
)

// Lister is what a connection is told of the targets. It implements login.TargetLister.
type Lister struct {
	r     *Registry
	host  string
	group uint16
}

// At returns the Lister for a connection that came in at host, an IP address, IPv6 in brackets, of the portal group group. A
// portal that listens on every address of its machine has no address that hosts can be told: the gateway's own are listed
// under host, those of other gateways are left out.
func (r *Registry) At(host string, group uint16) *Lister { return &Lister{r, host, group} }

// Targets implements login.TargetLister.
func (l *Lister) Targets(initiator, name string) []login.TargetRecord {
	out := l.r.Targets(initiator, name)
	for i := range out {
		addresses := out[i].Addresses[:0]
		for _, a := range out[i].Addresses {
			if a = l.reachable(a); a != "" && !slices.Contains(addresses, a) {
				addresses = append(addresses, a)
			}
		}
		out[i].Addresses = addresses
	}
	return out
}

// reachable returns an address ("host:port,group") as the connection is told of it, empty for one to be left out.
func (l *Lister) reachable(address string) string {
	for _, every := range []string{"0.0.0.0:", "[::]:", ":"} {
		port, ok := strings.CutPrefix(address, every)
		if !ok {
			continue
		}
		if strings.HasSuffix(port, ","+strconv.Itoa(int(l.group))) {
			return l.host + ":" + port
		}
		return ""
	}
	return address
}

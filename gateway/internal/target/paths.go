package target

import (
	"hash/fnv"
	"slices"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// Gateway is one gateway of the cluster as a path of hosts.
type Gateway struct {
	ID   uint64
	Port Port
	// Up: it serves, as far as the cluster knows.
	Up bool
}

// groups returns what an initiator is told of the gateways as its paths to a target: one is active/optimized, those that are
// up do the same as active/non-optimized, the rest is unavailable.
//
// An initiator has one path to a volume at a time (its epoch), and each move to another gateway costs it its sessions on
// the one before. So hosts must not spread their commands over gateways, and all volumes of a host are best at one,
// which copies between them without a move. The gateway is chosen by rendezvous hashing of the initiator's name: hosts
// spread over the gateways, all gateways say the same, and when one goes or comes back only its own hosts move. One that
// sends the initiators of the target elsewhere is chosen only if they all do.
func (s *snapshot) groups(t *target, initiator string) []scsi.PortGroup {
	out := make([]scsi.PortGroup, len(s.gateways))
	host := fnv.New64a()
	_, _ = host.Write([]byte(initiator)) // never fails
	name := host.Sum64()
	best, most, bestServes := -1, uint64(0), false
	for i, g := range s.gateways {
		out[i] = scsi.PortGroup{Tag: g.Port.Group, Port: g.Port.RelativeID, State: scsi.PortUnavailable}
		if !g.Up {
			continue
		}
		out[i].State = scsi.PortNonOptimized
		w, serves := weight(name, g.ID), !slices.Contains(t.elsewhere, g.ID)
		if best < 0 || serves && !bestServes || serves == bestServes && w > most {
			best, most, bestServes = i, w, serves
		}
	}
	if best >= 0 {
		out[best].State = scsi.PortOptimized
	}
	return out
}

// weight is how much an initiator, whose name has the hash host, is drawn to a gateway. All bits are mixed (SplitMix64), so
// that each gateway wins equally many.
func weight(host, gateway uint64) uint64 {
	w := host ^ gateway*0x9E3779B97F4A7C15
	w = (w ^ w>>30) * 0xBF58476D1CE4E5B9
	w = (w ^ w>>27) * 0x94D049BB133111EB
	return w ^ w>>31
}

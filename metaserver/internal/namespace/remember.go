package namespace

import (
	"maps"
	"slices"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Limits of what is remembered of initiators. An attachment can not be forgotten before its volume: the volume's copysets
// keep the pair's fence, and a name that got another id meanwhile would not be fenced off from what it still has on its way
// under the old one. So the number is bounded, and a host that is let in by an entry for any initiator, which can call
// itself what it likes, does not take the room of those that are allowed by name.
const (
	// volumeInitiatorsMax bounds the initiators of one volume, and volumeAnyMax those of them that only an entry for any
	// initiator let in when they were last attached.
	volumeInitiatorsMax, volumeAnyMax = 4096, 1024
	// attachmentsMax bounds the attachments of all volumes, initiatorsMax the initiators that have any.
	attachmentsMax, initiatorIDsMax = 500_000, 100_000
	// anyShare: initiators that only an entry for any initiator lets in have the first 1/anyShare of the cluster's limits.
	anyShare = 2
)

// room tells why a volume can not get another attachment. known: the initiator has an id already. The caller holds the turn.
func (n *Namespace) room(v *VolumeRecord, initiator string, by admission, known bool) error {
	remedy := "delete volumes that are not needed: initiators are forgotten with the volumes that they used"
	pairs, ids := attachmentsMax, initiatorIDsMax
	if by == byAny {
		remedy = "allow this one by name (ashlar target allow IQN --initiator " + initiator + ")"
		pairs, ids = pairs/anyShare, ids/anyShare
		if n.anyAttached(v.ID) >= volumeAnyMax {
			return refuse.As(refuse.Exhausted, "volume %q has been used by %d initiators that only the entry for any initiator lets in, which is the limit: %s",
				v.Name, volumeAnyMax, remedy)
		}
	}
	switch {
	case len(n.mu.attachments[v.ID]) >= volumeInitiatorsMax:
		return refuse.As(refuse.Exhausted, "volume %q has been used by %d initiators, which is the limit for the life of a volume",
			v.Name, volumeInitiatorsMax)
	case n.mu.pairs >= pairs:
		return refuse.As(refuse.Exhausted, "the cluster remembers %d attachments of initiators to volumes, which is the limit: %s", n.mu.pairs, remedy)
	case !known && len(n.mu.initiators) >= ids:
		return refuse.As(refuse.Exhausted, "the cluster remembers %d initiators, which is the limit: %s", len(n.mu.initiators), remedy)
	}
	return nil
}

// anyAttached counts the initiators of a volume that only an entry for any let in. The caller holds the turn or mu.
func (n *Namespace) anyAttached(id layout.VolumeID) int {
	count := 0
	for _, a := range n.mu.attachments[id] {
		if a.Any {
			count++
		}
	}
	return count
}

// Crowded returns the volumes, by id, that no further initiator can use that only an entry for any initiator lets in.
func (n *Namespace) Crowded() []*VolumeRecord {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []*VolumeRecord
	for _, id := range slices.Sorted(maps.Keys(n.mu.attachments)) {
		v := n.mu.volumes[id]
		if v == nil || v.Deleting || len(n.mu.attachments[id]) < volumeAnyMax {
			continue
		}
		if n.anyAttached(id) >= volumeAnyMax {
			out = append(out, v)
		}
	}
	return out
}

// Remembered returns how many attachments and how many initiators there are.
func (n *Namespace) Remembered() (attachments, initiators int) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.pairs, len(n.mu.initiators)
}

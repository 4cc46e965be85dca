package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// digestMax is how late the digest of a frozen replica is computed: meanwhile the replica goes on.
const digestMax = 500 * time.Millisecond

// moment is an applied index of a copyset.
type moment struct {
	copyset layout.CopysetID
	index   uint64
}

// digest computes the digest of a replica that applied an entry that asks for it, and compares it with those of the other
// replicas at the same entry. These are equal at all times, whatever disks do to blocks.
func (l *life) digest(id layout.CopysetID, peer layout.PeerID, im *blockstore.Image) {
	w := l.node.w
	w.Spawn(l, "digest", func() {
		defer im.Close()
		w.Sleep(w.within(digestMax))
		d, err := digest.Compute(w.ctx, id, peer, im)
		if err != nil {
			if !l.node.sick {
				w.find("chunkserver %d: digest of copyset %d: %v", l.node.id, id, err)
			}
			return
		}
		w.stats.Digests++
		at := moment{id, d.Index}
		if w.digests[at] == nil {
			w.digests[at] = map[layout.PeerID]*digest.Result{}
		}
		w.digests[at][peer] = d
		w.say("chunkserver %d: copyset %d at %d: %x, %d blocks", l.node.id, id, d.Index, d.Sum, d.Blocks)
		for _, p := range slices.Sorted(maps.Keys(w.digests[at])) {
			if o := w.digests[at][p]; o.Sum != d.Sum {
				w.find("the replicas of copyset %d differ at index %d: peers %d and %d, by their digests", id, d.Index, p, peer)
			}
		}
	})
}

// compareReplicas asks the leader of a copyset, if it has one, for digests.
func (w *world) compareReplicas(s *set) {
	lead, _, _, _ := w.trio(s)
	if lead == nil {
		return
	}
	l := lead.life
	w.Spawn(l, "compare", func() {
		if g := l.host.Group(s.id); g != nil {
			r := l.proposeOnce(g, &copyset.Command{Op: copyset.OpDigest})
			w.say("chunkserver %d: copyset %d is compared: status %d", lead.id, s.id, r.Status)
		}
	})
}

// compared waits until all replicas have given a digest of one index.
func (w *world) compared(s *set) {
	const again = 5 * time.Second
	asked := w.Now - again
	done := w.Until(w.Now+progressMax, func() bool {
		if w.Now-asked >= again {
			asked = w.Now
			w.compareReplicas(s)
		}
		for _, l := range w.replicas(s) {
			if l == nil || l.host == nil || l.host.Group(s.id) == nil {
				return false
			}
		}
		for at, ds := range w.digests {
			n := 0
			for _, l := range w.replicas(s) {
				if ds[l.host.Group(s.id).Peer()] != nil {
					n++
				}
			}
			if at.copyset == s.id && n == len(w.replicas(s)) {
				return true
			}
		}
		return false
	})
	if !done && w.err == nil {
		w.find("the replicas of copyset %d have no digest of one index within %v", s.id, progressMax)
	}
}

package sim

import (
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// moveAfter is within what time after the beginning a copyset begins to move, moveStep the pause between two orders.
	moveAfter = 10 * time.Second
	moveStep  = 100 * time.Millisecond
	// movedPeers is added to the number of a peer to name the one that takes its place.
	movedPeers = 1000
)

// move replaces a peer of the copyset by one on another chunkserver, as the metaserver does: a learner is added and filled, and
// then takes the other's place in one joint change. Orders are repeated until they are obeyed.
func (w *world) move(s *set) {
	w.Sleep(w.within(moveAfter))
	var to layout.ChunkserverID
	for _, n := range w.nodes {
		if at := s.where(); !contains(at, n.id) {
			to = n.id
		}
	}
	old := sortedPeers(s.members)[w.dice.IntN(len(s.members))]
	peer := old + movedPeers
	s.extra = map[layout.PeerID]layout.ChunkserverID{peer: to}
	w.wanted++
	w.say("copyset %d: peer %d on %d takes the place of %d on %d", s.id, peer, to, old, s.members[old])
	for !s.gone[old] {
		for _, id := range s.where() {
			gone := false
			w.call(outside, int(id), "change", callMin, true, func(l *life) { gone = l.replace(s, old, peer, to) })
			if gone {
				s.gone = map[layout.PeerID]bool{old: true}
				w.wanted++
				w.stats.Replaced++
				w.say("copyset %d: peer %d is gone", s.id, old)
				break
			}
		}
		w.Sleep(moveStep)
	}
}

func contains(ids []layout.ChunkserverID, id layout.ChunkserverID) bool {
	for _, o := range ids {
		if o == id {
			return true
		}
	}
	return false
}

// replace gives the next order if the chunkserver leads, and returns true when old is no member any more.
func (l *life) replace(s *set, old, peer layout.PeerID, to layout.ChunkserverID) bool {
	g := l.host.Group(s.id)
	if g == nil || !g.Leading() {
		return false
	}
	m, r, ctx := g.Members(), g.Report(), l.node.w.ctx
	c := &copyset.Change{Replaces: m.Version}
	switch {
	case m.Joint():
		return false
	case !m.Has(peer):
		c.Changes = []copyset.MemberChange{{Peer: peer, Chunkserver: to, Kind: copyset.AddLearner}}
	case !m.Has(old):
		return true
	case g.Peer() == old:
		_ = g.Yield(ctx) // tried again
		return false
	case !m.Voter(peer):
		if r.Match[peer] == 0 || r.Match[peer]+8 < r.Commit {
			return false
		}
		c.Changes = []copyset.MemberChange{{Peer: peer, Kind: copyset.Promote}, {Peer: old, Kind: copyset.Remove}}
	default:
		return false
	}
	if err := g.ChangeMembers(ctx, c); err != nil {
		l.node.w.say("copyset %d: %v", s.id, err)
	}
	return false
}

// moved tells whether all that were to move have.
func (w *world) moved() bool {
	for _, s := range w.sets {
		if s.moves && len(s.gone) == 0 {
			return false
		}
	}
	return true
}

package sim

import (
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// moveAfter is within what time after the beginning a copyset that moves begins to, moveStep the pause between two orders.
	moveAfter = 10 * time.Second
	moveStep  = 100 * time.Millisecond
	// outMin is how long a peer is out before another one takes its place.
	outMin = 2 * time.Second
	// movedPeers is added to the number of a peer to name the one that takes its place.
	movedPeers = 1000
)

// change is one peer that takes the place of another.
type change struct {
	old, peer layout.PeerID
	to        layout.ChunkserverID
	given     bool // up: the chunkserver to has failed meanwhile
	member    bool // the new peer was one: what orders to add it are under way come to nothing
	// gone is the peer that is no member any more at the index left; 0: both still are.
	gone layout.PeerID
	left uint64
}

// tend does for a copyset what the metaserver does: a peer that is out because of its disk is replaced by one on another
// chunkserver, and so is one that has done nothing wrong, if the copyset is to move. A learner is added and filled, and then
// takes the other's place in one joint change. Orders are repeated until they are obeyed.
func (w *world) tend(s *set) {
	moveAt := w.Now + w.within(moveAfter)
	since := map[layout.PeerID]time.Duration{}
	for {
		w.Sleep(moveStep)
		if s.change != nil {
			w.order(s)
			continue
		}
		var old layout.PeerID
		for _, p := range s.peers() {
			if !w.nodes[s.at(p)-1].out(s) {
				delete(since, p)
			} else if since[p] == 0 {
				since[p] = w.Now
			} else if w.Now-since[p] > outMin {
				old = p
			}
		}
		if old == 0 && s.moves && w.Now >= moveAt {
			s.moves, old = false, s.peers()[w.dice.IntN(len(s.peers()))]
		}
		if old != 0 {
			w.begin(s, old)
		}
	}
}

// begin chooses where the new peer comes. There is a new chunkserver if no other is left.
func (w *world) begin(s *set, old layout.PeerID) {
	var to layout.ChunkserverID
	for _, n := range w.nodes {
		used := slices.ContainsFunc(append(s.peers(), sortedPeers(s.joined)...), func(p layout.PeerID) bool { return s.at(p) == n.id })
		if !used && !n.out(s) {
			to = n.id
		}
	}
	switch {
	case to != 0:
	case len(w.nodes) == nodesMax:
		return
	default:
		n := w.addNode()
		n.start()
		to = n.id
	}
	peer := movedPeers + old%movedPeers + movedPeers*layout.PeerID(len(s.joined))
	s.change = &change{old: old, peer: peer, to: to}
	s.joined[peer] = to
	w.wanted++
	w.say("copyset %d: peer %d on %d takes the place of %d on %d", s.id, peer, to, old, s.at(old))
}

// order gives the order that is next to whoever may lead.
func (w *world) order(s *set) {
	c := s.change
	if c.gone == 0 && !c.given && w.nodes[c.to-1].out(s) {
		w.say("copyset %d: peer %d is out", s.id, c.peer)
		c.given = true
	}
	for _, id := range s.where() {
		if c.gone == 0 {
			w.call(outside, int(id), "change", callMin, true, func(l *life) {
				if gone := l.replace(s, c); gone != 0 && c.gone == 0 {
					c.gone, c.left = gone, l.host.Group(s.id).Applied()
				}
			})
		}
	}
	if c.gone == 0 || !w.settled(s, c.gone, c.left) {
		return
	}
	w.stats.Replaced++
	s.gone[c.gone], s.change = true, nil
	w.wanted++
	w.say("copyset %d: peer %d is gone", s.id, c.gone)
}

// settled tells whether the checkpoints of all peers that stay have what was applied at an index. Before that a peer must not be
// removed: one of them that starts again would be back in the membership with that peer, and may need its vote.
func (w *world) settled(s *set, gone layout.PeerID, index uint64) bool {
	for _, p := range s.peers() {
		n := w.nodes[s.at(p)-1]
		if p == gone || n.out(s) {
			continue
		}
		if n.life == nil || n.life.host == nil {
			return false
		}
		cs, err := n.life.store.Copyset(s.id)
		if err != nil {
			return false
		}
		if durable, _ := cs.Durable(); durable < index {
			return false
		}
	}
	return true
}

// replace gives the next order if the chunkserver leads, and returns the peer that was to go when it is no member any
// more.
func (l *life) replace(s *set, c *change) layout.PeerID {
	g := l.host.Group(s.id)
	if g == nil || !g.Leading() {
		return 0
	}
	m, r, ctx := g.Members(), g.Report(), l.node.w.ctx
	c.member = c.member || m.Has(c.peer)
	order := &copyset.Change{Replaces: m.Version}
	switch {
	case m.Joint():
		return 0
	case c.given && m.Voter(c.peer):
		return c.old // it was made a voter before: this change is over, and it is replaced in its turn
	case c.given && m.Has(c.peer):
		order.Changes = []copyset.MemberChange{{Peer: c.peer, Kind: copyset.Remove}}
	case c.given && c.member:
		return c.peer
	case !m.Has(c.old):
		return c.old
	case !m.Has(c.peer):
		order.Changes = []copyset.MemberChange{{Peer: c.peer, Chunkserver: c.to, Kind: copyset.AddLearner}}
	case g.Peer() == c.old:
		_ = g.Yield(ctx) // tried again
		return 0
	case !m.Voter(c.peer):
		if r.Match[c.peer] == 0 || r.Match[c.peer]+8 < r.Commit {
			return 0
		}
		order.Changes = []copyset.MemberChange{{Peer: c.peer, Kind: copyset.Promote}, {Peer: c.old, Kind: copyset.Remove}}
	default:
		return 0
	}
	if err := g.ChangeMembers(ctx, order); err != nil {
		l.node.w.say("copyset %d: %v", s.id, err)
	}
	return 0
}

// moved tells whether all that were to move have, and nobody is out.
func (w *world) moved() bool {
	for _, s := range w.sets {
		if s.moves || s.change != nil {
			return false
		}
		for _, id := range s.where() {
			if w.nodes[id-1].out(s) {
				return false
			}
		}
	}
	return true
}

// doomed tells whether a copyset has lost its majority for good.
func (w *world) doomed() bool {
	for _, s := range w.sets {
		out, voters := 0, 0
		for _, p := range s.peers() {
			if s.change != nil && p == s.change.peer {
				continue
			}
			voters++
			if w.nodes[s.at(p)-1].out(s) {
				out++
			}
		}
		if 2*out >= voters {
			return true
		}
	}
	return false
}

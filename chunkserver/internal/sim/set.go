package sim

import (
	"maps"
	"slices"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/history"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// set is a copyset.
type set struct {
	id      layout.CopysetID
	chunk   layout.ChunkID
	members map[layout.PeerID]layout.ChunkserverID // that it was founded with
	// joined are peers that came since, gone those that were removed, of both.
	joined map[layout.PeerID]layout.ChunkserverID
	gone   map[layout.PeerID]bool
	// moves: a peer of it is to be replaced without need. change is the replacement that is under way.
	moves   bool
	change  *change
	history []*history.Op
}

// peers lists the peers that there are, or are to be, in order.
func (s *set) peers() []layout.PeerID {
	var all []layout.PeerID
	for _, m := range []map[layout.PeerID]layout.ChunkserverID{s.members, s.joined} {
		for _, p := range sortedPeers(m) {
			if !s.gone[p] {
				all = append(all, p)
			}
		}
	}
	return all
}

// at returns the chunkserver of a peer.
func (s *set) at(p layout.PeerID) layout.ChunkserverID {
	if cs, ok := s.members[p]; ok {
		return cs
	}
	return s.joined[p]
}

// where lists the chunkservers that have, or are to have, a peer.
func (s *set) where() []layout.ChunkserverID {
	var at []layout.ChunkserverID
	for _, p := range s.peers() {
		if cs := s.at(p); !slices.Contains(at, cs) {
			at = append(at, cs)
		}
	}
	return at
}

// place gives the host the orders that a metaserver would repeat: which peers to have. It returns true when nothing is left.
func (w *world) place(l *life) bool {
	done := true
	obeyed := func(what string, s *set, err error) {
		if err != nil {
			w.say("chunkserver %d: copyset %d: %s: %v", l.node.id, s.id, what, err)
			done = false
		}
	}
	for _, s := range w.sets {
		for _, p := range slices.Sorted(maps.Keys(s.gone)) {
			if s.at(p) == l.node.id {
				err := l.host.Remove(w.ctx, s.id, p)
				obeyed("remove", s, err)
				if err == nil {
					l.node.erased[p] = true
				}
			}
		}
		for _, p := range s.peers() {
			switch {
			case s.at(p) != l.node.id:
			case s.members[p] != 0:
				obeyed("found", s, l.host.Found(w.ctx, s.id, p, s.members))
			default:
				obeyed("join", s, l.host.Join(w.ctx, s.id, p))
			}
		}
	}
	return done
}

func sortedPeers(m map[layout.PeerID]layout.ChunkserverID) []layout.PeerID {
	return slices.Sorted(maps.Keys(m))
}

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
	// extra are peers that joined since, gone those that were removed.
	extra   map[layout.PeerID]layout.ChunkserverID
	gone    map[layout.PeerID]bool
	moves   bool // a peer of it is replaced
	history []*history.Op
}

// where lists the chunkservers that have, or are to have, a peer.
func (s *set) where() []layout.ChunkserverID {
	var at []layout.ChunkserverID
	for _, m := range []map[layout.PeerID]layout.ChunkserverID{s.members, s.extra} {
		for _, p := range slices.Sorted(maps.Keys(m)) {
			if !s.gone[p] && !slices.Contains(at, m[p]) {
				at = append(at, m[p])
			}
		}
	}
	return at
}

// place gives the host the orders that a metaserver would repeat: which peers to have. It returns true when nothing is left.
func (w *world) place(l *life) bool {
	done := true
	for _, s := range w.sets {
		for _, p := range slices.Sorted(maps.Keys(s.members)) {
			if s.members[p] != l.node.id || s.gone[p] {
				continue
			}
			if err := l.host.Found(w.ctx, s.id, p, s.members); err != nil {
				w.say("chunkserver %d founds copyset %d: %v", l.node.id, s.id, err)
				done = false
			}
		}
		for _, p := range slices.Sorted(maps.Keys(s.extra)) {
			if s.extra[p] != l.node.id {
				continue
			}
			if err := l.host.Join(w.ctx, s.id, p); err != nil {
				w.say("chunkserver %d joins copyset %d: %v", l.node.id, s.id, err)
				done = false
			}
		}
		for p := range s.gone { // one at most
			if s.members[p] != l.node.id {
				continue
			}
			if err := l.host.Remove(w.ctx, s.id, p); err != nil {
				w.say("chunkserver %d removes copyset %d: %v", l.node.id, s.id, err)
				done = false
			}
		}
	}
	return done
}

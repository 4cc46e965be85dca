package quiet

import (
	"github.com/ashlar-storage/ashlar/chunkserver/internal/lease"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Standing is where a peer's raft node and its content are.
type Standing struct {
	Term uint64
	// Leader is who leads, 0 if that is not known.
	Leader layout.PeerID
	// Last entry of the log, Commit and Applied are indexes.
	Last, Commit, Applied uint64
	// Busy: something is under way that the indexes do not tell: appends, images, transfers, changes of members, repairs.
	Busy bool
}

// still tells whether a peer has nothing to do.
func (s *Standing) still() bool { return !s.Busy && s.Commit == s.Last && s.Applied == s.Last }

// Ask is a leader's question whether a follower goes quiet with it. The zero value is none.
type Ask struct {
	From        layout.PeerID
	Incarnation Incarnation
	// Term and Index are those of the leader, which has committed and applied all of its log.
	Term, Index uint64
}

// Fits tells whether a follower that stands there agrees.
func (a *Ask) Fits(s *Standing) bool {
	return a.Incarnation != 0 && s.still() && s.Leader == a.From && s.Term == a.Term && s.Last == a.Index
}

// Asking is how far the leader of a group is on its way to be quiet. The zero value has just done something. One goroutine
// uses it.
type Asking struct {
	idle   int // ticks since something was done
	ticks  int // since it asks; 0: it does not
	since  lease.Stamp
	index  uint64
	agreed map[layout.PeerID]bool
}

// Touch notes that something was done: it begins anew.
func (a *Asking) Touch() { *a = Asking{} }

// Tick passes a tick. It returns true when the group has been idle for quietTicks, so that Begin may ask. A leader that has asked for
// askTicks without hearing all agree begins anew.
func (a *Asking) Tick(quietTicks, askTicks int) (due bool) {
	if a.ticks > 0 {
		if a.ticks++; a.ticks > askTicks {
			a.Touch()
		}
		return false
	}
	a.idle++
	return a.idle >= quietTicks
}

// Begin asks from now on, if the leader has nothing to do. matched tells that all members have its whole log.
func (a *Asking) Begin(s *Standing, matched bool, now lease.Stamp) bool {
	if !s.still() || !matched {
		return false
	}
	*a = Asking{ticks: 1, since: now, index: s.Last, agreed: map[layout.PeerID]bool{}}
	return true
}

// Asks tells whether the leader asks, and for which index.
func (a *Asking) Asks() (index uint64, ok bool) { return a.index, a.ticks > 0 }

// Agree notes that a peer agreed, in answer to that stamp. One from before it asked is about another question.
func (a *Asking) Agree(p layout.PeerID, answered lease.Stamp) {
	if a.ticks > 0 && answered >= a.since {
		a.agreed[p] = true
	}
}

// All tells whether the leader may go quiet: all other members have agreed, and it still has nothing to do.
func (a *Asking) All(s *Standing, self layout.PeerID, members map[layout.PeerID]layout.ChunkserverID) bool {
	if a.ticks == 0 || !s.still() || s.Last != a.index {
		return false
	}
	for p := range members {
		if p != self && !a.agreed[p] {
			return false
		}
	}
	return true
}

// Package lease is the arithmetic of the read lease of a raft leader: who answered what, and until when reads are safe.
//
// A leader stamps its MsgApp and MsgHeartbeat with its monotonic clock at sending. A follower answers with the newest
// stamp of the leader of its term that raft took (so its election clock was reset after that stamp was made). By raft's
// CheckQuorum it then grants nobody a vote for ElectionTicks ticks of its own clock, the first of which may come at once:
//
//	leader    stamp s ──────────┐         ┌── answer s            lease until s + (ElectionTicks−1) ticks − drift
//	follower             reset 0 ├ tick ├ tick …                  no vote before (ElectionTicks−1) whole ticks
//
// The lease goes from the stamp that a quorum of the voters, the leader included with its present time, has answered.
//
// What could end a term sooner, who uses this package has to exclude: ticks that are made up, a started peer that may have
// promised before and votes at once, a transfer, whose votes ignore the promise. A leader that is new serves reads when it
// has applied an entry of its term. The end of the lease is what is published, so a process that was stopped sees by its
// own clock that it is over; readers look before and after the read.
package lease

import (
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Stamp is a leader's monotonic clock, in ns; 0 for none. Only who made it can compare it with a time. It is a number of the
// wire format.
type Stamp = uint64

// At makes a stamp of the present time, which is not 0.
func At(now time.Duration) Stamp { return Stamp(now) }

// Length is how long a lease is valid after the stamps that a quorum answered, when clocks differ in speed by at most
// driftPercent.
func Length(tick time.Duration, electionTicks, driftPercent int) time.Duration {
	return tick * time.Duration(electionTicks-1) * time.Duration(100-driftPercent) / 100
}

// Answers are what a leader was answered in its term. The zero value is that of a new term. One goroutine uses it.
type Answers struct{ newest map[layout.PeerID]Stamp }

// Reset forgets everything: another term.
func (a *Answers) Reset() { a.newest = nil }

// Note takes the stamp that a peer answered in this term. One of the future was not made here.
func (a *Answers) Note(from layout.PeerID, s Stamp, now time.Duration) {
	if s > At(now) || s <= a.newest[from] {
		return
	}
	if a.newest == nil {
		a.newest = map[layout.PeerID]Stamp{}
	}
	a.newest[from] = s
}

// Of returns the newest stamp that a peer answered.
func (a *Answers) Of(p layout.PeerID) Stamp { return a.newest[p] }

// Within tells whether a peer has answered a stamp that is not older than d.
func (a *Answers) Within(p layout.PeerID, d, now time.Duration) bool {
	s := a.newest[p]
	return s != 0 && now-time.Duration(s) <= d
}

// End returns when the lease of self ends, on its clock; 0: there is none. quorum returns the value that a quorum of the
// voters has reached.
func (a *Answers) End(self layout.PeerID, now, length time.Duration, quorum func(func(layout.PeerID) uint64) uint64) time.Duration {
	from := quorum(func(p layout.PeerID) uint64 {
		if p == self {
			return At(now)
		}
		return a.newest[p]
	})
	if from == 0 {
		return 0
	}
	return time.Duration(from) + length
}

// received is a stamp with the term and the leader that it came from.
type received struct {
	term uint64
	from layout.PeerID
	at   Stamp
}

// newer takes t if it is of a later term, or of the same leader and later.
func (r *received) newer(t received) {
	if t.at != 0 && (t.term > r.term || t.term == r.term && t.from == r.from && t.at > r.at) {
		*r = t
	}
}

// Echo is what a follower answers. The zero value has nothing to answer. One goroutine uses it.
type Echo struct {
	newest  received // of the leader that raft follows
	arrived received // what came since Settle
}

// Arrive notes a leader's stamp that raft is about to be told of.
func (e *Echo) Arrive(term uint64, from layout.PeerID, s Stamp) {
	e.arrived.newer(received{term, from, s})
}

// Settle makes what arrived the stamp to answer with, if raft has become, or is, a follower of who sent it: leader is 0
// when it is not.
func (e *Echo) Settle(term uint64, leader layout.PeerID) {
	if a := e.arrived; a.term == term && a.from == leader && leader != 0 {
		e.newest.newer(a)
	}
	e.arrived = received{}
}

// To returns the stamp to answer a leader with.
func (e *Echo) To(term uint64, leader layout.PeerID) Stamp {
	if n := e.newest; n.term == term && n.from == leader {
		return n.at
	}
	return 0
}

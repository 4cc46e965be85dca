package multiraft

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The read lease. A leader stamps its MsgApp and MsgHeartbeat with its monotonic clock at sending. A follower answers
// with the newest stamp of the leader of its term that raft took (so its election clock was reset after that stamp was
// made). By raft's CheckQuorum it then grants nobody a vote for ElectionTicks ticks of its own clock, the first of which
// may come at once:
//
//	leader    stamp s ──────────┐         ┌── answer s            lease until s + (ElectionTicks−1) ticks − drift
//	follower             reset 0 ├ tick ├ tick …                  no vote before (ElectionTicks−1) whole ticks
//
// The lease goes from the stamp that a quorum of the voters, the leader included with its present time, has answered.
// What could end a term sooner is excluded one by one: ticks are never made up (worker.tickDue); a started peer, which
// may have promised before, grants no vote for ElectionTicks ticks (node.quarantine); a transfer, whose votes ignore the
// promise, takes the lease away for the rest of the term before raft hears of it (worker.transfer).
//
// A leader that is new serves reads when it has applied an entry of its term. What is published is the end of the
// lease, so a process that was stopped sees by its own clock that it is over; readers look before and after the read.

// stamp is the clock of the leader from in a term.
type stamp struct {
	term uint64
	from layout.PeerID
	at   uint64
}

// newer takes t if it is of a later term, or of the same leader and later.
func (s *stamp) newer(t stamp) {
	if t.at != 0 && (t.term > s.term || t.term == s.term && t.from == s.from && t.at > s.at) {
		*s = t
	}
}

// arrive makes the round's newest stamp the one to answer with, if raft follows who sent it.
func (n *node) arrive() {
	if a := n.arrived; a.at != 0 && a.term == n.term && a.from == n.lead && n.state == raft.StateFollower {
		n.echo.newer(a)
	}
	n.arrived = stamp{}
}

// stampFor returns the stamp that m carries.
func (w *worker) stampFor(g *Group, m *raftpb.Message) uint64 {
	n := &g.node
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat:
		return uint64(w.now)
	case raftpb.MsgAppResp, raftpb.MsgHeartbeatResp:
		if e := n.echo; e.term == m.GetTerm() && uint64(e.from) == m.GetTo() {
			return e.at
		}
	}
	return 0
}

// acknowledge notes that a follower answered a stamp of this leader's term.
func (w *worker) acknowledge(g *Group, from layout.PeerID, term, at uint64) {
	n := &g.node
	if n.state == raft.StateLeader && term == n.term && at <= uint64(w.now) && at > n.acks[from] {
		n.acks[from] = at
	}
}

// publishLease computes the lease's end from what was answered.
func (w *worker) publishLease(g *Group) {
	n := &g.node
	if n.dead || n.state != raft.StateLeader || n.transferTicks > 0 || n.appliedTerm != n.term {
		g.lease.Store(0)
		return
	}
	from := n.members.Quorum(func(p layout.PeerID) uint64 {
		if p == g.peer {
			return uint64(w.now)
		}
		return n.acks[p]
	})
	if from == 0 {
		g.lease.Store(0)
		return
	}
	g.lease.Store(int64(from) + int64(w.host.cfg.leaseLength()))
}

package multiraft

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/lease"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The read lease (package lease has the argument). What could end a term sooner is excluded one by one: ticks are never made
// up (worker.nextTick); a started peer, which may have promised before, grants no vote for ElectionTicks ticks
// (node.quarantine); a transfer, whose votes ignore the promise, takes the lease away for the rest of the term before raft
// hears of it (worker.transfer).

// arrive makes the round's newest stamp the one to answer with, if raft follows who sent it.
func (n *node) arrive() {
	leader := layout.PeerID(0)
	if n.state == raft.StateFollower {
		leader = n.lead
	}
	n.echo.Settle(n.term, leader)
}

// stampFor returns the stamp that m carries.
func (w *worker) stampFor(g *Group, m *raftpb.Message) lease.Stamp {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat:
		return lease.At(w.now)
	case raftpb.MsgAppResp, raftpb.MsgHeartbeatResp:
		return g.node.echo.To(m.GetTerm(), layout.PeerID(m.GetTo()))
	}
	return 0
}

// acknowledge notes that a follower answered a stamp of this leader's term.
func (w *worker) acknowledge(g *Group, from layout.PeerID, term uint64, at lease.Stamp) {
	if n := &g.node; n.state == raft.StateLeader && term == n.term {
		n.answers.Note(from, at, w.now)
	}
}

// publishLease computes the lease's end from what was answered.
func (w *worker) publishLease(g *Group) {
	n := &g.node
	handsOver := n.transferTicks > 0 && w.host.cfg.Mistake != lease.KeptInTransfer
	if n.dead || n.state != raft.StateLeader || n.quiet || handsOver || n.appliedTerm != n.term {
		g.lease.Store(0)
		return
	}
	g.lease.Store(int64(n.answers.End(g.peer, w.now, w.host.cfg.leaseLength(), n.members.Quorum)))
}

package multiraft

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/latecommit"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/lease"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/quiet"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

type progress = tracker.Progress

// reportTicks is after how many ticks a group's report is made anew.
const reportTicks = 5

// node is what a worker keeps of a group.
type node struct {
	raw     *raft.RawNode
	members *copyset.Members
	// As of the last Ready.
	state        raft.StateType
	lead         layout.PeerID
	term, commit uint64
	// hard is what the log has, or gets with the next entries; it is never changed.
	hard *raftpb.HardState

	dirty, dead bool
	props       []*proposal
	ticks       int
	eager       int    // ticks for which a founding peer that is meant to lead still tries to
	appliedTerm uint64 // the term of the last applied entry
	quarantine  time.Duration
	seen        map[layout.PeerID]layout.ChunkserverID // where peers that are not members yet write from

	// Leader: what makes the lease. transferTicks counts since a transfer began, 0: none in this term.
	answers       lease.Answers
	transferTicks int
	commits       latecommit.Kept // leader
	// Follower: what the leader's stamps are answered with.
	echo lease.Echo

	// See quiet.go. askTerm is the newest term in which this peer may have asked others to go quiet, 0: none.
	quiet      bool
	asking     quiet.Asking // leader
	ask        quiet.Ask    // follower: what the round brought
	askTerm    uint64
	woke       time.Duration // when it last woke, 0: never
	calling    bool          // follower: it woke and has not heard its leader since
	campaignIn int           // ticks

	// An image that raft was told of; installing: it accepted it. held are the appends that wait until it is in place.
	image      *incoming
	installing bool
	held       []*appendRequest
}

// step takes a message of another chunkserver.
func (w *worker) step(g *Group, ev *event) {
	n, m := &g.node, ev.msg
	from := layout.PeerID(m.GetFrom())
	if m.GetTo() != uint64(g.peer) || from == 0 || raft.IsLocalMsgTarget(m.GetFrom()) || m.GetSnapshot().GetMetadata().GetIndex() > g.Applied() {
		return
	}
	n.ask = quiet.Ask{}
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgTimeoutNow:
		if w.now < n.quarantine {
			return // what it promised before it was started is not known
		}
	case raftpb.MsgApp, raftpb.MsgHeartbeat:
		n.echo.Arrive(m.GetTerm(), from, ev.stamp)
		w.asked(g, ev)
	case raftpb.MsgAppResp, raftpb.MsgHeartbeatResp:
		w.acknowledge(g, from, m.GetTerm(), ev.stamp)
		w.answered(g, ev)
	case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgSnap: // what an image would bring is here, see ReceiveImage
	default:
		return
	}
	if _, ok := n.members.Chunkservers[from]; !ok {
		n.seen[from] = ev.from
	}
	_ = n.raw.Step(m) // from a peer that is no member any more
}

// drain takes what raft wants done.
func (w *worker) drain(g *Group) {
	n := &g.node
	if n.dead {
		return
	}
	w.propose(g)
	if n.raw.HasReady() {
		rd := n.raw.Ready()
		w.observe(g, &rd)
		agrees := w.agrees(g)
		for _, m := range rd.Messages {
			switch {
			case m.GetTo() == raft.LocalAppendThread:
				w.append(g, m)
			case m.GetTo() == raft.LocalApplyThread:
				g.ap.post(task{g: g, kind: taskApply, msg: m})
			case m.GetType() == raftpb.MsgSnap:
				w.host.sendImage(g, m, w.locate(g, m))
			case agrees && m.GetType() == raftpb.MsgHeartbeatResp:
				w.agree(g, m)
			case !n.commits.Keep(m):
				w.send(g, m)
			}
		}
	} else {
		n.arrive()
	}
	w.settle(g)
	if w.ticked {
		w.tellCommits(g)
	}
	w.refuseImage(g)
	w.publishLease(g)
}

// observe notes the new state of the node before its messages go out.
func (w *worker) observe(g *Group, rd *raft.Ready) {
	n := &g.node
	state, term := n.state, n.term
	if rd.SoftState != nil {
		n.state, n.lead = rd.SoftState.RaftState, layout.PeerID(rd.SoftState.Lead)
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		n.term, n.commit = rd.HardState.GetTerm(), rd.HardState.GetCommit()
	}
	if state != n.state || term != n.term {
		if state == raft.StateLeader {
			g.lease.Store(0)
			g.leading.Store(false)
		}
		n.answers.Reset()
		n.asking.Touch()
		n.transferTicks = 0
		n.commits.Drop()
	}
	if n.lead != 0 {
		n.campaignIn = 0
		if n.term > n.askTerm {
			n.askTerm = 0 // who leads now vouches
		}
	}
	if rd.SoftState != nil || term != n.term {
		g.leader.Store(uint64(n.members.Chunkservers[n.lead]))
		g.leading.Store(n.state == raft.StateLeader)
		if state == raft.StateLeader && (n.state != raft.StateLeader || term != n.term) {
			g.abandon(g.notLeader(), false)
		}
		w.publishReport(g)
	}
	n.arrive()
}

// locate returns where the message's peer is, 0 if that is not known.
func (w *worker) locate(g *Group, m *raftpb.Message) layout.ChunkserverID {
	p := layout.PeerID(m.GetTo())
	if cs, ok := g.node.members.Chunkservers[p]; ok {
		return cs
	}
	return g.node.seen[p]
}

// tellCommits sends what was postponed.
func (w *worker) tellCommits(g *Group) {
	g.node.commits.Release(func(m *raftpb.Message) { w.send(g, m) })
}

// send queues a message for the end of the round.
func (w *worker) send(g *Group, m *raftpb.Message) {
	if to := w.locate(g, m); to != 0 {
		w.queue(to, Message{Copyset: g.id, Raft: m, Stamp: w.stampFor(g, m), Quiet: w.askWith(g, m)})
	}
}

// append hands a MsgStorageAppend to the log writer. One of nothing but a commit index is answered at once when nothing is before
// it. With the next entries it is durable: else a peer could forget that a change of members is committed, and be elected by the old.
func (w *worker) append(g *Group, m *raftpb.Message) {
	n := &g.node
	r := &appendRequest{g: g, update: raftlog.Update{Copyset: g.id, Entries: m.GetEntries()}}
	voted := false
	if m.Term != nil && (m.GetTerm() != 0 || m.GetVote() != 0 || m.GetCommit() != 0) {
		voted = m.GetVote() != n.hard.GetVote() || m.GetTerm() != n.hard.GetTerm()
		n.hard = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	}
	r.update.HardState = n.hard
	for _, resp := range m.GetResponses() {
		if resp.GetTo() == uint64(g.peer) {
			r.local = append(r.local, resp)
		} else if to := w.locate(g, resp); to != 0 {
			r.remote = append(r.remote, outgoing{to, Message{Copyset: g.id, Raft: resp, Stamp: w.stampFor(g, resp)}})
		}
	}
	if m.GetSnapshot() != nil {
		n.installing = true
		at := m.GetSnapshot().GetMetadata()
		r.update.Reset = &raftlog.SnapshotMeta{Index: at.GetIndex(), Term: at.GetTerm()}
		g.ap.post(task{g: g, kind: taskInstall, image: n.image})
	}
	switch {
	case n.installing:
		g.appending.Add(1)
		n.held = append(n.held, r)
	case len(r.update.Entries) == 0 && !voted && g.appending.Load() == 0:
		for _, resp := range r.local {
			w.post(event{g: g, kind: evLocal, msg: resp})
		}
		for _, o := range r.remote {
			w.queue(o.to, o.m)
		}
	default:
		g.appending.Add(1)
		w.host.write(r)
	}
}

package multiraft

import (
	"context"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/lease"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/quiet"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// How groups go quiet and wake. Package quiet has the rules and what must hold; here they meet raft.

// runPulse tells the others that this process goes on, and notices when they do not. It serves until ctx ends.
func (h *Host) runPulse(ctx context.Context) {
	send := func(cs layout.ChunkserverID, in quiet.Incarnation) { h.cfg.Transport.Send(cs, []Message{{Quiet: in}}) }
	h.pulse.Run(ctx, h.clock, time.Duration(h.cfg.HeartbeatTicks)*h.cfg.Tick, h.neighbours, send, h.rouse)
}

// neighbours lists the chunkservers that share copysets with this one.
func (h *Host) neighbours() []layout.ChunkserverID {
	seen := map[layout.ChunkserverID]bool{h.cfg.Self: true}
	var out []layout.ChunkserverID
	for _, g := range h.groups.Load().all {
		for _, cs := range g.members.Load().Chunkservers {
			if !seen[cs] {
				seen[cs] = true
				out = append(out, cs)
			}
		}
	}
	slices.Sort(out)
	return out
}

// beaten takes a beat of another process.
func (h *Host) beaten(from layout.ChunkserverID, in quiet.Incarnation) {
	if h.pulse.Heard(from, in) {
		h.rouse(from)
	}
}

// rouse has the groups that are quiet, or led there, look after a process that is another one now, or lost.
func (h *Host) rouse(cs layout.ChunkserverID) {
	for _, g := range h.groups.Load().all {
		if g.quiet() || layout.ChunkserverID(g.leader.Load()) == cs {
			g.w.post(event{g: g, kind: evRouse, from: cs})
		}
	}
}

// quiet tells whether the group's clock stands still.
func (g *Group) quiet() bool { return g.period.Load()%2 == 1 }

// Quiet returns how many peers are quiet.
func (h *Host) Quiet() (n int) {
	for _, g := range h.groups.Load().all {
		if g.quiet() {
			n++
		}
	}
	return n
}

// standing is where the group is.
func (w *worker) standing(g *Group) *quiet.Standing {
	n := &g.node
	last, err := g.log.LastIndex()
	proposed, _ := g.proposals.Waiting()
	busy := err != nil || n.dead || n.image != nil || n.installing || w.now < n.quarantine || n.transferTicks > 0 ||
		n.members.Joint() || g.appending.Load() > 0 || proposed > 0 || g.sending.Load() != nil ||
		g.blocked.Load() != nil || g.applied.Load() < g.floor.Load() || n.raw.HasReady()
	return &quiet.Standing{Term: n.term, Leader: n.lead, Last: last, Commit: n.commit, Applied: g.applied.Load(), Busy: busy}
}

// idle counts the ticks in which a leader had nothing to do, and asks when there were enough.
func (w *worker) idle(g *Group) {
	n, cfg := &g.node, &w.host.cfg
	if n.calling && n.ticks%cfg.HeartbeatTicks == 0 {
		w.call(g)
	}
	if n.state != raft.StateLeader || cfg.QuietTicks == 0 {
		return
	}
	if g.used.Swap(false) {
		n.asking.Touch()
	}
	if !n.asking.Tick(cfg.QuietTicks, cfg.ElectionTicks) || n.appliedTerm != n.term {
		return
	}
	matched := true
	n.raw.WithProgress(func(_ uint64, _ raft.ProgressType, pr progress) {
		matched = matched && pr.Match == n.commit && pr.State != tracker.StateSnapshot
	})
	if n.asking.Begin(w.standing(g), matched, lease.At(w.now)) {
		n.askTerm = n.term
	}
}

// askWith makes a leader's heartbeat ask, if it does.
func (w *worker) askWith(g *Group, m *raftpb.Message) quiet.Incarnation {
	index, ok := g.node.asking.Asks()
	if !ok || m.GetType() != raftpb.MsgHeartbeat {
		return 0
	}
	m.Index = &index // raft does not use it
	return w.host.pulse.Own()
}

// asked notes a leader's question. A leader that was heard is not called any more: raft's answer, which does not agree, wakes it.
func (w *worker) asked(g *Group, ev *event) {
	n, m := &g.node, ev.msg
	n.calling = n.calling && m.GetTerm() < n.term
	if ev.quiet != 0 && m.GetType() == raftpb.MsgHeartbeat {
		n.ask = quiet.Ask{From: layout.PeerID(m.GetFrom()), Incarnation: ev.quiet, Term: m.GetTerm(), Index: m.GetIndex()}
	}
}

// agrees tells whether this follower goes quiet, as it was asked to. (I2)
func (w *worker) agrees(g *Group) bool {
	n := &g.node
	return n.ask.Incarnation != 0 && n.state == raft.StateFollower && n.ask.Fits(w.standing(g)) &&
		w.host.pulse.Trust(n.members.Chunkservers[n.lead], n.ask.Incarnation)
}

// agree sends an answer that says so.
func (w *worker) agree(g *Group, m *raftpb.Message) {
	if to := w.locate(g, m); to != 0 {
		w.queue(to, Message{Copyset: g.id, Raft: m, Stamp: w.stampFor(g, m), Quiet: g.node.ask.Incarnation})
	}
	w.quieten(g)
}

// answered notes that a follower agreed.
func (w *worker) answered(g *Group, ev *event) {
	n := &g.node
	if ev.quiet == w.host.pulse.Own() && n.state == raft.StateLeader && ev.msg.GetTerm() == n.term {
		n.asking.Agree(layout.PeerID(ev.msg.GetFrom()), ev.stamp)
	}
}

// settle has a leader go quiet that all have agreed with, and ends the round's question.
func (w *worker) settle(g *Group) {
	n := &g.node
	if _, asks := n.asking.Asks(); asks && n.asking.All(w.standing(g), g.peer, n.members.Chunkservers) {
		w.quieten(g)
	}
	if n.quiet && n.ask.Incarnation != 0 && !w.host.pulse.Trust(n.members.Chunkservers[n.lead], n.ask.Incarnation) {
		w.wake(g) // the process was lost meanwhile, when Host.rouse did not see that this group is quiet
	}
	n.ask = quiet.Ask{}
	if n.calling && n.woke == w.now {
		w.call(g)
	}
}

// quieten stops the group's clock. The lease ends with it. (I1)
func (w *worker) quieten(g *Group) {
	n := &g.node
	if n.quiet {
		return // it was asked twice in this round
	}
	n.quiet = true
	g.period.Add(1) // before the lease ends: who finds none wakes the group
	g.lease.Store(0)
	n.asking.Touch()
	n.calling = false
	g.offers.Drop()
	w.awake = without(w.awake, g)
	w.publishReport(g)
}

// stir wakes a quiet group that has something to do (I3), and begins a leader's count anew.
func (w *worker) stir(g *Group, ev *event) {
	n := &g.node
	switch ev.kind {
	case evLocal, evUnreachable, evRouse, evAttach:
		return
	case evMessage:
		t := ev.msg.GetType()
		if n.quiet && t == raftpb.MsgHeartbeatResp && ev.quiet != 0 || !n.quiet && (t == raftpb.MsgHeartbeatResp || t == raftpb.MsgAppResp) {
			return // it agrees, or answers a heartbeat: nobody asks for anything
		}
	}
	n.asking.Touch()
	w.wake(g)
}

// wake starts the group's clock. A leader says so at once, a follower calls its leader until it hears it.
func (w *worker) wake(g *Group) {
	n := &g.node
	if !n.quiet || n.dead {
		return
	}
	n.quiet, n.woke = false, w.now
	g.period.Add(1)
	w.awake = insert(w.awake, g)
	w.mark(g)
	if n.state != raft.StateLeader {
		n.calling = true
		return
	}
	for _, p := range n.members.Others(g.peer) {
		w.send(g, &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(g.peer)), To: new(uint64(p)), Term: new(n.term), Commit: new(n.commit),
		})
	}
}

// call wakes the leader: an answer to no heartbeat, which tells raft nothing that is not so.
func (w *worker) call(g *Group) {
	n := &g.node
	if n.calling = n.state == raft.StateFollower && n.lead != 0; n.calling {
		w.send(g, &raftpb.Message{
			Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(g.peer)), To: new(uint64(n.lead)), Term: new(n.term),
		})
	}
}

// rouse looks after the process of a chunkserver that is another one now, or lost. A follower whose leader was in it wakes. When
// nothing has been heard of it for an election timeout, what this peer has promised is over (I4), also if it is awake and still
// calls the leader: it forgets the leader and soon campaigns. A leader wakes for a follower that was started again, which does not
// know what is committed.
func (w *worker) rouse(g *Group, cs layout.ChunkserverID) {
	n := &g.node
	if !n.quiet && !n.calling {
		return
	}
	if n.state == raft.StateLeader {
		if w.host.pulse.Alive(cs) && slices.ContainsFunc(n.members.Others(g.peer), func(p layout.PeerID) bool { return n.members.Chunkservers[p] == cs }) {
			w.wake(g)
		}
		return
	}
	if n.members.Chunkservers[n.lead] != cs {
		return
	}
	if w.host.pulse.Alive(cs) {
		w.wake(g)
		return
	}
	left := slices.DeleteFunc(n.members.Others(n.lead), func(p layout.PeerID) bool { return !n.members.Voter(p) })
	w.wake(g)
	if at := slices.Index(left, g.peer); at >= 0 {
		_ = n.raw.ForgetLeader() // a follower can
		n.campaignIn = quiet.Delay(g.id, (at+int(uint64(g.id)%uint64(len(left))))%len(left), w.host.cfg.ElectionTicks)
	}
}

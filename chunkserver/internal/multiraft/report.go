package multiraft

import (
	"go.etcd.io/raft/v3"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// raftReport is what a worker publishes of a group now and then.
type raftReport struct {
	leading      bool
	leader       layout.PeerID
	term, commit uint64
	match        map[layout.PeerID]uint64 // of a leader
}

// Report describes a group.
type Report struct {
	Copyset    layout.CopysetID
	Peer       layout.PeerID
	Leading    bool
	LeaderPeer layout.PeerID
	Term       uint64
	Applied    uint64
	Commit     uint64
	Members    *copyset.Members
	// Match is what each peer has of the log, as its leader knows it; nil from others.
	Match map[layout.PeerID]uint64
	// Usage is the allocated bytes of each volume; from a leader.
	Usage map[layout.VolumeID]int64
	// Still, if not 0, numbers the time for which the group is quiet: as long as it is the same, so is the whole report.
	Still uint64
	// Sending is the image that is being sent, or nil.
	Sending *Transfer
	// Err is why the group stopped, or why it can not go on at the moment, or nil.
	Err error
}

func (w *worker) publishReport(g *Group) {
	n := &g.node
	r := &raftReport{leading: n.state == raft.StateLeader, leader: n.lead, term: n.term, commit: n.commit}
	if r.leading {
		r.match = map[layout.PeerID]uint64{}
		n.raw.WithProgress(func(id uint64, _ raft.ProgressType, pr progress) { r.match[layout.PeerID(id)] = pr.Match })
	}
	g.report.Store(r)
}

// Report returns the present state of the group, some of it up to reportTicks ticks old.
func (g *Group) Report() Report {
	period := g.period.Load() // first: what it stands for may have changed when the rest is read, and then it is another one
	r := Report{
		Copyset: g.id, Peer: g.peer, Applied: g.applied.Load(), Members: g.members.Load(), Sending: g.sending.Load(),
	}
	if period%2 == 1 {
		r.Still = period
	}
	if p := g.report.Load(); p != nil {
		r.Leading, r.LeaderPeer, r.Term, r.Commit, r.Match = p.leading, p.leader, p.term, p.commit, p.match
	}
	if e := g.blocked.Load(); e != nil {
		r.Err = *e
	}
	if e := g.failure.Load(); e != nil {
		r.Err, r.Leading = *e, false
	}
	if r.Leading {
		r.Usage = g.store.Load().Usage()
	}
	return r
}

// Reports returns the reports of all groups, by copyset.
func (h *Host) Reports() []Report {
	var out []Report
	for _, g := range h.groups.Load().all {
		out = append(out, g.Report())
	}
	return out
}

package schedule

import "github.com/ashlar-storage/ashlar/storage/layout"

// Action says what an Order asks for.
type Action uint8

// The actions.
const (
	// Found makes a replica that starts with the membership in Peers.
	Found Action = iota + 1
	// Join makes an empty replica that waits to be added.
	Join
	// Change asks the leader for a membership change; more than one entry in Changes is a joint change.
	Change
	// Remove gives back the replica of a peer that is no member any more.
	Remove
	// Transfer asks the leader to hand over to Peer.
	Transfer
	// Distrust ends Peer's replica, which holds something else than the others.
	Distrust
)

// MemberAction is one part of a membership change.
type MemberAction uint8

// The membership changes.
const (
	AddLearner MemberAction = iota + 1
	Promote
	RemoveMember
)

// MemberChange is one part of a membership change.
type MemberChange struct {
	Peer        layout.PeerID
	Chunkserver layout.ChunkserverID
	Action      MemberAction
}

// Order is what a chunkserver is told about one copyset. It is idempotent.
type Order struct {
	Copyset layout.CopysetID
	Action  Action
	// Peer is the one to make, to remove or to hand over to.
	Peer layout.PeerID
	// Peers is the membership, for Found and Join.
	Peers []Peer
	// Replaces is the ConfVersion from which Changes start.
	Replaces uint64
	Changes  []MemberChange
	// Index, Format and Sum are the digest of the replica, for Distrust.
	Index  uint64
	Format uint32
	Sum    [16]byte
}

// CatchUpMax is by how many entries a learner may be behind when it is promoted.
const CatchUpMax = 256

// The steps of an operation, in the order of the package comment.
const (
	StepWait     = "wait for a leader and for enough replicas that are up to date"
	StepTransfer = "move the leader away"
	StepRemove   = "remove the old peer"
	StepClear    = "give back the old replica"
	StepCreate   = "create the new replica"
	StepLearn    = "add the new peer as a learner"
	StepCatchUp  = "copy the data"
	StepPromote  = "promote the new peer and remove the old one"
	StepTakeBack = "take the new peer back"
)

// Step returns the name of the step that the copyset's operation is at, empty when there is none, and the order that the
// step needs, with the chunkserver that it goes to (0: none, the step waits).
func Step(s *State) (string, layout.ChunkserverID, Order) {
	op := s.Record.Op
	if op == nil {
		return "", 0, Order{}
	}
	l := s.Leader
	if l == nil {
		return StepWait, 0, Order{}
	}
	neu, member := l.Member(op.NewPeer)
	_, old := l.Member(op.OldPeer)
	change := func(changes ...MemberChange) Order {
		return Order{Copyset: s.Record.ID, Action: Change, Replaces: l.ConfVersion, Changes: changes}
	}
	removeOld := MemberChange{op.OldPeer, op.OldChunkserver, RemoveMember}
	switch {
	case op.Abort && member:
		return StepTakeBack, s.LeaderOn, change(MemberChange{op.NewPeer, op.NewChunkserver, RemoveMember})
	case op.Abort:
		return StepTakeBack, 0, Order{}
	case op.Same() && old && !s.Spare(op.OldPeer):
		return StepWait, 0, Order{}
	case op.Same() && old:
		return s.leave(op, StepRemove, change(removeOld))
	case !member && op.Same() && s.has(op.OldChunkserver, op.OldPeer):
		// The order comes from Removed.
		return StepClear, 0, Order{}
	case !member && !s.has(op.NewChunkserver, op.NewPeer):
		return StepCreate, op.NewChunkserver, Order{Copyset: s.Record.ID, Action: Join, Peer: op.NewPeer, Peers: s.Record.Peers}
	case !member:
		return StepLearn, s.LeaderOn, change(MemberChange{op.NewPeer, op.NewChunkserver, AddLearner})
	case neu.Role == Learner && !caughtUp(l, neu):
		return StepCatchUp, 0, Order{}
	case neu.Role == Learner && !old:
		return StepPromote, s.LeaderOn, change(MemberChange{op.NewPeer, op.NewChunkserver, Promote})
	case neu.Role == Learner:
		return s.leave(op, StepPromote, change(MemberChange{op.NewPeer, op.NewChunkserver, Promote}, removeOld))
	case old:
		return s.leave(op, StepRemove, change(removeOld))
	}
	// Everything is done; Advance ends the operation when it adopts the membership.
	return StepPromote, 0, Order{}
}

// leave gives the order that removes the old peer, or first the one that moves the leader away from it.
func (s *State) leave(op *Operation, step string, o Order) (string, layout.ChunkserverID, Order) {
	if s.Leader.Peer != op.OldPeer {
		return step, s.LeaderOn, o
	}
	best := Member{}
	for _, m := range s.Leader.Members {
		rep := s.Reports[m.Chunkserver]
		if m.ID != op.OldPeer && m.Role == Voter && rep != nil && rep.Peer == m.ID && rep.Error == "" && m.Match >= best.Match {
			best = m
		}
	}
	if best.ID == 0 {
		return StepWait, 0, Order{}
	}
	return StepTransfer, s.LeaderOn, Order{Copyset: s.Record.ID, Action: Transfer, Peer: best.ID}
}

// Spare tells whether the copyset goes on serving when a voter is removed before another one is added: a majority of the
// others works and has the leader's log.
func (s *State) Spare(old layout.PeerID) bool {
	if s.Leader == nil {
		return false
	}
	others, ready := 0, 0
	for _, m := range s.Leader.Members {
		if m.ID == old || m.Role != Voter {
			continue
		}
		others++
		if rep := s.Reports[m.Chunkserver]; rep != nil && rep.Peer == m.ID && rep.Error == "" && m.Match+CatchUpMax >= s.Leader.Commit {
			ready++
		}
	}
	return ready > others/2
}

// has tells whether a chunkserver reported the replica of a peer.
func (s *State) has(cs layout.ChunkserverID, p layout.PeerID) bool {
	rep := s.Reports[cs]
	return rep != nil && rep.Peer == p
}

// caughtUp tells whether a learner has so much of the log that it can vote without holding the others up.
func caughtUp(l *Report, m Member) bool {
	return m.Match > 0 && l.SnapshotPeer != m.ID && m.Match+CatchUpMax >= l.Commit
}

// Orders appends to dst what chunkserver cs is told now about copyset s. transfer is the peer that Leaders chose to lead
// the copyset, 0 for none.
func Orders(dst []Order, s *State, cs layout.ChunkserverID, transfer layout.PeerID) []Order {
	r := s.Record
	if p, ok := r.On(cs); ok && !p.Seen && s.Reports[cs] == nil && r.founding() {
		dst = append(dst, Order{Copyset: r.ID, Action: Found, Peer: p.ID, Peers: r.Peers})
	}
	_, to, o := Step(s)
	if to == cs && o.Action != 0 {
		dst = append(dst, o)
	}
	for _, p := range r.Removed {
		if p.Chunkserver == cs && s.has(cs, p.ID) {
			dst = append(dst, Order{Copyset: r.ID, Action: Remove, Peer: p.ID})
		}
	}
	if transfer != 0 && r.Op == nil && s.Leader != nil && s.LeaderOn == cs && s.Leader.Peer != transfer {
		dst = append(dst, Order{Copyset: r.ID, Action: Transfer, Peer: transfer})
	}
	return dst
}

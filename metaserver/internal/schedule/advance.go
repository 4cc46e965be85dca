package schedule

import (
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// missingMax: a replica that its chunkserver has not reported for this long, while its heartbeats come, is lost. It is long
// because replacing a replica that was only slow to open copies a whole copyset for nothing.
const missingMax = time.Minute

// failingMax: a replica that has not worked for this long is given up. A full disk or a payload on its way passes sooner.
const failingMax = time.Minute

// lost tells whether the replica on a chunkserver is gone for good.
func (s *State) lost(cs layout.ChunkserverID) bool { return s.Missing[cs] >= missingMax }

// failed tells whether the replica on a chunkserver is there and will not work again.
func (s *State) failed(cs layout.ChunkserverID) bool { return s.Failing[cs] >= failingMax }

// Advance returns the record after what the reports show, and whether it differs from the present one. The caller stores
// it before it asks for Orders again.
func Advance(s *State) (*Record, bool) {
	r := s.Record.clone()
	changed := s.see(r)
	changed = s.adopt(r) || changed
	changed = s.progress(r) || changed
	changed = s.forget(r) || changed
	if !changed {
		return s.Record, false
	}
	return r, true
}

// see notes which replicas were reported.
func (s *State) see(r *Record) bool {
	changed := false
	for i := range r.Peers {
		p := &r.Peers[i]
		if rep := s.Reports[p.Chunkserver]; rep != nil && rep.Peer == p.ID && !p.Seen {
			p.Seen, changed = true, true
		}
	}
	if op := r.Op; op != nil && !op.NewSeen {
		if rep := s.Reports[op.NewChunkserver]; rep != nil && rep.Peer == op.NewPeer {
			op.NewSeen, changed = true, true
		}
	}
	return changed
}

// adopt takes the membership over from the leader when it is newer. Whoever left is Removed.
func (s *State) adopt(r *Record) bool {
	l := s.Leader
	if l == nil || len(l.Members) == 0 || r.Founded && l.ConfVersion <= r.ConfVersion {
		return false
	}
	var peers []Peer
	for _, m := range l.Members {
		p := Peer{ID: m.ID, Chunkserver: m.Chunkserver, Role: m.Role, Seen: true}
		if old, ok := r.Peer(m.ID); ok {
			p.Seen = old.Seen
		}
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return int(a.ID) - int(b.ID) })
	for _, old := range r.Peers {
		if _, stays := l.Member(old.ID); !stays {
			r.remove(old)
		}
	}
	if !r.Founded {
		r.FoundingVersion = l.ConfVersion
	}
	r.Peers, r.ConfVersion, r.Founded = peers, l.ConfVersion, true
	return true
}

// remove notes that a former peer's replica is to be given back.
func (r *Record) remove(p Peer) {
	if slices.ContainsFunc(r.Removed, func(q Peer) bool { return q.ID == p.ID }) {
		return
	}
	r.Removed = append(r.Removed, Peer{ID: p.ID, Chunkserver: p.Chunkserver})
	if n := len(r.Removed) - removedMax; n > 0 {
		r.Removed = slices.Clone(r.Removed[n:])
	}
}

// progress ends an operation that is done and gives up one that can not go on.
func (s *State) progress(r *Record) bool {
	op := r.Op
	if op == nil {
		return false
	}
	neu, member := r.Peer(op.NewPeer)
	_, old := r.Peer(op.OldPeer)
	switch {
	case member && neu.Role == Voter && !old:
		r.Op = nil
		return true
	case op.Abort && !member:
		r.remove(Peer{ID: op.NewPeer, Chunkserver: op.NewChunkserver})
		r.Op = nil
		return true
	case !op.Abort && op.NewSeen && !(member && neu.Role == Voter) && s.newLost(op):
		op.Abort, op.Error = true, "the new replica was lost before it had caught up"
		return true
	}
	return false
}

// newLost tells whether the replica that an operation made is gone or broken.
func (s *State) newLost(op *Operation) bool {
	if s.lost(op.NewChunkserver) {
		return true
	}
	return s.has(op.NewChunkserver, op.NewPeer) && s.failed(op.NewChunkserver)
}

// forget drops removed peers whose chunkserver reports that it does not have them (any more).
func (s *State) forget(r *Record) bool {
	n := len(r.Removed)
	r.Removed = slices.DeleteFunc(r.Removed, func(p Peer) bool {
		if rep := s.Reports[p.Chunkserver]; rep != nil {
			return rep.Peer != p.ID
		}
		return s.lost(p.Chunkserver)
	})
	return len(r.Removed) != n
}

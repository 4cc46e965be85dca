package copyset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// PeersMax bounds the members of a copyset, those that leave included.
const PeersMax = 16

// Members is who belongs to a copyset. A value that State hands out is never changed afterwards.
type Members struct {
	// Version counts the configuration changes that took effect, those that leave a joint configuration included.
	Version uint64
	// Conf is raft's configuration.
	Conf *raftpb.ConfState
	// Chunkservers tells where each peer of Conf is.
	Chunkservers map[layout.PeerID]layout.ChunkserverID
}

// Has tells whether the peer is a member in any role.
func (m *Members) Has(p layout.PeerID) bool {
	_, ok := m.Chunkservers[p]
	return ok
}

// Others lists the members besides one, in the order of their numbers.
func (m *Members) Others(one layout.PeerID) []layout.PeerID {
	out := slices.Sorted(maps.Keys(m.Chunkservers))
	return slices.DeleteFunc(out, func(p layout.PeerID) bool { return p == one })
}

// Voter tells whether the peer has a vote, before or after a joint configuration.
func (m *Members) Voter(p layout.PeerID) bool {
	return slices.Contains(m.Conf.GetVoters(), uint64(p)) || slices.Contains(m.Conf.GetVotersOutgoing(), uint64(p))
}

// Joint tells whether a joint configuration is in effect.
func (m *Members) Joint() bool { return len(m.Conf.GetVotersOutgoing()) > 0 }

// Quorum returns the value that a majority of the voters, in a joint configuration of both, has reached.
func (m *Members) Quorum(reached func(layout.PeerID) uint64) uint64 {
	v := majority(m.Conf.GetVoters(), reached)
	if m.Joint() {
		v = min(v, majority(m.Conf.GetVotersOutgoing(), reached))
	}
	return v
}

func majority(ids []uint64, ack func(layout.PeerID) uint64) uint64 {
	if len(ids) == 0 {
		return 0
	}
	var space [PeersMax]uint64
	vals := space[:0]
	for _, id := range ids {
		vals = append(vals, ack(layout.PeerID(id)))
	}
	slices.Sort(vals)
	return vals[(len(vals)-1)/2]
}

// Kind is what a change does to one peer.
type Kind uint8

// The kinds. The numbers are part of the entry's format.
const (
	AddLearner Kind = 1
	Promote    Kind = 2
	Remove     Kind = 3
)

// MemberChange changes one peer.
type MemberChange struct {
	Peer layout.PeerID
	// Chunkserver is where the peer is; needed by AddLearner.
	Chunkserver layout.ChunkserverID
	Kind        Kind
}

// Change is one configuration change: of a single peer, or of more through a joint configuration.
type Change struct {
	// Replaces is the Members.Version that the change starts from.
	Replaces uint64
	Changes  []MemberChange
}

const changeVersion = 1

// Check reports why the change can not be made from m.
func (c *Change) Check(m *Members) error {
	switch {
	case c.Replaces != m.Version:
		return fmt.Errorf("copyset: change of configuration %d, which is now %d", c.Replaces, m.Version)
	case m.Joint():
		return errors.New("copyset: another change is being made")
	case len(c.Changes) == 0 || len(c.Changes) > PeersMax:
		return fmt.Errorf("copyset: %d changes", len(c.Changes))
	}
	seen := map[layout.PeerID]bool{}
	for _, ch := range c.Changes {
		if seen[ch.Peer] || ch.Peer == 0 {
			return fmt.Errorf("copyset: peer %d is named twice or 0", ch.Peer)
		}
		seen[ch.Peer] = true
		switch {
		case ch.Kind == AddLearner && !m.Has(ch.Peer) && ch.Chunkserver != 0 && len(m.Chunkservers) < PeersMax:
		case ch.Kind == Promote && slices.Contains(m.Conf.GetLearners(), uint64(ch.Peer)):
		case ch.Kind == Remove && m.Has(ch.Peer):
		default:
			return fmt.Errorf("copyset: kind %d does not fit peer %d", ch.Kind, ch.Peer)
		}
	}
	_, err := nextConf(m.Conf, c.raft())
	return err
}

func (c *Change) raft() *raftpb.ConfChangeV2 {
	cc := &raftpb.ConfChangeV2{}
	for _, ch := range c.Changes {
		typ := raftpb.ConfChangeAddLearnerNode
		switch ch.Kind {
		case Promote:
			typ = raftpb.ConfChangeAddNode
		case Remove:
			typ = raftpb.ConfChangeRemoveNode
		}
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: typ.Enum(), NodeId: new(uint64(ch.Peer))})
	}
	return cc
}

// Raft returns the change as raft proposes it. Its context, which tells every replica what State.ApplyChange needs, is
//
//	version:1 (1)  replaces:8  n:1  n × (peer:8 chunkserver:8 kind:1)
func (c *Change) Raft() *raftpb.ConfChangeV2 {
	b := binary.LittleEndian.AppendUint64([]byte{changeVersion}, c.Replaces)
	b = append(b, byte(len(c.Changes)))
	for _, ch := range c.Changes {
		b = binary.LittleEndian.AppendUint64(b, uint64(ch.Peer))
		b = binary.LittleEndian.AppendUint64(b, uint64(ch.Chunkserver))
		b = append(b, byte(ch.Kind))
	}
	cc := c.raft()
	cc.Context = b
	return cc
}

// decodeChange parses the context of a change.
func decodeChange(b []byte) (*Change, error) {
	if len(b) > 0 && b[0] != changeVersion {
		return nil, fmt.Errorf("%w: configuration change %d", ErrVersion, b[0])
	}
	if len(b) < 10 || len(b) != 10+17*int(b[9]) {
		return nil, fmt.Errorf("copyset: configuration change of %d bytes", len(b))
	}
	c := &Change{Replaces: binary.LittleEndian.Uint64(b[1:])}
	for b = b[10:]; len(b) > 0; b = b[17:] {
		c.Changes = append(c.Changes, MemberChange{
			Peer:        layout.PeerID(binary.LittleEndian.Uint64(b)),
			Chunkserver: layout.ChunkserverID(binary.LittleEndian.Uint64(b[8:])),
			Kind:        Kind(b[16]),
		})
	}
	return c, nil
}

// nextConf computes the configuration that raft will have after cc.
func nextConf(cs *raftpb.ConfState, cc *raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	cfg, progress, err := confchange.Restore(changer, cs)
	if err != nil {
		return nil, fmt.Errorf("copyset: configuration %v: %w", cs, err)
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	switch {
	case cc.LeaveJoint():
		cfg, progress, err = changer.LeaveJoint()
	default:
		if autoLeave, ok := cc.EnterJoint(); ok {
			cfg, progress, err = changer.EnterJoint(autoLeave, cc.GetChanges()...)
		} else {
			cfg, progress, err = changer.Simple(cc.GetChanges()...)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("copyset: configuration change: %w", err)
	}
	if len(cfg.Voters[0]) == 0 {
		return nil, errors.New("copyset: configuration change leaves no voter")
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	next := changer.Tracker.ConfState()
	for _, ids := range [][]uint64{next.Voters, next.Learners, next.VotersOutgoing, next.LearnersNext} {
		slices.Sort(ids)
	}
	return next, nil
}

// next returns the membership after an accepted change; changes is nil when a joint configuration is left.
func (m *Members) next(conf *raftpb.ConfState, changes []MemberChange) *Members {
	n := &Members{Version: m.Version + 1, Conf: conf, Chunkservers: maps.Clone(m.Chunkservers)}
	for _, ch := range changes {
		if ch.Kind == AddLearner {
			n.Chunkservers[ch.Peer] = ch.Chunkserver
		}
	}
	in := map[layout.PeerID]bool{}
	for _, ids := range [][]uint64{conf.Voters, conf.Learners, conf.VotersOutgoing, conf.LearnersNext} {
		for _, id := range ids {
			in[layout.PeerID(id)] = true
		}
	}
	maps.DeleteFunc(n.Chunkservers, func(p layout.PeerID, _ layout.ChunkserverID) bool { return !in[p] })
	return n
}

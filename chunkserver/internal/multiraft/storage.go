package multiraft

import (
	"errors"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

// logStorage is raft's view of a group's log and snapshots.
type logStorage struct {
	*raftlog.Group
	g    *Group
	hard *raftpb.HardState
	conf *raftpb.ConfState
}

// InitialState returns what the group was recovered with.
func (s *logStorage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return s.hard, s.conf, nil
}

// Entries reads entries back. One that is damaged, as a payload on a bad sector is, is as good as compacted once it is
// applied here: the follower that needs it gets an image. One that is to be applied has no such way out, and ends the group.
func (s *logStorage) Entries(lo, hi, size uint64) ([]*raftpb.Entry, error) {
	entries, err := s.Group.Entries(lo, hi, size)
	if errors.As(err, new(*raftlog.CorruptError)) {
		entries, err = s.Group.Entries(lo, lo+1, size) // those before it are good
	}
	if errors.As(err, new(*raftlog.CorruptError)) && lo <= s.g.applied.Load() {
		s.g.host.event("an image has to take the place of a damaged log entry", s.g, err)
		return nil, raft.ErrCompacted
	}
	return entries, err
}

// Snapshot returns the image that the applier prepared, or orders one and says that raft should ask again.
func (s *logStorage) Snapshot() (*raftpb.Snapshot, error) {
	im, conf := s.g.offers.Take()
	if im == nil {
		s.g.orderImage()
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	index, term := im.Applied()
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term, ConfState: conf}}, nil
}

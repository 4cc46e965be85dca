// Package outset decides where a raft node goes on after a start: what log and data, each of which is whole, are together.
//
//	log    first ······ commit ······ last        data up to applied
//
//	applied in the log, of the same term                  goes on
//	applied behind the log's end, or of another term      a crash came between an image and the reset of the log: reset it now
//	applied in front of the log, or commit behind it      something is lost: the peer must not vote
package outset

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// Log is a group's log as it was recovered; *raftlog.Group is one.
type Log interface {
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
	Term(index uint64) (uint64, error)
	HardState() *raftpb.HardState
}

// Begin returns the state with which a node begins whose data is that of an index and its term. reset: the log has to start
// anew behind that index before. The error says what is lost.
func Begin(log Log, index, term uint64) (hard *raftpb.HardState, reset bool, err error) {
	first, err1 := log.FirstIndex()
	last, err2 := log.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return nil, false, err
	}
	if first-1 > index {
		return nil, false, fmt.Errorf("its log starts at %d, its data ends at %d", first, index)
	}
	was := log.HardState()
	if reset = index > last; !reset {
		at, err := log.Term(index)
		if err != nil {
			return nil, false, err
		}
		reset = at != term
	}
	commit := max(was.GetCommit(), index)
	switch {
	case reset:
		commit = index
	case commit > last:
		return nil, false, fmt.Errorf("its log ends at %d, %d was committed", last, commit)
	}
	hard = &raftpb.HardState{Term: new(max(was.GetTerm(), term)), Vote: new(was.GetVote()), Commit: &commit}
	if hard.GetTerm() != was.GetTerm() {
		hard.Vote = new(uint64(0))
	}
	return hard, reset, nil
}

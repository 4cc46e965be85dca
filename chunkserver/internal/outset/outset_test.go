package outset

import (
	"errors"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// fakeLog has entries 11 to 20, up to 15 of term 3 and then of term 4.
type fakeLog struct{ hard *raftpb.HardState }

func (fakeLog) FirstIndex() (uint64, error) { return 11, nil }
func (fakeLog) LastIndex() (uint64, error)  { return 20, nil }
func (l fakeLog) HardState() *raftpb.HardState {
	return l.hard
}

func (fakeLog) Term(i uint64) (uint64, error) {
	switch {
	case i < 10 || i > 20:
		return 0, errors.New("not there")
	case i <= 15:
		return 3, nil
	}
	return 4, nil
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

func TestBegin(t *testing.T) {
	for _, c := range []struct {
		what        string
		hard        *raftpb.HardState
		index, term uint64
		want        *raftpb.HardState
		reset       bool
	}{
		{"goes on", hard(5, 2, 18), 16, 4, hard(5, 2, 18), false},
		{"applied more than the commit that was written", hard(5, 2, 12), 16, 4, hard(5, 2, 16), false},
		{"nothing of the log is applied", hard(5, 2, 10), 10, 3, hard(5, 2, 10), false},
		{"never wrote a state", nil, 10, 3, hard(3, 0, 10), false},
		{"an image behind the log's end", hard(5, 2, 18), 30, 5, hard(5, 2, 30), true},
		{"an image of a later term: the vote was in an earlier one", hard(5, 2, 18), 30, 6, hard(6, 0, 30), true},
		{"an image over other entries", hard(5, 2, 12), 16, 5, hard(5, 2, 16), true},
		{"the log was cut behind the data", hard(5, 2, 18), 9, 3, nil, false},
		{"committed entries are lost", hard(5, 2, 21), 16, 4, nil, false},
	} {
		got, reset, err := Begin(fakeLog{c.hard}, c.index, c.term)
		if c.want == nil {
			if err == nil {
				t.Errorf("%s: it goes on at %v", c.what, got)
			}
			continue
		}
		if err != nil || reset != c.reset || got.GetTerm() != c.want.GetTerm() || got.GetVote() != c.want.GetVote() || got.GetCommit() != c.want.GetCommit() {
			t.Errorf("%s: %v, reset %v, %v; want %v", c.what, got, reset, err, c.want)
		}
	}
}

package latecommit

import (
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

func message(t raftpb.MessageType, to, commit uint64, entries int) *raftpb.Message {
	m := &raftpb.Message{Type: t.Enum(), To: &to, Commit: &commit}
	for range entries {
		m.Entries = append(m.Entries, &raftpb.Entry{})
	}
	return m
}

func TestKept(t *testing.T) {
	const app, beat, vote = raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgVote
	for _, c := range []struct {
		what string
		in   []*raftpb.Message
		sent []int // of in: those that are not kept
		late []string
	}{
		{"a commit index alone waits", []*raftpb.Message{message(app, 2, 5, 0)}, nil, []string{"2:5"}},
		{"the newest of each follower", []*raftpb.Message{message(app, 2, 5, 0), message(app, 3, 5, 0), message(app, 2, 6, 0)}, nil, []string{"2:6", "3:5"}},
		{"entries tell it too", []*raftpb.Message{message(app, 2, 5, 0), message(app, 2, 5, 1)}, []int{1}, nil},
		{"to another one they do not", []*raftpb.Message{message(app, 2, 5, 0), message(app, 3, 5, 1)}, []int{1}, []string{"2:5"}},
		{"a heartbeat tells it too", []*raftpb.Message{message(app, 2, 5, 0), message(beat, 2, 5, 0)}, []int{1}, nil},
		{"an older one does not", []*raftpb.Message{message(app, 2, 5, 0), message(beat, 2, 4, 0)}, []int{1}, []string{"2:5"}},
		{"others pass", []*raftpb.Message{message(app, 2, 5, 0), message(vote, 2, 9, 0)}, []int{1}, []string{"2:5"}},
	} {
		var k Kept
		var sent []int
		for i, m := range c.in {
			if !k.Keep(m) {
				sent = append(sent, i)
			}
		}
		var late []string
		k.Release(func(m *raftpb.Message) { late = append(late, fmt.Sprintf("%d:%d", m.GetTo(), m.GetCommit())) })
		if !slices.Equal(sent, c.sent) || !slices.Equal(late, c.late) {
			t.Errorf("%s: sent %v and then %v", c.what, sent, late)
		}
		k.Release(func(*raftpb.Message) { t.Errorf("%s: released twice", c.what) })
	}
	var k Kept
	k.Keep(message(app, 2, 5, 0))
	k.Drop()
	k.Release(func(*raftpb.Message) { t.Error("of a term that is over") })
}

// Package latecommit keeps back messages that bring no entries, only a new commit index.
//
//	raft ─► MsgApp without entries ─► kept ─► next tick, or dropped: entries or a heartbeat tell the same
//
// raft sends one to each follower after each commit, which would double the messages of a write. The follower hears it with
// the next entries or heartbeat, or at the next tick. Nothing waits for it: it lets the follower apply, which no client
// sees. A probe without entries is kept too, which costs it a tick.
package latecommit

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// Kept are the messages of a group's leader, at most one to each follower. The zero value has none.
type Kept struct{ messages []*raftpb.Message }

// Keep takes a message that is to leave, and returns true if it is kept. One that is not may tell what a kept one would.
func (k *Kept) Keep(m *raftpb.Message) bool {
	t := m.GetType()
	if t != raftpb.MsgApp && t != raftpb.MsgHeartbeat {
		return false
	}
	empty := t == raftpb.MsgApp && len(m.GetEntries()) == 0
	for i, c := range k.messages {
		if c.GetTo() != m.GetTo() {
			continue
		}
		switch {
		case empty:
			k.messages[i] = m
			return true
		case t == raftpb.MsgApp || c.GetCommit() <= m.GetCommit():
			k.messages = slices.Delete(k.messages, i, i+1)
		}
		return false
	}
	if empty {
		k.messages = append(k.messages, m)
	}
	return empty
}

// Drop forgets all: the term is over.
func (k *Kept) Drop() { k.messages = nil }

// Release gives all to send.
func (k *Kept) Release(send func(*raftpb.Message)) {
	for _, m := range k.messages {
		send(m)
	}
	clear(k.messages)
	k.messages = k.messages[:0]
}

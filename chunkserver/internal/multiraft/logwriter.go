package multiraft

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/groupcommit"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

// outgoing is a message and where it goes.
type outgoing struct {
	to layout.ChunkserverID
	m  Message
}

// appendRequest is what a MsgStorageAppend wants written, and what to answer when it is durable.
type appendRequest struct {
	g      *Group
	update raftlog.Update
	local  []*raftpb.Message
	remote []outgoing
}

// write hands the request to the log writer.
func (h *Host) write(r *appendRequest) {
	bytes := int64(0)
	for _, e := range r.update.Entries {
		bytes += int64(len(e.GetData()))
	}
	if n := len(r.update.Entries); n > 0 {
		r.g.logBytes.Add(bytes)
		r.g.tail.Add(r.update.Entries[n-1].GetIndex(), bytes)
	}
	h.writer.Post(r.update, r)
}

// Written answers, on the log writer's goroutine.
func (r *appendRequest) Written(err error) {
	g := r.g
	if err != nil {
		g.w.post(event{g: g, kind: evFail, err: err})
		return
	}
	for _, o := range r.remote {
		g.host.cfg.Transport.Send(o.to, []Message{o.m})
	}
	for _, m := range r.local {
		g.w.post(event{g: g, kind: evLocal, msg: m})
	}
	g.appending.Add(-1)
}

func (h *Host) newWriter() *groupcommit.Writer {
	return groupcommit.New(h.clock, h.cfg.Log, h.cfg.SegmentsMax, groupcommit.Hooks{
		Failed:  func(err error) { h.fail(fmt.Errorf("multiraft: log: %w", err)) },
		NoSpace: func() { h.checkpoints.Kick() },
		Pinning: func(ids []layout.CopysetID) { h.checkpoints.Force(ids) },
		Damaged: func(e *raftlog.CorruptError) { h.event("a damaged log entry will be cut off", h.Group(e.Copyset), e) },
	})
}

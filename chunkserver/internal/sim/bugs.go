package sim

import (
	"path"
	"strings"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/lease"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peerlist"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sideload"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/history"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/liar"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// Bug is a deliberate bug, which the simulation must find. It is built in where the chunkserver meets its disk, the network
// and its clients, so the code of the product knows nothing of it.
type Bug uint8

// The bugs.
const (
	// NoBug is the system as it is.
	NoBug Bug = iota
	// LogNotSynced: a sync of the log does nothing.
	LogNotSynced
	// BlocksNotSynced: a sync of the data file does nothing.
	BlocksNotSynced
	// NamesNotSynced: a sync of a directory does nothing.
	NamesNotSynced
	// AckBeforeQuorum: a leader takes an entry that it has sent as stored by the follower.
	AckBeforeQuorum
	// AckBeforeSync: a follower says that it has stored what it has received.
	AckBeforeSync
	// AckBeforeCommit: a mutation is answered when it is proposed.
	AckBeforeCommit
	// VoteForgotten: a chunkserver that lost its disk begins again under its old peer id.
	VoteForgotten
	// EpochUnchecked: a mutation of an old epoch is taken for one of the present.
	EpochUnchecked
	// RetryTwice: a repeated mutation is taken for another one.
	RetryTwice
	// WriteSplit: a write of several blocks is two entries.
	WriteSplit
	// CompareApart: a compare and write is a read and then a write.
	CompareApart
	// FollowerReads: reads are served by any replica.
	FollowerReads
	// LeaseUnchecked: reads are served by whoever believes to lead.
	LeaseUnchecked
	// WritesLost: some writes to the data file are not made.
	WritesLost
	// ListNotSynced: the list of peers is replaced without a sync.
	ListNotSynced
	// BlocksReusedEarly: the blocks of an entry are given back while the log still has it.
	BlocksReusedEarly
	// WrongByte: a read returns something else, rarely.
	WrongByte
	// ReplicaChanged: a replica changes a block by itself, with the checksum that belongs to it.
	ReplicaChanged
	// LeaseTooLong: a leader takes half as many ticks more for what it was promised.
	LeaseTooLong
	// ClockDrifts: some clocks go at half the speed of the others.
	ClockDrifts
	// NoQuarantine: a chunkserver that was started votes at once.
	NoQuarantine
	// TicksMadeUp: a process that was stopped makes up for the ticks that it missed.
	TicksMadeUp
	// LeaseInTransfer: a leader that hands over keeps its lease.
	LeaseInTransfer
	bugs
)

var bugNames = [bugs]string{
	"none", "LogNotSynced", "BlocksNotSynced", "NamesNotSynced", "AckBeforeQuorum", "AckBeforeSync", "AckBeforeCommit",
	"VoteForgotten", "EpochUnchecked", "RetryTwice", "WriteSplit", "CompareApart", "FollowerReads", "LeaseUnchecked",
	"WritesLost", "ListNotSynced", "BlocksReusedEarly", "WrongByte", "ReplicaChanged", "LeaseTooLong", "ClockDrifts", "NoQuarantine",
	"TicksMadeUp", "LeaseInTransfer",
}

func (b Bug) String() string { return bugNames[b] }

// disk puts the bug between a chunkserver and its disk.
func (b Bug) disk(n *node, fs vfs.FS) vfs.FS {
	switch b {
	case LogNotSynced:
		return &liar.FS{FS: fs, Unsynced: func(name string) bool { return strings.HasPrefix(name, "log/") }}
	case BlocksNotSynced:
		return &liar.FS{FS: fs, Unsynced: func(name string) bool { return name == blocksFile }}
	case ListNotSynced:
		return &liar.FS{FS: fs, Unsynced: func(name string) bool { return strings.HasPrefix(path.Base(name), peerlist.Name) }}
	case NamesNotSynced:
		return &liar.FS{FS: fs, UnsyncedDirs: true}
	case WritesLost:
		return &liar.FS{FS: fs, Write: func(name string, off int64) int64 {
			if name == blocksFile && off > 0 && n.disk.IntN(8) == 0 {
				return -1
			}
			return off
		}}
	}
	return fs
}

// blocksFile is the data file.
const blocksFile = "store/blocks"

// host builds the bug into a chunkserver.
func (b Bug) host(l *life, cfg *multiraft.Config) {
	switch {
	case b == LeaseTooLong && l.node.id%2 == 1:
		cfg.ElectionTicks += cfg.ElectionTicks / 2
		cfg.QuietTicks = max(cfg.QuietTicks, cfg.ElectionTicks)
	case b == NoQuarantine: // what ends so long after the start ended before it
		cfg.Clock = func() time.Duration {
			if l.host == nil {
				return l.Clock() - time.Hour
			}
			return l.Clock()
		}
	case b == TicksMadeUp:
		cfg.Mistake = lease.TicksMadeUp
	case b == LeaseInTransfer:
		cfg.Mistake = lease.KeptInTransfer
	}
}

// pretend has the chunkserver told that a peer has stored the entries of a message, which that peer never said.
func pretend(l *life, m multiraft.Message, from layout.ChunkserverID) {
	es := m.Raft.GetEntries()
	if m.Raft.GetType() != raftpb.MsgApp || len(es) == 0 || l == nil || l.host == nil {
		return
	}
	l.host.Deliver(from, []multiraft.Message{{Copyset: m.Copyset, Raft: &raftpb.Message{
		Type: raftpb.MsgAppResp.Enum(), From: new(m.Raft.GetTo()), To: new(m.Raft.GetFrom()), Term: new(m.Raft.GetTerm()),
		Index: new(es[len(es)-1].GetIndex()),
	}}})
}

// sent is called with messages that leave a chunkserver, received with those that have come to one.
func (b Bug) sent(p *port, to layout.ChunkserverID, msgs []multiraft.Message) {
	for _, m := range msgs {
		if b == AckBeforeQuorum {
			pretend(p.l, m, to)
		}
	}
}

func (b Bug) received(l *life, from layout.ChunkserverID, msgs []multiraft.Message) {
	for _, m := range msgs {
		if b == AckBeforeSync {
			pretend(l.node.w.nodes[from-1].life, m, l.node.id)
		}
	}
}

// crashed is called when a chunkserver has crashed.
func (b Bug) crashed(n *node) {
	if b == VoteForgotten && n.disk.IntN(4) == 0 {
		n.format()
	}
}

// read serves a read.
func (b Bug) read(l *life, s *set, o *history.Op, a *multiraft.Access, dst []byte, g *multiraft.Group) multiraft.Reply {
	off := uint32(o.First * copyset.SectorSize)
	if b == FollowerReads {
		if cs, err := l.store.Copyset(s.id); err == nil {
			if _, err = cs.Read(s.chunk, off, dst, nil); err == nil {
				return multiraft.Reply{Status: multiraft.Done, Outcome: copyset.Outcome{Code: copyset.OK}}
			}
		}
		return multiraft.Reply{Status: multiraft.NotReady}
	}
	_, r := g.Read(s.chunk, off, dst, nil, a)
	switch {
	case b == LeaseUnchecked && g.Leading() && r.Status == multiraft.NotReady:
		if cs, err := l.store.Copyset(s.id); err == nil {
			if _, err = cs.Read(s.chunk, off, dst, nil); err == nil {
				return multiraft.Reply{Status: multiraft.Done, Outcome: copyset.Outcome{Code: copyset.OK}}
			}
		}
	case b == WrongByte && l.node.disk.IntN(64) == 0:
		dst[l.node.disk.IntN(len(dst))] ^= 1
	}
	return r
}

// propose serves a mutation.
func (b Bug) propose(l *life, g *multiraft.Group, cmd *copyset.Command) multiraft.Reply {
	w := l.node.w
	ok := multiraft.Reply{Status: multiraft.Done, Outcome: copyset.Outcome{Code: copyset.OK}}
	switch {
	case cmd.Seq == 0:
	case b == AckBeforeCommit && cmd.Op == copyset.OpWrite && g.Leading():
		g.Propose(cmd, &waiter{})
		return ok
	case b == EpochUnchecked:
		if now := w.epochs[cmd.Initiator]; cmd.Fence.Epoch < now {
			cmd.Fence.Epoch = now
			w.fresh++
			cmd.Seq, cmd.LowWater = w.fresh, 0
		}
	case b == RetryTwice:
		w.fresh++
		cmd.Seq, cmd.LowWater = w.fresh, 0
	case b == WriteSplit && cmd.Op == copyset.OpWrite && cmd.Length > layout.BlockSize:
		half := *cmd
		half.Length, half.CRCs = cmd.Length/2/copyset.SectorSize*copyset.SectorSize, nil
		half.Payload = cmd.Payload[:half.Length]
		if r := l.proposeOnce(g, &half); r.Status != multiraft.Done || r.Outcome.Code != copyset.OK {
			return r
		}
		w.fresh++
		cmd.Offset, cmd.Length, cmd.CRCs = cmd.Offset+half.Length, cmd.Length-half.Length, nil
		cmd.Payload, cmd.Seq, cmd.LowWater = cmd.Payload[half.Length:], w.fresh, 0
	case b == CompareApart && cmd.Op == copyset.OpCompareAndWrite:
		n := cmd.Length
		dst := make([]byte, n)
		a := &multiraft.Access{Initiator: cmd.Initiator, Fence: cmd.Fence, Access: cmd.Access}
		if _, r := g.Read(cmd.Chunk, cmd.Offset, dst, nil, a); r.Status != multiraft.Done || r.Outcome.Code != copyset.OK {
			return r
		}
		for i := range dst {
			if dst[i] != cmd.Payload[i] {
				return multiraft.Reply{Status: multiraft.Done, Outcome: copyset.Outcome{Code: copyset.Miscompare, Offset: uint32(i)}}
			}
		}
		w.Sleep(latency)
		cmd.Op, cmd.Payload = copyset.OpWrite, cmd.Payload[n:]
	}
	r := l.proposeOnce(g, cmd)
	switch b {
	case BlocksReusedEarly:
		l.giveBack(g.ID())
	case ReplicaChanged:
		if cs, err := l.store.Copyset(g.ID()); err == nil && l.node.disk.IntN(16) == 0 {
			_ = cs.Write(cmd.Chunk, 0, make([]byte, layout.BlockSize), nil) // on a store that works
		}
	}
	return r
}

// giveBack gives the blocks back that entries of the log hold.
func (l *life) giveBack(id layout.CopysetID) {
	lg, ok := l.log.Group(id)
	if !ok {
		return
	}
	first, err1 := lg.FirstIndex()
	last, err2 := lg.LastIndex()
	if err1 != nil || err2 != nil {
		return
	}
	if l.given == nil {
		l.given = map[layout.CopysetID]uint64{}
	}
	for i := max(first, l.given[id]+1); i <= last; i++ {
		if term, err := lg.Term(i); err == nil {
			l.store.ReleaseBlocks(sideload.BlocksOf(lg.Extents(i, term)))
		}
		l.given[id] = i
	}
}

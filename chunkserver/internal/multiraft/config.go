package multiraft

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/lease"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/quiet"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// Message is one raft message between two chunkservers.
type Message struct {
	Copyset layout.CopysetID
	// Raft is shared and must not be changed; nil in a beat.
	Raft *raftpb.Message
	// Stamp carries the read lease; 0 for none.
	Stamp lease.Stamp
	// Quiet, in a message of copyset 0 that has no Raft, is a beat. With a heartbeat it asks the follower to go quiet, with the answer
	// it says that the follower does; 0 for neither. See package quiet.
	Quiet quiet.Incarnation
}

// Transport carries messages to other chunkservers. It may lose, delay, repeat and reorder them.
type Transport interface {
	// Send queues messages and does not block. It keeps the slice's elements but not the slice.
	Send(to layout.ChunkserverID, msgs []Message)
	// Install sends an image with its MsgSnap and returns when the other side has installed or refused it. It adds the
	// bytes that have gone to sent.
	Install(ctx context.Context, to layout.ChunkserverID, m Message, im *blockstore.Image, sent *atomic.Int64) error
	// ReadBlocks reads whole blocks of another peer's replica that has applied at least the index given. It returns
	// the index behind which no entry is in the data.
	ReadBlocks(ctx context.Context, to layout.ChunkserverID, id layout.CopysetID, ch layout.ChunkID, off, length uint32, applied uint64) ([]byte, uint64, error)
}

// Config configures a Host. Default gives the values for production.
type Config struct {
	// Self is this chunkserver. Required.
	Self layout.ChunkserverID
	// Log, Store and Transport are borrowed until Run returns. Required.
	Log       *raftlog.Log
	Store     *blockstore.Store
	Transport Transport
	// FS and Dir are where the list of peers is kept. Required.
	FS  vfs.FS
	Dir string
	// Logger may be nil.
	Logger *zap.Logger
	// Workers drive the raft nodes, Appliers apply entries. 0: GOMAXPROCS.
	Workers, Appliers int
	// Tick is raft's clock. ElectionTicks is after how many ticks without a leader a follower campaigns, at the
	// earliest; a leader sends heartbeats each HeartbeatTicks.
	Tick                          time.Duration
	ElectionTicks, HeartbeatTicks int
	// QuietTicks is after how many ticks without reads and writes a group may go quiet, at least ElectionTicks. 0: never.
	QuietTicks int
	// DriftPercent is by how much the clocks of two chunkservers may differ in speed; the read lease is shorter by it.
	DriftPercent int
	// MessageBytes bounds the entries in one MsgApp; InflightMessages and InflightBytes those on their way to one peer.
	MessageBytes     uint64
	InflightMessages int
	InflightBytes    uint64
	// ProposalsMax and ProposalBytesMax bound the proposals of one group that wait for their outcome, TotalBytesMax
	// those of all groups, in bytes. What is above is answered Busy.
	ProposalsMax     int
	ProposalBytesMax int64
	TotalBytesMax    int64
	// A group is checkpointed CheckpointEvery after its first change since the last one, or when its log grew by
	// CheckpointBytes, or when it keeps the log's oldest segment and the log has more than SegmentsMax.
	CheckpointEvery time.Duration
	CheckpointBytes int64
	SegmentsMax     int
	// TailEntries and TailBytes are what a checkpoint leaves in the log for followers that lag.
	TailEntries uint64
	TailBytes   int64
	// SnapshotsMax bounds the images sent at a time.
	SnapshotsMax int
	// SpaceMargin is the free space, in bytes above the store's reserve, below which writes are answered NoSpace
	// before they are proposed. What followers may not have room for, because their disks are fuller, blocks them.
	SpaceMargin int64
	// Digest gets a frozen view of a replica that applied a digest entry, owns it from then on, and must not block; nil: nobody
	// wants it.
	Digest func(layout.CopysetID, layout.PeerID, *blockstore.Image)
	// Clock is monotonic, from any origin. nil: the time since New.
	Clock func() time.Duration
	// Mistake is built in to see that a simulation finds it; none for production.
	Mistake lease.Mistake
	// Scheduler runs the goroutines. nil: Go's runtime. With another one, Workers and Appliers do not depend on the machine.
	Scheduler sched.Scheduler
}

// Default returns the configuration for production, less what is required.
func Default() Config {
	return Config{
		Workers: runtime.GOMAXPROCS(0), Appliers: runtime.GOMAXPROCS(0),
		Tick: 100 * time.Millisecond, ElectionTicks: 8, HeartbeatTicks: 2, QuietTicks: 100, DriftPercent: 10,
		MessageBytes: 1 << 20, InflightMessages: 1024, InflightBytes: 32 << 20,
		ProposalsMax: 4096, ProposalBytesMax: 64 << 20, TotalBytesMax: 256 << 20,
		CheckpointEvery: 30 * time.Second, CheckpointBytes: 128 << 20, SegmentsMax: 16,
		TailEntries: 1024, TailBytes: 16 << 20, SnapshotsMax: 2, SpaceMargin: 256 << 20,
	}
}

// Validate reports the first field that is missing or out of its range.
func (c *Config) Validate() error {
	switch {
	case c.Self == 0 || c.Log == nil || c.Store == nil || c.Transport == nil || c.FS == nil || c.Dir == "":
		return errors.New("multiraft: Self, Log, Store, Transport, FS and Dir are required")
	case c.Workers < 1 || c.Appliers < 1:
		return fmt.Errorf("multiraft: %d workers, %d appliers", c.Workers, c.Appliers)
	case c.Tick <= 0 || c.HeartbeatTicks < 1 || c.ElectionTicks < 3 || c.ElectionTicks <= 2*c.HeartbeatTicks:
		return fmt.Errorf("multiraft: tick %v, election %d, heartbeat %d", c.Tick, c.ElectionTicks, c.HeartbeatTicks)
	case c.QuietTicks != 0 && c.QuietTicks < c.ElectionTicks:
		return fmt.Errorf("multiraft: quiet after %d ticks: who was told to ask again finds it quiet again", c.QuietTicks)
	case c.DriftPercent < 0 || c.DriftPercent > 50:
		return fmt.Errorf("multiraft: drift %d%%", c.DriftPercent)
	case c.InflightMessages < 1 || c.MessageBytes < 1 || c.InflightBytes < c.MessageBytes:
		return fmt.Errorf("multiraft: %d messages of %d bytes in flight, %d bytes at most", c.InflightMessages, c.MessageBytes, c.InflightBytes)
	case c.ProposalsMax < 1 || c.ProposalBytesMax < 1 || c.TotalBytesMax < 1:
		return errors.New("multiraft: proposal limits")
	case c.CheckpointEvery <= 0 || c.CheckpointBytes < 1 || c.SegmentsMax < 1 || c.SnapshotsMax < 1:
		return errors.New("multiraft: checkpoint limits")
	}
	return nil
}

// leaseLength is how long a lease is valid after the stamps that a quorum answered.
func (c *Config) leaseLength() time.Duration {
	return lease.Length(c.Tick, c.ElectionTicks, c.DriftPercent)
}

// Status says how a proposal or read ended.
type Status uint8

// The statuses.
const (
	// Done: the replicated state decided; Reply.Outcome says what.
	Done Status = iota
	// NotLeader: another chunkserver leads; nothing was proposed.
	NotLeader
	// NotReady: this leader has no lease, or has not applied an entry of its term; or a proposal's fate is open because
	// leadership was lost: ask again.
	NotReady
	// Behind: the request's fence or access generation is newer than the copyset's and has to be raised first.
	Behind
	// Busy: a limit is reached, or leadership is being handed over; nothing was proposed.
	Busy
	// NoSpace: the disk is full.
	NoSpace
	// Damaged: Reply.Err is a *blockstore.ChecksumError.
	Damaged
	// Failed: the group or its disk failed; Reply.Err says why.
	Failed
	// Invalid: the request is out of range.
	Invalid
)

// Reply is the answer to a proposal or read.
type Reply struct {
	Status  Status
	Outcome copyset.Outcome
	// Leader is who leads, when Status is NotLeader; 0 if not known.
	Leader layout.ChunkserverID
	Err    error
}

// Errors of Host.
var (
	// ErrNoGroup means that there is no such copyset, or the peer of it here is another one.
	ErrNoGroup = errors.New("multiraft: no such peer")
	// ErrExists means that another peer of the copyset is here.
	ErrExists = errors.New("multiraft: the copyset has another peer here")
	// ErrRemoved means that this very peer was here once and was removed: it never comes back under its id.
	ErrRemoved = errors.New("multiraft: the peer was removed")
	// ErrDistrusted means that the replica does not hold what a majority of the others holds.
	ErrDistrusted = errors.New("multiraft: the replica differs from the others")
	// ErrStopped means that the host stops.
	ErrStopped = sched.ErrStopped
	// ErrNotLeader means that the order is for the leader.
	ErrNotLeader = errors.New("multiraft: not the leader")
)

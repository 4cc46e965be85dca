package multiraft

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/checkpoint"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/groupcommit"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/headroom"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peerlist"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/proposals"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/quiet"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sideload"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Host is the raft groups of one chunkserver.
type Host struct {
	cfg   Config
	log   *zap.Logger
	clock *sched.Clock
	peers *peerlist.List

	workers     []*worker
	appliers    []*applier
	writer      *groupcommit.Writer
	checkpoints *checkpoint.Checkpointer[*Group]
	pulse       *quiet.Pulse
	repairs     *repairer
	images      chan imageJob
	stopped     chan struct{} // closed when Run has stopped everything

	orders sync.Mutex // one creation or removal at a time; held across I/O
	groups atomic.Pointer[groupSet]

	nextProposal atomic.Uint64
	proposed     proposals.Total
	inbox        atomic.Int64 // bytes of entries that came in and that no worker has taken
	receiving    atomic.Int64
	repaired     atomic.Int64
	room         headroom.Gate
	failure      atomic.Pointer[error]
}

// groupSet is the peers here, also in the order of their copysets. It is not changed.
type groupSet struct {
	byID map[layout.CopysetID]*Group
	all  []*Group
}

// New recovers the groups of the disk. Nothing runs before Run.
func New(cfg Config) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg, log: cfg.Logger, clock: sched.NewClock(cfg.Scheduler), stopped: make(chan struct{}),
		images: make(chan imageJob, imageQueueMax),
	}
	if h.log == nil {
		h.log = zap.NewNop()
	}
	var base [8]byte
	_, _ = rand.Read(base[:]) // never fails
	h.nextProposal.Store(binary.LittleEndian.Uint64(base[:]))
	_, _ = rand.Read(base[:])
	h.pulse = quiet.NewPulse(quiet.Incarnation(binary.LittleEndian.Uint64(base[:])), cfg.HeartbeatTicks, cfg.ElectionTicks)
	for range cfg.Workers {
		h.workers = append(h.workers, newWorker(h))
	}
	for range cfg.Appliers {
		h.appliers = append(h.appliers, newApplier(h))
	}
	h.writer, h.checkpoints = h.newWriter(), h.newCheckpointer()
	h.repairs = &repairer{host: h, jobs: make(chan repairJob, repairQueueMax)}
	h.groups.Store(&groupSet{})
	var err error
	if h.peers, err = peerlist.Open(cfg.FS, cfg.Dir); err != nil {
		return nil, err
	}
	side := sideload.New(cfg.Store)
	if err := cfg.Log.Attach(side, side.Hold); err != nil {
		return nil, err
	}
	if err := h.recover(); err != nil {
		return nil, err
	}
	return h, nil
}

// now is the host's monotonic clock; it is never 0.
func (h *Host) now() time.Duration {
	if h.cfg.Clock != nil {
		return h.cfg.Clock()
	}
	return h.clock.Now()
}

// event tells of a change of state.
func (h *Host) event(what string, g *Group, err error) {
	fields := make([]zap.Field, 0, 3)
	if g != nil {
		fields = append(fields, zap.Uint64("copyset", uint64(g.id)), zap.Uint64("peer", uint64(g.peer)))
	}
	if err != nil {
		h.log.Warn(what, append(fields, zap.Error(err))...)
		return
	}
	h.log.Info(what, fields...)
}

// fail stops all groups: the disk can not be trusted any more.
func (h *Host) fail(err error) {
	if !h.failure.CompareAndSwap(nil, &err) {
		return
	}
	h.log.Error("disk failed", zap.Error(err))
	for _, g := range h.groups.Load().all {
		g.w.post(event{g: g, kind: evFail, err: err})
	}
}

func (h *Host) failedErr() error {
	if e := h.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// Err returns why the disk failed, or nil.
func (h *Host) Err() error { return h.failedErr() }

// Repaired returns how many damaged blocks were repaired from other peers since New.
func (h *Host) Repaired() int64 { return h.repaired.Load() }

// Group returns the copyset's peer here, or nil.
func (h *Host) Group(id layout.CopysetID) *Group { return h.groups.Load().byID[id] }

// Groups returns all peers here. The map is not to be changed.
func (h *Host) Groups() map[layout.CopysetID]*Group { return h.groups.Load().byID }

// setGroup changes the map; nil removes. Under orders.
func (h *Host) setGroup(id layout.CopysetID, g *Group) {
	s := &groupSet{byID: map[layout.CopysetID]*Group{id: g}}
	for _, other := range h.groups.Load().all {
		if other.id != id {
			s.byID[other.id] = other
			s.all = append(s.all, other)
		}
	}
	if g == nil {
		delete(s.byID, id)
	} else {
		s.all = insert(s.all, g)
	}
	h.groups.Store(s)
}

// inboxMax bounds the bytes of entries that wait for the workers; what comes above is dropped, and raft sends it again.
const inboxMax = 512 << 20

// payload is what a message counts against inboxMax.
func payload(m *raftpb.Message) (n int64) {
	for _, e := range m.GetEntries() {
		n += int64(len(e.GetData()))
	}
	return n
}

// Deliver takes messages that came from another chunkserver. Their contents belong to the host from now on.
func (h *Host) Deliver(from layout.ChunkserverID, msgs []Message) {
	groups := h.groups.Load()
	for _, m := range msgs {
		if m.Copyset == 0 && m.Quiet != 0 {
			h.beaten(from, m.Quiet)
			continue
		}
		if g := groups.byID[m.Copyset]; g != nil {
			if n := payload(m.Raft); n > 0 && h.inbox.Add(n) > inboxMax {
				h.inbox.Add(-n)
				continue
			}
			g.w.post(event{g: g, kind: evMessage, msg: m.Raft, stamp: m.Stamp, quiet: m.Quiet, from: from})
		}
	}
}

// Unreachable tells that messages to the chunkserver were lost, so that leaders send carefully until it answers.
func (h *Host) Unreachable(cs layout.ChunkserverID) {
	for _, g := range h.groups.Load().all {
		if g.leading.Load() && !g.quiet() {
			g.w.post(event{g: g, kind: evUnreachable, from: cs})
		}
	}
}

// Run serves until ctx ends; see the package comment for the order in which it stops.
func (h *Host) Run(ctx context.Context) error {
	first, second, third := h.clock.NewTasks(), h.clock.NewTasks(), h.clock.NewTasks()
	for _, w := range h.workers {
		first.Run(w.Run)
	}
	first.Run(h.runPulse)
	second.Run(h.writer.Run)
	for _, a := range h.appliers {
		second.Run(a.Run)
	}
	third.Run(h.checkpoints.Run)
	third.Run(h.repairs.Run)
	for range h.cfg.SnapshotsMax {
		third.Run(h.runImages)
	}
	h.clock.Done(ctx)
	first.Stop()
	second.Stop()
	third.Stop()
	close(h.stopped)
	for _, w := range h.workers {
		w.close()
	}
	for _, g := range h.groups.Load().all {
		g.failure.CompareAndSwap(nil, new(ErrStopped))
		g.lease.Store(0)
		g.abandon(g.notLeader(), true)
		g.offers.Drop()
	}
	for {
		select {
		case j := <-h.images:
			j.im.Close()
		default:
			return nil
		}
	}
}

// insert puts a group in its place.
func insert(all []*Group, g *Group) []*Group {
	at, _ := slices.BinarySearchFunc(all, g.id, func(o *Group, id layout.CopysetID) int { return cmp.Compare(o.id, id) })
	return slices.Insert(all, at, g)
}

// without takes a group out.
func without(all []*Group, g *Group) []*Group {
	return slices.DeleteFunc(all, func(o *Group) bool { return o == g })
}

func (h *Host) workerOf(id layout.CopysetID) *worker {
	return h.workers[mix(uint64(id))%uint64(len(h.workers))]
}

func (h *Host) applierOf(id layout.CopysetID) *applier {
	return h.appliers[mix(uint64(id))%uint64(len(h.appliers))]
}

// mix spreads numbers that are close to each other.
func mix(v uint64) uint64 {
	v *= 0x9e3779b97f4a7c15
	return v ^ v>>32
}

func (h *Host) String() string { return fmt.Sprintf("chunkserver %d", h.cfg.Self) }

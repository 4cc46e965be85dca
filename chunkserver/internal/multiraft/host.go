package multiraft

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/groupcommit"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peerlist"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sideload"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Host is the raft groups of one chunkserver.
type Host struct {
	cfg   Config
	log   *zap.Logger
	start time.Time
	peers *peerlist.List

	workers     []*worker
	appliers    []*applier
	writer      *groupcommit.Writer
	checkpoints *checkpointer
	repairs     *repairer
	images      chan imageJob
	stopped     chan struct{} // closed when Run has stopped everything

	orders sync.Mutex // one creation or removal at a time; held across I/O
	groups atomic.Pointer[map[layout.CopysetID]*Group]

	nextProposal atomic.Uint64
	pendingBytes atomic.Int64
	inbox        atomic.Int64 // bytes of entries that came in and that no worker has taken
	receiving    atomic.Int64
	repaired     atomic.Int64
	spaceLow     atomic.Bool
	failure      atomic.Pointer[error]
}

// New recovers the groups of the disk. Nothing runs before Run.
func New(cfg Config) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg, log: cfg.Logger, start: time.Now(), stopped: make(chan struct{}),
		images: make(chan imageJob, imageQueueMax),
	}
	if h.log == nil {
		h.log = zap.NewNop()
	}
	var base [8]byte
	_, _ = rand.Read(base[:]) // never fails
	h.nextProposal.Store(binary.LittleEndian.Uint64(base[:]))
	for range cfg.Workers {
		h.workers = append(h.workers, newWorker(h))
	}
	for range cfg.Appliers {
		h.appliers = append(h.appliers, newApplier(h))
	}
	h.writer, h.checkpoints = h.newWriter(), newCheckpointer(h)
	h.repairs = &repairer{host: h, jobs: make(chan repairJob, repairQueueMax)}
	h.groups.Store(&map[layout.CopysetID]*Group{})
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
	return time.Since(h.start) + 1
}

// pause waits d, or returns why not.
func (h *Host) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.stopped:
		return ErrStopped
	}
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
	for _, g := range h.Groups() {
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
func (h *Host) Group(id layout.CopysetID) *Group { return (*h.groups.Load())[id] }

// Groups returns all peers here. The map is not to be changed.
func (h *Host) Groups() map[layout.CopysetID]*Group { return *h.groups.Load() }

// setGroup changes the map; nil removes. Under orders.
func (h *Host) setGroup(id layout.CopysetID, g *Group) {
	m := maps.Clone(*h.groups.Load())
	if m[id] = g; g == nil {
		delete(m, id)
	}
	h.groups.Store(&m)
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
	groups := *h.groups.Load()
	for _, m := range msgs {
		if g := groups[m.Copyset]; g != nil {
			if n := payload(m.Raft); n > 0 && h.inbox.Add(n) > inboxMax {
				h.inbox.Add(-n)
				continue
			}
			g.w.post(event{g: g, kind: evMessage, msg: m.Raft, stamp: m.Stamp, from: from})
		}
	}
}

// Unreachable tells that messages to the chunkserver were lost, so that leaders send carefully until it answers.
func (h *Host) Unreachable(cs layout.ChunkserverID) {
	for _, g := range h.Groups() {
		if g.leading.Load() {
			g.w.post(event{g: g, kind: evUnreachable, from: cs})
		}
	}
}

// Run serves until ctx ends; see the package comment for the order in which it stops.
func (h *Host) Run(ctx context.Context) error {
	var first, second, third stage
	for _, w := range h.workers {
		first.run(w.Run)
	}
	second.run(h.writer.Run)
	for _, a := range h.appliers {
		second.run(a.Run)
	}
	third.run(h.checkpoints.Run)
	third.run(h.repairs.Run)
	for range h.cfg.SnapshotsMax {
		third.run(h.runImages)
	}
	<-ctx.Done()
	first.stop()
	second.stop()
	third.stop()
	close(h.stopped)
	for _, w := range h.workers {
		w.close()
	}
	for _, g := range h.Groups() {
		g.failure.CompareAndSwap(nil, new(ErrStopped))
		g.lease.Store(0)
		g.abandon(g.notLeader(), ErrStopped)
		g.offers.drop()
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

// stage is goroutines that are stopped together.
type stage struct {
	wg     sync.WaitGroup
	cancel []context.CancelFunc
}

func (s *stage) run(f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = append(s.cancel, cancel)
	s.wg.Go(func() { f(ctx) })
}

func (s *stage) stop() {
	for _, cancel := range s.cancel {
		cancel()
	}
	s.wg.Wait()
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

//go:build e2e

package disks

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/chunkserver"
	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// site is a metaserver with real chunkservers in this process, each on a disk in memory that can be made to fail, and
// somebody who writes and reads all the time.
type site struct {
	t      *testing.T
	client *metaclient.Client
	nodes  []*siteNode
	router *chunkclient.Router

	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	ops    []siteOp
	wrong  []string
}

// siteOp is an operation that has ended.
type siteOp struct {
	begin, end time.Time
	copyset    layout.CopysetID
}

// siteNode is a chunkserver.
type siteNode struct {
	id    uint64
	cfg   chunkserver.Config
	mem   *vfs.Mem
	fault atomic.Pointer[vfs.Injector] // what is wrong with the disk, nil: nothing
	// refused is when the disk first failed an operation since breaks, noticed when the chunkserver counted it as failed.
	refused, noticed atomic.Pointer[time.Time]
	metrics          *prometheus.Registry
	server           *chunkserver.Server
	cancel           context.CancelFunc
	done             chan error
}

// breaks gives the disk a fault; nil takes it away.
func (n *siteNode) breaks(f vfs.Injector) {
	n.refused.Store(nil)
	n.noticed.Store(nil)
	n.fault.Store(&f)
	if f == nil {
		n.fault.Store(nil)
	}
}

func (n *siteNode) inject(op vfs.Op) vfs.Fault {
	f := n.fault.Load()
	if f == nil {
		return vfs.Fault{}
	}
	out := (*f)(op)
	if out.Err != nil {
		n.refused.CompareAndSwap(nil, new(time.Now()))
	}
	return out
}

// leads returns how many copysets are led on a chunkserver, as it knows itself.
func (n *siteNode) leads() int {
	all, err := n.metrics.Gather()
	if err != nil {
		return 0
	}
	for _, f := range all {
		if strings.HasSuffix(f.GetName(), "_leaders") {
			return int(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	return 0
}

// newSite starts a cluster of so many chunkservers, each in a zone of its own, with a load on all copysets.
func newSite(t *testing.T, name string, chunkservers int) *site {
	t.Helper()
	address := startMeta(t, name)
	client, err := metaclient.Dial([]string{address}, metaclient.Options{AttemptTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	s := &site{t: t, client: client}
	for i := range chunkservers {
		n := &siteNode{cfg: chunkserver.Default(), mem: vfs.NewMem()}
		n.cfg.Dir, n.cfg.Listen, n.cfg.Metaservers = t.TempDir(), freeAddress(t), []string{address}
		n.cfg.Zone, n.cfg.Server, n.cfg.CheckpointEvery = string('a'+rune(i)), string('a'+rune(i)), 500*time.Millisecond
		n.cfg.Capacity, n.cfg.Reserve = 4<<30, 64<<20
		s.nodes = append(s.nodes, n)
		s.start(n)
	}
	t.Cleanup(func() {
		for _, n := range s.nodes {
			s.halt(n)
		}
	})
	eventually(t, "copysets with leaders on all", func() bool {
		all := s.copysets()
		return len(all) > 0 && !slices.ContainsFunc(all, func(c *metav1.Copyset) bool { return c.GetLeader() == 0 })
	})
	s.begin()
	// The logs make their spares.
	for end := time.Now().Add(settleMax); time.Now().Before(end); {
		since := time.Now()
		time.Sleep(time.Second)
		if all, served := s.took(since, true); served == len(s.copysets()) && all[len(all)-1] < settled {
			break
		}
	}
	return s
}

// A cluster that has just started is settled when no operation of a second took longer, at the latest after settleMax.
const settled, settleMax = 50 * time.Millisecond, 15 * time.Second

// start starts a chunkserver and learns its id.
func (s *site) start(n *siteNode) {
	s.t.Helper()
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.ErrorLevel)
	log := zap.New(core)
	if testing.Verbose() {
		log, _ = zap.NewDevelopment(zap.AddStacktrace(zap.FatalLevel))
	}
	log = log.WithOptions(zap.Hooks(func(e zapcore.Entry) error {
		if e.Message == "disk failed" {
			n.noticed.CompareAndSwap(nil, new(e.Time))
		}
		return nil
	}))
	n.metrics = prometheus.NewRegistry()
	var err error
	opts := chunkserver.Options{FS: vfs.NewFault(n.mem, n.inject), Log: log, Registry: n.metrics}
	if n.server, err = chunkserver.New(n.cfg, opts); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan error, 1)
	go func() { n.done <- n.server.Run(ctx) }()
	select {
	case <-n.server.Started():
	case err := <-n.done:
		s.t.Fatal(err)
	case <-time.After(20 * time.Second):
		s.t.Fatal("a chunkserver does not start")
	}
	for _, c := range s.chunkservers() {
		if c.GetAddress() == n.server.Address() {
			n.id = c.GetId()
		}
	}
}

// halt ends a chunkserver and returns how Run ended.
func (s *site) halt(n *siteNode) error {
	if n.cancel == nil {
		return nil
	}
	n.cancel()
	n.cancel = nil
	select {
	case err := <-n.done:
		return err
	case <-time.After(20 * time.Second):
		s.t.Errorf("chunkserver %d does not stop", n.id)
		return nil
	}
}

func (s *site) chunkservers() []*metav1.Chunkserver {
	r, err := s.client.Admin().ListChunkservers(context.Background(), &metav1.ListChunkserversRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetChunkservers()
}

func (s *site) chunkserver(id uint64) *metav1.Chunkserver {
	all := s.chunkservers()
	return all[slices.IndexFunc(all, func(c *metav1.Chunkserver) bool { return c.GetId() == id })]
}

func (s *site) copysets() []*metav1.Copyset {
	r, err := s.client.Admin().ListCopysets(context.Background(), &metav1.ListCopysetsRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetCopysets()
}

func (s *site) problems() []string {
	r, err := s.client.Admin().ClusterStatus(context.Background(), &metav1.ClusterStatusRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetProblems()
}

// busiest returns the chunkserver that leads the most.
func (s *site) busiest() *siteNode {
	var best uint64
	var leads uint32
	for _, c := range s.chunkservers() {
		if c.GetLeaders() > leads {
			best, leads = c.GetId(), c.GetLeaders()
		}
	}
	i := slices.IndexFunc(s.nodes, func(n *siteNode) bool { return n.id == best })
	if i < 0 {
		s.t.Fatal("nobody leads")
	}
	return s.nodes[i]
}

// direct tells the router where copysets are.
func (s *site) direct() {
	d := chunkclient.Directory{Members: map[layout.CopysetID][]layout.ChunkserverID{}, Addresses: map[layout.ChunkserverID]string{}}
	for _, c := range s.chunkservers() {
		d.Addresses[layout.ChunkserverID(c.GetId())] = c.GetAddress()
	}
	for _, c := range s.copysets() {
		for _, p := range c.GetPeers() {
			d.Members[layout.CopysetID(c.GetId())] = append(d.Members[layout.CopysetID(c.GetId())], layout.ChunkserverID(p.GetChunkserver()))
		}
	}
	s.router.SetDirectory(d)
}

// siteWriters is how many write and read at a time on each copyset.
const siteWriters = 2

// begin starts the load.
func (s *site) begin() {
	r, err := s.client.Admin().ClusterStatus(context.Background(), &metav1.ClusterStatusRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	var cluster [16]byte
	if _, err := fmt.Sscanf(r.GetClusterId(), "%x", new([]byte)); err != nil {
		s.t.Fatal(err)
	}
	for i := range cluster {
		if _, err := fmt.Sscanf(r.GetClusterId()[2*i:2*i+2], "%02x", &cluster[i]); err != nil {
			s.t.Fatal(err)
		}
	}
	s.router = chunkclient.NewRouter(chunkclient.Options{Cluster: cluster[:]})
	s.direct()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() {
		loaded := map[uint64]bool{} // more copysets are made when a chunkserver came late
		for tick := time.NewTicker(200 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			s.direct()
			for _, c := range s.copysets() {
				for w := range siteWriters {
					if !loaded[c.GetId()] {
						s.wg.Go(func() { s.write(ctx, layout.CopysetID(c.GetId()), layout.InitiatorID(w+1)) })
					}
				}
				loaded[c.GetId()] = true
			}
		}
	})
	s.t.Cleanup(func() { s.end(); s.router.Close() })
}

// end stops the load and tells what was wrong with it.
func (s *site) end() {
	s.cancel()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wrong {
		s.t.Error(w)
	}
	s.wrong = nil
}

// write writes blocks of a copyset, and reads each of them after the next one was written.
func (s *site) write(ctx context.Context, id layout.CopysetID, who layout.InitiatorID) {
	data, before, got := make([]byte, layout.BlockSize), make([]byte, layout.BlockSize), make([]byte, layout.BlockSize)
	q := chunkclient.Request{
		Copyset: id, Chunk: layout.ChunkID{Volume: 9, Index: uint32(who)}, Length: layout.BlockSize, Initiator: who,
		Fence: layout.Fence{Epoch: 1}, AccessGeneration: 1,
	}
	for seq := layout.Seq(1); ctx.Err() == nil; seq++ {
		for i := 0; i < len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], uint64(seq)<<16|uint64(who))
		}
		w := q
		w.Op, w.Seq, w.LowWater, w.Offset, w.Data = chunkclient.Write, seq, seq, uint32(seq%256)*layout.BlockSize, data
		w.CRCs = layout.AppendCRCs(nil, data, 0)
		s.do(ctx, &w, nil)
		if seq > 1 {
			r := q
			r.Op, r.Offset = chunkclient.Read, uint32((seq-1)%256)*layout.BlockSize
			if s.do(ctx, &r, got) && !bytes.Equal(got, before) {
				s.fault("copyset %d, block %d: %x…, want %x…", id, (seq-1)%256, got[:8], before[:8])
			}
		}
		copy(before, data)
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *site) do(ctx context.Context, q *chunkclient.Request, dst []byte) bool {
	op := siteOp{begin: time.Now(), copyset: q.Copyset}
	r, err := s.router.Do(ctx, q, dst)
	op.end = time.Now()
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil || r.Status != chunkclient.OK:
		s.fault("operation %d of copyset %d: status %d %s, %v", q.Op, q.Copyset, r.Status, r.Message, err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = append(s.ops, op)
	return true
}

func (s *site) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) < 20 {
		s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
	}
}

// times returns the longest operation and the p99 of those that ended since then, or that began then at the earliest when
// fresh is set. Every copyset must have served.
func (s *site) times(since time.Time, fresh bool) (longest, p99 time.Duration) {
	s.t.Helper()
	all, served := s.took(since, fresh)
	if len(all) == 0 || served != len(s.copysets()) {
		s.t.Fatalf("%d operations on %d copysets", len(all), served)
	}
	return all[len(all)-1], all[len(all)*99/100]
}

// took returns how long those operations took, sorted, and on how many copysets they were.
func (s *site) took(since time.Time, fresh bool) (all []time.Duration, copysets int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	served := map[layout.CopysetID]bool{}
	for _, op := range s.ops {
		if op.end.After(since) && (!fresh || op.begin.After(since)) {
			all = append(all, op.end.Sub(op.begin))
			served[op.copyset] = true
		}
	}
	slices.Sort(all)
	return all, len(served)
}

// between returns the longest operation that began before until and ended after since.
func (s *site) between(since, until time.Time) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range s.ops {
		if op.end.After(since) && op.begin.Before(until) {
			longest = max(longest, op.end.Sub(op.begin))
		}
	}
	return longest
}

// failover is how the leaders moved away from a disk that failed.
type failover struct {
	// refused is when the first operation of the disk failed, led when all copysets were led by others.
	refused, led time.Time
	// noticed is how long it took from the first to the moment when the chunkserver counted its disk as failed, elected from
	// there until all copysets were led by others.
	noticed, elected time.Duration
}

// failover waits until a chunkserver whose disk was just broken leads nothing and others lead everything.
func (s *site) failover(n *siteNode, copysets int) failover {
	s.t.Helper()
	var f failover
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("nobody leads in place of a failed disk")
		}
		noticed := n.noticed.Load()
		if noticed == nil {
			continue
		}
		leads := 0
		for _, other := range s.nodes {
			if other != n {
				leads += other.leads()
			}
		}
		if leads >= copysets {
			f.refused, f.led = *n.refused.Load(), time.Now()
			f.noticed = noticed.Sub(f.refused)
			f.elected = f.led.Sub(*noticed)
			return f
		}
	}
}

// whole tells whether each copyset has three voters that work, none of them on one of those.
func (s *site) whole(not ...uint64) bool {
	r, err := s.client.Admin().ClusterStatus(context.Background(), &metav1.ClusterStatusRequest{})
	if err != nil || r.GetCopysetsDegraded() != 0 || r.GetCopysetsWithoutQuorum() != 0 {
		return false
	}
	for _, c := range s.copysets() {
		if len(c.GetPeers()) != 3 || c.GetOperation() != nil {
			return false
		}
		for _, p := range c.GetPeers() {
			if p.GetRole() != metav1.PeerRole_PEER_ROLE_VOTER || slices.Contains(not, p.GetChunkserver()) {
				return false
			}
		}
	}
	return true
}

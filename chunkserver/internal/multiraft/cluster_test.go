package multiraft

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testCopyset = layout.CopysetID(7)
	testTick    = 20 * time.Millisecond
)

// network joins the hosts of a test.
type network struct {
	mu struct {
		sync.Mutex
		hosts map[layout.ChunkserverID]*Host
		cut   map[[2]layout.ChunkserverID]bool
		drop  float64
		twice bool // messages come twice
		rng   *rand.Rand
	}
}

func newNetwork() *network {
	n := &network{}
	n.mu.hosts = map[layout.ChunkserverID]*Host{}
	n.mu.cut = map[[2]layout.ChunkserverID]bool{}
	n.mu.rng = rand.New(rand.NewPCG(1, 2))
	return n
}

func (n *network) to(from, to layout.ChunkserverID) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.cut[[2]layout.ChunkserverID{from, to}] || n.mu.drop > 0 && n.mu.rng.Float64() < n.mu.drop {
		return nil
	}
	return n.mu.hosts[to]
}

func (n *network) set(id layout.ChunkserverID, h *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.hosts[id] = h
}

// isolate cuts or joins a chunkserver.
func (n *network) isolate(id layout.ChunkserverID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range layout.ChunkserverID(9) {
		n.mu.cut[[2]layout.ChunkserverID{id, other}] = cut
		n.mu.cut[[2]layout.ChunkserverID{other, id}] = cut
	}
}

// cut cuts or joins one direction.
func (n *network) cut(from, to layout.ChunkserverID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.cut[[2]layout.ChunkserverID{from, to}] = cut
}

func (n *network) setTwice() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.twice = true
}

// copies is how often a message comes.
func (n *network) copies() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.twice {
		return 2
	}
	return 1
}

func (n *network) setDrop(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.drop = p
}

// port is one host's way into the network.
type port struct {
	n    *network
	self layout.ChunkserverID
}

func (p *port) Send(to layout.ChunkserverID, msgs []Message) {
	for _, m := range msgs {
		if h := p.n.to(p.self, to); h != nil {
			for range p.n.copies() {
				c := proto.Clone(m.Raft).(*raftpb.Message)
				h.Deliver(p.self, []Message{{Copyset: m.Copyset, Raft: c, Stamp: m.Stamp, Quiet: m.Quiet}})
			}
		}
	}
}

func (p *port) Install(ctx context.Context, to layout.ChunkserverID, m Message, im *blockstore.Image, sent *atomic.Int64) error {
	h := p.n.to(p.self, to)
	if h == nil {
		return errors.New("cut off")
	}
	in, err := h.ReceiveImage(Message{Copyset: m.Copyset, Raft: proto.Clone(m.Raft).(*raftpb.Message)})
	if err != nil {
		return err
	}
	k, err := im.WriteTo(in)
	sent.Add(k)
	if err == nil {
		err = in.Finish(ctx)
	}
	in.Close(err == nil)
	return err
}

func (p *port) ReadBlocks(ctx context.Context, to layout.ChunkserverID, id layout.CopysetID, ch layout.ChunkID, off, length uint32, applied uint64) ([]byte, uint64, error) {
	h := p.n.to(p.self, to)
	if h == nil {
		return nil, 0, errors.New("cut off")
	}
	g := h.Group(id)
	if g == nil {
		return nil, 0, ErrNoGroup
	}
	data, _, through, err := g.ReadBlocks(ctx, ch, off, length, applied)
	return data, through, err
}

// server is one chunkserver of a test.
type server struct {
	id    layout.ChunkserverID
	fs    *vfs.Mem
	index *pebblevfs.MemFS
	dir   string // of the log
	log   *raftlog.Log
	store *blockstore.Store
	host  *Host
	// deferred is blockstore's Options.DeferredBytes from the next start on.
	deferred int64
	stop     context.CancelFunc
	done     chan struct{}
}

type cluster struct {
	t       *testing.T
	net     *network
	servers map[layout.ChunkserverID]*server
	tune    func(*Config)
	seq     atomic.Uint64
	// uncached opens logs that keep no entry in memory from now on.
	uncached bool
}

func newCluster(t *testing.T, n int, tune func(*Config)) *cluster {
	c := &cluster{t: t, net: newNetwork(), servers: map[layout.ChunkserverID]*server{}, tune: tune}
	for i := range n {
		id := layout.ChunkserverID(i + 1)
		c.servers[id] = &server{id: id, fs: vfs.NewMem(), index: pebblevfs.NewCrashableMem(), dir: "log"}
		c.start(id)
	}
	t.Cleanup(func() {
		for id := range c.servers {
			c.halt(id)
		}
	})
	return c
}

// start opens a server's disk and runs it.
func (c *cluster) start(id layout.ChunkserverID) {
	c.t.Helper()
	s := c.servers[id]
	var cluster [16]byte
	cluster[0] = 1
	var err error
	logOpts := raftlog.Options{Identity: cluster, SegmentSize: 1 << 20, Spares: 2}
	if c.uncached {
		logOpts.CacheBytes = -1
	}
	if s.log, err = raftlog.Open(s.fs, s.dir, logOpts); err != nil {
		c.t.Fatal(err)
	}
	s.store = s.openStore(c.t)
	cfg := Default()
	cfg.Self, cfg.Log, cfg.Store, cfg.Transport = id, s.log, s.store, &port{c.net, id}
	cfg.FS, cfg.Dir, cfg.Workers, cfg.Appliers = s.fs, "store", 2, 2
	cfg.Tick, cfg.SpaceMargin = testTick, 0
	if c.tune != nil {
		c.tune(&cfg)
	}
	if s.host, err = New(cfg); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		if err := s.host.Run(ctx); err != nil {
			panic(err)
		}
	}()
	c.net.set(id, s.host)
}

func (s *server) openStore(t *testing.T) *blockstore.Store {
	t.Helper()
	opts := blockstore.Options{IndexFS: s.index, GrowStep: 4 << 20, Capacity: 256 << 20, DeferredBytes: s.deferred}
	st, err := blockstore.Open(s.fs, "store", blockstore.Identity{Cluster: [16]byte{1}, Chunkserver: s.id}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// halt stops a server as a crash would: nothing is checkpointed.
func (c *cluster) halt(id layout.ChunkserverID) {
	s := c.servers[id]
	if s.host == nil {
		return
	}
	c.net.set(id, nil)
	s.stop()
	<-s.done
	if err := errors.Join(s.log.Close(), s.store.Close()); err != nil {
		c.t.Error(err)
	}
	s.host = nil
}

func (c *cluster) restart(id layout.ChunkserverID) {
	c.halt(id)
	c.start(id)
}

// found makes the copyset on all servers, peer n×10 on server n.
func (c *cluster) found(ids ...layout.ChunkserverID) {
	c.t.Helper()
	members := map[layout.PeerID]layout.ChunkserverID{}
	for _, id := range ids {
		members[layout.PeerID(id*10)] = id
	}
	for _, id := range ids {
		if err := c.servers[id].host.Found(c.ctx(), testCopyset, layout.PeerID(id*10), members); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *cluster) group(id layout.ChunkserverID) *Group {
	if h := c.servers[id].host; h != nil {
		return h.Group(testCopyset)
	}
	return nil
}

// until waits for a condition.
func (c *cluster) until(what string, f func() bool) {
	c.t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if f() {
			return
		}
	}
	c.t.Fatalf("not in time: %s", what)
}

// leader waits for a leader with a lease among the servers that are not in except.
func (c *cluster) leader(except ...layout.ChunkserverID) layout.ChunkserverID {
	c.t.Helper()
	var found layout.ChunkserverID
	c.until("a leader", func() bool {
		for id := range c.servers {
			g := c.group(id)
			skip := g == nil
			for _, e := range except {
				skip = skip || e == id
			}
			if !skip && g.lease.Load() > int64(c.servers[id].host.now()) {
				found = id
				return true
			}
		}
		return false
	})
	return found
}

type waiter chan Reply

func (w waiter) Done(r Reply) { w <- r }

func (c *cluster) propose(id layout.ChunkserverID, cmd copyset.Command) Reply {
	g := c.group(id)
	if g == nil {
		return Reply{Status: NotLeader}
	}
	w := make(waiter, 1)
	g.Propose(&cmd, w)
	select {
	case r := <-w:
		return r
	case <-time.After(10 * time.Second):
		c.t.Error("no reply")
		return Reply{Status: Failed}
	}
}

var testFence = layout.Fence{Epoch: 1}

func access() *Access { return &Access{Initiator: 5, Fence: testFence, Access: 1} }

// command returns a write of one block filled with v.
func (c *cluster) command(block int, v byte) copyset.Command {
	p := make([]byte, layout.BlockSize)
	for i := range p {
		p[i] = v
	}
	return copyset.Command{
		Op: copyset.OpWrite, Chunk: layout.ChunkID{Volume: 3, Index: 1}, Offset: uint32(block * layout.BlockSize), Length: layout.BlockSize,
		Initiator: 5, Fence: testFence, Access: 1, Seq: layout.Seq(c.seq.Add(1)), CRCs: []uint32{layout.CRC(p)}, Payload: p,
	}
}

// retry repeats a command until it is done, as a client does.
func (c *cluster) retry(cmd copyset.Command) copyset.Outcome {
	c.t.Helper()
	var out copyset.Outcome
	c.until("a command", func() bool {
		for id := range c.servers {
			if r := c.propose(id, cmd); r.Status == Done {
				out = r.Outcome
				return true
			}
		}
		return false
	})
	return out
}

func (c *cluster) read(id layout.ChunkserverID, block int) (byte, Reply) {
	g := c.group(id)
	if g == nil {
		return 0, Reply{Status: NotLeader}
	}
	dst := make([]byte, layout.BlockSize)
	_, r := g.Read(layout.ChunkID{Volume: 3, Index: 1}, uint32(block*layout.BlockSize), dst, nil, access())
	return dst[0], r
}

func (c *cluster) mustRead(block int, want byte) {
	c.t.Helper()
	c.until(fmt.Sprintf("block %d = %d", block, want), func() bool {
		for id := range c.servers {
			got, r := c.read(id, block)
			if served(r) {
				if got != want {
					c.t.Fatalf("block %d is %d, want %d", block, got, want)
				}
				return true
			}
		}
		return false
	})
}

// equal waits until all replicas have applied the same and checks that they hold the same.
func (c *cluster) equal(ids ...layout.ChunkserverID) {
	c.t.Helper()
	c.until("the same applied index", func() bool {
		for _, id := range ids {
			if c.group(id).Applied() != c.group(ids[0]).Applied() {
				return false
			}
		}
		return true
	})
	var first []byte
	for _, id := range ids {
		g := c.group(id)
		var all []byte
		buf := make([]byte, layout.BlockSize)
		for b := range 64 {
			if _, err := g.store.Load().Read(layout.ChunkID{Volume: 3, Index: 1}, uint32(b*layout.BlockSize), buf, nil); err != nil {
				c.t.Fatal(err)
			}
			all = append(all, buf[0])
		}
		if first == nil {
			first = all
		} else if string(first) != string(all) {
			c.t.Fatalf("replica on %d differs:\n%v\n%v", id, first, all)
		}
	}
}

func checksumError(t *testing.T, err error) *blockstore.ChecksumError {
	t.Helper()
	var e *blockstore.ChecksumError
	if !errors.As(err, &e) {
		t.Fatalf("%v is no checksum error", err)
	}
	return e
}

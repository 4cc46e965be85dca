package metaserver

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
)

// etcd is one for all tests, started by the first that asks for its address: package testing still writes os.Stderr, which
// etcd reads, after TestMain has begun. A child process is told the address of its parent's.
var (
	etcd      *embed.Etcd
	etcdDir   string
	etcdOf    string
	startOnce = sync.OnceValue(startEtcd)
)

// etcdURL returns where the tests' etcd listens.
func etcdURL() string {
	if etcdOf != "" {
		return etcdOf
	}
	return startOnce()
}

func startEtcd() string {
	var err error
	if etcd, err = embed.StartEtcd(etcdConfig(etcdDir)); err != nil {
		panic(err)
	}
	<-etcd.Server.ReadyNotify()
	return etcd.Clients[0].Addr().String()
}

func TestMain(m *testing.M) {
	if env := os.Getenv(childEnv); env != "" {
		os.Exit(child(env))
	}
	os.Exit(withEtcd(m))
}

// onlyTo makes a client that asks one metaserver and follows nothing.
func onlyTo(t *testing.T, address string) metav1.AdminClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return call(metadata.AppendToOutgoingContext(ctx, metaclient.ProtocolKey, metaclient.Protocol), method, req, reply, cc, o...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return metav1.NewAdminClient(conn)
}

// withEtcd runs the tests with one etcd for all of them; each takes a cluster name of its own.
func withEtcd(m *testing.M) int {
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	etcdDir = dir
	// The tests wait more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	code := m.Run()
	if etcd != nil {
		etcd.Close()
	}
	if left := leaks(); left != "" {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
		return 1
	}
	return code
}

func etcdConfig(dir string) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "data")
	cfg.LogLevel = "error"
	cfg.UnsafeNoFsync = true
	cfg.TickMs, cfg.ElectionMs = 20, 200
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	peer := url.URL{Scheme: "http", Host: freeAddress()}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{local}, []url.URL{local}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	return cfg
}

// freeAddress returns an address that nobody listens on at the moment.
func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// leaks returns the goroutines of this module that are left when all tests have ended. (goleak would report those of the
// shared etcd, which come and go.)
func leaks() (left string) {
	for range 100 {
		if left = ownGoroutines(); left == "" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return left
}

func ownGoroutines() string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "ashlar-storage/ashlar/") && !strings.Contains(g, "metaserver.TestMain") {
			left = append(left, g)
		}
	}
	return strings.Join(left, "\n\n")
}

// plain connects without the metadata of the protocol.
func plain(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// daemon is a metaserver that a test runs.
type daemon struct {
	*Server
	address string
	cancel  context.CancelFunc
	done    chan error
}

// testConfig is quick.
func testConfig(cluster string) Config {
	c := Default()
	c.Dir, c.Etcd, c.Cluster, c.Lease = "", []string{etcdURL()}, cluster, 2*time.Second
	c.CopysetsPerChunkserver, c.CopysetSettle, c.DownAfter, c.RecoverAfter = 4, 200*time.Millisecond, 2*time.Second, 0
	return c
}

func start(t *testing.T, cfg Config, o Options) *daemon {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{address: l.Addr().String(), done: make(chan error, 1)}
	cfg.Listen, cfg.Name, o.Listener = d.address, d.address, l
	if testing.Verbose() {
		o.Log, _ = zap.NewDevelopment(zap.AddStacktrace(zap.FatalLevel))
	}
	if d.Server, err = New(cfg, o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() { d.done <- d.Run(ctx) }()
	t.Cleanup(func() { d.stop(t) })
	return d
}

func (d *daemon) stop(t *testing.T) {
	t.Helper()
	d.cancel()
	select {
	case <-d.done:
		close(d.done)
	case <-time.After(10 * time.Second):
		t.Error("the metaserver did not stop")
	}
}

func dial(t *testing.T, addresses ...string) *metaclient.Client {
	t.Helper()
	c, err := metaclient.Dial(addresses, metaclient.Options{AttemptTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func etcdClient(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{etcdURL()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// eventually polls until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// world stands for the chunkservers: it obeys orders as real ones would, without data.
type world struct {
	t      *testing.T
	client *metaclient.Client

	mu       sync.Mutex
	copysets map[uint64]*fakeCopyset
	servers  map[uint64]*fakeServer
	raised   map[layout.VolumeID]int
	refuse   map[uint64]bool                  // copysets that do not answer raises
	digests  map[uint64]*metav1.ReplicaDigest // of peers
	distrust map[uint64]*metav1.ReplicaDigest // peers that were ended, with the digest that disproves them
	wrong    []string
}

// fakeCopyset is a raft group: its members and who leads.
type fakeCopyset struct {
	version uint64
	members map[uint64]*metav1.Peer
	leader  uint64
	term    uint64
}

type fakeServer struct {
	id       uint64
	replicas map[uint64]uint64 // copyset → peer
	stop     context.CancelFunc
	done     chan struct{}
	revision int64
	orders   int
}

func newWorld(t *testing.T, c *metaclient.Client) *world {
	return &world{
		t: t, client: c, copysets: map[uint64]*fakeCopyset{}, servers: map[uint64]*fakeServer{},
		raised: map[layout.VolumeID]int{}, refuse: map[uint64]bool{},
		digests: map[uint64]*metav1.ReplicaDigest{}, distrust: map[uint64]*metav1.ReplicaDigest{},
	}
}

// add registers a chunkserver and lets it beat until the test ends.
func (w *world) add(n byte, zone string) uint64 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := w.client.Node().RegisterChunkserver(ctx, &metav1.RegisterChunkserverRequest{
		Uuid: append(make([]byte, 15), n), Address: "127.0.0.1:" + string('0'+rune(n)), Zone: zone, Capacity: 1 << 40,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	s := &fakeServer{id: r.GetId(), replicas: map[uint64]uint64{}}
	w.mu.Lock()
	w.servers[s.id] = s
	w.mu.Unlock()
	w.run(s)
	w.t.Cleanup(func() { w.down(s.id) })
	return s.id
}

func (w *world) run(s *fakeServer) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		for ctx.Err() == nil {
			interval := w.beat(ctx, s)
			select {
			case <-ctx.Done():
			case <-time.After(min(interval, 100*time.Millisecond)):
			}
		}
	}()
}

// down ends the heartbeats of a chunkserver.
func (w *world) down(id uint64) {
	s := w.servers[id]
	s.stop()
	<-s.done
}

func (w *world) beat(ctx context.Context, s *fakeServer) time.Duration {
	w.mu.Lock()
	q := &metav1.ChunkserverHeartbeatRequest{
		Id: s.id, TimeUnixMs: time.Now().UnixMilli(), Capacity: 1 << 40, Used: 1 << 30, ElectionRevision: s.revision,
	}
	for id, peer := range s.replicas {
		q.Copysets = append(q.Copysets, w.report(id, peer))
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := w.client.Node().ChunkserverHeartbeat(ctx, q)
	if err != nil {
		return 50 * time.Millisecond
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.GetElectionRevision() < s.revision {
		return time.Duration(r.GetIntervalMs()) * time.Millisecond // an order of the past is refused
	}
	s.revision = r.GetElectionRevision()
	for _, o := range r.GetOrders() {
		s.orders++
		w.obey(s, o)
	}
	return time.Duration(r.GetIntervalMs()) * time.Millisecond
}

func (w *world) report(id, peer uint64) *metav1.CopysetReport {
	c := w.copysets[id]
	r := &metav1.CopysetReport{Copyset: id, Peer: peer, Digest: w.digests[peer]}
	if w.distrust[peer] != nil {
		r.Error = "distrusted"
	}
	if c == nil {
		return r
	}
	r.Leader, r.LeaderPeer, r.Term, r.Commit, r.ConfVersion = c.leader == peer, c.leader, c.term, 100, c.version
	if r.Leader {
		for _, m := range c.members {
			r.Peers = append(r.Peers, &metav1.Peer{Id: m.GetId(), Chunkserver: m.GetChunkserver(), Role: m.GetRole(), Match: 100})
		}
		r.Usage = []*metav1.VolumeUsage{{Volume: 1, Allocated: 4096}}
	}
	return r
}

// obey does what a chunkserver does with an order.
func (w *world) obey(s *fakeServer, o *metav1.Order) {
	id := o.GetCopyset()
	c := w.copysets[id]
	switch do := o.GetDo().(type) {
	case *metav1.Order_Create:
		if have, ok := s.replicas[id]; ok {
			if have != do.Create.GetPeer() {
				w.wrong = append(w.wrong, "a second replica of a copyset on one chunkserver")
			}
			return
		}
		s.replicas[id] = do.Create.GetPeer()
		if !do.Create.GetJoin() {
			w.found(id, do.Create.GetPeers())
		}
	case *metav1.Order_Change:
		if c == nil || s.replicas[id] != c.leader || do.Change.GetReplaces() != c.version {
			return
		}
		c.version++
		for _, m := range do.Change.GetChanges() {
			w.change(c, m)
		}
	case *metav1.Order_Remove:
		if c != nil && c.members[do.Remove.GetPeer()] != nil {
			w.wrong = append(w.wrong, "a member's replica was removed")
		}
		if s.replicas[id] == do.Remove.GetPeer() {
			delete(s.replicas, id)
		}
	case *metav1.Order_Distrust:
		w.distrust[do.Distrust.GetPeer()] = do.Distrust.GetDigest()
	case *metav1.Order_Transfer:
		if c != nil && s.replicas[id] == c.leader && c.members[do.Transfer.GetPeer()] != nil {
			c.leader = do.Transfer.GetPeer()
			c.term++
		}
	}
}

// found makes the raft group when a majority of the founding peers exists.
func (w *world) found(id uint64, peers []*metav1.Peer) {
	if w.copysets[id] != nil {
		return
	}
	have := 0
	for _, p := range peers {
		if w.servers[p.GetChunkserver()].replicas[id] == p.GetId() {
			have++
		}
	}
	if have <= len(peers)/2 {
		return
	}
	c := &fakeCopyset{members: map[uint64]*metav1.Peer{}, term: 1}
	for _, p := range peers {
		c.members[p.GetId()] = &metav1.Peer{Id: p.GetId(), Chunkserver: p.GetChunkserver(), Role: metav1.PeerRole_PEER_ROLE_VOTER}
	}
	c.leader = slices.Min(slices.Collect(maps.Keys(c.members)))
	w.copysets[id] = c
}

func (w *world) change(c *fakeCopyset, m *metav1.MemberChange) {
	switch m.GetKind() {
	case metav1.MemberChange_KIND_ADD_LEARNER:
		c.members[m.GetPeer()] = &metav1.Peer{Id: m.GetPeer(), Chunkserver: m.GetChunkserver(), Role: metav1.PeerRole_PEER_ROLE_LEARNER}
	case metav1.MemberChange_KIND_PROMOTE:
		c.members[m.GetPeer()].Role = metav1.PeerRole_PEER_ROLE_VOTER
	case metav1.MemberChange_KIND_REMOVE:
		if c.leader == m.GetPeer() {
			w.wrong = append(w.wrong, "the leader was asked to remove itself")
		}
		delete(c.members, m.GetPeer())
	}
}

// RaiseAccess and DeleteVolume make world a Raiser.
func (w *world) RaiseAccess(_ context.Context, c layout.CopysetID, v layout.VolumeID, _ layout.AccessGeneration) error {
	return w.DeleteVolume(context.Background(), c, v)
}

func (w *world) DeleteVolume(_ context.Context, c layout.CopysetID, v layout.VolumeID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse[uint64(c)] {
		return context.DeadlineExceeded
	}
	w.raised[v]++
	return nil
}

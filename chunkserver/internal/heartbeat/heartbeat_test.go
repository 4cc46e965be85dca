package heartbeat

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeMeta answers what it is told to.
type fakeMeta struct {
	mu       sync.Mutex
	cluster  [16]byte
	failures int
	register []*metav1.RegisterChunkserverRequest
	beats    []*metav1.ChunkserverHeartbeatRequest
	reply    *metav1.ChunkserverHeartbeatReply
	beatErr  error
}

func (m *fakeMeta) RegisterChunkserver(_ context.Context, r *metav1.RegisterChunkserverRequest, _ ...grpc.CallOption) (*metav1.RegisterChunkserverReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.register = append(m.register, r)
	if m.failures > 0 {
		m.failures--
		return nil, status.Error(codes.Unavailable, "no metaserver")
	}
	return &metav1.RegisterChunkserverReply{Id: 7, ClusterId: m.cluster[:]}, nil
}

func (m *fakeMeta) ChunkserverHeartbeat(_ context.Context, r *metav1.ChunkserverHeartbeatRequest, _ ...grpc.CallOption) (*metav1.ChunkserverHeartbeatReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beats = append(m.beats, r)
	return m.reply, m.beatErr
}

// fakeHost notes orders.
type fakeHost struct {
	mu      sync.Mutex
	founded map[layout.PeerID]layout.ChunkserverID
	joined  []layout.PeerID
	removed []layout.PeerID
	// distrusted are the peers that were ended.
	distrusted []layout.PeerID
}

func (h *fakeHost) Reports() []multiraft.Report {
	return []multiraft.Report{{
		Copyset: 5, Peer: 51, Leading: true, LeaderPeer: 51, Term: 3, Applied: 9, Commit: 10,
		Members: &copyset.Members{
			Version: 4, Conf: &raftpb.ConfState{Voters: []uint64{51}, Learners: []uint64{52}},
			Chunkservers: map[layout.PeerID]layout.ChunkserverID{51: 7, 52: 8},
		},
		Match: map[layout.PeerID]uint64{51: 10, 52: 2}, Usage: map[layout.VolumeID]int64{3: 4096}, Err: errors.New("blocked"),
	}}
}
func (h *fakeHost) Group(layout.CopysetID) *multiraft.Group { return nil }
func (h *fakeHost) Found(_ context.Context, _ layout.CopysetID, _ layout.PeerID, m map[layout.PeerID]layout.ChunkserverID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.founded = m
	return nil
}

func (h *fakeHost) Distrust(_ layout.CopysetID, p layout.PeerID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.distrusted = append(h.distrusted, p)
	return nil
}

func (h *fakeHost) Join(_ context.Context, _ layout.CopysetID, p layout.PeerID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joined = append(h.joined, p)
	return nil
}

func (h *fakeHost) Remove(_ context.Context, _ layout.CopysetID, p layout.PeerID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removed = append(h.removed, p)
	return nil
}

func config() Config {
	return Config{
		Address: "127.0.0.1:1", Pool: "p", Zone: "z", Server: "s", Logger: zap.NewNop(),
		Disk: func() Disk {
			return Disk{Capacity: 100, Used: 40, Stalled: 3 * time.Second, Err: errors.New("disk gone")}
		},
		Addresses: func(map[layout.ChunkserverID]string) {},
		Digest: func(id layout.CopysetID) *digest.Result {
			return &digest.Result{Copyset: id, Peer: 51, Index: 8, Format: 257, Sum: digest.Sum{1}}
		},
	}
}

func TestRegister(t *testing.T) {
	fs := vfs.NewMem()
	i, err := OpenIdentity(fs, "d")
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeMeta{cluster: [16]byte{9}, failures: 1}
	if err := Register(context.Background(), m, i, config(), 100); err != nil {
		t.Fatal(err)
	}
	if i.Chunkserver() != 7 || i.Cluster() != m.cluster {
		t.Fatalf("chunkserver %d of %x", i.Chunkserver(), i.Cluster())
	}
	again, err := OpenIdentity(fs, "d")
	if err != nil {
		t.Fatal(err)
	}
	if again.Chunkserver() != 7 || again.UUID() != i.UUID() || string(m.register[0].GetUuid()) != string(m.register[1].GetUuid()) {
		t.Error("the identity changed")
	}
	if err := Register(context.Background(), m, again, config(), 100); err != nil || len(m.register) != 3 || m.register[2].GetId() != 7 {
		t.Errorf("confirmed: %v, %d calls", err, len(m.register))
	}
	m.failures = 1
	if err := Register(context.Background(), m, again, config(), 100); err != nil {
		t.Errorf("a chunkserver with an id needs a metaserver to start: %v", err)
	}
	if err := Register(context.Background(), refusing{m}, again, config(), 100); !errors.As(err, new(*RefusedError)) {
		t.Errorf("the metaserver of another cluster: %v", err)
	}
	if err := Register(context.Background(), &fakeMeta{cluster: [16]byte{8}}, again, config(), 100); !errors.As(err, new(*ForeignError)) {
		t.Errorf("the id of another cluster was taken: %v", err)
	}
	if err := again.Claim([16]byte{8}, 7); !errors.As(err, new(*ForeignError)) {
		t.Errorf("another cluster: %v", err)
	}
	if err := again.Claim(m.cluster, 8); err == nil {
		t.Error("another id was taken")
	}
}

// refusing is the metaserver of another cluster.
type refusing struct{ *fakeMeta }

func (refusing) RegisterChunkserver(context.Context, *metav1.RegisterChunkserverRequest, ...grpc.CallOption) (*metav1.RegisterChunkserverReply, error) {
	return nil, status.Error(codes.PermissionDenied, "the disk belongs to another cluster")
}

func TestRegisterEnds(t *testing.T) {
	i, err := OpenIdentity(vfs.NewMem(), "d")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := Register(ctx, &fakeMeta{failures: 1 << 30}, i, config(), 1); err == nil {
		t.Error("registered without a metaserver")
	}
}

func newBeat(t *testing.T) (*Beat, *fakeMeta, *fakeHost, *vfs.Mem) {
	fs := vfs.NewMem()
	i, err := OpenIdentity(fs, "d")
	if err != nil {
		t.Fatal(err)
	}
	m, h := &fakeMeta{cluster: [16]byte{9}}, &fakeHost{}
	if err := i.Claim(m.cluster, 7); err != nil {
		t.Fatal(err)
	}
	return New(m, h, i, config()), m, h, fs
}

func TestReport(t *testing.T) {
	b, m, _, _ := newBeat(t)
	m.reply = &metav1.ChunkserverHeartbeatReply{}
	if _, err := b.once(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := m.beats[0]
	c := r.GetCopysets()[0]
	switch {
	case r.GetId() != 7 || r.GetCapacity() != 100 || r.GetUsed() != 40 || r.GetDiskError() != "disk gone":
		t.Errorf("report %v", r)
	case c.GetCopyset() != 5 || !c.GetLeader() || c.GetConfVersion() != 4 || c.GetError() != "blocked" || c.GetUsage()[0].GetAllocated() != 4096:
		t.Errorf("copyset %v", c)
	case c.GetPeers()[0].GetRole() != metav1.PeerRole_PEER_ROLE_VOTER || c.GetPeers()[1].GetRole() != metav1.PeerRole_PEER_ROLE_LEARNER || c.GetPeers()[1].GetMatch() != 2:
		t.Errorf("peers %v", c.GetPeers())
	}
}

// beat sends one heartbeat and carries its answer out.
func (b *Beat) beat() (time.Duration, error) {
	b.stores, b.moves = make(chan *answer, 1), make(chan []*metav1.Order, 1)
	pause, err := b.once(context.Background())
	select {
	case a := <-b.stores:
		err = errors.Join(err, b.keep(a))
		b.obey(context.Background(), a.orders)
	default:
	}
	return pause, err
}

// TestDigest: a replica's digest is reported, and the replica ended by an order that names it, not by one that holds another's
// against it.
func TestDigest(t *testing.T) {
	b, _, h, _ := newBeat(t)
	d := b.report().GetCopysets()[0].GetDigest()
	if d.GetIndex() != 8 || d.GetFormat() != 257 || len(d.GetSum()) != 16 || d.GetSum()[0] != 1 {
		t.Errorf("reported %v", d)
	}
	order := func(peer uint64, of *metav1.ReplicaDigest) error {
		return b.order(context.Background(), &metav1.Order{Copyset: 5, Do: &metav1.Order_Distrust{
			Distrust: &metav1.DistrustReplica{Peer: peer, Digest: of},
		}})
	}
	if err := order(51, &metav1.ReplicaDigest{Index: 8, Format: 257, Sum: make([]byte, 16)}); err == nil || len(h.distrusted) != 0 {
		t.Errorf("ended by the digest of another: %v, %v", err, h.distrusted)
	}
	for _, of := range []*metav1.ReplicaDigest{d, {Index: 7, Format: 257, Sum: make([]byte, 16)}} {
		if err := order(51, of); err != nil {
			t.Errorf("%v: %v", of, err)
		}
	}
	if len(h.distrusted) != 2 || h.distrusted[0] != 51 {
		t.Errorf("ended: %v", h.distrusted)
	}
}

func TestRevision(t *testing.T) {
	b, m, _, fs := newBeat(t)
	for _, c := range []struct {
		revision int64
		obeyed   bool
	}{{5, true}, {5, true}, {4, false}, {9, true}, {8, false}} {
		m.reply = &metav1.ChunkserverHeartbeatReply{ElectionRevision: c.revision, Addresses: []*metav1.ChunkserverAddress{{Id: 3, Address: "a:1"}}}
		if _, err := b.beat(); (err == nil) != c.obeyed {
			t.Errorf("revision %d: %v", c.revision, err)
		}
		i, err := OpenIdentity(fs, "d")
		if err != nil {
			t.Fatal(err)
		}
		if c.obeyed && (i.Revision() != c.revision || i.Addresses()[3] != "a:1") {
			t.Errorf("on disk: revision %d, addresses %v", i.Revision(), i.Addresses())
		}
	}
}

func TestOrders(t *testing.T) {
	b, m, h, _ := newBeat(t)
	m.reply = &metav1.ChunkserverHeartbeatReply{IntervalMs: 1, Orders: []*metav1.Order{
		{Copyset: 1, Do: &metav1.Order_Create{Create: &metav1.CreatePeer{Peer: 11, Peers: []*metav1.Peer{{Id: 11, Chunkserver: 7}, {Id: 12, Chunkserver: 8}}}}},
		{Copyset: 2, Do: &metav1.Order_Create{Create: &metav1.CreatePeer{Peer: 21, Join: true}}},
		{Copyset: 3, Do: &metav1.Order_Remove{Remove: &metav1.RemoveReplica{Peer: 31}}},
		{Copyset: 4, Do: &metav1.Order_Transfer{Transfer: &metav1.TransferLeader{Peer: 41}}},
		{Copyset: 5},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		h.mu.Lock()
		ok := h.founded[12] == 8 && len(h.joined) > 0 && h.joined[0] == 21 && len(h.removed) > 0 && h.removed[0] == 31
		h.mu.Unlock()
		if ok {
			cancel()
			<-done
			return
		}
	}
	cancel()
	<-done
	t.Errorf("founded %v, joined %v, removed %v", h.founded, h.joined, h.removed)
}

func TestForgotten(t *testing.T) {
	b, m, _, _ := newBeat(t)
	m.beatErr = status.Error(codes.NotFound, "no such chunkserver")
	if _, err := b.once(context.Background()); err == nil || len(m.register) != 1 || m.register[0].GetId() != 7 {
		t.Errorf("%v, %d registrations", err, len(m.register))
	}
}

// quietHost has one copyset, which is quiet in the period given.
type quietHost struct {
	fakeHost
	peer    layout.PeerID
	still   uint64
	applied uint64
}

func (h *quietHost) Reports() []multiraft.Report {
	r := h.fakeHost.Reports()
	r[0].Peer, r[0].Still, r[0].Applied = h.peer, h.still, h.applied
	return r
}

// TestQuietReport: what is told of a quiet copyset is made once, and anew when it was awake, is another peer, or has another digest.
func TestQuietReport(t *testing.T) {
	h := &quietHost{peer: 51, still: 1, applied: 9}
	var sum *digest.Result
	b := New(nil, h, nil, Config{Digest: func(layout.CopysetID) *digest.Result { return sum }})
	told := func() *metav1.CopysetReport { return b.copyset(&h.Reports()[0]) }
	first := told()
	if told() != first {
		t.Error("it is made anew although nothing has changed")
	}
	for what, change := range map[string]func(){
		"it was awake":   func() { h.still, h.applied = h.still+2, h.applied+1 },
		"another peer":   func() { h.peer++ },
		"another digest": func() { sum = &digest.Result{Peer: h.peer, Index: h.applied} },
		"it is awake":    func() { h.still, h.applied = 0, h.applied+1 },
	} {
		before := told()
		change()
		if now := told(); now == before || now.GetApplied() != h.applied || now.GetPeer() != uint64(h.peer) {
			t.Errorf("%s: told is %v", what, now)
		}
	}
}

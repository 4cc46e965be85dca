package peernet

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	raftv1 "github.com/ashlar-storage/ashlar/api/raft/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink notes what arrives.
type sink struct {
	mu   sync.Mutex
	got  []multiraft.Message
	from layout.ChunkserverID
	lost int
}

func (s *sink) Deliver(from layout.ChunkserverID, msgs []multiraft.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = from
	s.got = append(s.got, msgs...)
}

func (s *sink) Unreachable(layout.ChunkserverID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost++
}

func (s *sink) ReceiveImage(multiraft.Message) (*multiraft.Incoming, error) {
	return nil, multiraft.ErrNoGroup
}
func (s *sink) Group(layout.CopysetID) *multiraft.Group { return nil }

func (s *sink) count() (int, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got), s.lost
}

// node is a Net that listens.
type node struct {
	*Net
	sink *sink
	addr string
	end  func()
}

func start(t *testing.T, id layout.ChunkserverID, cluster byte, addr string) *node {
	t.Helper()
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Net: New(Config{Cluster: [16]byte{cluster}, Self: id}), sink: &sink{}, addr: lis.Addr().String()}
	n.Bind(n.sink)
	streams := stream.NewServer(lis, stream.Config{Cluster: n.cfg.Cluster, Self: id, Services: n.Streams()})
	g := grpc.NewServer()
	raftv1.RegisterRaftServer(g, n.Service())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = streams.Run(ctx) })
	wg.Go(func() { _ = g.Serve(streams.Others()) })
	n.end = func() { cancel(); g.Stop(); wg.Wait() }
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	n.end()
	n.Close()
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

func heartbeat(i uint64) multiraft.Message {
	return multiraft.Message{Copyset: 5, Stamp: i, Raft: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: &i}}
}

func entries(i uint64, size int) multiraft.Message {
	return multiraft.Message{Copyset: 5, Raft: &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: &i,
		Entries: []*raftpb.Entry{{Index: &i, Data: make([]byte, size)}},
	}}
}

func TestSend(t *testing.T) {
	a, b := start(t, 1, 9, "127.0.0.1:0"), start(t, 2, 9, "127.0.0.1:0")
	a.SetAddresses(map[layout.ChunkserverID]string{2: b.addr, 1: a.addr})
	until(t, "a stream", func() bool {
		a.Send(2, []multiraft.Message{heartbeat(1)})
		n, _ := b.sink.count()
		return n > 0
	})
	time.Sleep(20 * time.Millisecond) // both streams are up
	before, _ := b.sink.count()
	for i := range uint64(100) {
		a.Send(2, []multiraft.Message{heartbeat(i), entries(i, 100<<10)})
	}
	until(t, "all messages", func() bool { n, _ := b.sink.count(); return n >= before+200 })
	b.sink.mu.Lock()
	defer b.sink.mu.Unlock()
	if b.sink.from != 1 {
		t.Errorf("from %d", b.sink.from)
	}
	last := map[raftpb.MessageType]uint64{}
	for _, m := range b.sink.got[before:] {
		if m.Raft.GetTerm() < last[m.Raft.GetType()] {
			t.Errorf("%v %d after %d", m.Raft.GetType(), m.Raft.GetTerm(), last[m.Raft.GetType()])
		}
		last[m.Raft.GetType()] = m.Raft.GetTerm()
		if m.Raft.GetType() == raftpb.MsgHeartbeat && m.Stamp != m.Raft.GetTerm() {
			t.Errorf("stamp %d of heartbeat %d", m.Stamp, m.Raft.GetTerm())
		}
	}
}

// TestTimeoutNowBehindEntries: a successor that is told to campaign has what it was sent before.
func TestTimeoutNowBehindEntries(t *testing.T) {
	a, b := start(t, 1, 9, "127.0.0.1:0"), start(t, 2, 9, "127.0.0.1:0")
	a.SetAddresses(map[layout.ChunkserverID]string{2: b.addr, 1: a.addr})
	for _, m := range []multiraft.Message{heartbeat(1), entries(1, 10)} { // until both streams are up
		until(t, "a stream", func() bool {
			before, _ := b.sink.count()
			a.Send(2, []multiraft.Message{m})
			time.Sleep(2 * time.Millisecond)
			n, _ := b.sink.count()
			return n > before
		})
	}
	const rounds, size = 16, 4 << 20
	before, _ := b.sink.count()
	for i := range uint64(rounds) {
		a.Send(2, []multiraft.Message{entries(i+2, size)})
		now := heartbeat(i + 2)
		now.Raft.Type = raftpb.MsgTimeoutNow.Enum()
		a.Send(2, []multiraft.Message{now})
	}
	until(t, "all messages", func() bool { n, _ := b.sink.count(); return n >= before+2*rounds })
	b.sink.mu.Lock()
	defer b.sink.mu.Unlock()
	last := uint64(0)
	for _, m := range b.sink.got[before:] {
		switch term := m.Raft.GetTerm(); m.Raft.GetType() {
		case raftpb.MsgApp:
			last = term
		case raftpb.MsgTimeoutNow:
			if term != last {
				t.Errorf("the message of round %d came after the entries of round %d", term, last)
			}
		}
	}
}

func TestReconnect(t *testing.T) {
	a, b := start(t, 1, 9, "127.0.0.1:0"), start(t, 2, 9, "127.0.0.1:0")
	a.SetAddresses(map[layout.ChunkserverID]string{2: b.addr})
	arrives := func(to *node) func() bool {
		return func() bool {
			a.Send(2, []multiraft.Message{heartbeat(1)})
			n, _ := to.sink.count()
			return n > 0
		}
	}
	until(t, "the first message", arrives(b))
	b.stop()
	until(t, "unreachable", func() bool { _, n := a.sink.count(); return n > 0 })
	again := start(t, 2, 9, b.addr)
	until(t, "a message after a restart", arrives(again))
	moved := start(t, 2, 9, "127.0.0.1:0")
	a.SetAddresses(map[layout.ChunkserverID]string{2: moved.addr})
	until(t, "a message at the new address", arrives(moved))
}

func TestStrangers(t *testing.T) {
	a, other, wrong := start(t, 1, 9, "127.0.0.1:0"), start(t, 2, 8, "127.0.0.1:0"), start(t, 4, 9, "127.0.0.1:0")
	a.SetAddresses(map[layout.ChunkserverID]string{2: other.addr, 3: wrong.addr})
	for range 20 {
		a.Send(2, []multiraft.Message{heartbeat(1)})
		a.Send(3, []multiraft.Message{heartbeat(1)})
		time.Sleep(5 * time.Millisecond)
	}
	for _, n := range []*node{other, wrong} {
		if got, _ := n.sink.count(); got > 0 {
			t.Errorf("chunkserver %d took %d messages that were not for it", n.cfg.Self, got)
		}
	}
	if _, lost := a.sink.count(); lost == 0 {
		t.Error("nobody was told")
	}
}

func TestQueueBound(t *testing.T) {
	a := start(t, 1, 9, "127.0.0.1:0")
	l := &link{net: a.Net, to: 2}
	for range queueBytes/(1<<20) + 10 {
		l.push([]multiraft.Message{entries(1, 1<<20)}, true)
	}
	if _, lost := a.sink.count(); lost == 0 || l.mu.bytes > queueBytes {
		t.Errorf("%d bytes wait, %d times told", l.mu.bytes, lost)
	}
}

func TestReadBlocksRefuses(t *testing.T) {
	a := start(t, 1, 9, "127.0.0.1:0")
	conn, err := grpc.NewClient("passthrough:///"+a.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	cluster := [16]byte{9}
	for name, c := range map[string]struct {
		r    *raftv1.ReadBlocksRequest
		want codes.Code
	}{
		"version":  {&raftv1.ReadBlocksRequest{Version: 2, Cluster: cluster[:], Length: 4096}, codes.FailedPrecondition},
		"cluster":  {&raftv1.ReadBlocksRequest{Version: 1, Length: 4096}, codes.FailedPrecondition},
		"range":    {&raftv1.ReadBlocksRequest{Version: 1, Cluster: cluster[:], Length: 100}, codes.InvalidArgument},
		"too much": {&raftv1.ReadBlocksRequest{Version: 1, Cluster: cluster[:], Length: 1 << 30}, codes.InvalidArgument},
		"no peer":  {&raftv1.ReadBlocksRequest{Version: 1, Cluster: cluster[:], Length: 4096}, codes.NotFound},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := raftv1.NewRaftClient(conn).ReadBlocks(ctx, c.r)
		cancel()
		if status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

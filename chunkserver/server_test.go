package chunkserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
	"github.com/ashlar-storage/ashlar/storage/stream/streamtest"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(idleChild); text != "" {
		if err := runIdle(text); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

var testCluster = [16]byte{1, 2, 3}

// running is a chunkserver of a static cluster in this process.
type running struct {
	s    *Server
	dir  string
	stop context.CancelFunc
	done chan error
}

type testbed struct {
	t     testing.TB
	nodes map[layout.ChunkserverID]*running
	addr  map[layout.ChunkserverID]string
	sets  map[layout.CopysetID]map[layout.PeerID]layout.ChunkserverID
	// every is CheckpointEvery.
	every time.Duration
	// registry takes the metrics of those that are started.
	registry prometheus.Registerer
}

// freeAddress returns an address that nobody listens on at the moment.
func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func newTestbed(t testing.TB, copysets int) *testbed {
	return newTestbedOf(t, copysets, Default().CheckpointEvery)
}

func newTestbedOf(t testing.TB, copysets int, checkpointEvery time.Duration) *testbed {
	b := &testbed{
		t: t, nodes: map[layout.ChunkserverID]*running{}, addr: map[layout.ChunkserverID]string{},
		sets: map[layout.CopysetID]map[layout.PeerID]layout.ChunkserverID{}, every: checkpointEvery,
	}
	for id := layout.ChunkserverID(1); id <= 3; id++ {
		b.addr[id] = freeAddress(t)
		b.nodes[id] = &running{dir: t.TempDir()}
	}
	for c := range copysets {
		m := map[layout.PeerID]layout.ChunkserverID{}
		for id := layout.ChunkserverID(1); id <= 3; id++ {
			m[layout.PeerID(c*10)+layout.PeerID(id)] = id
		}
		b.sets[layout.CopysetID(c+1)] = m
	}
	for id := range b.nodes {
		b.start(id)
	}
	t.Cleanup(func() {
		for id := range b.nodes {
			b.halt(id)
		}
	})
	return b
}

func (b *testbed) start(id layout.ChunkserverID) {
	b.t.Helper()
	r := b.nodes[id]
	cfg := Default()
	cfg.Dir, cfg.Listen, cfg.CheckpointEvery = r.dir, b.addr[id], b.every
	cfg.Capacity, cfg.Reserve = 4<<30, 64<<20
	s, err := New(cfg, Options{
		Static: &Static{Cluster: testCluster, ID: id, Addresses: b.addr, Copysets: b.sets}, Registry: b.registry,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.s, r.stop, r.done = s, cancel, make(chan error, 1)
	go func() { r.done <- s.Run(ctx) }()
	select {
	case <-s.Started():
	case err := <-r.done:
		b.t.Fatalf("chunkserver %d ended: %v", id, err)
	case <-time.After(20 * time.Second):
		b.t.Fatalf("chunkserver %d did not start", id)
	}
}

func (b *testbed) halt(id layout.ChunkserverID) {
	r := b.nodes[id]
	if r.s == nil {
		return
	}
	r.stop()
	if err := <-r.done; err != nil {
		b.t.Errorf("chunkserver %d: %v", id, err)
	}
	r.s = nil
}

// client is a stream to one chunkserver, and a connection for calls.
type client struct {
	t      testing.TB
	conn   *grpc.ClientConn
	stream *streamtest.Peer
}

func (b *testbed) dial(id layout.ChunkserverID) *client {
	b.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+b.addr[id], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	return &client{b.t, conn, streamtest.Dial(b.t, b.addr[id], stream.Hello{Purpose: stream.Chunk, Cluster: testCluster, To: id})}
}

func (c *client) close() {
	c.stream.Close()
	_ = c.conn.Close()
}

func (c *client) send(r *chunkv1.Requests) {
	c.t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		c.t.Fatal(err)
	}
	c.stream.Send(b)
}

func (c *client) recv() (*chunkv1.Responses, error) {
	b, err := c.stream.Recv()
	if err != nil {
		return nil, err
	}
	r := &chunkv1.Responses{}
	return r, proto.Unmarshal(b, r)
}

// do sends requests as one batch and returns the answers by id.
func (c *client) do(reqs ...*chunkv1.Request) map[uint64]*chunkv1.Response {
	c.t.Helper()
	c.send(&chunkv1.Requests{Version: 1, Requests: reqs})
	out := map[uint64]*chunkv1.Response{}
	for len(out) < len(reqs) {
		rs, err := c.recv()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, r := range rs.GetResponses() {
			out[r.GetId()] = r
		}
	}
	return out
}

func request(op chunkv1.Op, block uint32, seq uint64, data []byte) *chunkv1.Request {
	return &chunkv1.Request{
		Id: seq + 1, Op: op, Copyset: 1, Volume: 9, Chunk: 2, Offset: block * layout.BlockSize, Length: layout.BlockSize,
		Initiator: 4, Fence: &chunkv1.Fence{Epoch: 1}, AccessGeneration: 1, Seq: seq, Data: data,
		Crcs: layout.AppendCRCs(nil, data, 0),
	}
}

// leader asks all until one serves.
func (b *testbed) leader() layout.ChunkserverID {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for id, r := range b.nodes {
			if r.s == nil {
				continue
			}
			c := b.dial(id)
			resp := c.do(request(chunkv1.Op_OP_READ, 0, 0, nil))[1]
			c.close()
			if resp.GetStatus() == chunkv1.Status_STATUS_OK {
				return id
			}
		}
	}
	b.t.Fatal("no leader")
	return 0
}

func TestStaticCluster(t *testing.T) {
	b := newTestbed(t, 1)
	id := b.leader()
	c := b.dial(id)
	data := bytes.Repeat([]byte("ashlar!!"), layout.BlockSize/8)
	for seq := uint64(1); seq <= 50; seq++ {
		if r := c.do(request(chunkv1.Op_OP_WRITE, uint32(seq), seq, data))[seq+1]; r.GetStatus() != chunkv1.Status_STATUS_OK {
			t.Fatalf("write %d: %v", seq, r)
		}
	}
	bad := request(chunkv1.Op_OP_WRITE, 1, 99, data)
	bad.Crcs[0]++
	if r := c.do(bad)[100]; r.GetStatus() != chunkv1.Status_STATUS_BUSY { // damaged on its way: it is to be sent again
		t.Fatalf("a write with a wrong checksum: %v", r)
	}
	c.close()
	b.halt(id)
	begin := time.Now()
	next := b.leader()
	t.Logf("next leader %d after %v", next, time.Since(begin))
	c = b.dial(next)
	defer c.close()
	for i := uint32(1); i <= 50; i++ {
		r := c.do(request(chunkv1.Op_OP_READ, i, 0, nil))[1]
		if r.GetStatus() != chunkv1.Status_STATUS_OK || !bytes.Equal(r.GetData(), data) || len(r.GetCrcs()) != 1 {
			t.Fatalf("read %d: %v", i, r.GetStatus())
		}
	}
	b.start(id)
	if r := c.do(request(chunkv1.Op_OP_WRITE, 3, 1, data))[2]; r.GetStatus() != chunkv1.Status_STATUS_OK {
		t.Fatalf("a write that is sent again: %v", r)
	}
}

// TestOperations asks for each operation of the protocol.
func TestOperations(t *testing.T) {
	b := newTestbed(t, 1)
	id := b.leader()
	c := b.dial(id)
	defer c.close()
	block := func(v byte) []byte { return bytes.Repeat([]byte{v}, layout.BlockSize) }
	seq := uint64(0)
	ask := func(want chunkv1.Status, r *chunkv1.Request) *chunkv1.Response {
		t.Helper()
		resp := c.do(r)[r.GetId()]
		if resp.GetStatus() != want {
			t.Fatalf("%v: %v %s, want %v", r.GetOp(), resp.GetStatus(), resp.GetMessage(), want)
		}
		return resp
	}
	next := func(op chunkv1.Op, at uint32, data []byte) *chunkv1.Request {
		seq++
		return request(op, at, seq, data)
	}
	reads := func(at uint32, want []byte) {
		t.Helper()
		resp := ask(chunkv1.Status_STATUS_OK, request(chunkv1.Op_OP_READ, at, 0, nil))
		if !bytes.Equal(resp.GetData(), want) || resp.GetCrcs()[0] != layout.CRC(want) {
			t.Fatalf("block %d is %x…, want %x…", at, resp.GetData()[:8], want[:8])
		}
	}
	const ok, invalid = chunkv1.Status_STATUS_OK, chunkv1.Status_STATUS_INVALID

	ask(ok, next(chunkv1.Op_OP_WRITE, 1, block(1)))
	ask(ok, next(chunkv1.Op_OP_WRITE, 2, block(2)))
	part := next(chunkv1.Op_OP_WRITE, 1, block(9)[:512])
	part.Offset, part.Length = part.Offset+512, 512
	ask(ok, part)
	merged := block(1)
	copy(merged[512:], block(9)[:512])
	reads(1, merged)

	swap := next(chunkv1.Op_OP_COMPARE_AND_WRITE, 2, append(block(2), block(3)...))
	ask(ok, swap)
	ask(ok, swap)
	reads(2, block(3))
	if r := ask(chunkv1.Status_STATUS_MISCOMPARE, next(chunkv1.Op_OP_COMPARE_AND_WRITE, 2, append(append(block(3)[:100:100], block(7)[:layout.BlockSize-100]...), block(4)...))); r.GetOffset() != 100 {
		t.Errorf("miscompare at %d", r.GetOffset())
	}
	wrong := next(chunkv1.Op_OP_COMPARE_AND_WRITE, 2, append(block(3), block(4)...))
	wrong.Crcs[1]++
	ask(chunkv1.Status_STATUS_BUSY, wrong)

	r := request(chunkv1.Op_OP_ALLOCATION, 0, 0, nil)
	r.Length = 4 * layout.BlockSize
	if runs := ask(ok, r).GetRuns(); len(runs) != 3 || runs[0].GetAllocated() || !runs[1].GetAllocated() || runs[1].GetLength() != 2*layout.BlockSize {
		t.Errorf("allocation %v", runs)
	}
	discard := next(chunkv1.Op_OP_DISCARD, 1, nil)
	ask(ok, discard)
	reads(1, block(0))
	zero := next(chunkv1.Op_OP_WRITE_ZEROES, 2, nil)
	zero.Length = 512
	ask(ok, zero)
	merged = block(3)
	clear(merged[:512])
	reads(2, merged)

	for name, change := range map[string]func(*chunkv1.Request){
		"odd offset":   func(r *chunkv1.Request) { r.Offset++ },
		"no seq":       func(r *chunkv1.Request) { r.Seq = 0 },
		"no fence":     func(r *chunkv1.Request) { r.Fence = nil },
		"no initiator": func(r *chunkv1.Request) { r.Initiator = 0 },
		"no volume":    func(r *chunkv1.Request) { r.Volume = 0 },
		"no checksums": func(r *chunkv1.Request) { r.Crcs = nil },
		"short data":   func(r *chunkv1.Request) { r.Data = r.Data[:512] },
		"unknown op":   func(r *chunkv1.Request) { r.Op = 77 },
	} {
		r := next(chunkv1.Op_OP_WRITE, 1, block(5))
		change(r)
		if resp := c.do(r)[r.GetId()]; resp.GetStatus() != invalid {
			t.Errorf("%s: %v", name, resp.GetStatus())
		}
	}
	r = request(chunkv1.Op_OP_READ, 1, 0, nil)
	r.Copyset = 99
	ask(chunkv1.Status_STATUS_NO_SUCH_COPYSET, r)

	newer := request(chunkv1.Op_OP_READ, 2, 0, nil)
	newer.Fence.Generation = 1
	ask(ok, newer) // raised on the way
	if r := ask(chunkv1.Status_STATUS_STALE_FENCE, request(chunkv1.Op_OP_READ, 2, 0, nil)); r.GetFence().GetGeneration() != 1 {
		t.Errorf("fence %v", r.GetFence())
	}
	old := next(chunkv1.Op_OP_WRITE, 2, block(6))
	ask(chunkv1.Status_STATUS_STALE_FENCE, old)
	ask(ok, &chunkv1.Request{Id: 1, Op: chunkv1.Op_OP_RAISE_ACCESS, Copyset: 1, Volume: 9, AccessGeneration: 5})
	if r := ask(chunkv1.Status_STATUS_STALE_ACCESS, newer); r.GetAccessGeneration() != 5 {
		t.Errorf("access generation %d", r.GetAccessGeneration())
	}
	ask(ok, &chunkv1.Request{Id: 1, Op: chunkv1.Op_OP_DELETE_VOLUME, Copyset: 1, Volume: 9})
	newer.AccessGeneration = 6
	ask(chunkv1.Status_STATUS_STALE_ACCESS, newer)

	follower := b.dial(id%3 + 1)
	defer follower.close()
	var resp *chunkv1.Response
	for end := time.Now().Add(5 * time.Second); resp.GetLeader() == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		resp = follower.do(newer)[1] // it may not have heard of the leader yet
	}
	if resp.GetStatus() != chunkv1.Status_STATUS_NOT_LEADER || resp.GetLeader() != uint64(id) {
		t.Errorf("a follower answers %v", resp)
	}
}

// TestStreamRefused: a client of another cluster or version is told.
func TestStreamRefused(t *testing.T) {
	b := newTestbed(t, 1)
	c := b.dial(1)
	defer c.close()
	c.send(&chunkv1.Requests{Version: 2, Requests: []*chunkv1.Request{request(chunkv1.Op_OP_READ, 0, 0, nil)}})
	if rs, err := c.recv(); err != nil || rs.GetResponses()[0].GetStatus() != chunkv1.Status_STATUS_VERSION {
		t.Errorf("a newer version: %v %v", rs, err)
	}
	for _, h := range []stream.Hello{{Purpose: stream.Chunk}, {Purpose: stream.Chunk, Cluster: testCluster, To: 2}, {Purpose: 77, Cluster: testCluster}} {
		_, err := stream.Dial(t.Context(), b.addr[1], h, 0)
		if !errors.As(err, new(*stream.RefusedError)) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// BenchmarkCluster measures three chunkservers in this process, over TCP: sub-benchmarks by what is done at which depth.
func BenchmarkCluster(b *testing.B) {
	bed := newTestbed(b, 1)
	c := bed.dial(bed.leader())
	defer c.close()
	data := bytes.Repeat([]byte("ashlar!!"), layout.BlockSize/8)
	var seq uint64
	for _, op := range []chunkv1.Op{chunkv1.Op_OP_WRITE, chunkv1.Op_OP_READ} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/%d", op, depth), func(b *testing.B) {
				b.ReportAllocs()
				flying, sent := 0, 0
				for done := 0; done < b.N; {
					var reqs []*chunkv1.Request
					for ; flying < depth && sent < b.N; flying, sent = flying+1, sent+1 {
						seq++
						r := request(op, uint32(seq%2048), seq, nil)
						if op == chunkv1.Op_OP_WRITE {
							r = request(op, uint32(seq%2048), seq, data)
							r.LowWater = max(seq, 65) - 64
						}
						reqs = append(reqs, r)
					}
					if len(reqs) > 0 {
						c.send(&chunkv1.Requests{Version: 1, Requests: reqs})
					}
					rs, err := c.recv()
					if err != nil {
						b.Fatal(err)
					}
					for _, r := range rs.GetResponses() {
						if r.GetStatus() != chunkv1.Status_STATUS_OK {
							b.Fatal(r.GetStatus(), r.GetMessage())
						}
						flying--
						done++
					}
				}
			})
		}
	}
}

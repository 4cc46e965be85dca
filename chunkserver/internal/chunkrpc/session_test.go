package chunkrpc

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testCluster = [16]byte{1, 2, 3}

// stream opens a stream to a server with these groups.
func stream(t *testing.T, g groups) grpc.BidiStreamingClient[chunkv1.Requests, chunkv1.Responses] {
	t.Helper()
	s := New(nil, testCluster, 2)
	s.groups = g
	address := serve(t, s, &wire{})
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	st, err := chunkv1.NewChunkClient(conn).Do(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func write(id uint64, data []byte) *chunkv1.Request {
	return &chunkv1.Request{
		Id: id, Op: chunkv1.Op_OP_WRITE, Copyset: 1, Volume: 9, Chunk: 2, Length: uint32(len(data)), Initiator: 4,
		Fence: &chunkv1.Fence{Epoch: 1}, AccessGeneration: 1, Seq: id, Data: data, Crcs: layout.AppendCRCs(nil, data, 0),
	}
}

// bytesOf is a message that is sent as it is.
type bytesOf []byte

func (p bytesOf) Size() int                  { return len(p) }
func (p bytesOf) AppendTo(dst []byte) []byte { return append(dst, p...) }
func (p bytesOf) Parse([]byte) error         { return nil }

// TestMalformedBatch: a batch that can not be parsed ends its stream with an error that says so.
func TestMalformedBatch(t *testing.T) {
	for name, b := range map[string][]byte{
		"truncated": {0x12, 5, 8}, "field": {0}, "inner": {0x12, 2, 0x6a, 9}, "requests": bytes.Repeat([]byte{0x12, 0}, inflightMax+1),
	} {
		st := stream(t, newFake())
		if err := st.SendMsg(&frame.Message{Body: bytesOf(b)}); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCluster: a stream begins with the cluster, and may repeat it.
func TestCluster(t *testing.T) {
	for name, c := range map[string]struct {
		batches []*chunkv1.Requests
		want    codes.Code
	}{
		"none":    {[]*chunkv1.Requests{{Version: 1}}, codes.FailedPrecondition},
		"other":   {[]*chunkv1.Requests{{Version: 1, Cluster: make([]byte, 16)}}, codes.FailedPrecondition},
		"changes": {[]*chunkv1.Requests{{Version: 1, Cluster: testCluster[:]}, {Version: 1, Cluster: make([]byte, 16)}}, codes.FailedPrecondition},
		"good": {[]*chunkv1.Requests{
			{Version: 1, Cluster: testCluster[:]}, {Version: 1}, {Version: 1, Cluster: testCluster[:], Requests: []*chunkv1.Request{write(1, make([]byte, 4096))}},
		}, codes.OK},
	} {
		st := stream(t, newFake())
		for _, b := range c.batches {
			if err := st.Send(b); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := st.Recv(); status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// noting notes the commands that are proposed, when the readers have taken them.
type noting struct {
	fake
	mu   sync.Mutex
	got  map[layout.Seq][]byte
	hold chan struct{} // what Probe waits for
}

func (n *noting) find(layout.CopysetID) group { return n }

func (n *noting) Probe(layout.ChunkID, uint32, uint32, bool) error { <-n.hold; return nil }

func (n *noting) Propose(c *copyset.Command, w multiraft.Waiter) {
	n.mu.Lock()
	n.got[c.Seq] = bytes.Clone(c.Payload)
	n.mu.Unlock()
	w.Done(multiraft.Reply{Status: multiraft.Done, Outcome: copyset.Outcome{Code: copyset.OK}})
}

// TestBorrowedBytes: what a request needs when its batch was taken is a copy, whether it waits for a reader or not.
func TestBorrowedBytes(t *testing.T) {
	n := &noting{got: map[layout.Seq][]byte{}, hold: make(chan struct{})}
	s := New(nil, testCluster, 2)
	s.groups = n
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	se := &session{s: s, ctx: ctx, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	in := &incoming{se: se}
	batch := &chunkv1.Requests{Version: 1, Cluster: testCluster[:]}
	for id := uint64(1); id <= 20; id++ {
		data := bytes.Repeat([]byte{byte(id)}, layout.BlockSize)
		if id%2 == 0 {
			data = data[:512] // a part of a block
		}
		batch.Requests = append(batch.Requests, write(id, data))
	}
	c := frame.NewCodec()
	b, err := c.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	own := b.Materialize()
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(own)}, &frame.Message{Body: in}); err != nil {
		t.Fatal(err)
	}
	clear(own)
	close(n.hold)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		se.mu.Lock()
		left := se.mu.inflight
		se.mu.Unlock()
		if left == 0 {
			break
		}
	}
	if se.mu.inflight != 0 || se.mu.bytes != 0 || len(se.mu.queue) != 20 {
		t.Fatalf("%d requests of %d bytes in flight, %d answers", se.mu.inflight, se.mu.bytes, len(se.mu.queue))
	}
	for seq, data := range n.got {
		if !bytes.Equal(data, bytes.Repeat([]byte{byte(seq)}, len(data))) || len(data) == 0 {
			t.Errorf("the data of %d has changed", seq)
		}
	}
	for _, p := range se.mu.queue {
		if p.status != chunkv1.Status_STATUS_OK {
			t.Errorf("%d: %v %s", p.id, p.status, p.message)
		}
	}
	for _, r := range se.batch.reqs[:cap(se.batch.reqs)] {
		if r.data != nil || r.command.Payload != nil {
			t.Fatal("a request still points to the received bytes")
		}
	}
}

// TestReads: reads of one batch are answered wherever they run, and pooled responses do not mix.
func TestReads(t *testing.T) {
	f := newFake()
	st := stream(t, f)
	batch := &chunkv1.Requests{Version: 1, Cluster: testCluster[:]}
	for range 50 {
		batch.Requests = batch.Requests[:0]
		for id := uint64(1); id <= 20; id++ {
			r := write(id, nil)
			r.Op, r.Length = chunkv1.Op_OP_READ, uint32(id)*layout.BlockSize
			batch.Requests = append(batch.Requests, r)
		}
		if err := st.Send(batch); err != nil {
			t.Fatal(err)
		}
		for seen := 0; seen < 20; {
			rs, err := st.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range rs.GetResponses() {
				seen++
				if p.GetStatus() != chunkv1.Status_STATUS_OK || len(p.GetData()) != int(p.GetId())*layout.BlockSize || layout.VerifyBlocks(p.GetData(), p.GetCrcs()) >= 0 {
					t.Fatalf("%d: %v, %d bytes", p.GetId(), p.GetStatus(), len(p.GetData()))
				}
			}
		}
	}
}

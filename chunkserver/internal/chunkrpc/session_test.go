package chunkrpc

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
	"github.com/ashlar-storage/ashlar/storage/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testCluster = [16]byte{1, 2, 3}

// peer is a client.
type peer struct{ *streamtest.Peer }

// dial begins a stream with a server of these groups.
func dial(t *testing.T, g groups) peer {
	t.Helper()
	s := New(nil, 2)
	s.groups = g
	return peer{streamtest.Dial(t, serve(t, s), stream.Hello{Purpose: stream.Chunk, Cluster: testCluster})}
}

func (p peer) send(t *testing.T, r *chunkv1.Requests) {
	t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	p.Send(b)
}

func (p peer) recv() (*chunkv1.Responses, error) {
	b, err := p.Recv()
	if err != nil {
		return nil, err
	}
	r := &chunkv1.Responses{}
	return r, proto.Unmarshal(b, r)
}

func writeOf(id uint64, data []byte) *chunkv1.Request {
	return &chunkv1.Request{
		Id: id, Op: chunkv1.Op_OP_WRITE, Copyset: 1, Volume: 9, Chunk: 2, Length: uint32(len(data)), Initiator: 4,
		Fence: &chunkv1.Fence{Epoch: 1}, AccessGeneration: 1, Seq: id, Data: data, Crcs: layout.AppendCRCs(nil, data, 0),
	}
}

// TestMalformedBatch: a batch that can not be parsed ends its stream with an error that says so.
func TestMalformedBatch(t *testing.T) {
	for name, b := range map[string][]byte{
		"truncated": {0x12, 5, 8}, "field": {0}, "inner": {0x12, 2, 0x6a, 9}, "requests": bytes.Repeat([]byte{0x12, 0}, inflightMax+1),
	} {
		p := dial(t, newFake())
		p.Send(b)
		var end *stream.EndError
		if _, err := p.Recv(); !errors.As(err, &end) || !strings.Contains(end.Reason, "chunkrpc: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVersion: a batch of another version is answered, request by request.
func TestVersion(t *testing.T) {
	p := dial(t, newFake())
	p.send(t, &chunkv1.Requests{Version: 2, Requests: []*chunkv1.Request{writeOf(7, make([]byte, 4096))}})
	if r, err := p.recv(); err != nil || len(r.GetResponses()) != 1 || r.GetResponses()[0].GetStatus() != chunkv1.Status_STATUS_VERSION {
		t.Errorf("%v, %v", r, err)
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

// deaf is a stream that sends nothing.
type deaf struct{}

func (deaf) Flush() {}
func (deaf) Wake()  {}

// TestBorrowedBytes: what a request needs when its batch was taken is a copy, whether it waits for a reader or not.
func TestBorrowedBytes(t *testing.T) {
	n := &noting{got: map[layout.Seq][]byte{}, hold: make(chan struct{})}
	s := New(nil, 2)
	s.groups = n
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	se := newSession(s, deaf{})
	se.ctx = ctx
	batch := &chunkv1.Requests{Version: 1}
	for id := uint64(1); id <= 20; id++ {
		data := bytes.Repeat([]byte{byte(id)}, layout.BlockSize)
		if id%2 == 0 {
			data = data[:512] // a part of a block
		}
		batch.Requests = append(batch.Requests, writeOf(id, data))
	}
	own, err := proto.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	if err := se.receive(own); err != nil {
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
	if se.mu.inflight != 0 || se.mu.held != 20 || se.mu.bytes != 20*responseOverhead || len(se.mu.queue) != 20 {
		t.Fatalf("%d requests and answers of %d bytes in flight, %d answers", se.mu.held, se.mu.bytes, len(se.mu.queue))
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
	p := dial(t, f)
	batch := &chunkv1.Requests{Version: 1}
	for range 50 {
		batch.Requests = batch.Requests[:0]
		for id := uint64(1); id <= 20; id++ {
			r := writeOf(id, nil)
			r.Op, r.Length = chunkv1.Op_OP_READ, uint32(id)*layout.BlockSize
			batch.Requests = append(batch.Requests, r)
		}
		p.send(t, batch)
		for seen := 0; seen < 20; {
			rs, err := p.recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rs.GetResponses() {
				seen++
				if r.GetStatus() != chunkv1.Status_STATUS_OK || len(r.GetData()) != int(r.GetId())*layout.BlockSize || layout.VerifyBlocks(r.GetData(), r.GetCrcs()) >= 0 {
					t.Fatalf("%d: %v, %d bytes", r.GetId(), r.GetStatus(), len(r.GetData()))
				}
			}
		}
	}
}

// stuck is a disk that lets reads go on when it is told to.
type stuck struct {
	fake
	hold chan struct{}
}

func (s *stuck) find(layout.CopysetID) group { return s }

func (s *stuck) Read(layout.ChunkID, uint32, []byte, []uint32, *multiraft.Access) ([]uint32, multiraft.Reply) {
	<-s.hold
	return nil, multiraft.Reply{Status: multiraft.NotReady}
}

// within runs f on a session of a server of these groups, on simulated time; take has the session receive a batch, and tells
// its error when that has been received.
func within(t *testing.T, g groups, f func(t *testing.T, se *session, take func(batch *chunkv1.Requests) chan error)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(nil, 2)
		s.groups = g
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { s.Run(ctx) })
		se := newSession(s, deaf{})
		defer se.close()
		se.ctx = ctx
		f(t, se, func(batch *chunkv1.Requests) chan error {
			b, err := proto.Marshal(batch)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			wg.Go(func() { done <- se.receive(b) })
			synctest.Wait()
			return done
		})
	})
}

// TestHeavyBatch: what a batch asks for is begun only as far as there is room for it, for as long as the disk takes.
func TestHeavyBatch(t *testing.T) {
	g := &stuck{}
	within(t, g, func(t *testing.T, se *session, take func(*chunkv1.Requests) chan error) {
		g.hold = make(chan struct{})
		batch := &chunkv1.Requests{Version: 1}
		const n = 20
		for id := uint64(1); id <= n; id++ {
			r := writeOf(id, nil)
			r.Op, r.Length = chunkv1.Op_OP_READ, ReadMax
			batch.Requests = append(batch.Requests, r)
		}
		batch.Requests[2].Length = hereMax // which is the last to be begun
		done := take(batch)
		time.Sleep(3 * takeMax)
		if se.mu.bytes > inflightBytes || len(done) > 0 || se.mu.held > inflightBytes/ReadMax+1 {
			t.Errorf("%d requests of %d bytes were begun", se.mu.held, se.mu.bytes)
		}
		close(g.hold)
		synctest.Wait()
		if len(done) != 1 || <-done != nil || se.mu.inflight != 0 || len(se.mu.queue) != n {
			t.Errorf("%d in flight, %d answers", se.mu.inflight, len(se.mu.queue))
		}
	})
}

// TestAnswersNotTaken: who takes no answers gets room for no more requests, and his stream is ended in the end; when he takes
// them it goes on.
func TestAnswersNotTaken(t *testing.T) {
	within(t, newFake(), func(t *testing.T, se *session, take func(*chunkv1.Requests) chan error) {
		all := &chunkv1.Requests{Version: 1}
		for id := uint64(1); id <= inflightMax; id++ {
			all.Requests = append(all.Requests, writeOf(id, nil)) // which is refused
		}
		one := &chunkv1.Requests{Version: 1, Requests: all.Requests[:1]}
		if done := take(all); len(done) != 1 || <-done != nil {
			t.Fatal("there was no room for a whole batch")
		}
		more := take(one)
		time.Sleep(takeMax / 2)
		if len(more) > 0 || len(se.mu.queue) != inflightMax {
			t.Fatalf("%d answers are held", len(se.mu.queue))
		}
		for range 2 { // the second time it is the answer to what waited
			for se.Next() != nil {
			}
			synctest.Wait()
		}
		if len(more) != 1 || <-more != nil || se.mu.bytes != 0 || se.mu.held != 0 {
			t.Fatalf("%d answers of %d bytes are held after they were taken", se.mu.held, se.mu.bytes)
		}
		if done := take(all); len(done) != 1 || <-done != nil {
			t.Fatal("there was no room afterwards")
		}
		more = take(one)
		time.Sleep(takeMax + time.Second)
		if err := <-more; !errors.Is(err, errNotTaken) {
			t.Errorf("the end: %v", err)
		}
	})
}

// TestStopWithoutRoom: a session that waits for room when the chunkserver stops says that this is why it ends.
func TestStopWithoutRoom(t *testing.T) {
	within(t, newFake(), func(t *testing.T, se *session, take func(*chunkv1.Requests) chan error) {
		ctx, cancel := context.WithCancel(se.ctx)
		se.ctx = ctx
		se.mu.held = inflightMax
		done := take(&chunkv1.Requests{Version: 1, Requests: []*chunkv1.Request{writeOf(1, nil)}})
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

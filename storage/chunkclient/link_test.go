package chunkclient

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
	"github.com/ashlar-storage/ashlar/storage/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers reads with a pattern, and everything else with what answer says.
type echo struct {
	answer func(*chunkv1.Request) *chunkv1.Response
	mu     sync.Mutex
	seen   []*chunkv1.Request
}

func (e *echo) do(ctx context.Context, conn *stream.Conn) {
	var q streamtest.Queue
	_ = conn.Run(ctx, &q, func(b []byte) error {
		batch := &chunkv1.Requests{}
		if err := proto.Unmarshal(b, batch); err != nil {
			return err
		}
		out := &chunkv1.Responses{Version: 1}
		for _, r := range batch.GetRequests() {
			e.mu.Lock()
			e.seen = append(e.seen, r)
			e.mu.Unlock()
			if resp := e.answer(r); resp != nil {
				resp.Id = r.GetId()
				out.Responses = append(out.Responses, resp)
			}
		}
		if b, err := proto.Marshal(out); err != nil {
			return err
		} else if len(b) > 2 {
			q.Put(b)
			conn.Flush()
		}
		return nil
	}, nil)
}

// serve serves e, and returns the address and how to end it.
func serve(t *testing.T, e *echo, address string) (string, func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := stream.NewServer(l, stream.Config{Services: map[stream.Purpose]stream.Service{stream.Chunk: {Max: 1 << 20, Serve: e.do}}})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	stop := func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func block(fill byte) []byte { return bytes.Repeat([]byte{fill}, layout.BlockSize) }

func readAnswer(fill byte, crc uint32) func(*chunkv1.Request) *chunkv1.Response {
	return func(*chunkv1.Request) *chunkv1.Response {
		return &chunkv1.Response{Status: chunkv1.Status_STATUS_OK, Data: block(fill), Crcs: []uint32{crc}}
	}
}

func routerTo(addresses map[layout.ChunkserverID]string) *Router {
	r := NewRouter(Options{Attempt: 200 * time.Millisecond})
	d := Directory{Members: map[layout.CopysetID][]layout.ChunkserverID{}, Addresses: addresses}
	for id := layout.ChunkserverID(1); int(id) <= len(addresses); id++ {
		d.Members[1] = append(d.Members[1], id)
	}
	r.SetDirectory(d)
	return r
}

func TestReadOverStream(t *testing.T) {
	e := &echo{answer: readAnswer(5, layout.CRC(block(5)))}
	address, _ := serve(t, e, "127.0.0.1:0")
	r := routerTo(map[layout.ChunkserverID]string{1: address})
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dst := make([]byte, layout.BlockSize)
	resp, err := r.Do(ctx, &Request{Op: Read, Copyset: 1, Length: layout.BlockSize}, dst)
	if err != nil || resp.Status != OK || !bytes.Equal(dst, block(5)) {
		t.Fatalf("%+v, %v", resp, err)
	}
}

// TestDamagedAnswerIsNotReturned: bytes that do not match their checksum are asked for again, never handed out.
func TestDamagedAnswerIsNotReturned(t *testing.T) {
	var bad atomic.Int32
	bad.Store(3)
	e := &echo{}
	e.answer = func(r *chunkv1.Request) *chunkv1.Response {
		resp := readAnswer(5, layout.CRC(block(5)))(r)
		if bad.Add(-1) >= 0 {
			resp.Data[17] ^= 0x40
		}
		return resp
	}
	address, _ := serve(t, e, "127.0.0.1:0")
	r := routerTo(map[layout.ChunkserverID]string{1: address})
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dst := make([]byte, layout.BlockSize)
	if _, err := r.Do(ctx, &Request{Op: Read, Copyset: 1, Length: layout.BlockSize}, dst); err != nil || !bytes.Equal(dst, block(5)) {
		t.Fatalf("%v", err)
	}
	if left := bad.Load(); left >= 0 {
		t.Fatalf("%d damaged answers were not asked for", left)
	}
}

func TestFollowsTheLeader(t *testing.T) {
	var counts [3]atomic.Int32
	addresses := map[layout.ChunkserverID]string{}
	for i := range 3 {
		e := &echo{answer: func(r *chunkv1.Request) *chunkv1.Response {
			counts[i].Add(1)
			if i != 2 {
				return &chunkv1.Response{Status: chunkv1.Status_STATUS_NOT_LEADER, Leader: 3}
			}
			return &chunkv1.Response{Status: chunkv1.Status_STATUS_OK}
		}}
		addresses[layout.ChunkserverID(i+1)], _ = serve(t, e, "127.0.0.1:0")
	}
	r := routerTo(addresses)
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for range 10 {
		if _, err := r.Do(ctx, &Request{Op: Write, Copyset: 1, Seq: 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if a, b, c := counts[0].Load(), counts[1].Load(), counts[2].Load(); a+b > 2 || c != 10 {
		t.Fatalf("asked %d, %d, %d times", a, b, c)
	}
}

// TestServerComesBack: requests in flight when the connection breaks are repeated, with the same number, when the
// chunkserver is there again.
func TestServerComesBack(t *testing.T) {
	silent := &echo{answer: func(*chunkv1.Request) *chunkv1.Response { return nil }}
	address, stop := serve(t, silent, "127.0.0.1:0")
	r := routerTo(map[layout.ChunkserverID]string{1: address})
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := r.Do(ctx, &Request{Op: Write, Copyset: 1, Seq: 77, Data: block(1)}, nil)
		result <- err
	}()
	time.Sleep(50 * time.Millisecond)
	stop()
	good := &echo{answer: func(*chunkv1.Request) *chunkv1.Response { return &chunkv1.Response{Status: chunkv1.Status_STATUS_OK} }}
	serve(t, good, address)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	for _, e := range []*echo{silent, good} {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.seen) == 0 {
			t.Fatal("a server was not asked")
		}
		for _, q := range e.seen {
			if q.GetSeq() != 77 || !bytes.Equal(q.GetData(), block(1)) {
				t.Fatalf("asked %v", q)
			}
		}
	}
}

func TestContextEndsAnUnansweredRequest(t *testing.T) {
	e := &echo{answer: func(*chunkv1.Request) *chunkv1.Response { return nil }}
	address, _ := serve(t, e, "127.0.0.1:0")
	r := routerTo(map[layout.ChunkserverID]string{1: address})
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Do(ctx, &Request{Op: Write, Copyset: 1, Seq: 1}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestCloseEndsRequests(t *testing.T) {
	e := &echo{answer: func(*chunkv1.Request) *chunkv1.Response { return nil }}
	address, _ := serve(t, e, "127.0.0.1:0")
	r := routerTo(map[layout.ChunkserverID]string{1: address})
	time.AfterFunc(50*time.Millisecond, r.Close)
	if _, err := r.Do(context.Background(), &Request{Op: Write, Copyset: 1, Seq: 1}, nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
}

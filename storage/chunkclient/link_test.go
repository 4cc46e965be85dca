package chunkclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers reads with a pattern, and everything else with what answer says.
type echo struct {
	chunkv1.UnimplementedChunkServer
	answer func(*chunkv1.Request) *chunkv1.Response
	mu     sync.Mutex
	seen   []*chunkv1.Request
}

func (e *echo) Do(s grpc.BidiStreamingServer[chunkv1.Requests, chunkv1.Responses]) error {
	for {
		batch, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
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
		if err := s.Send(out); err != nil {
			return err
		}
	}
}

func serve(t *testing.T, e *echo, address string) (string, *grpc.Server) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	chunkv1.RegisterChunkServer(s, e)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { s.Stop(); wg.Wait() })
	return l.Addr().String(), s
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

// TestNothingIsKeptForARetry: grpc does not hold what a link has sent.
func TestNothingIsKeptForARetry(t *testing.T) {
	address, _ := serve(t, &echo{answer: readAnswer(5, 0)}, "127.0.0.1:0")
	kept := make(chan int, 8)
	look := func(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		most := -1 // grpc's default
		for _, o := range opts {
			if o, ok := o.(grpc.MaxRetryRPCBufferSizeCallOption); ok {
				most = o.MaxRetryRPCBufferSize
			}
		}
		select {
		case kept <- most:
		default:
		}
		return next(ctx, d, c, method, opts...)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStreamInterceptor(look))
	if err != nil {
		t.Fatal(err)
	}
	l := newLink(conn, nil)
	defer l.Close()
	select {
	case most := <-kept:
		if most != 0 {
			t.Errorf("grpc may keep %d bytes", most)
		}
	case <-time.After(5 * time.Second):
		t.Error("no stream")
	}
}

func TestReadOverGRPC(t *testing.T) {
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
	bad := 3
	e := &echo{}
	e.answer = func(r *chunkv1.Request) *chunkv1.Response {
		resp := readAnswer(5, layout.CRC(block(5)))(r)
		if bad > 0 {
			bad--
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
	if bad != 0 {
		t.Fatalf("%d damaged answers were not asked for", bad)
	}
}

func TestFollowsTheLeader(t *testing.T) {
	var counts [3]int
	addresses := map[layout.ChunkserverID]string{}
	for i := range 3 {
		e := &echo{answer: func(r *chunkv1.Request) *chunkv1.Response {
			counts[i]++
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
	if counts[0]+counts[1] > 2 || counts[2] != 10 {
		t.Fatalf("asked %v", counts)
	}
}

// TestServerComesBack: requests in flight when the connection breaks are repeated, with the same number, when the
// chunkserver is there again.
func TestServerComesBack(t *testing.T) {
	silent := &echo{answer: func(*chunkv1.Request) *chunkv1.Response { return nil }}
	address, server := serve(t, silent, "127.0.0.1:0")
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
	server.Stop()
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

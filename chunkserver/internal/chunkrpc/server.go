package chunkrpc

import (
	"bytes"
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Version is the version of api/chunk/v1 that is spoken.
const Version = 1

// Limits.
const (
	// MessageMax bounds one gRPC message, in bytes: what a client puts in one batch and the largest request.
	MessageMax = 48 << 20
	// ReadMax is the most that one request reads, in bytes.
	ReadMax = 16 << 20
	// inflightMax and inflightBytes bound what one stream has between receiving and sending.
	inflightMax   = 8192
	inflightBytes = 128 << 20
	// batchBytes is how many bytes of data go into one message of responses before the next is begun.
	batchBytes = 1 << 20
	// readQueue bounds the jobs that wait for a reader.
	readQueue = 16 << 10
	// triesMax is how often one read is tried: first, after a raise, after a repair.
	triesMax = 4
	// repairTimeout bounds the repair of one block that a read met.
	repairTimeout = 3 * time.Second
)

// Host is where the copysets are.
type Host interface {
	Group(id layout.CopysetID) *multiraft.Group
	Repair(ctx context.Context, g *multiraft.Group, e *blockstore.ChecksumError) error
}

// job is what waits for a reader.
type job interface{ run(ctx context.Context) }

// Server serves api/chunk/v1.
type Server struct {
	chunkv1.UnimplementedChunkServer
	host    Host
	cluster [16]byte
	readers int
	jobs    chan job
	stats   Stats
}

// New returns a Server with that many goroutines for reads. Its streams are served while Run runs.
func New(host Host, cluster [16]byte, readers int) *Server {
	return &Server{host: host, cluster: cluster, readers: readers, jobs: make(chan job, readQueue)}
}

// Run serves reads until ctx ends. The gRPC server is stopped before, so that nobody waits for them any more.
func (s *Server) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for range s.readers {
		wg.Go(func() {
			for {
				select {
				case j := <-s.jobs:
					j.run(ctx)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
}

// Stats returns the counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Do serves one stream. It ends when the client ends it, or with the gRPC server.
func (s *Server) Do(stream grpc.BidiStreamingServer[chunkv1.Requests, chunkv1.Responses]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	se := &session{s: s, ctx: ctx, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	sent := make(chan error, 1)
	go func() { // ends by cancel, or because the stream broke; Do waits for it
		sent <- se.send(stream)
	}()
	err := se.receive(stream)
	cancel()
	if serr := <-sent; err == nil && serr != nil {
		err = serr
	}
	return err
}

// session is one stream.
type session struct {
	s   *Server
	ctx context.Context
	mu  struct {
		sync.Mutex
		queue    []*chunkv1.Response
		inflight int
		bytes    int
		waiting  bool
		closed   bool
	}
	wake, room chan struct{}
	spare      []*chunkv1.Response // owned by send
}

// receive takes batches until the stream ends.
func (se *session) receive(stream grpc.BidiStreamingServer[chunkv1.Requests, chunkv1.Responses]) error {
	first := true
	for {
		b, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the client is gone: nobody is left to answer
		}
		if first || len(b.GetCluster()) > 0 {
			if !bytes.Equal(b.GetCluster(), se.s.cluster[:]) {
				return status.Errorf(codes.FailedPrecondition, "chunkrpc: cluster %x, this is %x", b.GetCluster(), se.s.cluster)
			}
			first = false
		}
		reqs := b.GetRequests()
		if !se.reserve(reqs) {
			return nil
		}
		if b.GetVersion() != Version {
			for _, r := range reqs {
				se.answer(weight(r), &chunkv1.Response{Id: r.GetId(), Status: chunkv1.Status_STATUS_VERSION})
			}
			continue
		}
		last := lastRead(reqs)
		for i, r := range reqs {
			if i != last {
				se.begin(r, false)
			}
		}
		if last >= 0 {
			se.begin(reqs[last], true)
		}
	}
}

// lastRead returns the index of the last read, or -1: it is served by the receiving goroutine, which has nothing better
// to do, after the others are on their way.
func lastRead(reqs []*chunkv1.Request) int {
	for i := len(reqs) - 1; i >= 0; i-- {
		if reqs[i].GetOp() == chunkv1.Op_OP_READ {
			return i
		}
	}
	return -1
}

// weight is what a request counts against inflightBytes.
func weight(r *chunkv1.Request) int { return max(len(r.GetData()), int(min(r.GetLength(), ReadMax))) }

// reserve waits until a batch fits. It returns false when the stream ends.
func (se *session) reserve(reqs []*chunkv1.Request) bool {
	bytes := 0
	for _, r := range reqs {
		bytes += weight(r)
	}
	for {
		se.mu.Lock()
		if se.mu.inflight == 0 || se.mu.inflight+len(reqs) <= inflightMax && se.mu.bytes+bytes <= inflightBytes {
			se.mu.inflight += len(reqs)
			se.mu.bytes += bytes
			se.mu.Unlock()
			return true
		}
		se.mu.waiting = true
		se.mu.Unlock()
		select {
		case <-se.room:
		case <-se.ctx.Done():
			return false
		}
	}
}

// answer queues a response for a request of that weight. It does not block.
func (se *session) answer(weight int, r *chunkv1.Response) {
	se.mu.Lock()
	first := len(se.mu.queue) == 0
	if !se.mu.closed {
		se.mu.queue = append(se.mu.queue, r)
	}
	se.mu.inflight--
	se.mu.bytes -= weight
	waiting := se.mu.waiting
	se.mu.waiting = false
	se.mu.Unlock()
	if first {
		signal(se.wake)
	}
	if waiting {
		signal(se.room)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// send writes responses until the stream ends.
func (se *session) send(stream grpc.BidiStreamingServer[chunkv1.Requests, chunkv1.Responses]) error {
	for {
		se.mu.Lock()
		q := se.mu.queue
		se.mu.queue = se.spare[:0]
		se.mu.Unlock()
		if len(q) == 0 {
			se.spare = q
			select {
			case <-se.wake:
				continue
			case <-se.ctx.Done():
				se.mu.Lock()
				se.mu.closed, se.mu.queue = true, nil
				se.mu.Unlock()
				return nil
			}
		}
		for rest := q; len(rest) > 0; {
			n := fill(rest)
			if err := stream.Send(&chunkv1.Responses{Version: Version, Responses: rest[:n]}); err != nil {
				return err
			}
			for _, r := range rest[:n] {
				release(r)
			}
			rest = rest[n:]
		}
		clear(q)
		se.spare = q
	}
}

// fill returns how many responses go into one message.
func fill(q []*chunkv1.Response) int {
	size := 0
	for i, r := range q {
		if size += len(r.GetData()); size > batchBytes && i > 0 {
			return i
		}
	}
	return len(q)
}

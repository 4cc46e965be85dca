package chunkrpc

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/frame"
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
	// batchBytes bounds a message of several responses: more begin the next one. It is one of the sizes that grpc's
	// buffers have, which are cleared as a whole for each message.
	batchBytes = 32 << 10
	// responseOverhead is about what a response's encoding has besides data and checksums, in bytes.
	responseOverhead = 32
	// hereMax is the longest read that the goroutine serves which received it, in bytes.
	hereMax = 32 << 10
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

// group is what a request needs of a copyset's peer; *multiraft.Group is one.
type group interface {
	Propose(c *copyset.Command, w multiraft.Waiter)
	Read(ch layout.ChunkID, off uint32, dst []byte, crcs []uint32, a *multiraft.Access) ([]uint32, multiraft.Reply)
	Allocated(ch layout.ChunkID, off, length uint32, runs []blockstore.Run, a *multiraft.Access) ([]blockstore.Run, multiraft.Reply)
	Probe(ch layout.ChunkID, off, length uint32, both bool) error
	Leading() bool
}

// groups is Host as requests see it.
type groups interface {
	// find returns the peer of the copyset here, or nil.
	find(id layout.CopysetID) group
	repair(ctx context.Context, g group, e *blockstore.ChecksumError) error
}

// hosted is the groups of a Host.
type hosted struct{ host Host }

func (h hosted) find(id layout.CopysetID) group {
	if g := h.host.Group(id); g != nil {
		return g
	}
	return nil
}

func (h hosted) repair(ctx context.Context, g group, e *blockstore.ChecksumError) error {
	return h.host.Repair(ctx, g.(*multiraft.Group), e) // find returns no other
}

// job is what waits for a reader.
type job interface{ run(ctx context.Context) }

// Server serves api/chunk/v1.
type Server struct {
	chunkv1.UnimplementedChunkServer
	groups  groups
	cluster [16]byte
	readers int
	jobs    chan job
	stats   Stats
}

// New returns a Server with that many goroutines for reads. Its streams are served while Run runs.
func New(host Host, cluster [16]byte, readers int) *Server {
	return &Server{groups: hosted{host}, cluster: cluster, readers: readers, jobs: make(chan job, readQueue)}
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
		queue    []*response
		inflight int
		bytes    int
		waiting  bool
		closed   bool
	}
	wake, room chan struct{}
	// Owned by receive.
	batch batch
	known bool // the client said that it is of this cluster
	// Owned by send.
	spare []*response
}

// receive takes batches until the stream ends.
func (se *session) receive(stream grpc.ServerStream) error {
	in := &incoming{se: se}
	m := &frame.Message{Body: in}
	for {
		if err := stream.RecvMsg(m); err != nil {
			return nil //nolint:nilerr // the client is gone: nobody is left to answer
		}
		if in.err != nil {
			return in.err
		}
	}
}

// incoming takes the batches of a session.
type incoming struct {
	se *session
	// err is why the stream ends. Parse does not return it, because grpc would make it another status.
	err error
}

func (in *incoming) Size() int                  { return 0 }
func (in *incoming) AppendTo(dst []byte) []byte { return dst }

// Parse takes a batch: when it returns, each request is answered, or what it needs of b was copied.
func (in *incoming) Parse(b []byte) error {
	t := &in.se.batch
	defer t.reset() // nothing may point to b any more
	if err := t.parse(b); err != nil {
		in.err = status.Errorf(codes.InvalidArgument, "chunkrpc: %v", err)
		return nil
	}
	in.err = in.se.take(t)
	return nil
}

// errEnded ends a stream whose context has ended.
var errEnded = status.Error(codes.Canceled, "chunkrpc: the stream has ended")

// take begins the requests of a batch.
func (se *session) take(t *batch) error {
	if !se.known || len(t.cluster) > 0 {
		if !bytes.Equal(t.cluster, se.s.cluster[:]) {
			return status.Errorf(codes.FailedPrecondition, "chunkrpc: cluster %x, this is %x", t.cluster, se.s.cluster)
		}
		se.known = true
	}
	if !se.reserve(t.reqs) {
		return errEnded
	}
	if t.version != Version {
		for i := range t.reqs {
			se.answer(weight(&t.reqs[i]), refuse(t.reqs[i].id, chunkv1.Status_STATUS_VERSION))
		}
		return nil
	}
	last := lastRead(t.reqs)
	for i := range t.reqs {
		if i != last {
			se.begin(&t.reqs[i], false)
		}
	}
	if last >= 0 {
		se.begin(&t.reqs[last], true)
	}
	return nil
}

// lastRead returns the index of the last short read, or -1: it is served by the receiving goroutine, which has nothing
// better to do, after the others are on their way. A long read would keep the next batch waiting.
func lastRead(reqs []request) int {
	for i := len(reqs) - 1; i >= 0; i-- {
		if reqs[i].op == chunkv1.Op_OP_READ && reqs[i].command.Length <= hereMax {
			return i
		}
	}
	return -1
}

// weight is what a request counts against inflightBytes.
func weight(r *request) int { return max(len(r.data), int(min(r.command.Length, ReadMax))) }

// reserve waits until a batch fits. It returns false when the stream ends.
func (se *session) reserve(reqs []request) bool {
	bytes := 0
	for i := range reqs {
		bytes += weight(&reqs[i])
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
func (se *session) answer(weight int, r *response) {
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
func (se *session) send(stream grpc.ServerStream) error {
	out := &outgoing{}
	m := &frame.Message{Body: out}
	for {
		se.mu.Lock()
		q := se.mu.queue
		se.mu.queue = se.spare[:0]
		se.mu.Unlock()
		if len(q) == 0 {
			se.spare = q
			select {
			case <-se.wake:
				runtime.Gosched() // whoever is about to answer another request does so first
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
			out.set(rest[:n])
			if err := stream.SendMsg(m); err != nil {
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
func fill(q []*response) int {
	size := 0
	for i, r := range q {
		if size += len(r.data) + 4*len(r.crcs) + responseOverhead; size > batchBytes && i > 0 {
			return i
		}
	}
	return len(q)
}

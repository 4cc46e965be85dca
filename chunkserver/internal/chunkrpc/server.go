package chunkrpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// Version is the version of api/chunk/v1 that is spoken.
const Version = 1

// Limits.
const (
	// PayloadMax bounds a batch of requests, in bytes: the largest request, and many small ones.
	PayloadMax = 48 << 20
	// ReadMax is the most that one request reads, in bytes.
	ReadMax = 16 << 20
	// inflightMax and inflightBytes bound what one stream has between receiving and sending.
	inflightMax   = 8192
	inflightBytes = 128 << 20
	// batchBytes bounds a batch of several responses: more begin the next one.
	batchBytes = 64<<10 - 512
	// lendMin is from which size on a response's data is sent where it lies, in bytes; less is cheaper to copy.
	lendMin = 16 << 10
	// settleMax bounds the wait for answers when the chunkserver stops.
	settleMax = 250 * time.Millisecond
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

// Server serves the requests of api/chunk/v1.
type Server struct {
	groups  groups
	readers int
	jobs    chan job
	stats   Stats
}

// New returns a Server with that many goroutines for reads. Its streams are served while Run runs.
func New(host Host, readers int) *Server {
	return &Server{groups: hosted{host}, readers: readers, jobs: make(chan job, readQueue)}
}

// Run serves reads until ctx ends. The streams have ended before, so that nobody waits for them any more.
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

// Service returns how the streams of stream.Chunk are served.
func (s *Server) Service() stream.Service { return stream.Service{Max: PayloadMax, Serve: s.serve} }

// serve serves one stream.
func (s *Server) serve(ctx context.Context, conn *stream.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of the reads that are under way
	se := newSession(s, conn)
	se.ctx = ctx
	_ = conn.Run(ctx, se, se.receive, se.settle) // the client knows why, or is gone: nobody is left to tell
	se.close()
}

// session is one stream.
type session struct {
	s    *Server
	ctx  context.Context
	conn outlet
	mu   struct {
		sync.Mutex
		queue    []*response
		inflight int
		bytes    int
		waiting  bool
		closed   bool
	}
	room chan struct{}
	// Owned by receive.
	batch batch
	// Owned by who calls Next.
	frame *stream.Frame
	taken []*response
	sent  int // of taken, those in the last frame
	spare []*response
}

// outlet is what a session needs of its stream to send.
type outlet interface {
	Flush()
	Wake()
}

func newSession(s *Server, conn outlet) *session {
	return &session{s: s, conn: conn, room: make(chan struct{}, 1), frame: stream.NewFrame(batchBytes)}
}

// receive takes a batch: when it returns, each request is answered, or what it needs of b was copied.
func (se *session) receive(b []byte) error {
	t := &se.batch
	defer t.reset() // nothing may point to b any more
	if err := t.parse(b); err != nil {
		return fmt.Errorf("chunkrpc: %w", err)
	}
	return se.take(t)
}

// errEnded ends a stream whose context has ended.
var errEnded = errors.New("chunkrpc: the chunkserver stops")

// take begins the requests of a batch.
func (se *session) take(t *batch) error {
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

// answer queues a response for a request of that weight. It does not block. The answer that nobody's answer is to follow
// is sent at once; others wait for the stream's goroutine, which sends what has come together.
func (se *session) answer(weight int, r *response) {
	se.mu.Lock()
	first := len(se.mu.queue) == 0
	if !se.mu.closed {
		se.mu.queue = append(se.mu.queue, r)
	}
	se.mu.inflight--
	se.mu.bytes -= weight
	last := se.mu.inflight == 0
	waiting := se.mu.waiting
	se.mu.waiting = false
	se.mu.Unlock()
	switch {
	case last:
		se.conn.Flush()
	case first:
		se.conn.Wake()
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

// Next returns the next batch of responses; see stream.Source.
func (se *session) Next() *stream.Frame {
	for i, r := range se.taken[:se.sent] {
		release(r)
		se.taken[i] = nil
	}
	se.taken, se.sent = se.taken[se.sent:], 0
	if len(se.taken) == 0 {
		se.mu.Lock()
		se.taken, se.mu.queue = se.mu.queue, se.spare[:0]
		se.mu.Unlock()
		se.spare = se.taken
	}
	if len(se.taken) == 0 {
		return nil
	}
	se.sent = fill(se.taken)
	se.frame.Reset()
	write(se.frame, se.taken[:se.sent])
	return se.frame
}

// settle waits until all requests are answered, for settleMax at most.
func (se *session) settle() {
	end := time.NewTimer(settleMax)
	defer end.Stop()
	for {
		se.mu.Lock()
		left := se.mu.inflight
		se.mu.waiting = left > 0
		se.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-se.room:
		case <-end.C:
			return
		}
	}
}

// close drops what was not sent, and what comes.
func (se *session) close() {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.mu.closed, se.mu.queue = true, nil
	se.frame.Free()
	se.frame = nil
}

// fill returns how many responses go into one batch.
func fill(q []*response) int {
	size := 0
	for i, r := range q {
		if size += len(r.data) + 4*len(r.crcs) + responseOverhead; size > batchBytes && i > 0 {
			return i
		}
	}
	return len(q)
}

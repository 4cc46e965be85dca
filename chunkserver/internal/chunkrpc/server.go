package chunkrpc

import (
	"context"
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
	// inflightMax and inflightBytes bound what one stream has between receiving and sending: requests that are not answered and
	// answers that are not sent.
	inflightMax   = 8192
	inflightBytes = 128 << 20
	// takeMax is for how long a client may take no answer while there is no room for what else it asks.
	takeMax = 10 * time.Second
	// batchBytes bounds a batch of several responses: more begin the next one.
	batchBytes = 64<<10 - 512
	// lendMin is from which size on a response's data is sent where it lies, in bytes; less is cheaper to copy.
	lendMin = 16 << 10
	// settleMax bounds the wait for answers when the chunkserver stops.
	settleMax = 250 * time.Millisecond
	// responseOverhead is about what a response's encoding has besides data, checksums and runs, in bytes; runLength is how long
	// that of a run is, at most.
	responseOverhead, runLength = 32, 14
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
		inflight int  // requests that are not answered
		held     int  // the same, and answers that are not sent
		bytes    int  // of held: the weight of requests, the length of answers
		waiting  bool // somebody waits for room
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

// errNotTaken ends a stream whose client asks for more and takes no answers.
var errNotTaken = fmt.Errorf("chunkrpc: no answer was taken for %v", takeMax)

// take begins the requests of a batch, as many at a time as there is room for.
func (se *session) take(t *batch) error {
	last := -1
	if t.version == Version {
		last = lastRead(t.reqs)
	}
	for at := 0; at < len(t.reqs); {
		n, err := se.reserve(t.reqs[at:])
		if err != nil {
			return err
		}
		for end := at + n; at < end; at++ {
			switch r := &t.reqs[at]; {
			case t.version != Version:
				se.answer(weight(r), refuse(r.id, chunkv1.Status_STATUS_VERSION))
			case at != last:
				se.begin(r, false)
			}
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

// weight is what a request counts against inflightBytes, which is far more.
func weight(r *request) int { return max(len(r.data), int(min(r.command.Length, ReadMax))) }

// reserve makes room for the first of these requests, and returns for how many: one at least, for which it waits. Its error is
// that of the stream's context, or errNotTaken.
func (se *session) reserve(reqs []request) (int, error) {
	for {
		n := 0
		se.mu.Lock()
		for ; n < len(reqs) && se.mu.held < inflightMax; n++ {
			w := weight(&reqs[n])
			if se.mu.bytes+w > inflightBytes {
				break
			}
			se.mu.held++
			se.mu.inflight++
			se.mu.bytes += w
		}
		unsent := se.mu.held > se.mu.inflight
		se.mu.waiting = n == 0
		se.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-se.room:
		case <-time.After(takeMax):
			if unsent { // since then: whoever sends makes room
				return 0, errNotTaken
			}
		case <-se.ctx.Done():
			return 0, fmt.Errorf("chunkrpc: no room for a request: %w", se.ctx.Err())
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
	se.mu.bytes += r.length() - weight
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
	sent, bytes := se.sent, 0
	for i, r := range se.taken[:sent] {
		bytes += r.length()
		release(r)
		se.taken[i] = nil
	}
	se.taken, se.sent = se.taken[sent:], 0
	se.mu.Lock()
	se.mu.held -= sent
	se.mu.bytes -= bytes
	waiting := se.mu.waiting && sent > 0
	if waiting {
		se.mu.waiting = false
	}
	if len(se.taken) == 0 {
		se.taken, se.mu.queue = se.mu.queue, se.spare[:0]
		se.spare = se.taken
	}
	se.mu.Unlock()
	if waiting {
		signal(se.room)
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
		if size += r.length(); size > batchBytes && i > 0 {
			return i
		}
	}
	return len(q)
}

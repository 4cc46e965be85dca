package chunkclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/storage/chunkclient/fieldnum"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/protofield"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// ErrClosed is the error of calls on a link that was closed.
var ErrClosed = errors.New("chunkclient: closed")

// ErrStopped is the error of an attempt whose stop channel was closed.
var ErrStopped = errors.New("chunkclient: stopped")

const (
	// protocolVersion is what Requests.version says.
	protocolVersion = 1
	// payloadMax bounds a batch of responses, in bytes: the largest answer to a request, and many small ones.
	payloadMax = 40 << 20
	// batchBytes bounds a batch of several requests: more begin the next one.
	batchBytes = 64<<10 - 512
	// batchRequests is how many requests go into one batch.
	batchRequests = 256
	// queuedMax bounds the requests that wait for the stream; over it a call ends with an error at once.
	queuedMax = 16 << 10
	// requestOverhead is more than a request's encoding has besides its content: version, id, tag and length.
	requestOverhead = 32
	// redialMin and redialMax bound the pause before a broken stream is made anew.
	redialMin, redialMax = 10 * time.Millisecond, 500 * time.Millisecond
)

// streamLink is a Link over a stream. Whoever starts a request encodes it, and writes it if no other is under way;
// otherwise the stream's goroutine writes, which takes all that have been started by then. Run's goroutine receives. When
// the stream breaks all calls in flight end with the error and it is made anew.
type streamLink struct {
	address string
	hello   stream.Hello
	cancel  context.CancelFunc
	stopped chan struct{}
	// conn is the stream, nil while there is none.
	conn atomic.Pointer[stream.Conn]

	mu struct {
		sync.Mutex
		nextID uint64
		// queue are the batches that wait for the stream; the last one takes more requests while they fit.
		queue  []batch
		queued int // requests in queue
		flight map[uint64]*Call
		// down is why calls end at once, nil while the stream works or is being made for the first time.
		down   error
		closed bool
	}

	// Owned by who calls Next.
	taken []batch
	next  int // of taken
}

// batch is a message in the making.
type batch struct {
	frame    *stream.Frame
	requests int
}

// dial makes a link. It connects without waiting; a chunkserver that is away is tried again.
func (r *Router) dial(address string) (Link, error) {
	h := stream.Hello{Purpose: stream.Chunk}
	copy(h.Cluster[:], r.opts.Cluster)
	return newLink(address, h), nil
}

// newLink starts a link.
func newLink(address string, h stream.Hello) *streamLink {
	ctx, cancel := context.WithCancel(context.Background())
	l := &streamLink{address: address, hello: h, cancel: cancel, stopped: make(chan struct{})}
	l.mu.flight = map[uint64]*Call{}
	go l.run(ctx)
	return l
}

func (l *streamLink) Start(c *Call) {
	size := sizeRequest(&c.Request)
	l.mu.Lock()
	err := l.mu.down
	switch {
	case l.mu.closed:
		err = ErrClosed
	case err == nil && l.mu.queued >= queuedMax:
		err = errors.New("chunkclient: too many requests wait for the chunkserver")
	}
	if err != nil {
		l.mu.Unlock()
		c.finish(func(c *Call) { c.Err = err })
		return
	}
	l.mu.nextID++
	c.id = l.mu.nextID
	l.mu.flight[c.id] = c
	b := l.roomLocked(size + requestOverhead)
	appendRequest(b.frame, &c.Request, c.id, size)
	b.requests++
	l.mu.queued++
	first, alone := l.mu.queued == 1, len(l.mu.flight) == 1
	l.mu.Unlock()
	switch conn := l.conn.Load(); {
	case conn == nil: // it will take what waits when it stands
	case alone:
		conn.Flush()
	case first:
		conn.Wake()
	}
}

// roomLocked returns the batch that takes the next n bytes.
func (l *streamLink) roomLocked(n int) *batch {
	if last := len(l.mu.queue) - 1; last >= 0 {
		b := &l.mu.queue[last]
		if b.requests < batchRequests && n <= b.frame.Room() && b.frame.Len()+n <= batchBytes {
			return b
		}
	}
	f := stream.NewFrame(max(n, batchBytes))
	f.Buf = protofield.AppendVarint(f.Buf, fieldnum.RequestsVersion, protocolVersion)
	l.mu.queue = append(l.mu.queue, batch{frame: f})
	return &l.mu.queue[len(l.mu.queue)-1]
}

// Next returns the next batch; see stream.Source.
func (l *streamLink) Next() *stream.Frame {
	if l.next > 0 {
		l.taken[l.next-1].frame.Free()
	}
	if l.next == len(l.taken) {
		l.take()
	}
	if l.next == len(l.taken) {
		return nil
	}
	l.next++
	return l.taken[l.next-1].frame
}

// take takes what is queued.
func (l *streamLink) take() {
	clear(l.taken)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken, l.next, l.mu.queue, l.mu.queued = l.mu.queue, 0, l.taken[:0], 0
}

func (l *streamLink) Close() {
	l.cancel()
	<-l.stopped
}

// run keeps a stream up until ctx ends.
func (l *streamLink) run(ctx context.Context) {
	defer close(l.stopped)
	pause := redialMin
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx)
		l.fail(fmt.Errorf("chunkclient: %w", err))
		if time.Since(began) > redialMax {
			pause = redialMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, redialMax)
	}
	l.mu.Lock()
	l.mu.closed = true
	l.mu.Unlock()
	l.fail(ErrClosed)
}

// session runs one stream until it breaks.
func (l *streamLink) session(ctx context.Context) error {
	conn, err := stream.Dial(ctx, l.address, l.hello, payloadMax)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.mu.down = nil
	l.mu.Unlock()
	l.conn.Store(conn)
	in := incoming{take: l.answered}
	err = conn.Run(ctx, l, in.Parse, nil)
	l.conn.Store(nil)
	l.taken, l.next = nil, 0
	return err
}

// answered ends the call that a is the answer of.
func (l *streamLink) answered(a *answer) {
	l.mu.Lock()
	c := l.mu.flight[a.id]
	delete(l.mu.flight, a.id)
	l.mu.Unlock()
	if c != nil {
		c.finish(a.fill)
	}
}

// fail ends all calls with err and lets new ones end with it until the next stream stands.
func (l *streamLink) fail(err error) {
	l.mu.Lock()
	flight := l.mu.flight
	l.mu.flight, l.mu.queue, l.mu.queued = map[uint64]*Call{}, nil, 0
	l.mu.down = err
	l.mu.Unlock()
	for _, c := range flight {
		c.finish(func(c *Call) { c.Err = err })
	}
}

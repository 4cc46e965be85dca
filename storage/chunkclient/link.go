package chunkclient

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/fieldnum"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/frame"
)

// ErrClosed is the error of calls on a link that was closed.
var ErrClosed = errors.New("chunkclient: closed")

// ErrStopped is the error of an attempt whose stop channel was closed.
var ErrStopped = errors.New("chunkclient: stopped")

const (
	// protocolVersion is what Requests.version says.
	protocolVersion = 1
	// batchBytes bounds a message of several requests: more begin the next one. It is one of the sizes that grpc's
	// buffers have, so that a server which has to join a message's pieces takes a buffer that is not much larger.
	batchBytes = 32 << 10
	// batchRequests is how many requests go into one message.
	batchRequests = 256
	// queuedMax bounds the requests that wait for the stream; over it a call ends with an error at once.
	queuedMax = 16 << 10
	// requestOverhead is more than a request's encoding has besides its content: version, id, tag and length.
	requestOverhead = 32
	// redialMin and redialMax bound the pause before a broken stream is made anew.
	redialMin, redialMax = 10 * time.Millisecond, 500 * time.Millisecond
)

// grpcLink is a Link over one gRPC stream. Run owns the stream: it sends what Start has encoded, a second goroutine
// receives. When the stream breaks all calls in flight end with the error and the stream is made anew.
type grpcLink struct {
	conn    *grpc.ClientConn
	cluster []byte
	cancel  context.CancelFunc
	wake    chan struct{}
	stopped chan struct{}

	mu struct {
		sync.Mutex
		nextID uint64
		// queue are the messages that wait for the stream; the last one takes more requests while they fit.
		queue  []batch
		queued int // requests in queue
		flight map[uint64]*Call
		// down is why calls end at once, nil while the stream works or is being made for the first time.
		down   error
		closed bool
	}
}

// batch is a message in the making, in a buffer of frame's pool.
type batch struct {
	buf      *[]byte
	requests int
}

// newLink starts a link over conn, which it closes in the end.
func newLink(conn *grpc.ClientConn, cluster []byte) *grpcLink {
	ctx, cancel := context.WithCancel(context.Background())
	l := &grpcLink{
		conn: conn, cluster: cluster, cancel: cancel,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	l.mu.flight = map[uint64]*Call{}
	go l.run(ctx)
	return l
}

func (l *grpcLink) Start(c *Call) {
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
	*b.buf = appendRequest(*b.buf, &c.Request, c.id, size)
	b.requests++
	l.mu.queued++
	first := l.mu.queued == 1
	l.mu.Unlock()
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// roomLocked returns the batch that takes the next n bytes.
func (l *grpcLink) roomLocked(n int) *batch {
	if last := len(l.mu.queue) - 1; last >= 0 {
		b := &l.mu.queue[last]
		if b.requests < batchRequests && len(*b.buf)+n <= min(cap(*b.buf), batchBytes) {
			return b
		}
	}
	buf := frame.Pool().Get(max(n, batchBytes))
	*buf = frame.AppendVarint((*buf)[:0], fieldnum.RequestsVersion, protocolVersion)
	l.mu.queue = append(l.mu.queue, batch{buf: buf})
	return &l.mu.queue[len(l.mu.queue)-1]
}

func (l *grpcLink) Close() {
	l.cancel()
	<-l.stopped
}

// run keeps a stream up until ctx ends.
func (l *grpcLink) run(ctx context.Context) {
	defer close(l.stopped)
	defer l.conn.Close() //nolint:errcheck // nothing is lost with it
	pause := redialMin
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx)
		l.fail(err)
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
func (l *grpcLink) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Without a bound of 0 grpc keeps what was sent, to send it again on another connection, until the first answer comes:
	// a server that is slow to answer would so keep 256 KiB of requests of each link. A broken stream ends its calls, and
	// whoever made them repeats them by their sequence numbers.
	stream, err := l.conn.NewStream(ctx, &chunkv1.Chunk_ServiceDesc.Streams[0], chunkv1.Chunk_Do_FullMethodName,
		grpc.ForceCodecV2(frame.NewCodec()), grpc.MaxRetryRPCBufferSize(0))
	if err != nil {
		return fmt.Errorf("chunkclient: %w", err)
	}
	l.mu.Lock()
	l.mu.down = nil
	l.mu.Unlock()
	received := make(chan error, 1)
	go func() {
		received <- l.receive(stream)
		cancel()
	}()
	err = l.send(ctx, stream)
	cancel()
	if rerr := <-received; rerr != nil && !errors.Is(rerr, context.Canceled) {
		err = rerr
	}
	return fmt.Errorf("chunkclient: %w", err)
}

// send sends what is queued, batch by batch, until ctx ends or the stream breaks.
func (l *grpcLink) send(ctx context.Context, stream grpc.ClientStream) error {
	hello := appendHello(nil, l.cluster)
	if err := stream.SendMsg(&frame.Message{Body: &outgoing{&hello}}); err != nil {
		return err
	}
	var taken []batch
	for {
		taken = l.take(taken[:0])
		if len(taken) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-l.wake:
				// Whoever is about to start another request does so first: it costs a look at the run queue when there
				// is nobody, and saves a message, two system calls and the wake-ups behind them when there is.
				runtime.Gosched()
				continue
			}
		}
		for i := range taken {
			if err := stream.SendMsg(&frame.Message{Body: &outgoing{taken[i].buf}}); err != nil {
				return err // the buffers that are left go to the collector
			}
		}
	}
}

// take moves what is queued to dst.
func (l *grpcLink) take(dst []batch) []batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	dst = append(dst, l.mu.queue...)
	clear(l.mu.queue)
	l.mu.queue, l.mu.queued = l.mu.queue[:0], 0
	return dst
}

func (l *grpcLink) receive(stream grpc.ClientStream) error {
	m := &frame.Message{Body: &incoming{take: l.answered}}
	for {
		if err := stream.RecvMsg(m); err != nil {
			return err
		}
	}
}

// answered ends the call that a is the answer of.
func (l *grpcLink) answered(a *answer) {
	l.mu.Lock()
	c := l.mu.flight[a.id]
	delete(l.mu.flight, a.id)
	l.mu.Unlock()
	if c != nil {
		c.finish(a.fill)
	}
}

// fail ends all calls with err and lets new ones end with it until the next stream stands.
func (l *grpcLink) fail(err error) {
	l.mu.Lock()
	flight := l.mu.flight
	l.mu.flight, l.mu.queue, l.mu.queued = map[uint64]*Call{}, nil, 0
	l.mu.down = err
	l.mu.Unlock()
	for _, c := range flight {
		c.finish(func(c *Call) { c.Err = err })
	}
}

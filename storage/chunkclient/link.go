package chunkclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
)

// ErrClosed is the error of calls on a link that was closed.
var ErrClosed = errors.New("chunkclient: closed")

// ErrStopped is the error of an attempt whose stop channel was closed.
var ErrStopped = errors.New("chunkclient: stopped")

const (
	// protocolVersion is what Requests.version says.
	protocolVersion = 1
	// batchBytes is how much data goes into one message before the next one is begun.
	batchBytes = 256 << 10
	// batchRequests is how many requests go into one message.
	batchRequests = 256
	// queuedMax bounds the requests that wait for the stream; over it a call ends with an error at once.
	queuedMax = 16 << 10
	// redialMin and redialMax bound the pause before a broken stream is made anew.
	redialMin, redialMax = 10 * time.Millisecond, 500 * time.Millisecond
)

// grpcLink is a Link over one gRPC stream. Run owns the stream: it sends what Start queues, a second goroutine
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
		queue  []queued
		flight map[uint64]*Call
		// down is why calls end at once, nil while the stream works or is being made for the first time.
		down   error
		closed bool
	}
}

// queued is a request that waits for the stream; request.Data is a copy of its own.
type queued struct {
	call    *Call
	request *chunkv1.Request
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
	req := toProto(&c.Request)
	l.mu.Lock()
	err := l.mu.down
	switch {
	case l.mu.closed:
		err = ErrClosed
	case err == nil && len(l.mu.queue) >= queuedMax:
		err = errors.New("chunkclient: too many requests wait for the chunkserver")
	}
	if err == nil {
		l.mu.nextID++
		c.id = l.mu.nextID
		req.Id = c.id
		l.mu.flight[c.id] = c
		l.mu.queue = append(l.mu.queue, queued{c, req})
	}
	l.mu.Unlock()
	if err != nil {
		releaseRequest(req)
		c.finish(func(c *Call) { c.Err = err })
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
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
	stream, err := chunkv1.NewChunkClient(l.conn).Do(ctx)
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

// send sends what is queued, as large a batch as waits, until ctx ends or the stream breaks.
func (l *grpcLink) send(ctx context.Context, stream grpc.BidiStreamingClient[chunkv1.Requests, chunkv1.Responses]) error {
	batch := &chunkv1.Requests{Version: protocolVersion, Cluster: l.cluster}
	var taken []queued
	for {
		taken = l.take(taken[:0])
		if len(taken) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-l.wake:
				continue
			}
		}
		batch.Requests = batch.Requests[:0]
		for _, q := range taken {
			batch.Requests = append(batch.Requests, q.request)
		}
		err := stream.Send(batch)
		for _, q := range taken {
			releaseRequest(q.request)
		}
		if err != nil {
			return err
		}
		batch.Cluster = nil
	}
}

// take moves the next batch from the queue to dst.
func (l *grpcLink) take(dst []queued) []queued {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < len(l.mu.queue) && n < batchRequests && size < batchBytes {
		size += len(l.mu.queue[n].request.Data)
		dst = append(dst, l.mu.queue[n])
		n++
	}
	rest := copy(l.mu.queue, l.mu.queue[n:])
	clear(l.mu.queue[rest:])
	l.mu.queue = l.mu.queue[:rest]
	return dst
}

func (l *grpcLink) receive(stream grpc.BidiStreamingClient[chunkv1.Requests, chunkv1.Responses]) error {
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, r := range batch.GetResponses() {
			l.mu.Lock()
			c := l.mu.flight[r.GetId()]
			delete(l.mu.flight, r.GetId())
			l.mu.Unlock()
			if c != nil {
				c.finish(func(c *Call) { fromProto(c, r) })
			}
		}
	}
}

// fail ends all calls with err and lets new ones end with it until the next stream stands.
func (l *grpcLink) fail(err error) {
	l.mu.Lock()
	flight, queue := l.mu.flight, l.mu.queue
	l.mu.flight, l.mu.queue = map[uint64]*Call{}, nil
	l.mu.down = err
	l.mu.Unlock()
	for _, q := range queue {
		releaseRequest(q.request)
	}
	for _, c := range flight {
		c.finish(func(c *Call) { c.Err = err })
	}
}

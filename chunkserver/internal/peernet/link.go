package peernet

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	raftv1 "github.com/ashlar-storage/ashlar/api/raft/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// link is one stream to a chunkserver, and what waits for it.
type link struct {
	net    *Net
	to     layout.ChunkserverID
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	wake   chan struct{}
	mu     struct {
		sync.Mutex
		queue []multiraft.Message
		bytes int
	}
	spare []multiraft.Message // owned by run
}

// newLink starts a link, which closes conn in the end.
func newLink(n *Net, to layout.ChunkserverID, conn *grpc.ClientConn) *link {
	ctx, cancel := context.WithCancel(n.ctx)
	l := &link{net: n, to: to, conn: conn, cancel: cancel, wake: make(chan struct{}, 1)}
	n.wg.Go(func() { l.run(ctx) })
	return l
}

// push queues those of the messages that are bulky, or those that are not.
func (l *link) push(msgs []multiraft.Message, data bool) {
	lost := false
	l.mu.Lock()
	first := len(l.mu.queue) == 0
	for i := range msgs {
		if bulky(&msgs[i]) != data {
			continue
		}
		size := 64
		for _, e := range msgs[i].Raft.GetEntries() {
			size += len(e.GetData())
		}
		if len(l.mu.queue) >= queueMessages || l.mu.bytes+size > queueBytes {
			lost = true
			continue
		}
		l.mu.bytes += size
		l.mu.queue = append(l.mu.queue, msgs[i])
	}
	l.mu.Unlock()
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	if lost {
		l.unreachable()
	}
}

func (l *link) unreachable() {
	if h := l.net.host.Load(); h != nil {
		(*h).Unreachable(l.to)
	}
}

// take returns what waits, to be given to reuse when it is done with. What is pushed meanwhile goes to the spare array,
// which is no spare any more.
func (l *link) take() []multiraft.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.mu.queue
	l.mu.queue, l.mu.bytes, l.spare = l.spare[:0], 0, nil
	return q
}

// reuse makes what take returned the spare array.
func (l *link) reuse(q []multiraft.Message) {
	clear(q)
	l.spare = q
}

// run keeps a stream up until ctx ends. While there is none, what waits is dropped.
func (l *link) run(ctx context.Context) {
	defer func() { _ = l.conn.Close() }() // nothing is lost with it
	pause, told := redialMin, false
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx)
		if time.Since(began) > redialMax {
			pause, told = redialMin, false
		}
		if ctx.Err() == nil && !told {
			l.net.log.Info("stream to chunkserver ended", zap.Uint64("to", uint64(l.to)), zap.Error(err))
			told = true
		}
		l.reuse(l.take())
		l.unreachable()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, redialMax)
	}
}

// session runs one stream until it breaks. A second goroutine waits for the server's only answer, because that is how a
// broken connection is noticed at once.
func (l *link) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Without a bound of 0 grpc keeps what was sent, to repeat it, until an answer comes, and here none does: that were
	// thousands of buffers for small messages. Raft repeats what is lost.
	stream, err := l.conn.NewStream(ctx, &raftv1.Raft_ServiceDesc.Streams[0], raftv1.Raft_Send_FullMethodName,
		grpc.ForceCodecV2(frame.NewCodec()), grpc.MaxRetryRPCBufferSize(0))
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { // ends with the stream; session waits for it
		err := stream.RecvMsg(&raftv1.SendReply{})
		cancel()
		ended <- err
	}()
	err = l.transmit(ctx, stream)
	cancel()
	if said := <-ended; said != nil && status.Code(said) != codes.Canceled {
		return said
	}
	return err
}

// transmit writes what waits until ctx ends.
func (l *link) transmit(ctx context.Context, stream grpc.ClientStream) error {
	out := &outgoing{}
	m := &frame.Message{Body: out}
	out.hello(l.net.cfg.Cluster[:], l.net.cfg.Self, l.to)
	if err := stream.SendMsg(m); err != nil {
		return err
	}
	for {
		msgs := l.take()
		if len(msgs) == 0 {
			l.reuse(msgs)
			select {
			case <-l.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		err := send(stream, m, out, msgs)
		l.reuse(msgs)
		if err != nil {
			return err
		}
	}
}

// send writes messages as batches of at most batchBytes, or of one message.
func send(stream grpc.ClientStream, m *frame.Message, out *outgoing, msgs []multiraft.Message) error {
	for i := 0; i < len(msgs); {
		added, err := out.add(&msgs[i])
		if err != nil {
			return err
		}
		if added {
			i++
			continue
		}
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
	return stream.SendMsg(m)
}

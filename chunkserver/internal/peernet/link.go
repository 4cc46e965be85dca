package peernet

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// link is one stream to a chunkserver, and what waits for it.
type link struct {
	net     *Net
	to      layout.ChunkserverID
	address string
	purpose stream.Purpose
	cancel  context.CancelFunc
	// conn is the stream, nil while there is none.
	conn atomic.Pointer[stream.Conn]
	mu   struct {
		sync.Mutex
		queue []multiraft.Message
		bytes int
		pace  pace
	}

	// Owned by who calls Next.
	taken []multiraft.Message
	next  int // of taken: the first that was not sent
	out   outgoing
}

// pace tells whether messages come in crowds, as the answers do for all groups that shared a sync of the log. The first
// of a crowd waits for the others, so that they share a frame; a message that comes alone is sent at once.
type pace struct {
	last  time.Time
	still int // messages that have to come alone until the crowds are over
}

const (
	// crowdGap is the most that lies between two messages of a crowd.
	crowdGap = 100 * time.Microsecond
	// crowdMemory is how many messages have come alone when the crowds are over.
	crowdMemory = 2
)

// crowd tells whether the message that comes now is to wait for others.
func (p *pace) crowd(now time.Time) bool {
	if now.Sub(p.last) < crowdGap {
		p.still = crowdMemory
	} else if p.still > 0 {
		p.still--
	}
	p.last = now
	return p.still > 0
}

// newLink starts a link.
func newLink(n *Net, to layout.ChunkserverID, address string, purpose stream.Purpose) *link {
	ctx, cancel := context.WithCancel(n.ctx)
	l := &link{net: n, to: to, address: address, purpose: purpose, cancel: cancel}
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
	crowd := l.mu.pace.crowd(time.Now())
	l.mu.Unlock()
	switch conn := l.conn.Load(); {
	case conn == nil || !first:
	case crowd:
		conn.Wake()
	default:
		conn.Flush()
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

// Next returns the next batch; see stream.Source.
func (l *link) Next() *stream.Frame {
	if l.next == len(l.taken) {
		l.take()
	}
	l.out.reset()
	for ; l.next < len(l.taken) && l.out.add(&l.taken[l.next]); l.next++ {
	}
	if l.out.count == 0 {
		return nil
	}
	return l.out.frame
}

// take takes what waits. The array that had what was taken before takes what is pushed from now on.
func (l *link) take() {
	clear(l.taken)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken, l.next, l.mu.queue, l.mu.bytes = l.mu.queue, 0, l.taken[:0], 0
}

// drop forgets what waits.
func (l *link) drop() {
	l.take()
	l.next = len(l.taken)
}

// run keeps a stream up until ctx ends. While there is none, what waits is dropped.
func (l *link) run(ctx context.Context) {
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
		l.drop()
		l.unreachable()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, redialMax)
	}
}

// session runs one stream until it breaks. Nothing comes back on it but signs of life.
func (l *link) session(ctx context.Context) error {
	cfg := &l.net.cfg
	h := stream.Hello{Purpose: l.purpose, Cluster: cfg.Cluster, From: cfg.Self, To: l.to}
	conn, err := stream.Dial(ctx, l.address, h, 0)
	if err != nil {
		return err
	}
	l.conn.Store(conn)
	err = conn.Run(ctx, l, func([]byte) error { return errAnswered }, nil)
	l.conn.Store(nil)
	return err
}

// errAnswered means that the other end sent a batch on a stream of ours.
var errAnswered = errors.New("peernet: messages on a stream in the other direction")

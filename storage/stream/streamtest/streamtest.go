// Package streamtest has the other end of a stream, for the tests of those who speak on streams.
//
//	test ─► Peer.Send ─► Queue ─► stream ══ the code under test ══ stream ─► Peer.Recv ─► test
package streamtest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/stream"
)

// wait bounds each wait of a test.
const wait = 20 * time.Second

// payloadMax is the longest batch that a Peer accepts, in bytes.
const payloadMax = 64 << 20

// Queue is a Source of payloads. The zero value is empty.
type Queue struct {
	mu      sync.Mutex
	waiting [][]byte
	frame   *stream.Frame
}

// Put queues a payload, which must not change any more.
func (q *Queue) Put(payload []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, payload)
}

// Next returns the next payload; see stream.Source.
func (q *Queue) Next() *stream.Frame {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	if q.frame == nil {
		q.frame = stream.NewFrame(0)
	}
	q.frame.Reset()
	q.frame.Lend(q.waiting[0])
	q.waiting = q.waiting[1:]
	return q.frame
}

// Peer is a client's end of a stream.
type Peer struct {
	tb    testing.TB
	conn  *stream.Conn
	queue Queue
	got   chan []byte
	err   error // set before got is closed
	stop  context.CancelFunc
}

// Dial begins a stream, which ends with the test.
func Dial(tb testing.TB, address string, h stream.Hello) *Peer {
	tb.Helper()
	conn, err := stream.Dial(context.Background(), address, h, payloadMax)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Peer{tb: tb, conn: conn, got: make(chan []byte, 1024), stop: cancel}
	go func() { // Close waits for it
		defer close(p.got)
		p.err = conn.Run(ctx, &p.queue, func(b []byte) error {
			select {
			case p.got <- bytes.Clone(b):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}, nil)
	}()
	tb.Cleanup(p.Close)
	return p
}

// Send sends a batch, which must not change any more.
func (p *Peer) Send(payload []byte) {
	p.queue.Put(payload)
	p.conn.Flush()
}

// Recv returns the next batch, or why the stream ended.
func (p *Peer) Recv() ([]byte, error) {
	select {
	case b, ok := <-p.got:
		if !ok {
			return nil, p.err
		}
		return b, nil
	case <-time.After(wait):
		return nil, errors.New("streamtest: nothing came")
	}
}

// Close ends the stream.
func (p *Peer) Close() {
	p.stop()
	for range p.got { // until Run has returned
	}
}

package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// readSize is the size of the buffer that frames are read into, in bytes. A longer one has a buffer of its own, which is
	// kept for the next one up to keepMax.
	readSize = 128 << 10
	keepMax  = 2 << 20
	// growMin is how much a long frame's buffer has at first, in bytes; it is doubled when that has come in.
	growMin = 2 << 20
)

// ErrClosed is the error of a stream that was closed here.
var ErrClosed = errors.New("stream: closed")

// errSilent ends a stream whose other end is not heard of.
var errSilent = fmt.Errorf("stream: nothing was heard for %v", silentTicks*tick)

// EndError is the error of a stream that the other end ended, and why.
type EndError struct{ Reason string }

func (e *EndError) Error() string { return "stream: ended by the other end: " + e.Reason }

// Conn is one end of a stream. Run serves it; Flush, Wake and Close are for any goroutine.
type Conn struct {
	// From is the chunkserver at the other end, if it is one and dialled.
	From layout.ChunkserverID

	nc  *net.TCPConn
	raw syscall.RawConn
	max int // payload that is accepted, in bytes

	// in is owned by recv.
	in struct {
		buf        []byte
		start, end int // what was read and not returned
		long       []byte
		apart      []span // space for those of a frame
	}
	// reads is odd while recv waits for the other end.
	reads  atomic.Uint64
	ended  atomic.Pointer[error]
	sender sender
}

func newConn(nc *net.TCPConn, limit int) (*Conn, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	c := &Conn{nc: nc, raw: raw, max: limit}
	c.sender.init(c)
	return c, nil
}

// Close ends the stream at once. It may be called again.
func (c *Conn) Close() { c.fail(ErrClosed) }

// fail ends the stream. The first error counts.
func (c *Conn) fail(err error) {
	if c.ended.CompareAndSwap(nil, &err) {
		_ = c.nc.Close() // nothing is lost with it
	}
}

// failure returns why the stream ended, in place of err, which followed from it.
func (c *Conn) failure(err error) error {
	if e := c.ended.Load(); e != nil {
		return *e
	}
	return err
}

// Run calls take for each batch that comes in, borrowed until it returns, while the batches of source are sent. It returns
// when ctx ends or the stream does, with the error of take, or why the stream ended: *EndError when the other end said
// why, io.EOF when it did not. The stream is closed then, and nobody uses source any more.
//
// When ctx ends nothing is taken any more, and a take that waits returns the error of ctx; settle, if not nil, waits then, for
// a bounded time, until what was taken has been answered. What waits is sent before the stream is closed, and so is any other
// error of take.
func (c *Conn) Run(ctx context.Context, source Source, take func([]byte) error, settle func()) error {
	sctx, cancel := context.WithCancelCause(context.Background())
	defer context.AfterFunc(ctx, func() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) })() // recv returns
	sent := make(chan struct{})
	go func() { // Run waits for it
		defer close(sent)
		c.send(sctx, source)
	}()
	err := c.takeAll(take)
	if end := ctx.Err(); end != nil && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, end)) {
		if settle != nil {
			settle()
		}
		err = nil
	}
	cancel(err)
	<-sent
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

func (c *Conn) takeAll(take func([]byte) error) error {
	for {
		b, err := c.recv()
		if err != nil {
			return err
		}
		if err := take(b); err != nil {
			return err
		}
	}
}

// recv returns the next batch, which is borrowed until the next call. Its error is final: as Run's, or ErrFrame when what came
// in was no frame.
func (c *Conn) recv() ([]byte, error) {
	for {
		h, payload, err := c.next()
		if err != nil {
			return nil, c.failure(err)
		}
		switch h.kind() {
		case kindBatch:
			return payload, nil
		case kindEnd:
			return nil, &EndError{readable(payload)}
		}
	}
}

// next reads a frame.
func (c *Conn) next() (h header, payload []byte, err error) {
	in := &c.in
	if in.start == in.end {
		in.start, in.end = 0, 0
	}
	if err := c.fill(headerSize); err != nil {
		return h, nil, err
	}
	h = header(in.buf[in.start:])
	n, err := h.check(c.max)
	if err != nil {
		return h, nil, err
	}
	in.start += headerSize
	if n > readSize {
		payload, err = c.nextLong(n)
	} else if err = c.fill(n); err == nil {
		payload = in.buf[in.start : in.start+n : in.start+n]
		in.start += n
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h, nil, err
	}
	payload, err = h.open(payload, &in.apart)
	return h, payload, err
}

// fill reads until the buffer has n bytes, and takes what else is there.
func (c *Conn) fill(n int) error {
	in := &c.in
	if in.buf == nil {
		in.buf = make([]byte, readSize)
	}
	if in.start+n > len(in.buf) {
		in.end = copy(in.buf, in.buf[in.start:in.end])
		in.start = 0
	}
	for in.end-in.start < n {
		k, err := c.read(in.buf[in.end:])
		in.end += k
		if err != nil && in.end-in.start < n {
			if errors.Is(err, io.EOF) && in.end > in.start {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// nextLong reads a payload that does not fit the buffer. Memory is taken as the payload comes in.
func (c *Conn) nextLong(n int) ([]byte, error) {
	in := &c.in
	b := in.long
	in.long = nil
	if cap(b) < min(n, growMin) {
		b = make([]byte, min(n, growMin))
	}
	b = b[:min(n, cap(b))]
	have := copy(b, in.buf[in.start:in.end])
	in.start, in.end = 0, 0
	for have < n {
		if have == len(b) {
			more := make([]byte, min(n, 2*len(b)))
			copy(more, b)
			b = more
		}
		k, err := c.read(b[have:])
		if have += k; err != nil && have < n {
			return nil, err
		}
	}
	if cap(b) <= keepMax {
		in.long = b[:cap(b)]
	}
	return b, nil
}

func (c *Conn) read(b []byte) (int, error) {
	c.reads.Add(1)
	n, err := c.nc.Read(b)
	c.reads.Add(1)
	return n, err
}

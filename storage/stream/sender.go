package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tick is how often an end that has nothing to say shows that it is alive.
	tick = 500 * time.Millisecond
	// silentTicks is for how many ticks nothing may be heard of the other end.
	silentTicks = 8
	// hereMax is how much Flush writes itself, in bytes; what is more is left to Run, on another processor.
	hereMax = 64 << 10
	// flushMax bounds the time in which what waits is written when a stream ends.
	flushMax = 500 * time.Millisecond
	// waitMax is how long Run waits for the socket before it looks at other things.
	waitMax = 100 * time.Millisecond
)

// Source has what a stream sends.
type Source interface {
	// Next returns the next batch, or nil when nothing waits. The frame and what it was lent are the stream's until Next is
	// called again. It is called by one goroutine at a time, which may be any that calls Flush.
	Next() *Frame
}

// Who writes: state of a sender.
const (
	// idle: nobody. A stream begins in it when Run has a source.
	idle = iota
	// busy: one goroutine, which owns the sender's fields.
	busy
	// again: the same, and there is more since it began.
	again
	// left: nobody, until Run goes on with what is left.
	left
)

// sender is the writing half of a Conn.
type sender struct {
	c     *Conn
	state atomic.Uint32
	bell  chan struct{}
	// due asks for a sign of life; wrote tells that something was written since the last tick.
	due, wrote atomic.Bool

	// Owned by whoever made state busy.
	source Source
	rest   [][]byte // of the frame that is being written
	pieces [][]byte // space for rest
	alive  *Frame
	step   func(fd uintptr) bool // write, for raw.Write
	wait   bool                  // step waits for the socket
	err    error
	over   bool // Run has seized
}

func (s *sender) init(c *Conn) {
	s.c, s.bell, s.alive = c, make(chan struct{}, 1), NewFrame(0)
	s.step = s.write
	s.state.Store(left) // nobody writes before Run
}

// Flush writes what waits, up to hereMax and what the socket takes at once, unless somebody else is writing, who writes
// it then. The rest is left to Run.
func (c *Conn) Flush() {
	if c.sender.enter() {
		c.sender.drain(hereMax, false)
	}
}

// Wake has Run write what waits, together with what comes until it does.
func (c *Conn) Wake() { c.sender.ring() }

func (s *sender) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// enter makes the caller the one who writes. If it returns false, another one writes what waits.
func (s *sender) enter() bool {
	for {
		switch s.state.Load() {
		case idle:
			if s.state.CompareAndSwap(idle, busy) {
				return true
			}
		case busy:
			if s.state.CompareAndSwap(busy, again) {
				return false
			}
		default:
			return false
		}
	}
}

// drain writes until nothing waits; the caller has entered. What is more than most bytes is left to Run, and what the
// socket does not take, unless wait tells to wait a little for that.
func (s *sender) drain(most int, wait bool) {
	for written := 0; ; {
		for s.load() {
			for _, p := range s.rest {
				written += len(p)
			}
			if written > most || !s.send() && !(wait && s.sendLater()) {
				broken := s.err != nil
				s.state.Store(left)
				if !broken { // else nothing is left to do, but for Run to end, and take may still keep it from that
					s.ring()
				}
				return
			}
		}
		if s.state.CompareAndSwap(busy, idle) {
			return
		}
		s.state.Store(busy)
	}
}

// load makes rest the next frame, unless there is a rest still. It returns false when nothing waits.
func (s *sender) load() bool {
	if len(s.rest) > 0 {
		return true
	}
	clear(s.pieces)
	if s.due.CompareAndSwap(true, false) {
		s.rest = s.alive.finish(kindAlive, s.pieces[:0])
	} else if f := s.source.Next(); f != nil {
		s.rest = f.finish(kindBatch, s.pieces[:0])
	} else {
		return false
	}
	s.pieces = s.rest
	return true
}

// send writes rest. It returns false when the socket did not take all, or is broken.
func (s *sender) send() bool {
	if err := s.c.raw.Write(s.step); err != nil && s.err == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.err = err
	}
	if s.err != nil {
		s.c.fail(fmt.Errorf("stream: %w", s.err))
		return false
	}
	s.wrote.Store(true)
	return len(s.rest) == 0
}

// sendLater is send when the socket takes more, within waitMax.
func (s *sender) sendLater() bool {
	if s.err != nil {
		return false
	}
	s.wait = true
	_ = s.c.nc.SetWriteDeadline(time.Now().Add(waitMax)) // what fails here fails in send too
	done := s.send()
	_ = s.c.nc.SetWriteDeadline(time.Time{})
	s.wait = false
	return done
}

// iovMax is the most pieces that one system call takes.
const iovMax = 1024

// write writes what the socket takes of rest. It returns false to be called again when the socket takes more.
func (s *sender) write(fd uintptr) bool {
	for len(s.rest) > 0 {
		var n int
		var err error
		if len(s.rest) == 1 {
			n, err = unix.Write(int(fd), s.rest[0])
		} else {
			n, err = unix.Writev(int(fd), s.rest[:min(len(s.rest), iovMax)])
		}
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return !s.wait
		case err != nil:
			s.err = err
			return true
		}
		s.advance(n)
	}
	return true
}

// advance drops n bytes of rest.
func (s *sender) advance(n int) {
	for n > 0 {
		if n < len(s.rest[0]) {
			s.rest[0] = s.rest[0][n:]
			return
		}
		n -= len(s.rest[0])
		s.rest = s.rest[1:]
	}
}

// send sends what source has, when Flush or Wake ask for it, and signs of life, until ctx ends or the stream breaks. When
// ctx ends, what waits is sent, and then the cause if it is another one than context.Canceled. The stream is closed then.
func (c *Conn) send(ctx context.Context, source Source) {
	s := &c.sender
	s.source = source // nobody writes yet
	defer c.Close()
	defer s.seize()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var heard watch
	for s.turn(); ; {
		select {
		case <-ctx.Done():
			s.seize()
			s.finish(context.Cause(ctx))
			return
		case <-s.bell:
			// Whoever is about to send more does so first: it costs a look at the run queue when there is nobody, and saves
			// a frame, two system calls and the wake-ups behind them when there is.
			runtime.Gosched()
			s.turn()
		case <-ticker.C:
			if !s.wrote.Swap(false) {
				s.due.Store(true)
				c.Flush()
			}
			if !heard.tick(c.reads.Load()) {
				c.fail(errSilent)
			}
		}
	}
}

// watch tells a silent end by the counter of reads.
type watch struct {
	seen   uint64
	silent int
}

// tick returns false when the same read has waited for more than silentTicks. Ticks are counted, not time: that this
// process did not run is not the other end's silence.
func (w *watch) tick(reads uint64) bool {
	if w.silent++; reads != w.seen || reads%2 == 0 {
		w.seen, w.silent = reads, 0
	}
	return w.silent <= silentTicks
}

// turn writes what waits, and what was left.
func (s *sender) turn() {
	if s.state.CompareAndSwap(left, busy) || s.enter() {
		s.drain(math.MaxInt, true)
	}
}

// seize makes Run the one who writes, for good. Who flushes at the moment does not wait for anything.
func (s *sender) seize() {
	for !s.over && !s.state.CompareAndSwap(left, busy) && !s.state.CompareAndSwap(idle, busy) {
		runtime.Gosched()
	}
	s.over = true
}

// finish writes what waits and why the stream ends; Run has seized.
func (s *sender) finish(cause error) {
	_ = s.c.nc.SetWriteDeadline(time.Now().Add(flushMax))
	s.wait = true
	for s.load() {
		if !s.send() {
			return
		}
	}
	if cause != nil && !errors.Is(cause, context.Canceled) {
		f := NewFrame(helloMax)
		text := cause.Error()
		f.Buf = append(f.Buf, text[:min(len(text), helloMax)]...)
		if s.rest = f.finish(kindEnd, nil); !s.send() {
			return
		}
	}
	_ = s.c.nc.CloseWrite() // the other end reads it all before it sees the end
}

// Package sched is how the goroutines of a chunkserver run and wait, so that a simulation can put a scheduler of its own in
// the place of Go's:
//
//	multiraft, groupcommit
//	          |
//	   Clock, Bell, Recv ──── Scheduler nil: goroutines, select, timers
//	                     └─── a simulation's: one goroutine at a time, in the order that it chooses, on its own time
//
// Who uses it starts goroutines with Tasks, lets them wait with Bell and Recv and nothing else, and holds no lock
// meanwhile. Then a Scheduler that runs one of them until it waits, and only then another, can repeat a run exactly.
package sched

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrStopped means that what was waited for has stopped.
var ErrStopped = errors.New("sched: stopped")

// Scheduler runs goroutines in the place of Go's runtime.
type Scheduler interface {
	// Now is monotonic and never 0.
	Now() time.Duration
	// Go runs f as a goroutine of its own, some time.
	Go(f func())
	// Park suspends the calling goroutine until ready returns true, or Now reaches until if that is not 0. ready is called
	// on other goroutines and changes nothing.
	Park(ready func() bool, until time.Duration)
}

// Clock is the time and the scheduler of one process.
type Clock struct {
	start time.Time
	sim   Scheduler
}

// NewClock returns the clock of a scheduler; nil is Go's runtime.
func NewClock(s Scheduler) *Clock { return &Clock{start: time.Now(), sim: s} }

// Now is the time since NewClock, or the scheduler's. It is never 0.
func (c *Clock) Now() time.Duration {
	if c.sim != nil {
		return c.sim.Now()
	}
	return time.Since(c.start) + 1
}

// Sleep waits d, or returns ctx's error or, when stopped is closed, ErrStopped.
func (c *Clock) Sleep(ctx context.Context, d time.Duration, stopped <-chan struct{}) error {
	if c.sim != nil {
		c.sim.Park(func() bool { return ctx.Err() != nil || closed(stopped) }, c.Now()+d)
		return why(ctx, stopped)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-stopped:
		return ErrStopped
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// pending tells whether ch has a value or is closed, and leaves the value there.
func pending(ch <-chan struct{}) bool { return len(ch) > 0 || closed(ch) }

func why(ctx context.Context, stopped <-chan struct{}) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case closed(stopped):
		return ErrStopped
	}
	return nil
}

// Recv waits for a value from ch, which has a buffer. It returns ctx's error, or ErrStopped when stopped, which may be nil, is closed.
func Recv[T any](ctx context.Context, c *Clock, ch <-chan T, stopped <-chan struct{}) (v T, err error) {
	if c.sim != nil {
		c.sim.Park(func() bool { return len(ch) > 0 || ctx.Err() != nil || closed(stopped) }, 0)
		select {
		case v = <-ch:
			return v, nil
		default:
			return v, why(ctx, stopped)
		}
	}
	select {
	case v = <-ch:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	case <-stopped:
		return v, ErrStopped
	}
}

// Done waits until ctx ends.
func (c *Clock) Done(ctx context.Context) {
	if c.sim != nil {
		c.sim.Park(func() bool { return ctx.Err() != nil }, 0)
		return
	}
	<-ctx.Done()
}

// Bell wakes the one goroutine that waits for it. A ring that nobody waits for is kept; several are one.
type Bell struct {
	c     *Clock
	rung  chan struct{}
	timer *time.Timer // of the goroutine that waits
}

// NewBell returns a bell.
func (c *Clock) NewBell() *Bell { return &Bell{c: c, rung: make(chan struct{}, 1)} }

// Ring wakes who waits, or the next one who does. It does not block.
func (b *Bell) Ring() {
	select {
	case b.rung <- struct{}{}:
	default:
	}
}

// Wait returns when the bell rings, when the clock reaches until, or when ctx ends.
func (b *Bell) Wait(ctx context.Context, until time.Duration) { b.WaitOr(ctx, until, nil, nil) }

// WaitOr is Wait that also returns when x or y, which may be nil, gives a value or is closed. It tells which.
func (b *Bell) WaitOr(ctx context.Context, until time.Duration, x, y <-chan struct{}) (gotX, gotY bool) {
	if s := b.c.sim; s != nil {
		s.Park(func() bool { return len(b.rung) > 0 || ctx.Err() != nil || pending(x) || pending(y) }, until)
		closed(b.rung) // takes the ring
		return closed(x), closed(y)
	}
	if b.timer == nil {
		b.timer = time.NewTimer(until - b.c.Now())
	} else {
		b.timer.Reset(until - b.c.Now())
	}
	defer b.timer.Stop()
	select {
	case <-b.rung:
	case <-b.timer.C:
	case <-ctx.Done():
	case <-x:
		gotX = true
	case <-y:
		gotY = true
	}
	return gotX, gotY
}

// Tasks are goroutines that are stopped together.
type Tasks struct {
	c      *Clock
	wg     sync.WaitGroup
	left   int             // a Scheduler's tasks that have not returned
	ctx    context.Context //nolint:containedctx // it is what Stop ends
	cancel context.CancelFunc
}

// NewTasks returns an empty set.
func (c *Clock) NewTasks() *Tasks {
	t := &Tasks{c: c}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Run runs f with a context that Stop ends.
func (t *Tasks) Run(f func(context.Context)) {
	if s := t.c.sim; s != nil {
		t.left++
		s.Go(func() {
			f(t.ctx)
			t.left--
		})
		return
	}
	t.wg.Go(func() { f(t.ctx) })
}

// Stop ends the tasks and waits until all have returned.
func (t *Tasks) Stop() {
	t.cancel()
	if s := t.c.sim; s != nil {
		s.Park(func() bool { return t.left == 0 }, 0)
		return
	}
	t.wg.Wait()
}

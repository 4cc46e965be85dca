package sched

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBell(t *testing.T) {
	c := NewClock(nil)
	b := c.NewBell()
	b.Ring()
	b.Ring() // is the same
	begin := c.Now()
	b.Wait(t.Context(), begin+time.Hour)
	b.Wait(t.Context(), begin+5*time.Millisecond)
	if d := c.Now() - begin; d < 5*time.Millisecond || d > time.Minute {
		t.Errorf("waited %v", d)
	}
	go func() { b.Ring() }()
	b.Wait(t.Context(), begin+time.Hour)
	x, y := make(chan struct{}, 1), make(chan struct{})
	x <- struct{}{}
	if gotX, gotY := b.WaitOr(t.Context(), begin+time.Hour, x, y); !gotX || gotY {
		t.Error("x was not told")
	}
	close(y)
	if gotX, gotY := b.WaitOr(t.Context(), begin+time.Hour, x, y); gotX || !gotY {
		t.Error("y was not told")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.Wait(ctx, begin+time.Hour)
}

func TestRecv(t *testing.T) {
	c := NewClock(nil)
	ch, stopped := make(chan int, 1), make(chan struct{})
	ch <- 3
	if v, err := Recv(t.Context(), c, ch, stopped); v != 3 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	close(stopped)
	if _, err := Recv(t.Context(), c, ch, stopped); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	if err := c.Sleep(t.Context(), time.Hour, stopped); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	if err := c.Sleep(t.Context(), time.Millisecond, nil); err != nil {
		t.Errorf("sleep: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Recv(ctx, c, ch, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	c.Done(ctx)
}

func TestTasks(t *testing.T) {
	c := NewClock(nil)
	ts := c.NewTasks()
	n := make(chan int, 2)
	for range 2 {
		ts.Run(func(ctx context.Context) {
			c.Done(ctx)
			n <- 1
		})
	}
	ts.Stop()
	if len(n) != 2 {
		t.Errorf("%d of 2 have returned", len(n))
	}
}

// manual is a scheduler with one goroutine, whose Park moves the time on.
type manual struct{ now time.Duration }

func (m *manual) Now() time.Duration { return m.now }
func (m *manual) Go(f func())        { f() }
func (m *manual) Park(ready func() bool, until time.Duration) {
	if !ready() && until > m.now {
		m.now = until
	}
}

func TestScheduler(t *testing.T) {
	m := &manual{now: 1}
	c := NewClock(m)
	if err := c.Sleep(t.Context(), time.Hour, nil); err != nil || c.Now() != time.Hour+1 {
		t.Errorf("slept until %v: %v", c.Now(), err)
	}
	b := c.NewBell()
	b.Ring()
	b.Wait(t.Context(), c.Now()+time.Hour)
	if c.Now() != time.Hour+1 {
		t.Error("a ring was not heard")
	}
	x := make(chan struct{}, 1)
	x <- struct{}{}
	if gotX, gotY := b.WaitOr(t.Context(), c.Now()+time.Hour, x, nil); !gotX || gotY || c.Now() != time.Hour+1 {
		t.Error("x was not told")
	}
	ch := make(chan int, 1)
	ch <- 4
	if v, err := Recv(t.Context(), c, ch, nil); v != 4 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	ts := c.NewTasks()
	ran := false
	ts.Run(func(context.Context) { ran = true })
	if ts.Stop(); !ran {
		t.Error("the task did not run")
	}
}

package loop

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box is an owner whose clock is fast times as fast.
type box struct {
	l             *Loop
	fast          time.Duration
	stopped, dead bool
}

func (b *box) Clock() time.Duration                    { return b.l.Now * b.fast }
func (b *box) TrueTime(at time.Duration) time.Duration { return at / b.fast }
func (b *box) Stopped() bool                           { return b.stopped }
func (b *box) Dead() bool                              { return b.dead }

func newLoop(t *testing.T, seed uint64, found func(error)) *Loop {
	t.Helper()
	l := New(time.Second, rand.New(rand.NewPCG(seed, 0)), func() {}, found)
	t.Cleanup(l.Close)
	return l
}

func none(t *testing.T) func(error) {
	return func(err error) { t.Error(err) }
}

// TestOrder: a seed decides the order, another seed another one.
func TestOrder(t *testing.T) {
	order := func(seed uint64) (names []string, trace uint64) {
		l := newLoop(t, seed, none(t))
		left := 0
		for _, n := range []string{"a", "b", "c", "d"} {
			left++
			l.Spawn(nil, n, func() {
				for range 5 {
					names = append(names, l.Current().Name())
					l.Sleep(time.Millisecond)
				}
				left--
			})
		}
		if !l.Until(time.Minute, func() bool { return left == 0 }) {
			t.Fatal("they have not ended")
		}
		return names, l.Trace
	}
	a, x := order(1)
	b, y := order(1)
	c, z := order(2)
	if !slices.Equal(a, b) || x != y {
		t.Errorf("%v and %v", a, b)
	}
	if slices.Equal(a, c) || x == z {
		t.Error("two seeds, one order")
	}
}

// TestTime: events and waits happen at their times, by each owner's clock, and late by lagMax at most.
func TestTime(t *testing.T) {
	l := newLoop(t, 1, none(t))
	b := &box{l: l, fast: 2}
	var event, woke, rung time.Duration
	bell := false
	l.After(time.Second, func() {
		event, bell = l.Now, true
		if l.Current() != nil {
			t.Error("an event has a task")
		}
	})
	l.Spawn(b, "sleeps", func() {
		if l.Clock() != 2*time.Second {
			t.Errorf("its clock shows %v", l.Clock())
		}
		l.Sleep(3 * time.Second)
		woke = l.Now
	})
	l.Spawn(nil, "waits", func() {
		l.Park(func() bool { return bell }, time.Hour)
		rung = l.Now
	})
	if !l.Until(time.Minute, func() bool { return woke > 0 && rung > 0 }) {
		t.Fatal("nothing happened")
	}
	near := func(what string, at, want time.Duration) {
		if at < want || at > want+lagMax {
			t.Errorf("%s at %v, want %v", what, at, want)
		}
	}
	near("the event", event, 2*time.Second)
	near("the sleep by a fast clock ended", woke, 2500*time.Millisecond)
	near("the bell was heard", rung, 2*time.Second)
	if begin := l.Now; l.Until(begin+time.Second, func() bool { return false }) || l.Now != begin+time.Second {
		t.Errorf("the deadline was %v, it is %v", begin+time.Second, l.Now)
	}
}

// TestStopAndDeath: tasks of a stopped owner stand still; those of one that died are unwound, with what they deferred.
func TestStopAndDeath(t *testing.T) {
	l := newLoop(t, 1, none(t))
	b := &box{l: l, fast: 1}
	n, unwound := 0, 0
	for range 2 {
		l.Spawn(b, "counts", func() {
			defer func() {
				unwound++
				if !l.Current().Dying() {
					t.Error("it does not know that it dies")
				}
			}()
			for {
				n++
				l.Sleep(10 * time.Millisecond)
			}
		})
	}
	l.Until(l.Now+time.Second, func() bool { return n >= 10 })
	before := n
	b.stopped = true
	if l.Until(l.Now+time.Second, func() bool { return n > before }) {
		t.Error("a stopped owner's task runs")
	}
	b.stopped = false
	if !l.Until(l.Now+time.Second, func() bool { return n > before }) {
		t.Error("it does not go on")
	}
	b.dead = true
	if l.End(b); unwound != 2 {
		t.Errorf("%d of 2 are unwound", unwound)
	}
	if n = 0; l.Until(l.Now+time.Second, func() bool { return n > 0 }) {
		t.Error("a dead owner's task runs")
	}
}

// TestKill ends the task that runs and no other.
func TestKill(t *testing.T) {
	l := newLoop(t, 1, none(t))
	after, other := false, false
	l.Spawn(nil, "dies", func() {
		Kill()
		after = true
	})
	l.Spawn(nil, "lives", func() { other = true })
	if !l.Until(time.Minute, func() bool { return other }) || after {
		t.Errorf("after %v, other %v", after, other)
	}
}

// TestFound: a panic and a loop without end are reported, and the loop is halted.
func TestFound(t *testing.T) {
	var found []string
	l := newLoop(t, 1, func(err error) { found = append(found, err.Error()) })
	l.Spawn(nil, "odd", func() { panic("oh") })
	l.Spawn(nil, "busy", func() {
		for {
			l.Park(func() bool { return true }, 0)
		}
	})
	if l.Until(100*time.Hour, func() bool { return false }) {
		t.Error("it was done")
	}
	if len(found) != 2 || !strings.Contains(found[0], "odd: panic: oh") || !strings.Contains(found[1], "steps") {
		t.Errorf("found %q", found)
	}
	if !l.Broken || l.beat.Load() < StepsMax || l.Until(time.Minute, func() bool { return true }) {
		t.Error("it goes on")
	}
}

// TestEventsWithoutEnd: events that make each other at one moment are a loop without end too.
func TestEventsWithoutEnd(t *testing.T) {
	var found error
	l := newLoop(t, 1, func(err error) { found = err })
	var again func()
	again = func() { l.After(0, again) }
	again()
	if l.Until(100*time.Hour, func() bool { return false }); found == nil {
		t.Error("it was not found")
	}
}

// TestWatch: a task that waits for what the loop does not see is told with its stack; one that goes on is not.
func TestWatch(t *testing.T) {
	l := newLoop(t, 1, none(t))
	begun, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ended := false
	l.Spawn(nil, "blocks", func() {
		l.Sleep(time.Second)
		close(begun)
		<-goOn
		ended = true
	})
	go func() {
		defer close(done)
		l.Until(time.Minute, func() bool { return ended })
	}()
	<-begun
	var stuck *StuckError
	if err := l.Watch(done, 20*time.Millisecond); !errors.As(err, &stuck) || !strings.Contains(err.Error(), "TestWatch.func") {
		t.Errorf("%v", err)
	}
	close(goOn)
	if err := l.Watch(done, time.Minute); err != nil || !ended {
		t.Errorf("ended %v: %v", ended, err)
	}
}

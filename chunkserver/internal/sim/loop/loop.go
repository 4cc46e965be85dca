// Package loop runs the goroutines of a simulated system one at a time, on simulated time, in an order that a seed decides.
//
//	Spawn ─► task ──Park──► waits ──ready, or its owner's clock──► drawn from those that can go on ──► runs until it parks
//	After ─► event ───────────────── none can: the time moves ───► runs at its time
//
// A task is a coroutine (iter.Pull). It belongs to an Owner, whose clock it waits by, and who may be stopped for a while, or
// die: then its tasks are unwound where they wait. Nothing here looks at the real time or starts what runs beside.
//
// What a task does between two waits is one step. A loop that does more than StepsMax of them goes round and round, and is
// halted. A step that does not end, because it waits for what only another task can do, holds up all: nothing within can
// tell, so another goroutine watches (Watch).
package loop

import (
	"container/heap"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	// StepsMax bounds a loop.
	StepsMax = 2_000_000
	// lagEvery and lagMax: one in lagEvery waits ends up to lagMax late, as that of a goroutine that gets no processor.
	lagEvery = 64
	lagMax   = 30 * time.Millisecond
)

// Owner is what tasks belong to.
type Owner interface {
	// Clock is the time that its tasks see, TrueTime when that will be at.
	Clock() time.Duration
	TrueTime(at time.Duration) time.Duration
	// Stopped tells whether its tasks stand still for the time being, Dead whether they have ended for good.
	Stopped() bool
	Dead() bool
}

// Task is a goroutine of the simulated system.
type Task struct {
	owner Owner // nil: the true time is its own
	name  string
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	// It goes on when ready returns true or its owner's clock reaches until; lag is the time before which it does not.
	ready func() bool
	until time.Duration
	lag   time.Duration
	dying bool
	done  bool
}

// Name is what Spawn was told.
func (t *Task) Name() string { return t.name }

// Dying tells whether the task is being unwound: it must not wait.
func (t *Task) Dying() bool { return t.dying }

// killed unwinds a task.
type killed struct{}

// Kill ends the task that runs, as its owner has died.
func Kill() { panic(killed{}) }

// PanicError is found when a task panics.
type PanicError struct {
	Task  string
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("%s: panic: %v", e.Task, e.Value) }

// event happens at a time.
type event struct {
	at  time.Duration
	seq uint64
	run func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return last
}

// Loop is a simulated system. It is used by one goroutine, which its tasks take turns in.
type Loop struct {
	// Now is the true time, Steps orders what happened, Trace is a hash of all that did.
	Now   time.Duration
	Steps uint64
	Trace uint64
	// Broken is set when a task has panicked, and may hold locks.
	Broken bool

	choose *rand.Rand // which task runs next, and how long one lags
	// between is called between two steps, found with what must not happen.
	between func()
	found   func(error)
	halted  bool
	beat    atomic.Uint64
	queue   events
	seq     uint64
	tasks   []*Task
	ready   []*Task
	cur     *Task
}

// New returns a loop whose time is now. between is called between two steps; found gets what goes wrong within.
func New(now time.Duration, choose *rand.Rand, between func(), found func(error)) *Loop {
	return &Loop{Now: now, choose: choose, between: between, found: found}
}

// Halt has Until return; nothing runs any more but what is unwound.
func (l *Loop) Halt() { l.halted = true }

// Current is the task that runs; nil within events.
func (l *Loop) Current() *Task { return l.cur }

// Note mixes what happened into the trace.
func (l *Loop) Note(vs ...uint64) {
	for _, v := range vs {
		l.Trace = (l.Trace ^ v) * 0x100000001b3
		l.Trace ^= l.Trace >> 29
	}
}

// After has f run d from now.
func (l *Loop) After(d time.Duration, f func()) {
	l.seq++
	heap.Push(&l.queue, event{at: l.Now + d, seq: l.seq, run: f})
}

// Spawn makes a task. It begins when it is drawn.
func (l *Loop) Spawn(owner Owner, name string, f func()) {
	t := &Task{owner: owner, name: name}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			if r := recover(); r != nil && r != (killed{}) {
				l.Broken = true
				l.found(&PanicError{Task: t.name, Value: r, Stack: debug.Stack()})
			}
		}()
		f()
	})
	l.tasks = append(l.tasks, t)
}

// Park suspends the task that runs until ready returns true or, if until is not 0, its owner's clock reaches that.
func (l *Loop) Park(ready func() bool, until time.Duration) {
	t := l.cur
	if t.dying || t.owner != nil && t.owner.Dead() {
		panic(killed{})
	}
	t.ready, t.until = ready, until
	if l.choose.IntN(lagEvery) == 0 {
		t.lag = l.Now + time.Duration(l.choose.Int64N(int64(lagMax)))
	}
	ok := t.yield(struct{}{})
	t.ready, t.until, t.lag = nil, 0, 0
	if !ok || t.dying {
		t.dying = true
		panic(killed{})
	}
}

// Sleep suspends the task that runs.
func (l *Loop) Sleep(d time.Duration) { l.Park(Never, l.Clock()+d) }

// Never is a reason to go on that does not come.
func Never() bool { return false }

// Clock is the time as the task that runs sees it.
func (l *Loop) Clock() time.Duration {
	if l.cur == nil || l.cur.owner == nil {
		return l.Now
	}
	return l.cur.owner.Clock()
}

// runnable tells whether the task can go on.
func (l *Loop) runnable(t *Task) bool {
	if t.done || t.owner != nil && t.owner.Stopped() || t.lag > l.Now {
		return false
	}
	if t.ready == nil || t.ready() {
		return true
	}
	if t.until == 0 {
		return false
	}
	if t.owner == nil {
		return l.Now >= t.until
	}
	return t.owner.Clock() >= t.until
}

// step counts, and halts a loop without an end.
func (l *Loop) step() {
	l.beat.Add(1)
	if l.Steps++; l.Steps == StepsMax {
		l.Halt()
		l.found(fmt.Errorf("more than %d steps", StepsMax))
	}
}

// resume runs a task until it parks or ends.
func (l *Loop) resume(t *Task) {
	l.cur = t
	if _, ok := t.next(); !ok {
		t.done = true
	}
	l.cur = nil
}

// end unwinds a task that waits.
func (l *Loop) end(t *Task) {
	if t.done {
		return
	}
	t.dying = true
	l.cur = t
	t.stop()
	l.cur = nil
	t.done = true
	l.beat.Add(1)
}

// End unwinds the tasks of an owner, in the order in which they were made.
func (l *Loop) End(owner Owner) {
	for i := 0; i < len(l.tasks); i++ {
		if l.tasks[i].owner == owner {
			l.end(l.tasks[i])
		}
	}
}

// Close unwinds all tasks and forgets all events.
func (l *Loop) Close() {
	for i := 0; i < len(l.tasks); i++ {
		l.end(l.tasks[i])
	}
	l.tasks, l.ready, l.queue = nil, nil, nil
}

// Until runs until done returns true, and tells whether it did so before the deadline.
func (l *Loop) Until(deadline time.Duration, done func() bool) bool {
	for {
		l.between()
		switch {
		case l.halted:
			return false
		case done():
			return true
		}
		l.look()
		if len(l.ready) > 0 {
			i := l.choose.IntN(len(l.ready))
			l.step()
			l.Note(l.Steps, uint64(i), uint64(len(l.ready)))
			l.resume(l.ready[i])
			continue
		}
		if !l.advance(deadline) {
			return !l.halted && done()
		}
	}
}

// look finds the tasks that can go on and forgets those that have ended.
func (l *Loop) look() {
	l.ready = l.ready[:0]
	live := l.tasks[:0]
	for _, t := range l.tasks {
		if t.done {
			continue
		}
		live = append(live, t)
		if l.runnable(t) {
			l.ready = append(l.ready, t)
		}
	}
	clear(l.tasks[len(live):])
	l.tasks = live
}

// advance moves the time to the next thing that happens, and lets it happen. It returns false at the deadline.
func (l *Loop) advance(deadline time.Duration) bool {
	next := deadline
	if len(l.queue) > 0 {
		next = min(next, l.queue[0].at)
	}
	for _, t := range l.tasks {
		switch {
		case t.done || t.owner != nil && t.owner.Stopped():
		case t.lag > l.Now:
			next = min(next, t.lag)
		case t.until != 0 && t.owner == nil:
			next = min(next, max(t.until, l.Now))
		case t.until != 0:
			next = min(next, max(t.owner.TrueTime(t.until), l.Now))
		}
	}
	l.Now = next
	l.Note(uint64(l.Now))
	for !l.halted && len(l.queue) > 0 && l.queue[0].at <= l.Now {
		e := heap.Pop(&l.queue).(event)
		l.step()
		e.run()
		l.between()
	}
	return l.Now < deadline
}

package sim

import (
	"container/heap"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// task is a goroutine of the simulated system. It runs until it parks; nothing else runs meanwhile.
type task struct {
	owner *life // nil: a client, or the test itself
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

// killed unwinds the tasks of a chunkserver that crashed.
type killed struct{}

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
	*e = old[:len(old)-1]
	return last
}

// world is everything that is simulated. One goroutine at a time is in it.
type world struct {
	opts   Options
	now    time.Duration
	steps  uint64 // orders what happened, for the history
	trace  uint64 // hash of all that happened
	queue  events
	seq    uint64
	tasks  []*task
	dying  []*life
	cur    *task
	choose *rand.Rand // which task runs next, and how long one lags
	dice   *rand.Rand // faults
	net    *network
	nodes  []*node
	err    error // the first finding
	stats  Stats
	lull   time.Duration // until then the clients rest
	quiet  bool          // no faults any more
	over   bool          // what crashes stays down
	broken bool          // a task panicked, and may hold locks
	sets   []*set
	wanted int             // counts the changes of what peers there are to be
	ctx    context.Context //nolint:containedctx // never ends
	values uint32
	epochs map[layout.InitiatorID]layout.Epoch // the newest of each client
	fresh  layout.Seq                          // of bugs that make up sequence numbers
	logf   func(format string, args ...any)
}

// stream numbers the independent sources of chance of a seed.
type stream uint64

const (
	streamChoose stream = iota + 1
	streamDice
	streamNetwork
	streamPlan
	streamClient
	streamDisk
)

func (w *world) rand(s stream, n uint64) *rand.Rand {
	return rand.New(rand.NewPCG(w.opts.Seed, uint64(s)<<32|n))
}

// note mixes what happened into the trace.
func (w *world) note(vs ...uint64) {
	for _, v := range vs {
		w.trace = (w.trace ^ v) * 0x100000001b3
		w.trace ^= w.trace >> 29
	}
}

// find reports a broken promise. The first is kept.
func (w *world) find(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: "+format, append([]any{w.now}, args...)...)
		w.say("FOUND %v", w.err)
		w.show()
	}
}

// show tells the state of all peers.
func (w *world) show() {
	if w.logf == nil {
		return
	}
	for _, n := range w.nodes {
		if n.life == nil || n.life.host == nil {
			w.say("chunkserver %d is down", n.id)
			continue
		}
		for _, r := range n.life.host.Reports() {
			w.say("chunkserver %d: copyset %d peer %d term %d leader %d applied %d commit %d match %v: %v",
				n.id, r.Copyset, r.Peer, r.Term, r.LeaderPeer, r.Applied, r.Commit, r.Match, r.Err)
		}
	}
}

func (w *world) say(format string, args ...any) {
	if w.logf != nil {
		w.logf("%9.4f "+format, append([]any{w.now.Seconds()}, args...)...)
	}
}

// after has f run d from now.
func (w *world) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.queue, event{at: w.now + d, seq: w.seq, run: f})
}

// spawn makes a task. It begins when it is chosen.
func (w *world) spawn(owner *life, name string, f func()) *task {
	t := &task{owner: owner, name: name}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			if r := recover(); r != nil && r != (killed{}) {
				w.broken = true
				w.find("%s: panic: %v", t.name, r)
				w.say("%s", debug.Stack())
			}
		}()
		f()
	})
	w.tasks = append(w.tasks, t)
	return t
}

// lagEvery and lagMax: one in lagEvery waits ends up to lagMax late, as that of a goroutine that gets no processor.
const (
	lagEvery = 64
	lagMax   = 30 * time.Millisecond
)

// park suspends the task that runs. until is by its owner's clock.
func (w *world) park(ready func() bool, until time.Duration) {
	t := w.cur
	if t.dying || t.owner != nil && t.owner.dead {
		panic(killed{})
	}
	t.ready, t.until = ready, until
	if w.choose.IntN(lagEvery) == 0 {
		t.lag = w.now + time.Duration(w.choose.Int64N(int64(lagMax)))
	}
	ok := t.yield(struct{}{})
	t.ready, t.until, t.lag = nil, 0, 0
	if !ok || t.dying {
		t.dying = true
		panic(killed{})
	}
}

// sleep suspends the task that runs.
func (w *world) sleep(d time.Duration) { w.park(never, w.clock(w.cur.owner)+d) }

func never() bool { return false }

// clock is the time as a chunkserver sees it; of a client, nil, it is the true one.
func (w *world) clock(l *life) time.Duration {
	if l == nil {
		return w.now
	}
	return l.node.clock()
}

// when is the true time at which the task's wait ends by the clock; ok is false when it has no end.
func (t *task) when(w *world) (at time.Duration, ok bool) {
	if t.until == 0 {
		return 0, false
	}
	if t.owner == nil {
		return t.until, true
	}
	return t.owner.node.trueTime(t.until), true
}

func (t *task) runnable(w *world) bool {
	if t.done || t.owner != nil && t.owner.paused || t.lag > w.now {
		return false
	}
	return t.ready == nil || t.ready() || t.until != 0 && w.clock(t.owner) >= t.until
}

// resume runs a task until it parks or ends.
func (w *world) resume(t *task) {
	w.cur = t
	if _, ok := t.next(); !ok {
		t.done = true
	}
	w.cur = nil
}

// end unwinds a task that waits.
func (w *world) end(t *task) {
	if t.done {
		return
	}
	t.dying = true
	w.cur = t
	t.stop()
	w.cur = nil
	t.done = true
}

// bury ends what the chunkservers that crashed have left.
func (w *world) bury() {
	for len(w.dying) > 0 {
		l := w.dying[0]
		w.dying = w.dying[1:]
		for i := 0; i < len(w.tasks); i++ {
			if w.tasks[i].owner == l {
				w.end(w.tasks[i])
			}
		}
		if !w.broken {
			l.close()
		}
	}
}

// stepsMax bounds a simulation: one that does more goes round and round.
const stepsMax = 2_000_000

// until runs the world until done returns true, and tells whether it did so before the deadline.
func (w *world) until(deadline time.Duration, done func() bool) bool {
	var ready []*task
	for w.err == nil {
		w.bury()
		if done() {
			return true
		}
		ready = ready[:0]
		live := w.tasks[:0]
		for _, t := range w.tasks {
			if t.done {
				continue
			}
			live = append(live, t)
			if t.runnable(w) {
				ready = append(ready, t)
			}
		}
		clear(w.tasks[len(live):])
		w.tasks = live
		if len(ready) > 0 {
			i := w.choose.IntN(len(ready))
			w.steps++
			w.note(w.steps, uint64(i), uint64(len(ready)))
			w.resume(ready[i])
			if w.steps > stepsMax {
				w.find("more than %d steps", stepsMax)
			}
			continue
		}
		if !w.advance(deadline) {
			return done()
		}
	}
	return false
}

// advance moves the time to the next thing that happens, and lets it happen. It returns false at the deadline.
func (w *world) advance(deadline time.Duration) bool {
	next := deadline
	if len(w.queue) > 0 {
		next = min(next, w.queue[0].at)
	}
	for _, t := range w.tasks {
		if t.done || t.owner != nil && t.owner.paused {
			continue
		}
		if t.lag > w.now {
			next = min(next, t.lag)
		} else if at, ok := t.when(w); ok {
			next = min(next, max(at, w.now))
		}
	}
	w.now = next
	w.note(uint64(w.now))
	for len(w.queue) > 0 && w.queue[0].at <= w.now {
		e := heap.Pop(&w.queue).(event)
		w.steps++
		e.run()
		w.bury()
	}
	return w.now < deadline
}

// finish ends all tasks.
func (w *world) finish() {
	for _, n := range w.nodes {
		if n.life != nil {
			n.life.fall()
		}
	}
	w.bury()
	for _, t := range w.tasks {
		w.end(t)
	}
	w.tasks = nil
}

// lifeScheduler is how the goroutines of a chunkserver run.
type lifeScheduler struct{ l *life }

func (s lifeScheduler) Now() time.Duration { return s.l.node.clock() }
func (s lifeScheduler) Go(f func())        { s.l.node.w.spawn(s.l, taskHost, f) }
func (s lifeScheduler) Park(ready func() bool, until time.Duration) {
	s.l.node.w.park(ready, until)
}

// waiter is who waits for a proposal.
type waiter struct {
	done  bool
	reply multiraft.Reply
}

// Done implements multiraft.Waiter.
func (a *waiter) Done(r multiraft.Reply) { a.done, a.reply = true, r }

package portal

import (
	"fmt"
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"go.uber.org/zap"
)

// idleMax is the most workers of a session that wait for a task.
const idleMax = 64

// worker runs tasks, one after the other.
type worker struct {
	mu struct {
		sync.Mutex
		task *session.Task // that runs
	}
}

// start runs a task on a worker that waits, or on a new one.
func (r *runner) start(t *session.Task) {
	if r.idle.Add(-1) >= 0 {
		r.work <- t // has room: each worker that was counted as idle takes one
		return
	}
	r.idle.Add(1)
	r.p.counters.workers.Add(1)
	w := &worker{}
	r.posted.Lock()
	r.posted.workers[w] = struct{}{}
	r.posted.Unlock()
	r.running.Add(1)
	go r.labor(w, t)
}

// labor is the life of a worker. It ends when enough others wait, or with the session.
func (r *runner) labor(w *worker, t *session.Task) {
	defer r.running.Done()
	defer func() {
		r.posted.Lock()
		defer r.posted.Unlock()
		delete(r.posted.workers, w)
	}()
	var todo session.Effects
	for n := uint64(1); ; n++ {
		r.begin(w, t)
		r.run(t)
		w.finish()
		r.complete(t, &todo)
		if r.idle.Add(1) > idleMax && r.excess() {
			r.p.counters.tasks.Add(n)
			return
		}
		select {
		case t = <-r.work:
		case <-r.quit:
			r.p.counters.tasks.Add(n)
			return
		}
	}
}

// begin has AbortUnit reach t from now on, and sees to the resets that were before and that the engine does not know yet.
func (r *runner) begin(w *worker, t *session.Task) {
	w.mu.Lock()
	w.mu.task = t
	w.mu.Unlock()
	if !t.Precedes(r.resets.Load()) {
		return
	}
	r.posted.Lock()
	defer r.posted.Unlock()
	for _, u := range r.posted.aborts {
		w.interrupt(u)
	}
}

// finish is called when the task has run, before it is given back.
func (w *worker) finish() {
	w.mu.Lock()
	w.mu.task = nil
	w.mu.Unlock()
}

// interrupt cancels the task that runs, if the reset u ends it.
func (w *worker) interrupt(u unitReset) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.mu.task; t != nil && t.On(u.lun) && t.Precedes(u.reset) {
		t.Interrupt()
	}
}

// excess takes back that one more worker waits. It returns false when somebody counts on it already.
func (r *runner) excess() bool {
	for {
		n := r.idle.Load()
		if n <= 0 {
			return false
		}
		if r.idle.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// run executes a task. A panic of the medium fails the command and ends the session.
func (r *runner) run(t *session.Task) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked("task", v)
			t.Fail(session.ErrBroken)
			r.Close(fmt.Errorf("panic: %v", v))
		}
	}()
	t.Run()
}

// complete gives a task back to the engine. If no other task runs, none will be done soon whose status could be sent with
// this one's: the worker sends it by itself, and the writer need not be woken.
func (r *runner) complete(t *session.Task, todo *session.Effects) {
	r.mu.Lock()
	locked := true
	defer func() {
		if v := recover(); v != nil {
			r.panicked("complete", v)
			r.breakLocked(locked)
		}
	}()
	var alone *conn
	if !r.broken {
		if t.Precedes(r.resets.Load()) {
			r.abortUnits()
		}
		c := t.Conn() // has sent a command, so its login was answered
		r.engine.Complete(t)
		r.engine.Effects(todo)
		if r.engine.Running() == 0 && len(todo.Write) == 1 && todo.Write[0] == c {
			alone, _ = c.Owner.(*conn)
			todo.Write[0], todo.Write = nil, todo.Write[:0]
		}
	}
	locked = false
	r.mu.Unlock()
	r.do(todo)
	if alone != nil {
		alone.send()
	}
}

// settleTick is how often settle looks whether tasks have ended.
const settleTick = 5 * time.Millisecond

// settle waits for the tasks that were cancelled, and for the workers.
func (r *runner) settle() {
	for first := true; ; first = false {
		r.mu.Lock()
		n := r.engine.Running()
		broken := r.broken
		r.mu.Unlock()
		if n == 0 || broken { // tasks never come back to an engine that is broken
			break
		}
		if first {
			r.log.Debug("waiting for cancelled tasks", zap.Int("tasks", n))
		}
		time.Sleep(settleTick)
	}
	close(r.quit)
	r.running.Wait()
	r.engine.Forfeit()
}

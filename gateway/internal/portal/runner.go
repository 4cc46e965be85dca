package portal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"go.uber.org/zap"
)

// idleMax is the most workers of a session that wait for a task.
const idleMax = 64

// runner runs one session: its engine, its keeper and its workers.
type runner struct {
	p     *Portal
	place *target.Session

	mu     sync.Mutex // the engine's mutex; guards engine, and conn's engine
	engine *session.Session
	broken bool // guarded by mu: the engine panicked and is not asked for more
	conn   *conn

	kick chan struct{} // cap 1: there is something in posted
	over chan struct{} // closed when the session has ended
	kept chan struct{} // closed when the keeper has returned

	work    chan *session.Task // never closed: a task may be on its way to it
	quit    chan struct{}      // closed when no more tasks come
	idle    atomic.Int32
	workers sync.WaitGroup

	posted struct {
		sync.Mutex
		close  error
		aborts []scsi.LUN
		memory bool
	}
}

var _ target.Control = (*runner)(nil)

// begin makes the session that a login was admitted for, after the one that it replaces has ended.
func (c *conn) begin(place *target.Session, done *login.Result) (*runner, error) {
	if old := place.Replaced(); old != nil {
		old.Close(target.ErrReinstated)
		select {
		case <-old.Done():
		case <-time.After(c.p.cfg.ReplaceTimeout):
			return nil, errors.New("portal: the session of the same name does not end")
		}
	}
	r := &runner{
		p: c.p, place: place, conn: c,
		kick: make(chan struct{}, 1), over: make(chan struct{}), kept: make(chan struct{}), quit: make(chan struct{}),
		work: make(chan *session.Task, idleMax),
	}
	nexus, err := place.Attach(r)
	if err != nil {
		return nil, err
	}
	r.engine, err = session.New(session.Config{
		Login: done, Window: c.p.cfg.Window, Bytes: c.p.cfg.SessionMemoryMax, Pool: c.p.pool, Nexus: nexus,
		Env: place, Targets: c.p.registry, Wake: r.memory,
	})
	if err != nil {
		return nil, err
	}
	if c.engine, err = r.engine.AddConn(done); err != nil {
		r.engine.End()
		return nil, err
	}
	c.r = r
	c.out = newOutput(c.nc, &c.p.counters)
	c.out.headerDigest = done.Params.HeaderDigest == login.DigestCRC32C
	c.out.dataDigest = done.Params.DataDigest == login.DigestCRC32C
	c.in.limits.MaxData = int(done.Params.TargetMaxRecvDataSegmentLength)
	c.in.limits.HeaderDigest, c.in.limits.DataDigest = c.out.headerDigest, c.out.dataDigest
	if !c.p.keep(r) {
		r.engine.End()
		return nil, errClosing
	}
	return r, nil
}

// abandon ends a session whose first connection was lost before its login was answered.
func (r *runner) abandon(c *conn) {
	r.mu.Lock()
	r.engine.End()
	r.mu.Unlock()
	r.p.drop(r)
	r.place.End()
}

// Close implements target.Control.
func (r *runner) Close(why error) {
	r.posted.Lock()
	if r.posted.close == nil {
		r.posted.close = why
	}
	r.posted.Unlock()
	r.wakeKeeper()
}

// AbortUnit implements target.Control.
func (r *runner) AbortUnit(lun scsi.LUN) {
	r.posted.Lock()
	r.posted.aborts = append(r.posted.aborts, lun)
	r.posted.Unlock()
	r.wakeKeeper()
}

// memory is session.Config.Wake.
func (r *runner) memory() {
	r.posted.Lock()
	r.posted.memory = true
	r.posted.Unlock()
	r.wakeKeeper()
}

func (r *runner) wakeKeeper() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// reason returns why the session ended: what the table said, or err.
func (r *runner) reason(err error) error {
	r.posted.Lock()
	defer r.posted.Unlock()
	if r.posted.close != nil {
		return r.posted.close
	}
	return err
}

func (r *runner) requestLogout(seconds uint16) {
	r.mu.Lock()
	if !r.broken {
		r.engine.RequestLogout(seconds)
	}
	r.unlock()
}

// unlock gives the mutex back and does what the engine wants done.
func (r *runner) unlock() {
	var todo session.Effects
	if !r.broken {
		r.engine.Effects(&todo)
	}
	r.mu.Unlock()
	r.do(&todo)
}

// do does what the engine wants done. The mutex is not held.
func (r *runner) do(e *session.Effects) {
	for i, t := range e.Start {
		e.Start[i] = nil
		r.start(t)
	}
	if len(e.Write) > 0 {
		clear(e.Write)
		r.conn.signal() // sessions have one connection, Config.Validate sees to it
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
	r.workers.Add(1)
	go r.worker(t)
}

// worker runs tasks, one after the other. It ends when enough others wait, or with the session.
func (r *runner) worker(t *session.Task) {
	defer r.workers.Done()
	var todo session.Effects
	for n := uint64(1); ; n++ {
		r.run(t)
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
			r.conn.panicked("task", v)
			t.Fail(session.ErrBroken)
			r.Close(fmt.Errorf("panic: %v", v))
		}
	}()
	t.Run()
}

// complete gives a task back to the engine.
func (r *runner) complete(t *session.Task, todo *session.Effects) {
	r.mu.Lock()
	locked := true
	defer func() {
		if v := recover(); v != nil {
			r.conn.panicked("complete", v)
			r.breakLocked(locked)
		}
	}()
	if !r.broken {
		r.engine.Complete(t)
		r.engine.Effects(todo)
	}
	locked = false
	r.mu.Unlock()
	r.do(todo)
}

// breakLocked ends a session whose engine panicked. Its state can not be trusted, so nothing but End is asked of it: its
// writes are fenced as far as it knows them.
func (r *runner) breakLocked(locked bool) {
	if !locked {
		r.mu.Lock()
	}
	defer func() {
		if v := recover(); v != nil {
			r.conn.panicked("end", v)
		}
		r.mu.Unlock()
		r.Close(session.ErrBroken)
		r.conn.signal()
		_ = r.conn.nc.Close()
	}()
	r.broken = true
	r.engine.End()
}

// connLeft ends the session when its connection is gone: first what others wait for, then what may take long.
func (r *runner) connLeft() {
	r.mu.Lock()
	if !r.broken {
		r.engine.End()
	}
	r.unlock()
	r.place.End()
	close(r.over)
	<-r.kept
	r.settle()
	r.p.counters.end(r.engine.Stats())
	r.p.drop(r)
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
			r.conn.log.Debug("waiting for cancelled tasks", zap.Int("tasks", n))
		}
		time.Sleep(settleTick)
	}
	close(r.quit)
	r.workers.Wait()
	r.engine.Forfeit()
}

// keepGuarded is the keeper.
func (r *runner) keepGuarded() {
	defer close(r.kept)
	defer func() {
		if v := recover(); v != nil {
			r.conn.panicked("keeper", v)
			r.breakLocked(false)
		}
	}()
	r.keep()
}

// keepTick is how often the keeper looks at the clock; timeouts are late by as much.
const keepTick = 250 * time.Millisecond

// keep does what has no PDU as its cause: what others want of the session, and time.
func (r *runner) keep() {
	tick := time.NewTicker(keepTick)
	defer tick.Stop()
	for {
		select {
		case <-r.over:
			return
		case <-r.kick:
			r.handlePosted()
		case <-tick.C:
			r.checkTime()
		}
	}
}

// handlePosted does what was posted.
func (r *runner) handlePosted() {
	r.posted.Lock()
	end, memory, aborts := r.posted.close, r.posted.memory, r.posted.aborts
	r.posted.memory, r.posted.aborts = false, nil
	r.posted.Unlock()
	r.mu.Lock()
	if r.broken {
		r.mu.Unlock()
		return
	}
	for _, lun := range aborts {
		r.engine.AbortUnit(lun)
	}
	if memory {
		r.engine.Memory()
	}
	if end != nil {
		r.engine.End()
	}
	r.unlock()
	if end != nil {
		_ = r.conn.nc.Close()
	}
}

// checkTime pings an initiator that is silent, and drops one that does not answer or does not take what is sent. As long
// as a write waits for the initiator to take bytes, its silence is no sign: only SendTimeout counts.
func (r *runner) checkTime() {
	c, cfg, now := r.conn, &r.p.cfg, sinceEpoch()
	if since := c.out.since.Load(); since != 0 {
		if now-since > int64(cfg.SendTimeout) {
			r.p.counters.sendTimeouts.Add(1)
			r.Close(fmt.Errorf("portal: nothing taken for %v", cfg.SendTimeout))
		}
		return
	}
	if cfg.PingInterval == 0 {
		return
	}
	last := c.in.last.Load()
	r.mu.Lock()
	switch {
	case r.broken:
	case !c.engine.Pinging():
		if now-last >= int64(cfg.PingInterval) {
			c.engine.Ping()
			c.pinged = now
		}
	case now-max(last, c.pinged) >= int64(cfg.PingTimeout):
		r.p.counters.pingTimeouts.Add(1)
		r.Close(fmt.Errorf("portal: no answer to a ping for %v", cfg.PingTimeout))
	}
	r.unlock()
}

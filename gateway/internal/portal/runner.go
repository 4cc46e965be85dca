package portal

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"go.uber.org/zap"
)

// unitReset is a reset of a logical unit by another session, and its number.
type unitReset struct {
	lun   scsi.LUN
	reset uint32
}

// runner runs one session: its engine, its keeper and its workers.
type runner struct {
	p     *Portal
	place *target.Session
	login *login.Result // of the first connection
	since time.Time
	log   *zap.Logger

	mu     sync.Mutex // the engine's mutex; guards engine, the conns' engines, and what follows
	engine *session.Session
	broken bool      // the engine panicked and is not asked for more
	conns  []*conn   // whose goroutines are not done
	dropBy time.Time // when a session that was dropped is ended; zero if it was not

	resets atomic.Uint32 // of logical units by other sessions

	kick chan struct{} // cap 1: there is something in posted
	over chan struct{} // closed when the session has ended
	kept chan struct{} // closed when the keeper has returned

	work    chan *session.Task // never closed: a task may be on its way to it
	quit    chan struct{}      // closed when no more tasks come
	idle    atomic.Int32
	running sync.WaitGroup // workers

	posted struct {
		sync.Mutex
		workers map[*worker]struct{}

		close  error
		aborts []unitReset
		gone   []scsi.LUN
		memory bool
		news   *scsi.LUN // the LUN inventory changed, and this one stays
	}
}

var _ target.Control = (*runner)(nil)

// enterSession makes the session that a login was admitted for, or adds the connection to the one that it named.
func (c *conn) enterSession(env *target.Env, done *login.Result) (*runner, error) {
	if place := env.Joined(); place != nil {
		return c.join(place, done)
	}
	return c.begin(env.Admitted(), done)
}

// begin makes a session, after the one that it replaces has ended.
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
		p: c.p, place: place, login: done, since: time.Now(), log: c.p.log.With(zap.Uint16("session", uint16(place.TSIH()))),
		kick: make(chan struct{}, 1), over: make(chan struct{}), kept: make(chan struct{}), quit: make(chan struct{}),
		work: make(chan *session.Task, idleMax),
	}
	r.posted.workers = map[*worker]struct{}{}
	if err := r.open(c, done); err != nil {
		return nil, err
	}
	if !c.p.keep(r) {
		r.locked("begin", r.engine.End)
		return nil, errClosing
	}
	go r.keepGuarded()
	return r, nil
}

// open makes the engine. The table knows the session from Attach on, and waits for the mutex if it asks for something.
func (r *runner) open(c *conn, done *login.Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	nexus, err := r.place.Attach(r)
	if err != nil {
		return err
	}
	engine, err := session.New(session.Config{
		Login: done, Window: c.p.cfg.Window, Bytes: c.p.cfg.SessionMemoryMax, Pool: c.p.pool, Nexus: nexus,
		Env: r.place, Targets: c.p.registry.At(c.localHost(), c.p.cfg.Port.Group), Wake: r.memory, Resets: &r.resets,
		Marks: &c.p.marks, Prove: r.prove,
	})
	if err != nil {
		return err
	}
	r.engine = engine
	if err := c.attach(r, done); err != nil {
		engine.End()
		return err
	}
	return nil
}

// join adds the connection to the session at place, in which it may take the place of another.
func (c *conn) join(place *target.Session, done *login.Result) (*runner, error) {
	r := c.p.runnerOf(place)
	if r == nil {
		return nil, session.ErrEnded
	}
	r.mu.Lock()
	defer r.unlock()
	if r.broken || len(r.conns) == 0 {
		return nil, session.ErrEnded
	}
	return r, c.attach(r, done)
}

// attach adds the connection to the engine of r, whose mutex is held, or which nobody else knows yet.
func (c *conn) attach(r *runner, done *login.Result) error {
	engine, err := r.engine.AddConn(done)
	if err != nil {
		return err
	}
	engine.Owner = c
	c.engine, c.r, c.login = engine, r, done
	c.log = r.log.With(zap.Stringer("peer", c.nc.RemoteAddr()))
	r.conns = append(r.conns, c)
	c.out = newOutput(c.nc, &c.p.counters)
	c.out.headerDigest = done.Params.HeaderDigest == login.DigestCRC32C
	c.out.dataDigest = done.Params.DataDigest == login.DigestCRC32C
	c.in.limits.MaxData = int(done.Params.TargetMaxRecvDataSegmentLength)
	c.in.limits.HeaderDigest, c.in.limits.DataDigest = c.out.headerDigest, c.out.dataDigest
	return nil
}

// abandon takes out a connection that was lost before its login was answered.
func (r *runner) abandon(c *conn) {
	r.locked("lost", c.engine.Lost)
	r.connLeft(c)
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

// AbortUnit implements target.Control. What runs is cancelled at once; the engine hears of it from the keeper, because this
// is called with the mutex of another session held.
func (r *runner) AbortUnit(lun scsi.LUN) {
	u := unitReset{lun, r.resets.Add(1)}
	r.posted.Lock()
	r.posted.aborts = append(r.posted.aborts, u)
	for w := range r.posted.workers {
		w.interrupt(u)
	}
	r.posted.Unlock()
	r.wakeKeeper()
}

// RemoveUnit implements target.Control.
func (r *runner) RemoveUnit(lun scsi.LUN) {
	r.posted.Lock()
	r.posted.gone = append(r.posted.gone, lun)
	r.posted.Unlock()
	r.wakeKeeper()
}

// LUNsChanged implements target.Control.
func (r *runner) LUNsChanged(lun scsi.LUN) {
	if !r.p.cfg.AnnounceLUNs {
		return
	}
	r.posted.Lock()
	r.posted.news = &lun
	r.posted.Unlock()
	r.wakeKeeper()
}

// Numbers implements target.Control. Those of a session that did not begin are of no use, as is what they are asked for.
func (r *runner) Numbers() (exp, last pdu.CmdSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.engine == nil {
		return 0, 0
	}
	return r.engine.Numbers()
}

// prove is session.Config.Prove. In a session that is broken the command is cancelled and waits for nothing else.
func (r *runner) prove(e *session.Conn, m session.Mark) (answered <-chan struct{}) {
	r.locked("proof", func() {
		if c, _ := e.Owner.(*conn); c != nil && !e.Pinging() {
			c.pinged = sinceEpoch()
		}
		answered = e.Prove(m)
	})
	return answered
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

// reason returns why the connection ended: what the table said, or the keeper, or err.
func (c *conn) reason(err error) error {
	c.r.posted.Lock()
	defer c.r.posted.Unlock()
	if c.r.posted.close != nil {
		return c.r.posted.close
	}
	if why := c.why.Load(); why != nil {
		return *why
	}
	return err
}

func (r *runner) requestLogout(seconds uint16) {
	r.locked("logout", func() { r.engine.RequestLogout(seconds) })
}

// quiesce lets no further command in.
func (r *runner) quiesce() { r.locked("quiesce", r.engine.Quiesce) }

// busy tells whether commands are in flight.
func (r *runner) busy() (is bool) {
	r.locked("busy", func() { is = r.engine.Busy() > 0 })
	return is
}

// present is true of each session that has not ended.
func (*runner) present() bool { return true }

// locked has f ask something of the engine, unless that is broken, and does what the engine wants done. A panic ends the
// session; where is for the log.
func (r *runner) locked(where string, f func()) {
	r.mu.Lock()
	defer func() {
		if v := recover(); v != nil {
			r.panicked(where, v)
			r.breakLocked(true)
			return
		}
		r.unlock()
	}()
	if !r.broken {
		f()
	}
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

// do does what the engine wants done, once: e is empty then. The mutex is not held.
func (r *runner) do(e *session.Effects) {
	for i, t := range e.Start {
		e.Start[i] = nil
		r.start(t)
	}
	for i, c := range e.Write {
		e.Write[i] = nil
		c.Owner.(*conn).signal()
	}
	e.Start, e.Write = e.Start[:0], e.Write[:0]
}

// breakLocked ends a session whose engine panicked. Its state can not be trusted, so nothing but the end is asked of it.
func (r *runner) breakLocked(locked bool) {
	if !locked {
		r.mu.Lock()
	}
	r.broken = true
	r.endLocked()
	conns := slices.Clone(r.conns)
	r.mu.Unlock()
	r.Close(session.ErrBroken)
	for _, c := range conns {
		c.signal()
		_ = c.nc.Close()
	}
}

// endLocked ends the engine. If that panics, what the engine has out is cancelled and fenced without it, so that the session
// ends as fast and as safely as another one.
func (r *runner) endLocked() {
	defer func() {
		if v := recover(); v != nil {
			r.broken = true
			r.panicked("end", v)
			r.engine.Cancel()
			r.place.AbortAll()
		}
	}()
	r.engine.End()
}

// connLeft takes out a connection that is gone. With the last one the session ends: first what others wait for, then what
// may take long.
func (r *runner) connLeft(c *conn) {
	r.mu.Lock()
	r.conns = slices.DeleteFunc(r.conns, func(o *conn) bool { return o == c })
	last := len(r.conns) == 0
	if last && !r.broken {
		r.endLocked()
	}
	r.unlock()
	if !last {
		return
	}
	r.place.End()
	close(r.over)
	<-r.kept
	r.settle()
	r.p.counters.end(r.engine.Stats())
	r.p.drop(r)
}

// keepGuarded is the keeper.
func (r *runner) keepGuarded() {
	defer close(r.kept)
	defer func() {
		if v := recover(); v != nil {
			r.panicked("keeper", v)
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
	end, memory, gone, news := r.posted.close, r.posted.memory, r.posted.gone, r.posted.news
	r.posted.memory, r.posted.gone, r.posted.news = false, nil, nil
	r.posted.Unlock()
	var conns []*conn
	r.locked("keeper", func() {
		r.abortUnits()
		for _, lun := range gone {
			r.engine.RemoveUnit(lun)
		}
		if memory {
			r.engine.Memory()
		}
		if news != nil && end == nil {
			r.engine.Report(*news, scsi.AttentionLUNsChanged)
		}
		switch {
		case end == nil:
		case told(end):
			r.engine.Drop()
			if r.dropBy.IsZero() {
				r.dropBy = time.Now().Add(dropGrace)
			}
		default:
			r.engine.End()
			conns = slices.Clone(r.conns)
		}
	})
	for _, c := range conns {
		_ = c.nc.Close()
	}
}

// abortUnits tells the engine of the resets that were posted. The mutex is held from before they are taken: a task that one
// of them has ended is not given back before the engine knows of it.
func (r *runner) abortUnits() {
	r.posted.Lock()
	aborts := r.posted.aborts
	r.posted.aborts = nil
	r.posted.Unlock()
	for _, a := range aborts {
		r.engine.AbortUnit(a.lun, a.reset)
	}
}

// dropGrace is how long an initiator has to take the news that its session is dropped.
const dropGrace = time.Second

// told tells whether an initiator is told that its session is dropped for the reason why. It is not when something waits
// for the end.
func told(why error) bool {
	return errors.Is(why, errClosing) || errors.Is(why, target.ErrDenied) || errors.Is(why, target.ErrRemoved) ||
		errors.Is(why, target.ErrReset)
}

// checkTime looks after the session's connections, and ends one that was dropped and is still there.
func (r *runner) checkTime() {
	var conns []*conn
	late := false
	r.locked("keeper", func() {
		conns = slices.Clone(r.conns)
		if late = !r.dropBy.IsZero() && time.Now().After(r.dropBy); late {
			r.engine.End()
		} else {
			r.engine.Tick()
		}
	})
	for _, c := range conns {
		if late {
			_ = c.nc.Close()
		} else {
			c.checkTime()
		}
	}
}

// checkTime pings an initiator that is silent, and drops one that does not answer or does not take what is sent. As long
// as a write waits for the initiator to take bytes, its silence is no sign: only SendTimeout counts.
func (c *conn) checkTime() {
	cfg, now := &c.p.cfg, sinceEpoch()
	if since := c.out.since.Load(); since != 0 {
		if now-since > int64(cfg.SendTimeout) {
			c.p.counters.sendTimeouts.Add(1)
			c.kill(fmt.Errorf("portal: nothing taken for %v", cfg.SendTimeout))
		}
		return
	}
	if cfg.PingInterval == 0 {
		return
	}
	last := c.in.last.Load()
	silent := false
	c.r.locked("keeper", func() {
		switch {
		case c.engine.Pinging():
			silent = now-max(last, c.pinged) >= int64(cfg.PingTimeout)
		case now-last >= int64(cfg.PingInterval):
			c.engine.Ping()
			c.pinged = now
		}
	})
	if silent {
		c.p.counters.pingTimeouts.Add(1)
		c.kill(fmt.Errorf("portal: no answer to a ping for %v", cfg.PingTimeout))
	}
}

// kill ends the connection for the reason why. Its reader sees it.
func (c *conn) kill(why error) {
	c.why.CompareAndSwap(nil, &why)
	_ = c.nc.Close()
}

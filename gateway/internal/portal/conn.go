package portal

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"go.uber.org/zap"
)

// conn is one TCP connection.
type conn struct {
	p    *Portal
	nc   *net.TCPConn
	host string // IP address of the peer
	log  *zap.Logger
	in   *input

	inLogin bool // guarded by Portal.mu

	// Of the full feature phase.
	r      *runner
	login  *login.Result
	engine *session.Conn
	out    *output
	wake   chan struct{} // cap 1: the engine has something to send
	room   chan struct{} // cap 1: something was taken to be sent
	gone   chan struct{} // closed when the writer has returned
	more   bool          // the last take left something; guarded by out.mu
	locked bool          // the reader holds runner.mu
	owes   bool          // the reader has not sent, or had sent, what the engine has for the connection
	pinged int64         // when the last ping was asked for, since the epoch; guarded by runner.mu
	why    atomic.Pointer[error]
	todo   session.Effects
}

func newConn(p *Portal, nc *net.TCPConn, host string) *conn {
	return &conn{
		p: p, nc: nc, host: host, inLogin: true,
		log:  p.log.With(zap.Stringer("peer", nc.RemoteAddr())),
		in:   newInput(nc, &p.counters),
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1), gone: make(chan struct{}),
	}
}

// errRefused says that the engine wants the connection closed after what it sends: a Logout Response, or a Reject.
var errRefused = errors.New("portal: logged out or refused")

// serve is the life of the connection. It returns when all goroutines that it owns have.
func (c *conn) serve() {
	defer func() { _ = c.nc.Close() }()
	r, err := c.enter()
	c.p.loginOver(c)
	if err != nil {
		c.p.counters.loginsFailed.Add(1)
		if hidden, ok := c.p.failed.pass(time.Now()); ok {
			c.log.Info("login failed", zap.Error(err), zap.Uint64("not_logged", hidden))
		}
		return
	}
	c.p.counters.loginsDone.Add(1)
	c.log.Info("logged in", zap.String("initiator", r.place.Initiator()), zap.String("target", r.place.Target()))
	go c.writeGuarded()
	err = c.readGuarded()
	c.leave(err)
	c.log.Info("logged out", zap.NamedError("why", c.reason(err)))
}

// enter is the login phase, RFC 7143 section 6.3. It returns the session, to which the connection was added.
func (c *conn) enter() (r *runner, err error) {
	env := newLoginEnv(c)
	defer func() {
		if v := recover(); v != nil {
			c.panicked("login", v)
			err = fmt.Errorf("panic: %v", v)
		}
		if err != nil {
			c.undo(r, env.Admitted())
			r = nil
		}
	}()
	if err := c.nc.SetDeadline(time.Now().Add(c.p.cfg.LoginTimeout)); err != nil {
		return nil, err
	}
	c.in.limits = pdu.Limits{MaxData: login.DefaultMaxRecvDataSegmentLength}
	l := login.NewLogin(c.p.cfg.Login, env)
	defer func() {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			c.p.counters.loginTimeouts.Add(1)
		}
	}()
	data := make([]byte, login.DefaultMaxRecvDataSegmentLength)
	for {
		req, err := c.readLogin(data)
		if err != nil {
			return nil, err
		}
		responses, done, err := l.Receive(req)
		if done != nil && err == nil {
			if r, err = c.enterSession(env.Env, done); err != nil {
				r = nil
				responses = []pdu.LoginResponse{login.Reject(&req, asStatus(err))}
				done = nil
			}
		}
		if werr := c.writeLogin(responses); err == nil {
			err = werr
		}
		if done != nil && err == nil {
			err = c.nc.SetDeadline(time.Time{}) // fails if the session is closed again already
		}
		if err != nil || done != nil {
			return r, err
		}
	}
}

// undo takes back what a login has made that failed after all: the connection that it added to r, or, if there is no r, its
// place in the table. A session that has begun ends with its last connection, and this may not have been the only one.
func (c *conn) undo(r *runner, place *target.Session) {
	switch {
	case r != nil:
		r.abandon(c)
	case place != nil:
		place.End()
	}
}

// asStatus makes the answer to a login that the session table admitted and that failed afterwards.
func asStatus(err error) *login.StatusError {
	if s, ok := errors.AsType[*login.StatusError](err); ok {
		return s
	}
	status := login.StatusServiceUnavailable
	switch {
	case errors.Is(err, session.ErrLimit):
		status = login.StatusOutOfResources
	case errors.Is(err, session.ErrConns):
		status = login.StatusTooManyConnections
	case errors.Is(err, session.ErrEnded):
		status = login.StatusSessionDoesNotExist
	}
	return &login.StatusError{Status: status, Detail: err.Error()}
}

// readLogin reads a Login Request. Its text is in data until the next call.
func (c *conn) readLogin(data []byte) (pdu.LoginRequest, error) {
	if err := c.in.header(); err != nil {
		return pdu.LoginRequest{}, err
	}
	data = data[:c.in.size.Data]
	if err := c.in.data(data); err != nil {
		return pdu.LoginRequest{}, err
	}
	return pdu.ParseLoginRequest(&c.in.head, c.in.ahs, data)
}

func (c *conn) writeLogin(responses []pdu.LoginResponse) error {
	var b []byte
	for i := range responses {
		p := &responses[i]
		b = p.AppendHeader(b, len(p.Data))
		b = append(b, p.Data...)
		b = pdu.AppendTrailer(b, false, p.Data)
	}
	_, err := c.nc.Write(b)
	return err
}

// readGuarded is the reader. A panic ends the session, whose state can not be trusted any more.
func (c *conn) readGuarded() (err error) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked("reader", v)
			err = fmt.Errorf("panic: %v", v)
			c.r.breakLocked(c.locked)
		} else if c.locked {
			c.unlock()
		}
	}()
	return c.read()
}

// lock takes the engine's mutex.
func (c *conn) lock() {
	c.r.mu.Lock()
	c.locked = true
}

// unlock gives it back and does what the engine wants done.
func (c *conn) unlock() {
	c.pause()
	if c.owes {
		c.owes = false
		c.signal()
	}
}

// pause is unlock, except that sending is left to settle: there may be more to read first.
func (c *conn) pause() {
	if !c.r.broken {
		c.r.engine.Effects(&c.todo)
		if i := slices.Index(c.todo.Write, c.engine); i >= 0 {
			c.owes = true
			c.todo.Write = slices.Delete(c.todo.Write, i, i+1)
		}
	}
	c.locked = false
	c.r.mu.Unlock()
	c.r.do(&c.todo)
}

// settle is called without the mutex when there is nothing to read.
func (c *conn) settle() {
	if c.owes {
		c.owes = false
		c.send()
	}
}

// send sends what the engine has for the connection, as far as the socket takes it at once, and has the writer do the rest.
func (c *conn) send() {
	if !c.out.mu.TryLock() || !c.sendSome() {
		c.signal()
	}
}

// sendSome sends a batch and reports whether nothing is left to do for the writer. It gives out.mu back.
func (c *conn) sendSome() bool {
	defer c.out.mu.Unlock()
	if c.out.dead || len(c.out.rest) > 0 {
		return false
	}
	closed, dropped := c.take(someBytes)
	sent := len(c.out.pdus) == 0 || c.out.sendSome()
	return sent && !c.more && !closed && !dropped
}

// read takes PDUs until the connection ends. The mutex is held from the first PDU that is buffered to the last.
func (c *conn) read() error {
	c.in.idle = c.settle
	for {
		if !c.in.ready() && c.locked {
			waiting := c.engine.Waiting()
			c.pause()
			if waiting >= someMax {
				c.settle()
			}
		}
		err := c.in.header()
		if !c.locked {
			c.lock()
		}
		if err != nil {
			return c.refuse(err)
		}
		if err := c.receive(); err != nil {
			return err
		}
		if c.r.broken || c.engine.Closing() {
			return errRefused
		}
		if c.engine.Congested() {
			if err := c.decongest(); err != nil {
				return err
			}
		}
	}
}

// receive takes the PDU whose header was just read.
func (c *conn) receive() error {
	h := &c.in.head
	place, err := c.engine.Claim(h)
	if err != nil {
		return c.refuse(err)
	}
	if c.in.size.Data > 0 {
		away := !c.in.dataReady()
		if away {
			c.pause()
		}
		if place.Discard() {
			err = c.in.discard()
		} else {
			err = c.in.data(place.Bytes())
		}
		if away {
			c.lock()
		}
		if err != nil {
			place.Release()
			return c.refuse(err)
		}
	}
	if err := c.engine.Receive(h, c.in.ahs, place); err != nil {
		c.p.counters.protocolErrors.Add(1)
		return err
	}
	return nil
}

// refuse has the initiator told about err, if it broke a rule, and returns err.
func (c *conn) refuse(err error) error {
	_, format := errors.AsType[*pdu.FormatError](err)
	_, digest := errors.AsType[*pdu.DigestError](err)
	if format || digest {
		c.p.counters.protocolErrors.Add(1)
		c.engine.Refuse(&c.in.head, err)
	}
	return err
}

// decongest waits until less waits to be sent.
func (c *conn) decongest() error {
	for c.engine.Congested() {
		c.unlock()
		select {
		case <-c.room:
		case <-c.gone:
			c.lock()
			return net.ErrClosed
		}
		c.lock()
	}
	return nil
}

// Bounds of the end of a connection on which the last word is the target's.
const (
	lingerTime  = time.Second
	lingerBytes = 16 << 20
)

// leave ends the connection after the reader returned err.
func (c *conn) leave(err error) {
	r := c.r
	r.mu.Lock()
	flush := !r.broken && c.engine.Closing() && !errors.Is(err, net.ErrClosed)
	r.mu.Unlock()
	if !flush {
		r.locked("lost", c.engine.Lost)
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		<-c.gone // the writer has closed its side, and the initiator had its time
	} else if flush {
		// The writer sends what waits and closes its side. The initiator may be in the middle of sending; what it sends
		// is thrown away for a while, for a reset would take the last answer from it.
		<-c.gone
		_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
	}
	r.locked("lost", c.engine.Lost)
	_ = c.nc.Close()
	c.signal()
	<-c.gone
	r.connLeft(c)
}

// writeGuarded is the writer.
func (c *conn) writeGuarded() {
	defer close(c.gone)
	defer c.out.end()
	defer func() {
		if v := recover(); v != nil {
			c.panicked("writer", v)
			c.r.breakLocked(false)
			_ = c.nc.Close()
		}
	}()
	c.write()
}

// write sends what the engine has, until the connection is to be closed.
func (c *conn) write() {
	for {
		sent, closed, dropped, err := c.writeSome()
		switch {
		case err != nil:
			_ = c.nc.Close() // the reader sees it, and ends the connection
			c.await()
			return
		case sent:
			continue
		case dropped:
			_ = c.nc.Close()
			return
		case closed: // the reader may not know, if it was another connection that ended this one
			_ = c.nc.CloseWrite()
			_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
			return
		}
		<-c.wake
	}
}

// writeSome sends what the reader left, or else the next batch.
func (c *conn) writeSome() (sent, closed, dropped bool, err error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	defer func() { c.out.dead = err != nil || !sent && (closed || dropped) }()
	if len(c.out.rest) > 0 {
		return true, false, false, c.out.finish(c.out.rest)
	}
	closed, dropped = c.take(batchBytes)
	if len(c.out.pdus) > 0 {
		return true, closed, dropped, c.out.send()
	}
	return false, closed, dropped, nil
}

// await takes and gives up what the engine sends until it knows that the connection is lost.
func (c *conn) await() {
	for {
		c.out.mu.Lock()
		closed, _ := c.take(batchBytes)
		n := len(c.out.pdus)
		c.out.release()
		c.out.mu.Unlock()
		switch {
		case n > 0:
			continue
		case closed:
			return
		}
		<-c.wake
	}
}

// take gets a batch of about bytes from the engine and reports whether the connection is to be closed when there is none,
// and whether at once. The caller holds out.mu.
func (c *conn) take(bytes int) (closed, dropped bool) {
	r := c.r
	r.mu.Lock()
	locked := true
	defer func() {
		if locked { // a panic
			r.mu.Unlock()
		}
	}()
	closed, c.more = true, false
	if !r.broken {
		c.out.pdus = c.engine.Take(c.out.pdus[:0], bytes)
		c.more = c.engine.Waiting() > 0
		closed, dropped = c.engine.Closed(), c.engine.Dropped()
		r.engine.Effects(&c.out.todo)
	}
	locked = false
	r.mu.Unlock()
	r.do(&c.out.todo)
	select {
	case c.room <- struct{}{}:
	default:
	}
	return closed, dropped
}

// signal has the writer look.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn) panicked(where string, v any) { c.p.panicked(c.log, where, v) }

func (r *runner) panicked(where string, v any) { r.p.panicked(r.log, where, v) }

func (p *Portal) panicked(log *zap.Logger, where string, v any) {
	p.counters.panics.Add(1)
	log.Error("panic", zap.String("in", where), zap.Any("value", v), zap.ByteString("stack", debug.Stack()))
}

package session

import (
	"context"
	"errors"
	"sync/atomic"
)

// Proof keeps commands back that nobody may want any more. A gateway that hangs has commands in its sockets; when it goes
// on, their initiator may long have given them up and have its work done elsewhere. Await is called at the moment from which
// on a command must be known to be wanted:
//
//	Await ─► has its connection begun, or been sent a ping that is answered, since the first Await? ──► goes on
//	            │ no                                                                  ▲
//	            └──► NOP-In on the connection of the command ──► … ──► NOP-Out ───────┘
//
// The connection is read on meanwhile. What the initiator has sent before the answer is seen before the answer: an abort of
// the command, a logout, or the end of the connection cancels it. What comes after the answer was sent after that moment.
//
// The zero value is a moment that has not come yet. All sessions whose commands come to a Proof have the same Marks.
type Proof struct{ mark atomic.Uint64 }

// Mark is a moment, in the order of Marks; 0 is before all.
type Mark uint64

// Marks orders moments and pings. The zero value is ready. Its methods may be called from any goroutine.
type Marks struct{ last atomic.Uint64 }

// next returns a moment that is later than all before.
func (m *Marks) next() Mark { return Mark(m.last.Add(1)) }

// now returns the last moment.
func (m *Marks) now() Mark { return Mark(m.last.Load()) }

// ErrNoCommand says that something else than a command which may wait has come to a Proof.
var ErrNoCommand = errors.New("session: no command of an initiator, whom one could ask whether it is still wanted")

// Await waits until the initiator has shown that it wanted the command of ctx, which is the context that the medium got, or
// one made of it, at or after the first Await of any command had begun. It waits as long as ctx lives, and returns why that
// ended. The first call is what begins the moment.
func (p *Proof) Await(ctx context.Context) error {
	t, _ := ctx.Value(taskKey{}).(*Task)
	if t == nil || t.stage != stageRunning {
		return ErrNoCommand
	}
	mark := p.since(t.s.cfg.Marks)
	if t.conn.provenAt() >= mark {
		return nil
	}
	for t.conn.provenAt() < mark {
		select {
		case <-t.s.cfg.Prove(t.conn, mark):
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // also when both have come: the answer came after what ended the command
			return context.Cause(ctx)
		}
	}
	return nil
}

// since returns the moment.
func (p *Proof) since(m *Marks) Mark {
	if p.mark.Load() == 0 {
		p.mark.CompareAndSwap(0, uint64(m.next()))
	}
	return Mark(p.mark.Load())
}

// taskKey is the key of the *Task in the context of its command.
type taskKey struct{}

// provenAt returns the moment at or after which the initiator has last shown, on this connection, that it was there. It may
// be called without the mutex.
func (c *Conn) provenAt() Mark { return Mark(c.proven.Load()) }

// Prove has the initiator pinged so that provenAt is at or after m, unless it is. The channel is closed when that, or the
// ping before, is answered: who waits calls again then. On a connection that is closing it never is.
func (c *Conn) Prove(m Mark) <-chan struct{} {
	if c.provenAt() >= m {
		done := make(chan struct{})
		close(done)
		return done
	}
	c.asked = max(c.asked, 1)
	c.pingQuiet()
	if c.answered == nil {
		c.answered = make(chan struct{})
	}
	return c.answered
}

// pingQuiet sends the ping that Prove asked for as soon as no write of the connection is about to send data. Common initiators
// (libiscsi before 1.20, and so QEMU) give the connection up when they have to answer while Data-Out PDUs wait to be sent. No more
// data are asked for meanwhile (solicit), but what comes unsolicited may have no end: after pingTicks the ping is sent anyway.
func (c *Conn) pingQuiet() {
	if c.asked == 0 {
		return
	}
	for _, t := range c.s.tasks {
		if c.asked <= pingTicks && t.conn == c && t.stage <= stageData && (t.out.unsolicited || len(t.out.open) > 0) {
			return
		}
	}
	c.asked = 0
	c.Ping()
	for _, t := range c.still {
		if t.conn == c { // also of a task that is another one by now
			c.s.advance(t)
		}
	}
	clear(c.still)
	c.still = c.still[:0]
}

// pingTicks is after how many ticks a ping is sent whatever data are about to be sent: 2 s.
const pingTicks = 8

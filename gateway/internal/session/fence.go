package session

import (
	"slices"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// fence keeps the responses of a session with several connections in order around one of them, when TaskReporting asks for
// it (RFC 7143 section 4.2.2.3.3): the initiator has acknowledged all that was queued before on other connections when that
// one is sent, and has acknowledged that one when what was queued after it is.
//
//	connection of the response   ... | response, NOP-In | ...
//	another one                  ... NOP-In | barrier   | ...
//
// The NOP-Ins ask for an answer, which acknowledges what came before. Fences are queued in one order on all connections, so
// they never wait for each other.
type fence struct {
	conn *Conn   // of the response
	rest []*Conn // those that have a barrier
	sent bool
	sn   pdu.StatSN // of the response, once sent
	age  int        // ticks
	done bool
}

// fenceTicks is after how many ticks a fence is lifted although the initiator has not acknowledged what it waits for.
const fenceTicks = 8

// Tick tells that some time has passed; it is called four times per second. An initiator that acknowledges nothing, because
// one of its connections is dead, does not wait longer than 2 s for the answer to a task management function.
func (s *Session) Tick() {
	for _, f := range s.fences {
		if f.age++; f.age >= fenceTicks {
			f.done = true
		}
	}
	for _, c := range s.conns {
		c.asked += min(c.asked, 1)
	}
	s.stir()
}

// enqueueFenced queues a response with a fence, if one is needed.
func (c *Conn) enqueueFenced(i item) {
	s := c.s
	f := &fence{conn: c}
	if s.params.TaskReporting != login.TaskReportingRFC3720 && !c.closing {
		for _, o := range s.conns {
			if o != c && !o.closing {
				f.rest = append(f.rest, o)
			}
		}
	}
	if len(f.rest) == 0 {
		c.enqueue(i)
		return
	}
	for _, o := range f.rest {
		if len(o.out) > 0 || o.acked != o.statSN {
			o.enqueueHeader(nopIn(s.newTTT()), statNext)
		}
		o.enqueue(item{fence: f, reached: len(o.out) == 0})
	}
	i.fence = f
	c.enqueue(i)
	c.enqueueHeader(nopIn(s.newTTT()), statNext)
	s.fences = append(s.fences, f)
}

// holds tells whether the item i, which is next on c, has to wait for a fence.
func (c *Conn) holds(i *item) bool {
	f := i.fence
	switch {
	case f == nil || f.done:
		return false
	case f.conn == c:
		return c.cut.sent == 0 && !f.open()
	case !i.reached:
		i.reached = true
		f.conn.flag()
	}
	return true
}

// open tells whether everything before the barriers was sent and acknowledged.
func (f *fence) open() bool {
	for _, o := range f.rest {
		if o.closing {
			continue
		}
		if len(o.out) == 0 || o.out[0].fence != f || !o.out[0].reached || o.acked != o.statSN {
			return false
		}
	}
	return true
}

// pass notes that the response of i was sent on c as the last one.
func (c *Conn) pass(f *fence) {
	if f != nil && f.conn == c {
		f.sent, f.sn = true, c.statSN-1
	}
}

// lift ends a fence whose response will not be sent.
func (s *Session) lift(f *fence) {
	if f != nil {
		f.done = true
		s.stir()
	}
}

// stir looks at the fences after the initiator acknowledged something or a connection went.
func (s *Session) stir() {
	if len(s.fences) == 0 {
		return
	}
	s.fences = slices.DeleteFunc(s.fences, func(f *fence) bool {
		f.done = f.done || f.conn.closing || f.sent && f.sn.Less(f.conn.acked)
		return f.done
	})
	for _, c := range s.conns {
		if len(c.out) > 0 && c.out[0].fence != nil {
			c.flag()
		}
	}
}

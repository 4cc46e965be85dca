package session

import (
	"fmt"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// Conn is one connection of a Session. Its methods are called with the session's mutex held.
type Conn struct {
	// Owner is for the owner of the socket, who sets it once, before anything is received.
	Owner any

	s       *Session
	cid     pdu.CID
	maxSend int // the initiator's MaxRecvDataSegmentLength, bytes

	out     []item // waits to be taken
	cut     cut    // where the task at the head of out stands
	statSN  pdu.StatSN
	acked   pdu.StatSN // the initiator has everything before it
	told    pdu.CmdSN  // the MaxCmdSN that was sent last
	flagged bool       // is in effects.Write
	closing bool       // nothing is accepted any more; to be closed when out is empty
	lost    bool       // is not part of the session any more

	ping     pdu.TTT       // of the NOP-In that was not answered yet, or reserved
	pinged   Mark          // when it was queued
	asked    int           // a ping waits for pingQuiet: 1 and the ticks since; 0: none does
	still    []*Task       // what solicit held back for it; they may have ended
	answered chan struct{} // closed with its answer; nil: nobody waits
	proven   atomic.Uint64 // see provenAt

	text    *login.Exchange
	pending []compare // COMPARE AND WRITE responses that were not acknowledged, by StatSN
}

// compare is the response of a COMPARE AND WRITE that the initiator may not have seen yet.
type compare struct {
	statSN pdu.StatSN
	lun    scsi.LUN
}

// statMode says what the StatSN field of a queued PDU is.
type statMode uint8

const (
	statAdvance statMode = iota // a response: takes the next StatSN
	statNext                    // shows the next StatSN and does not take it
)

// item is something to send: the status of a task, with its data-in before it, or one PDU; or the barrier of a fence.
type item struct {
	fence   *fence // of the response, or the one that a barrier belongs to
	reached bool   // what was before the barrier was taken
	task    *Task
	head    pdu.Header // without serial numbers
	stat    statMode
	data    []byte
	buf     *Buffer // holds data, if it is leased
}

// Place says where the data segment of a PDU goes. It holds a reference to the memory until it is given to Receive, or
// released.
type Place struct {
	buf     *Buffer
	at, n   int
	discard bool             // the data go nowhere
	refuse  pdu.RejectReason // the request is answered with this Reject, in its turn
	task    *Task            // of a Data-Out
	life    uint32           // ... at this use
}

// Discard reports that the data segment is to be read and thrown away.
func (p *Place) Discard() bool { return p.discard }

// Bytes returns the memory for the data segment, as long as the segment without padding; nil if Discard.
func (p *Place) Bytes() []byte {
	if p.buf == nil {
		return nil
	}
	return p.buf.mem[p.at : p.at+p.n : p.at+p.n]
}

// Release gives the memory back.
func (p *Place) Release() {
	p.buf.release()
	p.buf = nil
}

func protocolError(format string, args ...any) error {
	return &pdu.FormatError{Reason: pdu.RejectProtocolError, Detail: fmt.Sprintf(format, args...)}
}

// Claim says where the data segment of the PDU with header h goes, before it is read. Lengths in h were checked against
// what was negotiated (pdu.Layout). After an error, which is for Refuse, the connection is of no use.
func (c *Conn) Claim(h *pdu.Header) (Place, error) {
	n := h.DataSegmentLen()
	switch op := h.Opcode(); {
	case c.closing:
		return Place{discard: true, n: n}, nil
	case op == pdu.OpDataOut && !c.s.discovery:
		return c.claimDataOut(h)
	case op == pdu.OpSCSICommand:
		return c.claimCommand(h)
	case n == 0:
		return Place{}, nil
	case op == pdu.OpTextRequest && n > textMax:
		return Place{}, protocolError("Text Request of %d bytes", n)
	case op != pdu.OpNOPOut && op != pdu.OpTextRequest:
		return Place{discard: true, n: n}, nil
	}
	if b := c.s.leaseNow(nil, n); b != nil {
		return Place{buf: b, n: n}, nil
	}
	return Place{discard: true, n: n, refuse: pdu.RejectLongOperation}, nil
}

// Receive takes one PDU whose data, if any, are in pl. It takes pl over; h and ahs are borrowed. The error is what the
// connection was refused for, nil if it goes on; it was already answered as Refuse does.
func (c *Conn) Receive(h *pdu.Header, ahs []byte, pl Place) error {
	if c.closing {
		pl.Release()
		return nil
	}
	if err := c.receive(h, ahs, pl); err != nil {
		c.Refuse(h, err)
		return err
	}
	return nil
}

func (c *Conn) receive(h *pdu.Header, ahs []byte, pl Place) error {
	op := h.Opcode()
	if !op.FromInitiator() || op == pdu.OpLoginRequest {
		pl.Release()
		return protocolError("%v in full feature phase", op)
	}
	c.acknowledge(h.ExpStatSN())
	switch op {
	case pdu.OpDataOut:
		if c.s.discovery {
			return protocolError("Data-Out in a discovery session")
		}
		c.receiveDataOut(h, pl)
		return nil
	case pdu.OpSNACK:
		c.reject(h, pdu.RejectSNACK)
		return nil
	}
	return c.receiveRequest(h, ahs, pl)
}

// receiveRequest takes a PDU that has a CmdSN: now, if it is its turn, else later, or never.
func (c *Conn) receiveRequest(h *pdu.Header, ahs []byte, pl Place) error {
	s := c.s
	sn := h.CmdSN()
	if !h.Immediate() && !s.order.admits(sn) {
		s.stats.Dropped++
		pl.Release()
		return nil
	}
	r := held{conn: c, head: *h, place: pl}
	switch {
	case h.Opcode() != pdu.OpSCSICommand, s.discovery, pl.refuse != 0, pl.discard:
	case s.quiet:
		pl.Release()
		r.place, r.skip = Place{}, true
	default:
		t, err := c.receiveCommand(h, ahs, pl)
		if err != nil {
			return err
		}
		r.task, r.place = t, Place{}
	}
	if h.Immediate() {
		return c.immediate(r)
	}
	if sn != s.order.exp {
		s.order.held[sn] = r
		return nil
	}
	s.order.next()
	if err := c.perform(r); err != nil {
		return err
	}
	return s.catchUp()
}

// immediate performs a request for immediate delivery. A task management function for the tasks of a logical unit waits
// until all commands before it have come; for one that ends all tasks they count as received (RFC 7143 section 4.2.3.3).
func (c *Conn) immediate(r held) error {
	s := c.s
	sn, about := r.head.CmdSN(), scopeTask
	if r.head.Opcode() == pdu.OpTMFRequest && s.order.exp.Less(sn) && !s.discovery {
		about = scopeOf(&r.head)
	}
	switch {
	case about == scopeTask:
		return c.perform(r)
	case !sn.InWindow(s.order.exp, s.order.max.Next()), about == scopeUnit && len(s.deferred) >= deferredMax:
		c.respondTMF(pdu.TMFResponse{ITT: r.head.ITT(), Result: pdu.TMFRejected}, false)
		return nil
	case about == scopeUnit:
		s.deferred = append(s.deferred, r)
		return nil
	}
	s.plug(sn)
	err := c.perform(r)
	s.skip()
	return err
}

// catchUp performs what waited for the request that was just performed.
func (s *Session) catchUp() error {
	for !s.ended {
		if len(s.deferred) > 0 && !s.order.exp.Less(s.deferred[0].head.CmdSN()) {
			r := s.deferred[0]
			s.deferred = append(s.deferred[:0], s.deferred[1:]...)
			if err := r.conn.perform(r); err != nil {
				return err
			}
			continue
		}
		r, ok := s.order.pop()
		if !ok {
			break
		}
		if r.skip {
			continue
		}
		if err := r.conn.perform(r); err != nil {
			r.conn.Refuse(&r.head, err)
			if r.conn.closing {
				continue
			}
		}
	}
	s.order.advance()
	return nil
}

// perform does what a request asks, in its turn.
func (c *Conn) perform(r held) error {
	op := r.head.Opcode()
	switch {
	case r.skip:
		return nil
	case c.lost || c.closing:
		r.place.Release()
		return nil
	case r.place.refuse != 0:
		c.reject(&r.head, r.place.refuse)
		return nil
	case c.s.discovery && (op == pdu.OpSCSICommand || op == pdu.OpTMFRequest):
		r.place.Release()
		c.reject(&r.head, pdu.RejectCommandNotSupported)
		return nil
	}
	switch op {
	case pdu.OpSCSICommand:
		c.s.enter(r.task)
		return nil
	case pdu.OpTMFRequest:
		return c.receiveTMF(&r.head)
	case pdu.OpNOPOut:
		return c.receiveNOP(&r.head, r.place)
	case pdu.OpTextRequest:
		return c.receiveText(&r.head, r.place)
	default: // OpLogoutRequest; receive lets no other through
		return c.receiveLogout(&r.head)
	}
}

// acknowledge takes the initiator's word that it has all responses before sn.
func (c *Conn) acknowledge(sn pdu.StatSN) {
	if !c.acked.Less(sn) || !sn.LessEq(c.statSN) {
		return // old, or not sent yet
	}
	c.acked = sn
	n := 0
	for n < len(c.pending) && c.pending[n].statSN.Less(sn) {
		lun := c.pending[n].lun
		u := c.s.unit(lun)
		if u.compares--; u.compares == 0 {
			c.s.cfg.Env.Acknowledged(lun)
		}
		n++
	}
	c.pending = append(c.pending[:0], c.pending[n:]...)
	c.s.stir()
}

// Acknowledged returns the StatSN before which the initiator has all responses, and the next StatSN to be given.
func (c *Conn) Acknowledged() (acked, next pdu.StatSN) { return c.acked, c.statSN }

// Congested reports that so much waits to be sent that nothing more should be read from the connection for now.
func (c *Conn) Congested() bool { return len(c.out) >= queueMax }

// Waiting returns how many PDUs, or commands whose answers are not cut into PDUs yet, wait to be sent.
func (c *Conn) Waiting() int { return len(c.out) }

// enqueue puts i behind what waits to be sent.
func (c *Conn) enqueue(i item) {
	if c.lost {
		c.discard(i)
		return
	}
	c.out = append(c.out, i)
	c.flag()
}

func (c *Conn) enqueueHeader(h pdu.Header, stat statMode) { c.enqueue(item{head: h, stat: stat}) }

// flag has the owner look at the connection.
func (c *Conn) flag() {
	if !c.flagged {
		c.flagged = true
		c.s.effects.Write = append(c.s.effects.Write, c)
	}
}

// discard ends an item that is not sent.
func (c *Conn) discard(i item) {
	i.buf.release()
	if i.task != nil {
		i.task.aborted = true
		c.s.retire(i.task)
	}
}

// Refuse answers the PDU with header h with a Reject for err, and has the connection closed after it. err is of package
// pdu; a digest error of the header gets no answer, because the header can not be believed (RFC 7143 section 7.8).
func (c *Conn) Refuse(h *pdu.Header, err error) {
	if c.closing {
		return
	}
	reason, answer := rejectReason(err)
	if answer {
		c.reject(h, reason)
	}
	c.close()
}

// close accepts nothing more, and has the connection closed when all that waits is sent.
func (c *Conn) close() {
	c.closing = true
	c.flag()
	c.s.stir()
}

// drop has the connection closed at once. Its tasks were aborted.
func (c *Conn) drop() {
	if c.lost {
		return
	}
	c.closing, c.lost = true, true
	out := c.out
	c.out = nil
	for _, i := range out {
		c.discard(i)
	}
	c.pending = nil
	c.flag()
}

// Lost tells that the connection is gone. Its tasks are aborted and fenced; the session ends with its last connection
// (RFC 7143 section 7.4: there is no recovery at ErrorRecoveryLevel 0).
func (c *Conn) Lost() {
	if c.lost {
		return
	}
	c.remove()
}

// remove takes the connection out of the session, which ends with its last one.
func (c *Conn) remove() {
	c.detach()
	if s := c.s; len(s.conns) == 0 && !s.ended {
		s.finish()
	}
}

// detach aborts the connection's tasks and takes it out of the session. Commands that were sent on it and did not arrive
// leave a gap in the numbers, which the initiator fills on another connection (RFC 7143 section 4.2.2.1).
func (c *Conn) detach() {
	s := c.s
	s.abortWhere(func(t *Task) bool { return t.conn == c })
	c.drop()
	kept := s.conns[:0]
	for _, o := range s.conns {
		if o != c {
			kept = append(kept, o)
		}
	}
	clear(s.conns[len(kept):])
	s.conns = kept
	s.stir()
}

// Closed reports that everything was taken and the connection is to be closed.
func (c *Conn) Closed() bool { return c.closing && len(c.out) == 0 }

// Closing reports that nothing is accepted any more.
func (c *Conn) Closing() bool { return c.closing }

// Dropped reports that the connection is not part of the session any more and is to be closed at once.
func (c *Conn) Dropped() bool { return c.lost }

// CID returns the connection's number.
func (c *Conn) CID() pdu.CID { return c.cid }

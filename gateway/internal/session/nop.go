package session

import "github.com/ashlar-storage/ashlar/gateway/internal/pdu"

// nopIn makes a NOP-In of the target's own: a ping if ttt is not reserved, else news about the window.
func nopIn(ttt pdu.TTT) pdu.Header {
	var h pdu.Header
	p := pdu.NOPIn{ITT: pdu.ReservedTag, TTT: ttt}
	p.AppendHeader(h[:0], 0)
	return h
}

// Ping queues a NOP-In that asks for an answer. It does nothing while another one has not been answered, or when the
// connection is closing.
func (c *Conn) Ping() {
	if c.closing || !c.ping.IsReserved() {
		return
	}
	c.ping, c.pinged = c.s.newTTT(), c.s.cfg.Marks.now()
	c.enqueueHeader(nopIn(c.ping), statNext)
}

// Pinging reports that a NOP-In of Ping waits for its answer.
func (c *Conn) Pinging() bool { return !c.ping.IsReserved() }

// pong is called with the answer to the ping.
func (c *Conn) pong() {
	c.ping = pdu.ReservedTag
	c.proven.Store(uint64(c.pinged))
	if c.answered != nil {
		close(c.answered)
		c.answered = nil
	}
}

// receiveNOP answers a NOP-Out, or takes it as the answer to a ping. It takes pl over.
func (c *Conn) receiveNOP(h *pdu.Header, pl Place) error {
	p, err := pdu.ParseNOPOut(h, nil, pl.Bytes())
	if err != nil {
		pl.Release()
		return err
	}
	if p.ITT.IsReserved() {
		pl.Release()
		if !p.TTT.IsReserved() && p.TTT == c.ping {
			c.pong()
		}
		return nil // no answer is wanted
	}
	data := p.Data
	if len(data) > c.maxSend { // RFC 7143 section 11.18.4
		data = data[:c.maxSend]
	}
	r := pdu.NOPIn{LUN: p.LUN, ITT: p.ITT, TTT: pdu.ReservedTag}
	i := item{stat: statAdvance, data: data, buf: pl.buf}
	r.AppendHeader(i.head[:0], len(data))
	c.enqueue(i)
	return nil
}

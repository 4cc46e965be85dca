package session

import (
	"encoding/binary"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// dataIn is what a task sends to its initiator.
type dataIn struct {
	buf *Buffer // memory of the task's data-in; nil if it has none, or if the data are the garbage collector's
}

// cut is how far the data-in of the task at the head of a queue was cut into PDUs.
type cut struct {
	sent   int // bytes
	burst  int // bytes since the last F bit
	dataSN pdu.DataSN
}

// senseInline is the room for SenseLength and sense data.
const senseInline = 2 + scsi.SenseMax

// PDU is one PDU to send.
type PDU struct {
	// Header is the basic header segment; PDUs to an initiator have no additional ones.
	Header pdu.Header

	data   []byte
	buf    *Buffer // a reference, if data are leased
	inline [senseInline]byte
	small  uint8 // bytes of inline that are the data
}

// Data returns the data segment without padding. It is valid until Release.
func (p *PDU) Data() []byte {
	if p.small > 0 {
		return p.inline[:p.small]
	}
	return p.data
}

// Release gives the data back. It is called once, after the PDU was sent or given up, and may be called without the
// session's mutex.
func (p *PDU) Release() {
	p.buf.release()
	p.buf, p.data, p.small = nil, nil, 0
}

// Take moves PDUs to send into dst, up to its capacity and until they carry about maxBytes of data, and returns it. A
// response counts as sent then: its command leaves the window, and MaxCmdSN moves on. See Closed for what to do when
// there is nothing more.
func (c *Conn) Take(dst []PDU, maxBytes int) []PDU {
	n := 0
	for n < len(c.out) && len(dst) < cap(dst) && maxBytes > 0 {
		i := &c.out[n]
		f := i.fence
		if i.task != nil && i.task.aborted {
			t := i.task
			*i = item{}
			n++
			c.cut = cut{}
			c.s.lift(f)
			c.s.retire(t) // may queue a NOP-In, which moves c.out
			continue
		}
		if c.holds(i) {
			break
		}
		if f != nil && f.conn != c {
			*i = item{}
			n++
			continue
		}
		dst = append(dst, PDU{})
		p := &dst[len(dst)-1]
		if i.task == nil {
			p.Header, p.data, p.buf = i.head, i.data, i.buf
			c.stamp(p, i.stat)
			*i = item{}
			n++
			c.pass(f)
		} else if c.takeStatus(i.task, p) {
			*i = item{}
			n++
			c.pass(f)
		}
		maxBytes -= len(p.Data()) + pdu.BHSLen
	}
	c.out = append(c.out[:0], c.out[n:]...)
	return dst
}

// stamp fills in the serial numbers.
func (c *Conn) stamp(p *PDU, mode statMode) {
	sns := pdu.TargetSNs{StatSN: c.statSN, ExpCmdSN: c.s.order.exp, MaxCmdSN: c.s.order.max}
	if mode == statAdvance {
		c.statSN = c.statSN.Next()
	}
	c.told = sns.MaxCmdSN
	stampSNs(&p.Header, sns)
}

// takeStatus cuts the next PDU of t, and reports whether it was the last. The last Data-In carries the status if that is
// a good one (RFC 7143 section 11.7.4).
func (c *Conn) takeStatus(t *Task, p *PDU) (done bool) {
	left := len(t.cmd.DataIn) - c.cut.sent
	n := min(left, c.maxSend, c.s.maxBurst-c.cut.burst)
	last := n == left
	if n == 0 {
		c.takeResponse(t, p)
		return true
	}
	d := pdu.DataIn{
		ITT: t.itt, TTT: pdu.ReservedTag, DataSN: c.cut.dataSN, BufferOffset: uint32(c.cut.sent),
		Final: last || c.cut.burst+n == c.s.maxBurst,
	}
	p.data = t.cmd.DataIn[c.cut.sent : c.cut.sent+n : c.cut.sent+n]
	if t.in.buf != nil {
		p.buf = t.in.buf.Retain()
	}
	c.s.stats.ReadBytes += uint64(n)
	c.cut.sent += n
	c.cut.burst += n
	c.cut.dataSN = c.cut.dataSN.Next()
	if d.Final {
		c.cut.burst = 0
	}
	if !last || !collapses(t) {
		d.AppendHeader(p.Header[:0], n)
		c.stampData(p)
		return false
	}
	d.HasStatus, d.Status, d.Residual = true, uint8(t.cmd.Status), t.residual()
	d.AppendHeader(p.Header[:0], n)
	c.retireSent(t, p)
	return true
}

// collapses reports whether the status of t may go into its last Data-In.
func collapses(t *Task) bool {
	return !t.bidi && (t.cmd.Status == scsi.StatusGood || t.cmd.Status == scsi.StatusConditionMet)
}

// stampData fills in the serial numbers of a Data-In without status, whose StatSN is reserved.
func (c *Conn) stampData(p *PDU) {
	sns := pdu.TargetSNs{ExpCmdSN: c.s.order.exp, MaxCmdSN: c.s.order.max}
	c.told = sns.MaxCmdSN
	stampSNs(&p.Header, sns)
}

// takeResponse makes the SCSI Response of t.
func (c *Conn) takeResponse(t *Task, p *PDU) {
	if t.cmd.Status != scsi.StatusGood && t.cmd.Status != scsi.StatusConditionMet {
		c.s.stats.Failed++
	}
	r := pdu.SCSIResponse{
		Response: pdu.ResponseCompleted, Status: uint8(t.cmd.Status), ITT: t.itt, Residual: t.residual(),
		ExpDataSN: c.cut.dataSN + pdu.DataSN(t.out.r2tSN),
	}
	if t.bidi {
		r.Residual = pdu.ResidualOf(t.edtl, 0)
		r.BidiResidual = pdu.ResidualOf(t.bidiLen, uint64(c.cut.sent))
	}
	if sense := t.cmd.Sense(); sense != nil {
		p.small = uint8(len(pdu.AppendSenseData(p.inline[:0], sense)))
	}
	r.AppendHeader(p.Header[:0], int(p.small))
	c.retireSent(t, p)
}

// retireSent ends t with p as its last PDU, and gives p its serial numbers after the window was moved on.
func (c *Conn) retireSent(t *Task, p *PDU) {
	if t.compares() {
		c.s.unit(t.cmd.LUN).compares++
		if len(c.pending) < pendingMax { // else its outcome is never acknowledged: nothing is forgotten too early
			c.pending = append(c.pending, compare{c.statSN, t.cmd.LUN})
		}
	}
	c.cut = cut{}
	c.s.recycle(t)
	c.stamp(p, statAdvance)
}

// opCompareAndWrite is the operation code of COMPARE AND WRITE (SBC-3 section 5.2).
const opCompareAndWrite = 0x89

// compares reports whether the outcome of t is remembered below until the initiator knows it.
func (t *Task) compares() bool { return t.cdb[0] == opCompareAndWrite }

// residual compares what the initiator expected with what the command asked for.
func (t *Task) residual() pdu.Residual {
	expected := uint32(0)
	if t.read || t.write {
		expected = t.edtl
	}
	return pdu.ResidualOf(expected, t.cmd.Transfer)
}

// stampSNs writes the serial numbers of a PDU from a target into its header, bytes 24 to 35 (RFC 7143 section 11.2).
func stampSNs(h *pdu.Header, s pdu.TargetSNs) {
	binary.BigEndian.PutUint32(h[24:], uint32(s.StatSN))
	binary.BigEndian.PutUint32(h[28:], uint32(s.ExpCmdSN))
	binary.BigEndian.PutUint32(h[32:], uint32(s.MaxCmdSN))
}

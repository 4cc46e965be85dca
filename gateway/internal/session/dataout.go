package session

import (
	"slices"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// dataOut is the data that a task gets from its initiator. DataPDUInOrder and DataSequenceInOrder are always Yes, so the
// data come in one run from offset 0: immediate data, the unsolicited sequence, then the sequences of the R2Ts.
type dataOut struct {
	buf         *Buffer // nil: none yet
	received    uint32  // bytes, from offset 0
	unsolicited bool    // the unsolicited sequence is open
	dataSN      pdu.DataSN
	asked       uint32 // end of what was received or asked for
	want        uint32 // end of what will be asked for
	r2tSN       pdu.R2TSN
	open        []r2t // outstanding, oldest first
	// spoiled: a Data-Out was missing or out of order. What comes is thrown away, and once every sequence that was asked
	// for has ended the command fails (RFC 7143 sections 7.8 and 7.9).
	spoiled bool
}

// r2t is one sequence that was asked for.
type r2t struct {
	ttt    pdu.TTT
	end    uint32 // offset behind it
	dataSN pdu.DataSN
}

func (d *dataOut) reset() { *d = dataOut{open: d.open[:0]} }

// widen moves the data to the larger buffer b.
func (d *dataOut) widen(b *Buffer) {
	if d.buf != nil {
		copy(b.Bytes(), d.buf.Bytes()[:d.received])
		d.buf.Release()
	}
	d.buf = b
}

// collect begins with the data of t in its turn: whatever is not unsolicited is asked for.
func (s *Session) collect(t *Task) {
	d := &t.out
	if !t.write || t.edtl == 0 {
		s.ready(t)
		return
	}
	d.want = d.received
	if t.class.Direction == scsi.DirectionOut {
		d.want = min(t.edtl, BufferMax)
	}
	s.advance(t)
}

// advance looks what t needs next after its turn came or data came in.
func (s *Session) advance(t *Task) {
	d := &t.out
	switch {
	case t.stage != stageData || d.unsolicited:
	case d.spoiled:
		if len(d.open) == 0 {
			s.ready(t)
		}
	case d.received >= d.want:
		s.ready(t)
	case t.need > 0: // waits for memory
	case d.buf == nil || d.buf.Len() < int(d.want):
		if b := s.leaseNow(t, int(d.want)); b != nil {
			d.widen(b)
			s.solicit(t)
		} else {
			s.await(t, int(d.want))
		}
	default:
		s.solicit(t)
	}
}

// solicit sends R2Ts as far as MaxOutstandingR2T allows; none while a ping waits, see pingQuiet. The buffer for what they ask
// for is there.
func (s *Session) solicit(t *Task) {
	if c := t.conn; c.asked > 0 {
		if !slices.Contains(c.still, t) {
			c.still = append(c.still, t)
		}
		return
	}
	d := &t.out
	d.asked = max(d.asked, d.received)
	for len(d.open) < min(int(s.params.MaxOutstandingR2T), r2tMax) && d.asked < d.want {
		n := min(d.want-d.asked, s.params.MaxBurstLength)
		r := r2t{ttt: s.newTTT(), end: d.asked + n}
		p := pdu.R2T{
			LUN: t.lun, ITT: t.itt, TTT: r.ttt, R2TSN: d.r2tSN,
			BufferOffset: d.asked, DesiredDataTransferLength: n,
		}
		var h pdu.Header
		p.AppendHeader(h[:0], 0)
		t.conn.enqueueHeader(h, statNext)
		d.open = append(d.open, r)
		d.asked += n
		d.r2tSN = d.r2tSN.Next()
		s.stats.R2Ts++
	}
}

// claimDataOut checks a Data-Out against what its task waits for and says where the data go. The data of a task that is
// not there any more are discarded: it was aborted while they were on their way.
func (c *Conn) claimDataOut(h *pdu.Header) (Place, error) {
	n := h.DataSegmentLen()
	if h.ITT().IsReserved() {
		return Place{}, protocolError("Data-Out with the reserved tag")
	}
	if c.s.orphans.Take(h.TTT(), h.Final()) {
		c.s.stats.Dropped++
		return Place{discard: true, n: n}, nil
	}
	t := c.s.tasks[h.ITT()]
	if t == nil {
		c.s.stats.Dropped++
		return Place{discard: true, n: n}, nil
	}
	bare := *h // its data are not here yet
	bare[5], bare[6], bare[7] = 0, 0, 0
	p, err := pdu.ParseDataOut(&bare, nil, nil)
	if err != nil {
		return Place{}, err
	}
	if t.conn != c {
		return Place{}, protocolError("Data-Out on another connection than its command")
	}
	limit, sn, err := t.sequence(p.TTT)
	if err != nil {
		return Place{}, err
	}
	end := uint64(p.BufferOffset) + uint64(n)
	d := &t.out
	pl := Place{task: t, life: t.life, n: n, at: int(p.BufferOffset)}
	switch {
	case end > limit:
		return Place{}, protocolError("Data-Out up to %d, beyond %d", end, limit)
	case d.spoiled:
	case !p.Final && end == limit:
		return Place{}, protocolError("Data-Out up to %d, the end of the sequence, without F", end)
	case p.DataSN != sn || p.BufferOffset != d.received || p.Final && end != limit && !p.TTT.IsReserved():
		d.spoiled = true
		c.s.stats.Spoiled++
	}
	if d.spoiled {
		pl.discard = true
	} else if n > 0 {
		pl.buf = d.buf.Retain()
	}
	return pl, nil
}

// sequence returns where the sequence with tag ttt ends at most and the DataSN that comes next.
func (t *Task) sequence(ttt pdu.TTT) (limit uint64, sn pdu.DataSN, err error) {
	d := &t.out
	switch {
	case ttt.IsReserved() && d.unsolicited:
		return uint64(min(t.edtl, t.s.params.FirstBurstLength)), d.dataSN, nil
	case ttt.IsReserved():
		return 0, 0, protocolError("unsolicited Data-Out that the command did not announce")
	case len(d.open) == 0 || d.open[0].ttt != ttt:
		return 0, 0, protocolError("Data-Out with TTT %v, which is not the oldest R2T", ttt)
	}
	return uint64(d.open[0].end), d.open[0].dataSN, nil
}

// receiveDataOut counts the data that were put where claimDataOut said.
func (c *Conn) receiveDataOut(h *pdu.Header, pl Place) {
	t := pl.task
	if t == nil || t.life != pl.life || t.aborted {
		pl.Release() // aborted, perhaps meanwhile
		return
	}
	d := &t.out
	pl.Release()
	if !d.spoiled {
		d.received += uint32(pl.n)
		c.s.stats.WriteBytes += uint64(pl.n)
	}
	switch {
	case h.TTT().IsReserved() && h.Final():
		d.unsolicited = false
		d.want = max(d.want, d.received)
	case h.TTT().IsReserved():
		d.dataSN = d.dataSN.Next()
	case h.Final():
		d.open = append(d.open[:0], d.open[1:]...)
	default:
		d.open[0].dataSN = d.open[0].dataSN.Next()
	}
	c.s.advance(t)
}

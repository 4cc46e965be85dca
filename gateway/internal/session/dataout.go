package session

import (
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

// solicit sends R2Ts as far as MaxOutstandingR2T allows. The buffer for what they ask for is there.
func (s *Session) solicit(t *Task) {
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
	d := &t.out
	end := uint64(p.BufferOffset) + uint64(n)
	limit, sn := uint64(0), d.dataSN
	switch {
	case t.conn != c:
		return Place{}, protocolError("Data-Out on another connection than its command")
	case p.TTT.IsReserved():
		if !d.unsolicited {
			return Place{}, protocolError("unsolicited Data-Out that the command did not announce")
		}
		limit = uint64(min(t.edtl, c.s.params.FirstBurstLength))
	case len(d.open) == 0 || d.open[0].ttt != p.TTT:
		return Place{}, protocolError("Data-Out with TTT %v, which is not the oldest R2T", p.TTT)
	default:
		limit, sn = uint64(d.open[0].end), d.open[0].dataSN
	}
	switch {
	case p.DataSN != sn:
		return Place{}, protocolError("Data-Out with DataSN %d, expected %d", p.DataSN, sn)
	case p.BufferOffset != d.received:
		return Place{}, protocolError("Data-Out at offset %d, expected %d", p.BufferOffset, d.received)
	case end > limit:
		return Place{}, protocolError("Data-Out up to %d, beyond %d", end, limit)
	case !p.TTT.IsReserved() && p.Final != (end == limit):
		return Place{}, protocolError("Data-Out sequence ends at %d, F at %d", limit, end)
	case p.TTT.IsReserved() && !p.Final && end == limit:
		return Place{}, protocolError("unsolicited data of %d bytes without F", end)
	}
	pl := Place{task: t, life: t.life, n: n, at: int(p.BufferOffset)}
	if n > 0 {
		pl.buf = d.buf.Retain()
	}
	return pl, nil
}

// receiveDataOut counts the data that were put where claimDataOut said.
func (c *Conn) receiveDataOut(h *pdu.Header, pl Place) {
	t := pl.task
	if pl.discard || t.life != pl.life || t.aborted {
		pl.Release() // aborted, perhaps meanwhile
		return
	}
	d := &t.out
	d.received += uint32(pl.n)
	c.s.stats.WriteBytes += uint64(pl.n)
	pl.Release()
	if h.TTT().IsReserved() {
		d.dataSN = d.dataSN.Next()
		if h.Final() {
			d.unsolicited = false
			d.want = max(d.want, d.received)
		}
	} else {
		d.open[0].dataSN = d.open[0].dataSN.Next()
		if h.Final() {
			d.open = append(d.open[:0], d.open[1:]...)
		}
	}
	c.s.advance(t)
}

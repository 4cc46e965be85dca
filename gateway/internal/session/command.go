package session

import (
	"encoding/binary"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// claimCommand checks the immediate data of a SCSI Command and leases the buffer for the command's data: for all of it
// if there is memory at once, else for what may come unsolicited, from the session's reservation.
func (c *Conn) claimCommand(h *pdu.Header) (Place, error) {
	s := c.s
	n := h.DataSegmentLen()
	first := int(s.params.FirstBurstLength)
	edtl := binary.BigEndian.Uint32(h[20:])
	unsolicited := h[1]&flagWrite != 0 && !h.Final()
	switch {
	case s.discovery:
		return Place{discard: true, n: n}, nil
	case n > 0 && !s.params.ImmediateData:
		return Place{}, protocolError("immediate data of %d bytes, which was not negotiated", n)
	case n > first:
		return Place{}, protocolError("immediate data of %d bytes, FirstBurstLength is %d", n, first)
	case n > int(min(edtl, 1<<24)):
		return Place{}, protocolError("immediate data of %d bytes, the command transfers %d", n, edtl)
	case unsolicited && s.params.InitialR2T:
		return Place{}, protocolError("unsolicited data announced, but InitialR2T is Yes")
	case unsolicited && n >= int(min(edtl, uint32(first))):
		return Place{}, protocolError("unsolicited data announced beyond the %d bytes allowed", n)
	case !h.Immediate() && !s.order.admits(h.CmdSN()):
		return Place{discard: true, n: n}, nil
	case h.Immediate() && s.immediate >= immediateMax:
		return Place{discard: true, n: n, refuse: pdu.RejectTooManyImmediate}, nil
	case s.tasks[h.ITT()] != nil:
		return Place{discard: true, n: n, refuse: pdu.RejectTaskInProgress}, nil
	case n == 0 && !unsolicited:
		return Place{}, nil
	}
	pl := Place{n: n}
	if pl.buf = s.leaseNow(nil, int(min(edtl, BufferMax))); pl.buf == nil {
		pl.buf = s.cfg.Pool.LeaseReserved(int(min(edtl, uint32(first))))
	}
	return pl, nil
}

// flagWrite is the W bit of a SCSI Command, byte 1.
const flagWrite = 0x20

// receiveCommand makes a task of a SCSI Command that has come whole. The task gets the buffer of pl.
func (c *Conn) receiveCommand(h *pdu.Header, ahs []byte, pl Place) (*Task, error) {
	p, err := pdu.ParseSCSICommand(h, ahs, pl.Bytes())
	if err != nil {
		pl.Release()
		return nil, err
	}
	s := c.s
	t := s.newTask(c)
	t.itt, t.cmdSN, t.lun = p.ITT, p.CmdSN, p.LUN
	t.resets = s.cfg.Resets.Load()
	t.attr, t.immediate = p.Attr, p.Immediate
	t.read, t.write, t.bidi, t.bidiLen = p.Read, p.Write, p.Bidirectional, p.BidiReadLength
	t.edtl = p.ExpectedDataTransferLength
	if p.Immediate {
		s.immediate++
	}
	copy(t.cdb[:], p.CDB[:])
	copy(t.cdb[len(p.CDB):], p.ExtendedCDB)
	t.cmd.LUN = scsi.LUN(binary.BigEndian.Uint64(p.LUN[:]))
	t.cmd.CDB = t.cdb[:p.CDBLen()]
	t.class = scsi.Classify(t.cmd.CDB)
	t.out.buf = pl.buf
	t.out.received = uint32(pl.n)
	t.out.unsolicited = p.Write && !p.Final
	if pl.buf != nil && pl.buf.charged {
		s.charge(t, int64(len(pl.buf.mem)))
	}
	s.stats.WriteBytes += uint64(pl.n)
	s.tasks[t.itt] = t
	return t, nil
}

package session

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// enqueueAsync queues an Asynchronous Message, RFC 7143 section 11.9.
func (c *Conn) enqueueAsync(p pdu.AsyncMessage) {
	i := item{stat: statAdvance, data: p.Data}
	p.AppendHeader(i.head[:0], len(p.Data))
	c.enqueue(i)
}

// RequestLogout asks the initiator on every connection to log out within the given seconds (event 1). What happens when
// it does not is the caller's.
func (s *Session) RequestLogout(seconds uint16) {
	for _, c := range s.conns {
		if !c.closing {
			c.enqueueAsync(pdu.AsyncMessage{Event: pdu.AsyncLogout, Param3: seconds})
		}
	}
}

// Report tells the initiator of a unit attention at once, instead of with its next command, which tells it again (event 0).
// lun is one of those that have it.
func (s *Session) Report(lun scsi.LUN, code scsi.SenseCode) {
	var c scsi.Command
	c.Fail(code)
	p := pdu.AsyncMessage{Event: pdu.AsyncSCSI, Data: pdu.AppendSenseData(nil, c.Sense())}
	binary.BigEndian.PutUint64(p.LUN[:], uint64(lun))
	for _, c := range s.conns {
		if !c.closing && len(c.out) < queueMax {
			c.enqueueAsync(p)
			return
		}
	}
}

// tellTerminated tells the initiator of the tasks that match and are about to be aborted (event 5): one message for each
// logical unit on each connection that has one, except on but.
func (s *Session) tellTerminated(but *Conn, match func(*Task) bool) {
	for _, c := range s.conns {
		if c == but || c.closing {
			continue
		}
		var luns []pdu.LUN
		for _, t := range s.tasks {
			if t.conn == c && match(t) && !slices.Contains(luns, t.lun) {
				luns = append(luns, t.lun)
			}
		}
		slices.SortFunc(luns, func(a, b pdu.LUN) int { return bytes.Compare(a[:], b[:]) })
		for _, lun := range luns {
			c.enqueueAsync(pdu.AsyncMessage{Event: pdu.AsyncTasksTerminated, LUN: lun})
		}
	}
}

// Quiesce lets no further SCSI command in, because the session is about to be ended by the target: one that comes counts as
// received, and nothing else happens with it. The window does not move on. What is in flight goes on, see Busy.
func (s *Session) Quiesce() { s.quiet, s.order.frozen = true, true }

// Busy returns how many tasks live: until their status was taken, or until they have ended without one.
func (s *Session) Busy() int { return max(len(s.tasks), s.running) }

// Drop ends the session as End does, and has the initiator told (event 3), unless a connection does not take it. Connections
// are to be closed when what waits was sent: the statuses of tasks that are done are among it. The owner calls End when that
// takes too long.
func (s *Session) Drop() {
	if s.ended {
		return
	}
	s.Quiesce()
	s.abortWhere(func(t *Task) bool { return t.stage != stageSending })
	for _, c := range s.conns {
		if !c.closing {
			c.enqueueAsync(pdu.AsyncMessage{Event: pdu.AsyncDropSession}) // it may come again, or go elsewhere, at once
		}
		c.close()
	}
}

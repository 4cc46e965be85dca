package session

import (
	"encoding/binary"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// multiTask reports whether the function of a TMF request ends the tasks that came before it, whichever they are.
func multiTask(h *pdu.Header) bool {
	p, err := pdu.ParseTMFRequest(h, nil, nil)
	if err != nil {
		return false
	}
	switch p.Function {
	case pdu.TMFAbortTaskSet, pdu.TMFClearTaskSet, pdu.TMFLogicalUnitReset, pdu.TMFTargetWarmReset, pdu.TMFTargetColdReset:
		return true
	}
	return false
}

// receiveTMF performs a task management function, RFC 7143 section 11.5. It does not wait for the medium: what runs there
// is fenced, and the answer is queued at once.
func (c *Conn) receiveTMF(h *pdu.Header) error {
	p, err := pdu.ParseTMFRequest(h, nil, nil)
	if err != nil {
		return err
	}
	c.respondTMF(p.ITT, c.manage(&p))
	if p.Function == pdu.TMFTargetColdReset {
		c.s.cfg.Env.ColdReset()
		for _, o := range c.s.conns {
			o.close()
		}
	}
	return nil
}

func (c *Conn) manage(p *pdu.TMFRequest) pdu.TMFResult {
	s := c.s
	lun := scsi.LUN(binary.BigEndian.Uint64(p.LUN[:]))
	switch p.Function {
	case pdu.TMFAbortTask:
		return c.abortTask(p, lun)
	case pdu.TMFAbortTaskSet, pdu.TMFClearTaskSet:
		// The task sets of sessions are apart (TST=001b of the Control mode page), so both are the same.
		if !s.cfg.Nexus.Present(lun) {
			return pdu.TMFNoSuchLUN
		}
		s.AbortUnit(lun)
	case pdu.TMFLogicalUnitReset:
		if !s.cfg.Nexus.Present(lun) {
			return pdu.TMFNoSuchLUN
		}
		s.AbortUnit(lun)
		s.cfg.Nexus.ResetLogicalUnit(lun)
	case pdu.TMFTargetWarmReset, pdu.TMFTargetColdReset:
		s.abortWhere(func(*Task) bool { return true })
		s.cfg.Nexus.ResetTarget()
	case pdu.TMFTaskReassign:
		return pdu.TMFReassignNotSupported
	default:
		return pdu.TMFNotSupported
	}
	return pdu.TMFComplete
}

// abortTask is ABORT TASK. A task that is not there is complete if its command was sent before and is still to come: it
// counts as received then, and does nothing when it comes (RFC 7143 section 11.5.1).
func (c *Conn) abortTask(p *pdu.TMFRequest, lun scsi.LUN) pdu.TMFResult {
	s := c.s
	if !s.cfg.Nexus.Present(lun) {
		return pdu.TMFNoSuchLUN
	}
	if t := s.tasks[p.ReferencedTaskTag]; t != nil && t.lun == p.LUN {
		s.abortWhere(func(o *Task) bool { return o == t })
		return pdu.TMFComplete
	}
	sn := p.RefCmdSN
	if !sn.InWindow(s.order.exp, s.order.max) || !sn.Less(p.CmdSN) {
		return pdu.TMFNoSuchTask
	}
	if s.order.admits(sn) {
		s.order.held[sn] = held{skip: true}
		s.skip()
	}
	return pdu.TMFComplete
}

// skip goes on if the command whose turn it is counts as received.
func (s *Session) skip() {
	if h, ok := s.order.held[s.order.exp]; ok && h.skip {
		// Errors belong to the connections whose requests were waiting, and were answered there.
		_ = s.catchUp()
	}
}

func (c *Conn) respondTMF(itt pdu.ITT, result pdu.TMFResult) {
	r := pdu.TMFResponse{Result: result, ITT: itt}
	var h pdu.Header
	r.AppendHeader(h[:0], 0)
	c.enqueueHeader(h, statAdvance)
}

package session

import (
	"encoding/binary"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// levelRFC7144 is the iSCSIProtocolLevel that adds the functions of RFC 7144.
const levelRFC7144 = 2

// scope says which tasks a task management function ends.
type scope uint8

const (
	scopeTask   scope = iota // one, or none
	scopeUnit                // those of a logical unit
	scopeTarget              // all
)

// scopeOf returns the scope of the function of a TMF request.
func scopeOf(h *pdu.Header) scope {
	p, err := pdu.ParseTMFRequest(h, nil, nil)
	if err != nil {
		return scopeTask
	}
	switch p.Function {
	case pdu.TMFAbortTaskSet, pdu.TMFClearTaskSet, pdu.TMFLogicalUnitReset:
		return scopeUnit
	case pdu.TMFTargetWarmReset, pdu.TMFTargetColdReset, pdu.TMFITNexusReset:
		return scopeTarget
	}
	return scopeTask
}

// receiveTMF performs a task management function, RFC 7143 section 11.5. It does not wait for the medium: what runs there
// is fenced, and the answer is queued at once, but for that of a reset (see resetting). Nor does it wait for the data that the
// initiator was asked for: many stop to send them when they have sent the request, and what still comes is thrown away (see
// package orphan).
func (c *Conn) receiveTMF(h *pdu.Header) error {
	p, err := pdu.ParseTMFRequest(h, nil, nil)
	if err != nil {
		return err
	}
	w := &resetting{conn: c, function: p.Function, many: scopeOf(h) != scopeTask}
	w.answer = c.manage(&p, w)
	if w.begun && !w.done.Load() {
		c.s.resetting = append(c.s.resetting, w)
	} else {
		w.respond()
	}
	return nil
}

// manage performs a function and returns the answer, which w has to wait with if it says that it has begun.
func (c *Conn) manage(p *pdu.TMFRequest, w *resetting) pdu.TMFResponse {
	s := c.s
	r := pdu.TMFResponse{ITT: p.ITT, Result: pdu.TMFComplete}
	lun := scsi.LUN(binary.BigEndian.Uint64(p.LUN[:]))
	switch f := p.Function; {
	case f == pdu.TMFTaskReassign:
		r.Result = pdu.TMFReassignNotSupported
	case f.Resets() && len(s.resetting) >= resettingMax:
		r.Result = pdu.TMFRejected
	case f == pdu.TMFTargetWarmReset, f == pdu.TMFTargetColdReset:
		s.terminate(c, anyTask)
		s.cfg.Nexus.ResetTarget(w.begin())
	case f == pdu.TMFITNexusReset && s.params.ISCSIProtocolLevel >= levelRFC7144:
		s.terminate(c, anyTask)
		s.cfg.Nexus.ResetNexus()
	case !s.supports(f):
		r.Result = pdu.TMFNotSupported
	case !s.cfg.Nexus.Present(lun):
		r.Result = pdu.TMFNoSuchLUN
	default:
		c.manageUnit(p, lun, &r, w)
	}
	return r
}

// supports tells whether f is a function about a logical unit that this session has.
func (s *Session) supports(f pdu.TMFFunction) bool {
	switch f {
	case pdu.TMFAbortTask, pdu.TMFAbortTaskSet, pdu.TMFClearTaskSet, pdu.TMFLogicalUnitReset:
		return true
	case pdu.TMFQueryTask, pdu.TMFQueryTaskSet, pdu.TMFQueryAsyncEvent:
		return s.params.ISCSIProtocolLevel >= levelRFC7144
	}
	return false
}

// manageUnit performs a function on lun, which is present.
func (c *Conn) manageUnit(p *pdu.TMFRequest, lun scsi.LUN, r *pdu.TMFResponse, w *resetting) {
	s := c.s
	switch p.Function {
	case pdu.TMFAbortTask:
		r.Result = c.abortTask(p)
	case pdu.TMFAbortTaskSet, pdu.TMFClearTaskSet:
		// The task sets of sessions are apart (TST=001b of the Control mode page), so both are the same.
		s.terminate(c, on(lun))
	case pdu.TMFLogicalUnitReset:
		s.terminate(c, on(lun))
		if !s.cfg.Nexus.ResetLogicalUnit(lun, w.begin()) { // it went meanwhile, and nobody will say when
			w.begun, r.Result = false, pdu.TMFNoSuchLUN
		}
	case pdu.TMFQueryTask:
		if t := s.tasks[p.ReferencedTaskTag]; t != nil && t.lun == p.LUN {
			r.Result = pdu.TMFSucceeded
		}
	case pdu.TMFQueryTaskSet:
		if s.holds(on(lun)) {
			r.Result = pdu.TMFSucceeded
		}
	case pdu.TMFQueryAsyncEvent:
		if code, n := s.cfg.Nexus.PendingAttention(lun); n > 0 {
			r.Result, r.AdditionalInfo = pdu.TMFSucceeded, eventInfo(code, n)
		}
	}
}

// UADE DEPTH, in bits 4 and 5 of the first byte of the additional response information of QUERY ASYNCHRONOUS EVENT
// (SAM-5 section 7.10): how many unit attention conditions and deferred errors wait.
const (
	uadeOne  = 1 << 4
	uadeMore = 2 << 4
)

// eventInfo is the additional response information for n conditions, of which code is the oldest.
func eventInfo(code scsi.SenseCode, n int) [3]byte {
	depth := byte(uadeOne)
	if n > 1 {
		depth = uadeMore
	}
	return [3]byte{depth | code.Key(), code.ASC(), code.ASCQ()}
}

// anyTask matches all tasks.
func anyTask(*Task) bool { return true }

// on returns what matches the tasks on lun, in whichever format their commands wrote it.
func on(lun scsi.LUN) func(*Task) bool {
	number, ok := lun.Number()
	return func(t *Task) bool {
		n, known := t.cmd.LUN.Number()
		return known && ok && n == number
	}
}

// holds tells whether a task matches.
func (s *Session) holds(match func(*Task) bool) bool {
	for _, t := range s.tasks {
		if match(t) {
			return true
		}
	}
	return false
}

// terminate aborts many tasks at once. With TaskReporting=FastAbort the initiator learns on each connection that has one
// of them, except asked, on which it asked for it, that nothing more will come of them (RFC 7143 section 4.2.3.4).
func (s *Session) terminate(asked *Conn, match func(*Task) bool) {
	if s.params.TaskReporting == login.TaskReportingFastAbort {
		s.tellTerminated(asked, match)
	}
	s.abortWhere(match)
}

// AbortUnit aborts the session's tasks on lun that came before another nexus reset the logical unit, which was when
// Config.Resets rose to reset. It may come late: the initiator may know of the reset, and have sent new commands.
func (s *Session) AbortUnit(lun scsi.LUN, reset uint32) {
	match := on(lun)
	s.terminate(nil, func(t *Task) bool { return t.Precedes(reset) && match(t) })
	s.fenced = true
}

// RemoveUnit ends the session's tasks on lun, which is no longer mapped. Those that run are fenced and end with LOGICAL
// UNIT NOT SUPPORTED, unless they were done; the others find that for themselves.
func (s *Session) RemoveUnit(lun scsi.LUN) {
	match, fence := on(lun), false
	for _, t := range s.tasks {
		if t.stage == stageRunning && match(t) {
			t.removed = true
			t.cancel()
			t.cmd.FenceElsewhere()
			fence = fence || t.class.Writes
		}
	}
	if fence {
		s.stats.Fenced++
		s.cfg.Env.Abort(lun)
	}
}

// abortTask is ABORT TASK. A task that is not there is complete if its command was sent before and is still to come: it
// counts as received then, and does nothing when it comes (RFC 7143 section 11.5.1).
func (c *Conn) abortTask(p *pdu.TMFRequest) pdu.TMFResult {
	s := c.s
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

// plug counts all commands before sn, which is in the window or just behind it, as received. Those that are still to come
// do nothing then.
func (s *Session) plug(sn pdu.CmdSN) {
	for at := s.order.exp; at.Less(sn); at = at.Next() {
		if _, ok := s.order.held[at]; !ok {
			s.order.held[at] = held{skip: true}
		}
	}
}

// skip goes on if the command whose turn it is counts as received.
func (s *Session) skip() {
	if h, ok := s.order.held[s.order.exp]; ok && h.skip {
		// Errors belong to the connections whose requests were waiting, and were answered there.
		_ = s.catchUp()
	}
}

// respondTMF answers a function; many says that it ended the tasks of others too, whose responses come before the answer.
func (c *Conn) respondTMF(r pdu.TMFResponse, many bool) {
	i := item{stat: statAdvance}
	r.AppendHeader(i.head[:0], 0)
	if many {
		c.enqueueFenced(i)
	} else {
		c.enqueue(i)
	}
}

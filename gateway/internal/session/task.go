package session

import (
	"context"
	"errors"
	"slices"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// stage is how far a task has come. It only grows until the task is recycled.
type stage uint8

const (
	stageOrder   stage = iota // waits for its CmdSN turn; unsolicited data may come in
	stageData                 // waits for data, or for memory for data
	stageReady                // has its data; waits in the task set
	stageMemory               // waits for memory for data-in
	stageRunning              // is out with Effects.Start
	stageSending              // its status is queued
	stageGone                 // has ended
)

// Task is one SCSI command from its arrival to its status. Tasks are recycled by their Session.
type Task struct {
	s     *Session
	conn  *Conn
	unit  *unit
	next  *Task // in the session's free list
	stage stage
	life  uint32 // counts the commands that used this Task

	itt       pdu.ITT
	cmdSN     pdu.CmdSN
	resets    uint32 // Config.Resets when it came
	attr      pdu.TaskAttr
	immediate bool
	read      bool
	write     bool
	bidi      bool
	bidiLen   uint32
	edtl      uint32
	lun       pdu.LUN
	class     scsi.Class

	entered bool // is in the task set of unit
	waits   bool // ... and may not run yet
	aborted bool // ends without a status
	removed bool // its logical unit is no longer mapped
	counted bool // has a place in the window

	out  dataOut // from the initiator
	in   dataIn  // to the initiator
	need int     // bytes that it waits for in the memory queue
	// leased are the bytes that it has from the pool beyond its slot.
	leased int64

	cdb    [pdu.MaxCDBLen]byte
	cmd    scsi.Command
	ctx    context.Context // for Execute; used by many commands until one is aborted
	cancel context.CancelFunc
	err    error // of Execute
}

// Run executes the command; it blocks as long as the medium does. It is called once for each time that the task is in
// Effects.Start, without the session's mutex, and followed by Session.Complete.
func (t *Task) Run() {
	// An aborted command must not even be looked at: it would take the unit attention of the reset that aborted it.
	if t.err = t.ctx.Err(); t.err == nil {
		t.err = t.s.cfg.Nexus.Execute(t.ctx, &t.cmd)
	}
}

// Conn returns the connection of the command; nil after Complete.
func (t *Task) Conn() *Conn { return t.conn }

// ErrBroken is for Fail: the command was not executed to its end because something is wrong with the gateway.
var ErrBroken = errors.New("session: broken while it ran")

// Fail says that Run did not return, because it panicked. Complete follows as if it had.
func (t *Task) Fail(err error) { t.err = err }

// On reports whether the command is for lun. It may be called, without the mutex, while the task is out: from Effects.Start
// until Complete.
func (t *Task) On(lun scsi.LUN) bool { return on(lun)(t) }

// Precedes reports whether the command came before the reset for which Config.Resets rose to reset. It may be called when On
// may.
func (t *Task) Precedes(reset uint32) bool { return int32(t.resets-reset) < 0 }

// Interrupt cancels the command of a task that is out, as AbortUnit will for the reset that is the reason. It may be called
// without the mutex, and before AbortUnit: a fence must not come before what it is for was cancelled. AbortUnit must come
// before Complete.
func (t *Task) Interrupt() {
	t.cancel()
	t.cmd.FenceElsewhere()
}

// newTask returns a blank task.
func (s *Session) newTask(c *Conn) *Task {
	t := s.free
	if t == nil {
		t = &Task{s: s}
		t.cmd.Alloc = t.alloc
	} else {
		s.free = t.next
		t.next = nil
	}
	if t.ctx == nil {
		ctx, cancel := context.WithCancel(s.ctx)
		t.ctx, t.cancel = context.WithValue(ctx, taskKey{}, t), cancel
	}
	t.conn, t.stage = c, stageOrder
	return t
}

// recycle takes back everything that t holds. Its status was taken, or it was aborted and is not out.
func (s *Session) recycle(t *Task) {
	if t.stage == stageGone {
		panic("session: task ended twice")
	}
	if s.tasks[t.itt] == t {
		delete(s.tasks, t.itt)
	}
	s.memory.bytes -= t.leased
	if t.counted {
		s.order.active--
		s.order.advance()
	}
	if t.immediate {
		s.immediate--
	}
	t.out.buf.release()
	t.in.buf.release()
	if t.ctx.Err() != nil {
		t.ctx, t.cancel = nil, nil
	}
	t.cmd.Reset()
	t.conn, t.unit = nil, nil
	t.stage = stageGone
	t.life++
	t.itt, t.err, t.leased, t.need = 0, nil, 0, 0
	t.immediate, t.read, t.write, t.bidi = false, false, false, false
	t.entered, t.waits, t.aborted, t.removed, t.counted = false, false, false, false, false
	t.out.reset()
	t.in = dataIn{}
	t.next, s.free = s.free, t
	if len(s.memory.queue) > 0 {
		s.pump()
	}
}

// release gives b back if there is one.
func (b *Buffer) release() {
	if b != nil {
		b.Release()
	}
}

// alloc is scsi.Command.Alloc. While the task runs it belongs to the goroutine that runs it, so it may use in.
func (t *Task) alloc(n int) []byte {
	if t.in.buf == nil {
		if n > t.s.slot {
			return make([]byte, n) // a long list out of memory, such as REPORT LUNS
		}
		t.in.buf = t.s.cfg.Pool.LeaseReserved(n)
	}
	if n > t.in.buf.Len() {
		return make([]byte, n)
	}
	return t.in.buf.Bytes()[:n]
}

// enter puts t, whose turn it is, into the task set and begins to collect its data.
func (s *Session) enter(t *Task) {
	t.stage = stageData
	s.stats.Commands++
	if !t.immediate {
		t.counted = true
		s.order.active++
	}
	t.unit = s.unit(t.cmd.LUN)
	t.unit.enter(t)
	s.collect(t)
}

// unit returns the task set of lun. There are at most as many as tasks plus mapped logical units, because an empty one
// of a LUN that is not there is dropped again.
func (s *Session) unit(lun scsi.LUN) *unit {
	u := s.units[lun]
	if u == nil {
		if len(s.units) > 2*WindowMax {
			s.dropUnits()
		}
		u = &unit{}
		s.units[lun] = u
	}
	return u
}

// dropUnits forgets the task sets that are empty.
func (s *Session) dropUnits() {
	for lun, u := range s.units {
		if u.enabled == 0 && len(u.waiting) == 0 && u.compares == 0 {
			delete(s.units, lun)
		}
	}
}

// ready is called when t has all its data, and when it need not wait in the task set any more.
func (s *Session) ready(t *Task) {
	t.stage = stageReady
	if t.waits {
		return
	}
	if t.out.spoiled {
		t.cmd.Fail(scsi.Sense(0x0B, 0x47, 0x05)) // PROTOCOL SERVICE CRC ERROR, RFC 7143 section 11.4.7.2
		s.executed(t)
		return
	}
	if !t.class.Medium {
		t.prepare()
		t.Run()
		s.executed(t)
		return
	}
	if t.read && t.class.Direction == scsi.DirectionIn && t.in.buf == nil && t.readLen() > 0 {
		n := int(min(t.readLen(), BufferMax))
		b := s.leaseNow(t, n)
		if b == nil {
			t.stage = stageMemory
			s.await(t, n)
			return
		}
		t.in.buf = b
	}
	if t.edtl <= tryMax {
		t.prepare()
		if s.cfg.Nexus.Try(&t.cmd) {
			s.executed(t)
			return
		}
	}
	s.start(t)
}

// tryMax is the longest transfer that is tried with the mutex held, in bytes: a longer one takes so long to copy that
// it is worth a goroutine, even if its answer is at hand.
const tryMax = 64 << 10

// readLen returns the data-in that the initiator takes, in bytes.
func (t *Task) readLen() uint32 {
	switch {
	case t.bidi:
		return t.bidiLen
	case t.read && !t.write:
		return t.edtl
	}
	return 0
}

// prepare fills in the command for Execute.
func (t *Task) prepare() {
	t.cmd.MaxDataIn = int(min(t.readLen(), BufferMax))
	if t.out.buf != nil {
		t.cmd.DataOut = t.out.buf.Bytes()[:min(int(t.out.received), t.out.buf.Len())]
	}
}

// start gives t out.
func (s *Session) start(t *Task) {
	t.prepare()
	t.stage = stageRunning
	s.running++
	s.effects.Start = append(s.effects.Start, t)
}

// granted is called with the memory that t waited for.
func (s *Session) granted(t *Task, b *Buffer) {
	if t.stage == stageMemory {
		t.in.buf = b
		s.start(t)
		return
	}
	t.out.widen(b)
	s.solicit(t)
}

// Complete takes back a task whose Run has returned.
func (s *Session) Complete(t *Task) {
	if t.stage != stageRunning {
		panic("session: completed a task that does not run")
	}
	s.running--
	s.executed(t)
	s.settle()
}

// executed queues the status of t, or ends it without one.
func (s *Session) executed(t *Task) {
	if t.aborted || errors.Is(t.err, scsi.ErrReset) {
		s.cfg.Nexus.Untold(&t.cmd)
		s.leave(t)
		s.retire(t)
		return
	}
	switch {
	case t.err != nil && t.removed:
		t.cmd.Fail(scsi.LogicalUnitNotSupported)
	case t.err != nil:
		// Run panicked, or Execute gave up on a context that nobody cancelled, which is a bug of the medium's.
		t.cmd.Fail(scsi.InternalTargetFailure)
	}
	t.stage = stageSending
	t.out.buf.release() // its bytes are used up; data-in has a buffer of its own
	t.out.buf = nil
	if s.fenced {
		s.fenced = false
		t.conn.enqueueFenced(item{task: t})
	} else {
		t.conn.enqueue(item{task: t})
	}
	s.leave(t)
}

// leave takes t out of its task set and runs what waited for it.
func (s *Session) leave(t *Task) {
	if t.unit == nil {
		return
	}
	for _, w := range t.unit.leave(t) {
		if w.stage == stageReady && !w.aborted {
			s.ready(w)
		}
	}
}

// retire recycles t, which ended without a status, and tells the initiator if that opened a closed window.
func (s *Session) retire(t *Task) {
	s.stats.Aborted++
	s.recycle(t)
	s.announce()
}

// announce sends a NOP-In that wants no answer if the initiator believes that the window is closed and it is not.
func (s *Session) announce() {
	if s.ended || len(s.conns) == 0 || s.order.max.Less(s.order.exp) {
		return
	}
	for _, c := range s.conns {
		if !c.told.Less(s.order.exp) {
			return
		}
	}
	for _, c := range s.conns {
		if !c.closing && len(c.out) < queueMax {
			c.enqueueHeader(nopIn(pdu.ReservedTag), statNext)
			c.told = s.order.max
			return
		}
	}
}

// abortWhere aborts the tasks that match, and raises the fencing generation of each medium on which one of them was
// writing. It returns how many there were.
func (s *Session) abortWhere(match func(*Task) bool) int {
	var fences []scsi.LUN
	n := 0
	for _, t := range s.tasks {
		if !match(t) {
			continue
		}
		n++
		if t.stage == stageRunning {
			t.cancel() // before the fence, which reaches what was cancelled by then
			t.cmd.FenceElsewhere()
			if t.class.Writes && !slices.Contains(fences, t.cmd.LUN) {
				fences = append(fences, t.cmd.LUN)
			}
		}
		t.aborted = true
	}
	if n == 0 {
		return 0
	}
	slices.Sort(fences)
	for _, lun := range fences {
		s.stats.Fenced++
		s.cfg.Env.Abort(lun)
	}
	for _, t := range s.tasks {
		if t.aborted {
			s.abort(t)
		}
	}
	return n
}

// abort ends t, whose aborted flag is set: now, or when Complete or Take come to it.
func (s *Session) abort(t *Task) {
	delete(s.tasks, t.itt)
	for _, r := range t.out.open {
		s.orphans.Add(r.ttt)
	}
	switch t.stage {
	case stageRunning:
		t.cancel()
		s.leave(t)
	case stageSending: // Take skips it
		s.cfg.Nexus.Untold(&t.cmd)
	case stageOrder:
		s.order.held[t.cmdSN] = held{skip: true}
		s.retire(t)
	default:
		s.memory.forget(s, t)
		s.leave(t)
		s.retire(t)
	}
}

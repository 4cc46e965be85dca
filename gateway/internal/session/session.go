package session

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/session/orphan"
)

// Limits of a session that no configuration changes.
const (
	// WindowMax is the most commands that a session may have outstanding.
	WindowMax = 1024
	// WindowMin is the smallest window with which New makes a session.
	WindowMin = 16
	// immediateMax bounds the SCSI commands for immediate delivery, which have no place in the window.
	immediateMax = 8
	// ConnMax bounds the connections of one session, whatever was negotiated.
	ConnMax = 8
	// r2tMax bounds the R2Ts outstanding for one command, whatever was negotiated.
	r2tMax = 8
	// deferredMax bounds the task management functions that wait for commands before them.
	deferredMax = 8
	// pendingMax bounds the COMPARE AND WRITE responses of a connection whose acknowledgement is awaited.
	pendingMax = 2 * WindowMax
	// queueMax is the number of PDUs waiting on a connection from which on it is congested.
	queueMax = 512
)

// Env is what a session asks of the gateway. Its methods are called with the session's mutex held: they return at once
// and do not call into a Session.
type Env interface {
	// Abort raises the fencing generation of the session's initiator on the medium behind lun: writes that it has in
	// flight there will not take effect later than those which follow.
	Abort(lun scsi.LUN)

	// Acknowledged says that the initiator knows the outcome of every COMPARE AND WRITE that it sent to lun through this
	// session.
	Acknowledged(lun scsi.LUN)

	// ColdReset says that all sessions of the target have to end, this one after its response was sent.
	ColdReset()
}

// Config describes a session.
type Config struct {
	// Login is the login of the first connection. A discovery session has SendTargets, NOP and logout only, and no Nexus.
	Login *login.Result

	Window int   // most commands outstanding, WindowMin..WindowMax
	Bytes  int64 // most bytes leased at a time beyond the reservation, at least BufferMax

	Pool  *Pool
	Nexus *scsi.Nexus
	Env   Env
	// Targets answers SendTargets.
	Targets login.TargetLister

	// Resets counts the resets of logical units by other sessions; it is raised on any goroutine before AbortUnit is called
	// for the reset. Each command is marked with it when it comes, so that a reset does not end one that came after it. Nil:
	// there are none.
	Resets *atomic.Uint32

	// Marks orders what the initiators of all sessions of the gateway have shown; see Proof. Nil: there is nothing to show.
	Marks *Marks
	// Prove is called by Proof.Await, on the goroutine of a task: it calls Conn.Prove with the mutex held, does what Effects
	// asks for after that, and returns what Conn.Prove returned. Nil: no command of the session comes to a Proof.
	Prove func(*Conn, Mark) <-chan struct{}

	// Wake is called when something that the session waits for is there, see Memory, which is to be called then. It is called on any
	// goroutine, must not block and must not call into the Session.
	Wake func()
}

// Stats count what happened in a session since its start.
type Stats struct {
	Commands   uint64 // SCSI commands accepted
	Failed     uint64 // ... that ended with another status than GOOD and CONDITION MET
	ReadBytes  uint64 // data-in queued to be sent, bytes
	WriteBytes uint64 // data-out received, bytes
	R2Ts       uint64
	Aborted    uint64 // tasks that ended without a status
	Fenced     uint64 // raised fencing generations
	Rejected   uint64 // PDUs answered with Reject
	Dropped    uint64 // commands outside the window, repeated, or data of tasks that are gone
	Spoiled    uint64 // writes that failed because a Data-Out was missing or out of order
	MemoryWait uint64 // tasks that had to wait for memory
}

// Session is one I_T nexus in full feature phase. See the package comment for who may call what when.
type Session struct {
	cfg Config
	// Of the login: what is looked at often.
	params    login.Params
	discovery bool
	maxBurst  int // bytes

	conns     []*Conn
	order     order
	deferred  []held // task management functions that wait for commands before them
	orphans   orphan.Set
	resetting []*resetting // resets that wait for their answers
	fences    []*fence     // not done, oldest first
	fenced    bool         // the next status gets one: it tells of a reset by another nexus
	units     map[scsi.LUN]*unit
	tasks     map[pdu.ITT]*Task

	free      *Task // recycled tasks
	running   int   // tasks that are out with Start and not yet given to Complete
	immediate int   // SCSI commands for immediate delivery that live
	nextTTT   pdu.TTT
	memory    memory
	effects   Effects
	reserved  int64 // bytes of the reservation
	slot      int   // bytes that one command may take from it
	ctx       context.Context
	cancel    context.CancelFunc
	ended     bool
	quiet     bool // see Quiesce
	stats     Stats
}

// Effects are what a Session wants done after inputs. The owner does it after it gave the mutex back.
type Effects struct {
	// Start are tasks whose Run is to be called, each on a goroutine of its own, and which go to Complete afterwards.
	Start []*Task
	// Write are connections that may have PDUs to Take, or are to be closed; see Conn.Take.
	Write []*Conn
}

// New makes a session without connections. It fails with ErrLimit when the pool has no room for the smallest window.
func New(cfg Config) (*Session, error) {
	if cfg.Window < WindowMin || cfg.Window > WindowMax {
		return nil, fmt.Errorf("session: window of %d commands is not %d..%d", cfg.Window, WindowMin, WindowMax)
	}
	if cfg.Bytes < BufferMax {
		return nil, fmt.Errorf("session: %d bytes are less than the largest buffer", cfg.Bytes)
	}
	discovery := cfg.Login.Type == login.SessionDiscovery
	if !discovery && cfg.Nexus == nil {
		return nil, errors.New("session: no nexus")
	}
	if cfg.Resets == nil {
		cfg.Resets = new(atomic.Uint32)
	}
	if cfg.Marks == nil {
		cfg.Marks = new(Marks)
	}
	s := &Session{
		cfg:       cfg,
		params:    cfg.Login.Params,
		discovery: discovery,
		maxBurst:  int(cfg.Login.Params.MaxBurstLength),

		units: make(map[scsi.LUN]*unit),
		tasks: make(map[pdu.ITT]*Task),
		slot:  1 << bufferMinShift,
	}
	if discovery {
		s.cfg.Window = WindowMin
	} else {
		s.slot = int(classSize(int(s.params.FirstBurstLength)))
	}
	if err := s.reserve(); err != nil {
		return nil, err
	}
	s.order.start(cfg.Login.ExpCmdSN, s.cfg.Window)
	s.memory.waiter.Wake = cfg.Wake
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// reserve sets memory aside for a window as large as there is room for.
func (s *Session) reserve() error {
	for {
		n := int64(s.cfg.Window+immediateMax) * int64(s.slot)
		err := s.cfg.Pool.Reserve(n)
		if err == nil {
			s.reserved = n
			return nil
		}
		if s.cfg.Window == WindowMin {
			return err
		}
		s.cfg.Window = max(s.cfg.Window/2, WindowMin)
	}
}

// Window returns the most commands that the session may have outstanding; it may be less than was configured.
func (s *Session) Window() int { return s.cfg.Window }

// Numbers returns the next CmdSN that the session expects and the last that may be sent.
func (s *Session) Numbers() (exp, last pdu.CmdSN) { return s.order.exp, s.order.max }

// Stats returns the counters.
func (s *Session) Stats() Stats { return s.stats }

// Effects moves what is to be done into e, whose slices are used again.
func (s *Session) Effects(e *Effects) {
	for _, c := range s.conns {
		c.pingQuiet()
	}
	e.Start, s.effects.Start = s.effects.Start, e.Start[:0]
	e.Write, s.effects.Write = s.effects.Write, e.Write[:0]
	for _, c := range e.Write {
		c.flagged = false
	}
}

// Why AddConn fails.
var (
	// ErrConns says that the session has as many connections as were negotiated.
	ErrConns = errors.New("session: too many connections")
	// ErrEnded says that the session is over, or about to be.
	ErrEnded = errors.New("session: has ended")
)

// AddConn adds the connection that has finished the login r. The MaxCmdSN that r promised was no more than the session
// has given by now; a window of WindowMin at login is always right. If the session has a connection of the same CID, the
// new one takes its place: the old one is dropped, and its tasks are aborted (RFC 7143 section 6.3.4).
func (s *Session) AddConn(r *login.Result) (*Conn, error) {
	if s.ended || s.quiet {
		return nil, ErrEnded
	}
	old := s.conn(r.CID)
	if old == nil && len(s.conns) >= min(ConnMax, int(s.params.MaxConnections)) {
		return nil, ErrConns
	}
	if old != nil {
		old.detach()
	}
	c := &Conn{
		s: s, cid: r.CID, maxSend: int(r.Params.InitiatorMaxRecvDataSegmentLength),
		statSN: r.StatSN, acked: r.StatSN, told: r.MaxCmdSN,
		ping: pdu.ReservedTag, text: login.NewExchange(r, s.cfg.Targets),
	}
	c.proven.Store(uint64(s.cfg.Marks.now())) // what comes on it will be sent after its login was answered
	s.conns = append(s.conns, c)
	return c, nil
}

// Ended reports that the session has no connection any more, or was ended. Tasks may still run, see Running.
func (s *Session) Ended() bool { return s.ended }

// Running returns how many tasks are out.
func (s *Session) Running() int { return s.running }

// End ends the session at once: all tasks are aborted and fenced, nothing that waits is sent, and every connection is to
// be closed. Tasks that are out must still be given to Complete.
func (s *Session) End() {
	if s.ended {
		return
	}
	s.abortWhere(anyTask)
	for _, c := range s.conns {
		c.drop()
	}
	s.finish()
}

// finish gives back what a session holds once its connections are gone.
func (s *Session) finish() {
	s.ended = true
	s.order.clear()
	s.memory.withdraw(s)
	s.cancel()
	s.settle()
}

// settle gives the reservation back when nothing can use it any more.
func (s *Session) settle() {
	if s.ended && s.running == 0 && s.reserved > 0 {
		s.cfg.Pool.Unreserve(s.reserved)
		s.reserved = 0
	}
}

// Cancel ends the contexts of all tasks, for an engine that panicked: End may not have come to them.
func (s *Session) Cancel() { s.cancel() }

// Forfeit gives back what tasks hold that never came back, because the engine panicked, and the reservation. Their buffers
// are not used again: who has them is not known for sure. Nor is the session.
func (s *Session) Forfeit() {
	if s.memory.bytes > 0 {
		s.cfg.Pool.refund(s.memory.bytes)
		s.memory.bytes = 0
	}
	if s.reserved > 0 {
		s.cfg.Pool.Unreserve(s.reserved)
		s.reserved = 0
	}
}

// newTTT returns a Target Transfer Tag that no transfer of the session has.
func (s *Session) newTTT() pdu.TTT {
	s.nextTTT++
	for s.nextTTT.IsReserved() || s.orphans.Has(s.nextTTT) {
		s.nextTTT++
	}
	return s.nextTTT
}

package initiator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Command is one SCSI command. In and Out are borrowed until Do returns; at most one of them is not empty.
type Command struct {
	CDB [16]byte
	Out []byte
	In  []byte
}

// task is a command in flight.
type task struct {
	cmd  *Command
	done chan error // capacity 1
	// residual is what the response says was not transferred (underflow), known when done.
	residual uint32
	tmf      bool
}

// frame is a PDU that waits to be written: a header and borrowed data.
type frame struct {
	h    bhs
	data []byte
}

// Session is one logged-in connection. Its methods may be called by many goroutines.
type Session struct {
	conn net.Conn
	cfg  Config
	p    params
	lun  uint64
	wg   sync.WaitGroup
	dead chan struct{}

	mu struct {
		sync.Mutex
		window    sync.Cond // signaled when maxCmdSN advances or the session ends
		outgoing  sync.Cond // signaled when frames or the end of the session wait
		frames    []frame
		tasks     map[uint32]*task
		nextITT   uint32
		cmdSN     uint32
		maxCmdSN  uint32
		expStatSN uint32
		err       error
	}
}

// tasksMax bounds the commands in flight of one session, whatever window the target opens.
const tasksMax = 1024

// newSession starts the two goroutines of a connection; Close waits for them.
func newSession(conn net.Conn, cfg Config, p params, statSN, cmdSN, maxCmdSN uint32) *Session {
	s := &Session{conn: conn, cfg: cfg, p: p, lun: lunField(cfg.LUN), dead: make(chan struct{})}
	s.mu.window.L = &s.mu.Mutex
	s.mu.outgoing.L = &s.mu.Mutex
	s.mu.tasks = map[uint32]*task{}
	s.mu.cmdSN, s.mu.maxCmdSN, s.mu.expStatSN = cmdSN, maxCmdSN, statSN
	s.wg.Add(2)
	go func() { defer s.wg.Done(); s.fail(s.readLoop()) }()
	go func() { defer s.wg.Done(); s.fail(s.writeLoop()) }()
	return s
}

// Portal is the address that the session is connected to.
func (s *Session) Portal() string { return s.cfg.Portal }

// Done is closed when the connection has ended.
func (s *Session) Done() <-chan struct{} { return s.dead }

// fail ends the session: commands in flight fail once both goroutines have let go of their buffers.
func (s *Session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.err != nil {
		return
	}
	s.mu.err = fmt.Errorf("%w: %w", ErrClosed, err)
	s.conn.Close()
	s.mu.window.Broadcast()
	s.mu.outgoing.Broadcast()
	close(s.dead)
}

// Close drops the connection without a logout and waits for the session's goroutines.
func (s *Session) Close() {
	s.fail(errors.New("closed by the initiator"))
	s.wg.Wait()
}

// Do runs one command. It returns the bytes that the command did not transfer. When ctx ends first, the
// session is closed, because only then is the buffer free again.
func (s *Session) Do(ctx context.Context, c *Command) (residual int, err error) {
	t := &task{cmd: c, done: make(chan error, 1)}
	if err := s.send(t); err != nil {
		return 0, err
	}
	return s.wait(ctx, t)
}

// wait blocks until t is answered, the session is dead or ctx ends.
func (s *Session) wait(ctx context.Context, t *task) (int, error) {
	select {
	case err := <-t.done:
		return int(t.residual), err
	case <-ctx.Done():
		s.fail(ctx.Err())
	case <-s.dead:
	}
	s.wg.Wait()
	select {
	case err := <-t.done:
		return int(t.residual), err
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return 0, s.mu.err
}

// send takes a place in the CmdSN window and queues the command with its unsolicited data.
func (s *Session) send(t *task) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.mu.err == nil && (serialLess(s.mu.maxCmdSN, s.mu.cmdSN) || len(s.mu.tasks) >= tasksMax) {
		s.mu.window.Wait()
	}
	if s.mu.err != nil {
		return s.mu.err
	}
	itt := s.newITTLocked()
	s.mu.tasks[itt] = t
	c := t.cmd
	first := min(len(c.Out), s.p.firstBurst)
	now := 0
	if s.p.immediateData {
		now = min(first, s.p.maxSend)
	}
	more := !s.p.initialR2T && first > now
	h := commandPDU(itt, s.mu.cmdSN, s.mu.expStatSN, s.lun, c, now, more)
	s.mu.cmdSN++
	s.pushLocked(h, c.Out[:now])
	if more {
		s.dataOutLocked(itt, noTag, c.Out, now, first)
	}
	return nil
}

// newITTLocked picks a tag that is not in flight.
func (s *Session) newITTLocked() uint32 {
	for {
		s.mu.nextITT++
		if _, used := s.mu.tasks[s.mu.nextITT]; !used && s.mu.nextITT != noTag {
			return s.mu.nextITT
		}
	}
}

func (s *Session) pushLocked(h bhs, data []byte) {
	s.mu.frames = append(s.mu.frames, frame{h, data})
	s.mu.outgoing.Signal()
}

// dataOutLocked queues out[from:to] as Data-Out PDUs of one sequence.
func (s *Session) dataOutLocked(itt, ttt uint32, out []byte, from, to int) {
	for sn := uint32(0); from < to; sn++ {
		n := min(to-from, s.p.maxSend)
		h := dataOutPDU(itt, ttt, s.mu.expStatSN, sn, s.lun, from, n, from+n == to)
		s.pushLocked(h, out[from:from+n])
		from += n
	}
}

// writeLoop writes queued frames, as many as wait in one system call.
func (s *Session) writeLoop() error {
	var batch []frame
	var bufs net.Buffers
	var pad [3]byte
	for {
		s.mu.Lock()
		for len(s.mu.frames) == 0 && s.mu.err == nil {
			s.mu.outgoing.Wait()
		}
		if err := s.mu.err; err != nil {
			s.mu.Unlock()
			return err
		}
		batch, s.mu.frames = s.mu.frames, batch[:0]
		s.mu.Unlock()
		bufs = bufs[:0]
		for i := range batch {
			bufs = append(bufs, batch[i].h[:])
			if n := len(batch[i].data); n > 0 {
				bufs = append(bufs, batch[i].data)
				if p := padded(n) - n; p > 0 {
					bufs = append(bufs, pad[:p])
				}
			}
		}
		w := bufs
		if _, err := w.WriteTo(s.conn); err != nil {
			return err
		}
		clear(batch)
	}
}

// readLoop reads PDUs and answers the commands.
func (s *Session) readLoop() error {
	r := bufio.NewReaderSize(s.conn, 128<<10)
	var h bhs
	for {
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return err
		}
		if h[4] != 0 {
			if _, err := r.Discard(int(h[4]) * 4); err != nil {
				return err
			}
		}
		n := h.dataLen()
		if n > recvMax {
			return fmt.Errorf("data segment of %d bytes is longer than declared", n)
		}
		var err error
		if h.opcode() == opDataIn {
			err = s.dataIn(r, &h, n)
		} else {
			err = s.other(r, &h, n)
		}
		if err != nil {
			return err
		}
	}
}

// sawLocked takes the sequence numbers of a PDU from the target.
func (s *Session) sawLocked(h *bhs, status bool) {
	if status {
		if sn := h.get32(24) + 1; serialLess(s.mu.expStatSN, sn) {
			s.mu.expStatSN = sn
		}
	}
	if m := h.get32(32); serialLess(s.mu.maxCmdSN, m) {
		s.mu.maxCmdSN = m
		s.mu.window.Broadcast()
	}
}

// dataIn stores read data straight in the command's buffer (RFC 7143 11.7).
func (s *Session) dataIn(r *bufio.Reader, h *bhs, n int) error {
	itt := h.get32(16)
	s.mu.Lock()
	t := s.mu.tasks[itt]
	s.mu.Unlock()
	off := int(h.get32(40))
	if t == nil || off+n > len(t.cmd.In) {
		return fmt.Errorf("data-in for tag %d, offset %d, length %d does not fit", itt, off, n)
	}
	if _, err := io.ReadFull(r, t.cmd.In[off:off+n]); err != nil {
		return err
	}
	if _, err := r.Discard(padded(n) - n); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status := h[1]&1 != 0
	s.sawLocked(h, status)
	if status {
		s.endLocked(itt, t, h, statusError(h[3], nil))
	}
	return nil
}

// endLocked answers a task.
func (s *Session) endLocked(itt uint32, t *task, h *bhs, err error) {
	if h[1]&0x02 != 0 {
		t.residual = h.get32(44)
	}
	delete(s.mu.tasks, itt)
	t.done <- err
	s.mu.window.Signal()
}

// other handles every PDU but Data-In.
func (s *Session) other(r *bufio.Reader, h *bhs, n int) error {
	data := make([]byte, padded(n))
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	data = data[:n]
	itt := h.get32(16)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.mu.tasks[itt]
	s.sawLocked(h, h.opcode() != opR2T && (h.opcode() != opNopIn || itt != noTag))
	switch h.opcode() {
	case opResponse:
		if t == nil {
			return fmt.Errorf("response for unknown tag %d", itt)
		}
		if h[2] != 0 {
			return fmt.Errorf("command not completed by the target: response 0x%02x", h[2])
		}
		s.endLocked(itt, t, h, statusError(h[3], data))
	case opR2T:
		off, length := int(h.get32(40)), int(h.get32(44))
		if t == nil || off+length > len(t.cmd.Out) || length > s.p.maxBurst {
			return fmt.Errorf("r2t for tag %d, offset %d, length %d does not fit", itt, off, length)
		}
		s.dataOutLocked(itt, h.get32(20), t.cmd.Out, off, off+length)
	case opNopIn:
		if ttt := h.get32(20); ttt != noTag {
			s.pushLocked(nopOut(ttt, h, s.mu.cmdSN, s.mu.expStatSN), nil)
		}
	case opTaskRsp:
		if t == nil || !t.tmf {
			return fmt.Errorf("task management response for unknown tag %d", itt)
		}
		delete(s.mu.tasks, itt)
		t.done <- tmfError(h[2])
	case opLogoutRsp:
		return io.EOF
	case opAsync:
		return fmt.Errorf("asynchronous message, event %d", h[36])
	case opReject:
		return fmt.Errorf("reject, reason 0x%02x", h[2])
	default:
		return fmt.Errorf("unexpected opcode 0x%02x", h.opcode())
	}
	return nil
}

// nopOut answers a NOP-In of the target (RFC 7143 11.18).
func nopOut(ttt uint32, in *bhs, cmdSN, expStatSN uint32) bhs {
	var h bhs
	h[0] = opNopOut | immediate
	h[1] = final
	copy(h[8:16], in[8:16])
	h.put32(16, noTag)
	h.put32(20, ttt)
	h.put32(24, cmdSN)
	h.put32(28, expStatSN)
	return h
}

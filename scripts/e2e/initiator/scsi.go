package initiator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Capacity asks for the number of logical blocks and their length in bytes (READ CAPACITY(16), SBC-3 5.16).
func (s *Session) Capacity(ctx context.Context) (blocks uint64, blockLen int, err error) {
	in := make([]byte, 32)
	c := &Command{In: in}
	c.CDB[0], c.CDB[1] = 0x9e, 0x10
	binary.BigEndian.PutUint32(c.CDB[10:], uint32(len(in)))
	if _, err := s.Do(ctx, c); err != nil {
		return 0, 0, err
	}
	return binary.BigEndian.Uint64(in) + 1, int(binary.BigEndian.Uint32(in[8:])), nil
}

// Ready sends TEST UNIT READY until the unit attentions of a new session are gone, 16 times at most.
func (s *Session) Ready(ctx context.Context) error {
	var err error
	for range 16 {
		if _, err = s.Do(ctx, &Command{}); err == nil || !Retryable(err) {
			return err
		}
	}
	return err
}

// rw builds a READ(16) or WRITE(16) CDB (SBC-3 5.15, 5.39).
func rw(op byte, lba uint64, blocks int) (cdb [16]byte) {
	cdb[0] = op
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], uint32(blocks))
	return cdb
}

// Read fills buf from lba on. len(buf) is blocks × blockLen.
func (s *Session) Read(ctx context.Context, lba uint64, blockLen int, buf []byte) error {
	n, err := s.Do(ctx, &Command{CDB: rw(0x88, lba, len(buf)/blockLen), In: buf})
	return short(n, err)
}

// Write stores buf from lba on. len(buf) is blocks × blockLen.
func (s *Session) Write(ctx context.Context, lba uint64, blockLen int, buf []byte) error {
	n, err := s.Do(ctx, &Command{CDB: rw(0x8a, lba, len(buf)/blockLen), Out: buf})
	return short(n, err)
}

// Unmap deallocates blocks from lba on (UNMAP with one descriptor, SBC-3 5.28).
func (s *Session) Unmap(ctx context.Context, lba uint64, blocks uint32) error {
	out := make([]byte, 24)
	binary.BigEndian.PutUint16(out, 22)
	binary.BigEndian.PutUint16(out[2:], 16)
	binary.BigEndian.PutUint64(out[8:], lba)
	binary.BigEndian.PutUint32(out[16:], blocks)
	c := &Command{Out: out}
	c.CDB[0] = 0x42
	binary.BigEndian.PutUint16(c.CDB[7:], uint16(len(out)))
	_, err := s.Do(ctx, c)
	return err
}

// ErrMiscompare is a COMPARE AND WRITE whose first half did not match.
var ErrMiscompare = errors.New("miscompare")

// CompareAndWrite replaces the block at lba by want when it equals old, atomically (SBC-3 5.2).
func (s *Session) CompareAndWrite(ctx context.Context, lba uint64, old, want []byte) error {
	c := &Command{Out: append(append(make([]byte, 0, len(old)+len(want)), old...), want...)}
	c.CDB[0] = 0x89
	binary.BigEndian.PutUint64(c.CDB[2:], lba)
	c.CDB[13] = 1
	_, err := s.Do(ctx, c)
	var st *StatusError
	if errors.As(err, &st) && st.Status == StatusCheckCondition && st.Key == 0x0e {
		return ErrMiscompare
	}
	return err
}

// Sync is SYNCHRONIZE CACHE(16) over the whole logical unit.
func (s *Session) Sync(ctx context.Context) error {
	_, err := s.Do(ctx, &Command{CDB: [16]byte{0: 0x91}})
	return err
}

// TMFError is a task management function that the target did not complete (RFC 7143 11.6.1).
type TMFError byte

func (e TMFError) Error() string { return fmt.Sprintf("task management response %d", byte(e)) }

func tmfError(response byte) error {
	if response == 0 {
		return nil
	}
	return TMFError(response)
}

// ResetLUN sends LOGICAL UNIT RESET and waits for its answer.
func (s *Session) ResetLUN(ctx context.Context) error {
	t := &task{cmd: &Command{}, done: make(chan error, 1), tmf: true}
	s.mu.Lock()
	if s.mu.err != nil {
		defer s.mu.Unlock()
		return s.mu.err
	}
	itt := s.newITTLocked()
	s.mu.tasks[itt] = t
	s.pushLocked(taskMgmtPDU(5, itt, noTag, s.mu.cmdSN, s.mu.expStatSN, 0, s.lun), nil)
	s.mu.Unlock()
	_, err := s.wait(ctx, t)
	return err
}

// Logout closes the session as the protocol wants it and waits for the target to hang up.
func (s *Session) Logout(ctx context.Context) {
	s.mu.Lock()
	var h bhs
	h[0] = opLogout | immediate
	h[1] = final
	h.put32(16, s.newITTLocked())
	h.put32(24, s.mu.cmdSN)
	h.put32(28, s.mu.expStatSN)
	s.pushLocked(h, nil)
	s.mu.Unlock()
	select {
	case <-s.dead:
	case <-ctx.Done():
	}
	s.Close()
}

// short turns a residual count of a read or write into an error.
func short(residual int, err error) error {
	if err == nil && residual != 0 {
		return fmt.Errorf("short transfer: %d bytes missing", residual)
	}
	return err
}

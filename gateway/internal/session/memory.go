package session

import "slices"

// memory is the queue of tasks that need more memory than their slot of the reservation, first come first served.
type memory struct {
	bytes   int64 // leased from the pool for tasks that live
	queue   []*Task
	waiter  Waiter
	waiting bool // waiter is in the queue of the pool
}

// leaseNow leases n bytes for t if they are there and nobody waits for them.
func (s *Session) leaseNow(t *Task, n int) *Buffer {
	size := classSize(n)
	if len(s.memory.queue) > 0 || s.memory.bytes+size > s.cfg.Bytes {
		return nil
	}
	b := s.cfg.Pool.Lease(n)
	if b != nil && t != nil {
		s.charge(t, size)
	}
	return b
}

func (s *Session) charge(t *Task, size int64) {
	t.leased += size
	s.memory.bytes += size
}

// await puts t into the queue for need bytes. granted is called when they are there.
func (s *Session) await(t *Task, need int) {
	t.need = need
	s.stats.MemoryWait++
	s.memory.queue = append(s.memory.queue, t)
	s.pump()
}

// Memory tells that something is there for which the session waited: memory, or the end of a reset.
func (s *Session) Memory() {
	s.pump()
	s.answerResets()
}

// pump gives memory to the tasks that wait, as far as there is some.
func (s *Session) pump() {
	m := &s.memory
	for len(m.queue) > 0 && !s.ended {
		t := m.queue[0]
		if t.aborted { // and its turn to be ended comes
			m.forget(s, t)
			continue
		}
		size := classSize(t.need)
		if !m.waiting && m.bytes > 0 && m.bytes+size > s.cfg.Bytes {
			return // until a task of this session ends
		}
		b := m.take(s, t.need)
		if b == nil {
			return
		}
		m.queue = slices.Delete(m.queue, 0, 1)
		s.charge(t, size)
		t.need = 0
		s.granted(t, b)
	}
}

// take returns a buffer of need bytes, or nil after it queued for it.
func (m *memory) take(s *Session, need int) *Buffer {
	p := s.cfg.Pool
	if !m.waiting {
		if b := p.Lease(need); b != nil {
			return b
		}
		m.waiting = true
		p.Await(&m.waiter, need)
	}
	b := p.Granted(&m.waiter)
	if b != nil {
		m.waiting = false
	}
	return b
}

// forget takes t out of the queue.
func (m *memory) forget(s *Session, t *Task) {
	i := slices.Index(m.queue, t)
	if i < 0 {
		return
	}
	m.queue = slices.Delete(m.queue, i, i+1)
	if i == 0 {
		m.withdraw(s)
	}
}

// withdraw ends the wait in the pool's queue.
func (m *memory) withdraw(s *Session) {
	if m.waiting {
		m.waiting = false
		s.cfg.Pool.Withdraw(&m.waiter)
	}
}

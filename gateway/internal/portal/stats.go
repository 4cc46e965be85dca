package portal

import (
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/session"
)

// Stats are counts since the portal began, unless they say that they are of now.
type Stats struct {
	Conns, Logins, Sessions    int // of now: connections, those in login, sessions
	MemoryUsed, MemoryMax      int64
	MemoryWaiters              int // of now: sessions that wait for memory
	Accepted, Refused          uint64
	LoginsDone, LoginsFailed   uint64
	LoginTimeouts              uint64
	AuthFailed, HeldOff        uint64 // CHAP that failed; that was refused because too much failed before
	PingTimeouts, SendTimeouts uint64
	ProtocolErrors             uint64
	Panics                     uint64
	BytesIn, BytesOut          uint64
	Reads, Writes              uint64 // system calls that moved bytes
	Workers                    uint64 // goroutines started for tasks
	Tasks                      uint64 // tasks run on them
	Session                    session.Stats
}

// counters are the Stats that are counted as they happen.
type counters struct {
	accepted, refused, loginsDone, loginsFailed, loginTimeouts atomic.Uint64
	pingTimeouts, sendTimeouts, protocolErrors, panics         atomic.Uint64
	authFailed, heldOff                                        atomic.Uint64
	bytesIn, bytesOut, reads, writes, workers, tasks           atomic.Uint64

	mu struct {
		sync.Mutex
		ended session.Stats // of sessions that are over
	}
}

// end adds what an ended session counted.
func (c *counters) end(s session.Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.ended = add(c.mu.ended, s)
}

func add(a, b session.Stats) session.Stats {
	return session.Stats{
		Commands: a.Commands + b.Commands, Failed: a.Failed + b.Failed, ReadBytes: a.ReadBytes + b.ReadBytes, WriteBytes: a.WriteBytes + b.WriteBytes,
		R2Ts: a.R2Ts + b.R2Ts, Aborted: a.Aborted + b.Aborted, Fenced: a.Fenced + b.Fenced,
		Rejected: a.Rejected + b.Rejected, Dropped: a.Dropped + b.Dropped, Spoiled: a.Spoiled + b.Spoiled, MemoryWait: a.MemoryWait + b.MemoryWait,
	}
}

// Stats returns the counters.
func (p *Portal) Stats() Stats {
	c := &p.counters
	c.mu.Lock()
	total := c.mu.ended
	c.mu.Unlock()
	runners := p.runners()
	for _, r := range runners {
		r.mu.Lock()
		total = add(total, r.engine.Stats())
		r.mu.Unlock()
	}
	s := Stats{
		Sessions: len(runners), MemoryWaiters: p.pool.Waiting(),
		Accepted: c.accepted.Load(), Refused: c.refused.Load(),
		LoginsDone: c.loginsDone.Load(), LoginsFailed: c.loginsFailed.Load(), LoginTimeouts: c.loginTimeouts.Load(),
		AuthFailed: c.authFailed.Load(), HeldOff: c.heldOff.Load(),
		PingTimeouts: c.pingTimeouts.Load(), SendTimeouts: c.sendTimeouts.Load(),
		ProtocolErrors: c.protocolErrors.Load(), Panics: c.panics.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), Reads: c.reads.Load(), Writes: c.writes.Load(),
		Workers: c.workers.Load(), Tasks: c.tasks.Load(), Session: total,
	}
	s.MemoryUsed, s.MemoryMax = p.pool.Used()
	p.mu.Lock()
	s.Conns, s.Logins = len(p.mu.conns), p.mu.logins
	p.mu.Unlock()
	return s
}

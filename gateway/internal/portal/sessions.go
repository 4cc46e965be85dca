package portal

import (
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
)

// SessionInfo is a session as an administrator sees it.
type SessionInfo struct {
	// Login is that of the first connection. It is shared and not written.
	Login *login.Result
	Since time.Time
	Conns []ConnInfo
	// InFlight commands of at most Window.
	InFlight, Window int
	Stats            session.Stats
}

// ConnInfo is a connection of a session.
type ConnInfo struct {
	Login *login.Result // its own
	// Initiator and Portal are the addresses of both ends.
	Initiator, Portal string
}

// Sessions returns the sessions that live now, in no order.
func (p *Portal) Sessions() []SessionInfo {
	runners := p.runners()
	out := make([]SessionInfo, 0, len(runners))
	for _, r := range runners {
		out = append(out, r.info())
	}
	return out
}

func (r *runner) info() SessionInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := SessionInfo{
		Login: r.login, Since: r.since, InFlight: r.engine.Busy(), Window: r.engine.Window(), Stats: r.engine.Stats(),
	}
	for _, c := range r.conns {
		s.Conns = append(s.Conns, ConnInfo{c.login, c.nc.RemoteAddr().String(), c.nc.LocalAddr().String()})
	}
	return s
}

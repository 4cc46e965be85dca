package target

import (
	"fmt"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// Port is where a connection came in.
type Port struct {
	Group      uint16 // target portal group tag
	RelativeID uint16 // relative target port identifier, 1..65535
}

// Env is the surroundings of one login. It implements login.Env.
type Env struct {
	r        *Registry
	port     Port
	admitted *Session
}

// NewEnv returns the surroundings of a login on a connection that came in at port.
func (r *Registry) NewEnv(port Port) *Env { return &Env{r: r, port: port} }

// Admitted returns the session that the login made; nil if it made none. It belongs to the caller, who ends it.
func (e *Env) Admitted() *Session { return e.admitted }

// LookupTarget implements login.Env.
func (e *Env) LookupTarget(initiator, name string) login.TargetInfo {
	t := e.r.now.Load().targets[name]
	if t == nil {
		return login.TargetInfo{}
	}
	auth, ok := t.find(initiator)
	if !ok {
		return login.TargetInfo{Exists: true}
	}
	return login.TargetInfo{
		Exists: true, Allowed: true, Redirect: t.moved, PortalGroupTag: e.port.Group, Alias: t.alias, Auth: auth,
	}
}

// LookupDiscovery implements login.Env. Discovery is for initiators that may use a target; it asks for the proof that the
// first such target asks for, unless one of them asks for none.
func (e *Env) LookupDiscovery(initiator string) login.DiscoveryInfo {
	var info login.DiscoveryInfo
	for _, t := range e.r.now.Load().sorted {
		auth, ok := t.find(initiator)
		switch {
		case !ok:
		case auth.Initiator == nil:
			return login.DiscoveryInfo{Allowed: true, Auth: auth}
		case !info.Allowed:
			info = login.DiscoveryInfo{Allowed: true, Auth: auth}
		}
	}
	return info
}

// Admit implements login.Env: it finds a place for the session in the table.
func (e *Env) Admit(a login.Admission) (login.Grant, error) {
	if a.TSIH != 0 {
		return login.Grant{}, e.r.rejoin(a)
	}
	s, err := e.r.add(a, e.port)
	if err != nil {
		return login.Grant{}, err
	}
	e.admitted = s
	return login.Grant{TSIH: s.tsih}, nil
}

func refuse(status login.Status, format string, args ...any) error {
	return &login.StatusError{Status: status, Detail: fmt.Sprintf(format, args...)}
}

// rejoin answers a login to a session that should exist. Sessions have one connection (MaxConnections is 1). A
// connection that comes again with the CID of the one that is there has lost it; at ErrorRecoveryLevel 0 nothing can be
// saved from it, so the session is closed, and the initiator begins a new one.
func (r *Registry) rejoin(a login.Admission) error {
	r.mu.Lock()
	s := r.mu.sessions[a.TSIH]
	if s != nil && (s.initiator != a.InitiatorName || s.target != a.TargetName || s.isid != a.ISID) {
		s = nil
	}
	r.mu.Unlock()
	switch {
	case s == nil:
		return refuse(login.StatusSessionDoesNotExist, "TSIH %d", a.TSIH)
	case s.cid == a.CID:
		s.Close(ErrReinstated)
		return refuse(login.StatusSessionDoesNotExist, "TSIH %d: connection %d came again", a.TSIH, a.CID)
	}
	return refuse(login.StatusTooManyConnections, "TSIH %d has a connection", a.TSIH)
}

// add makes a session. If one of the same name is there, the new one takes its place in the table, and Replaced returns
// it: it has to be closed before the login is answered.
func (r *Registry) add(a login.Admission, port Port) (*Session, error) {
	s := &Session{
		r: r, kind: a.Type, initiator: a.InitiatorName, target: a.TargetName, isid: a.ISID, cid: a.CID, port: port,
		done: make(chan struct{}),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.kind == login.SessionNormal {
		if why := s.judge(r.now.Load()); why != nil { // the configuration changed since LookupTarget
			return nil, refuse(login.StatusAuthorizationFailure, "%v", why)
		}
		s.replaced = r.mu.nexuses[s.nexusKey()]
	}
	room := 0
	if s.replaced != nil {
		room = 1
	}
	switch {
	case len(r.mu.sessions) >= r.limits.Sessions+room:
		return nil, refuse(login.StatusOutOfResources, "%d sessions", len(r.mu.sessions))
	case r.mu.perInitiator[s.initiator] >= r.limits.SessionsPerInitiator+room:
		return nil, refuse(login.StatusOutOfResources, "%d sessions of %s", r.mu.perInitiator[s.initiator], s.initiator)
	}
	tsih, ok := r.newTSIHLocked()
	if !ok {
		return nil, refuse(login.StatusOutOfResources, "no TSIH is free")
	}
	s.tsih = tsih
	r.mu.sessions[tsih] = s
	r.mu.perInitiator[s.initiator]++
	if s.kind == login.SessionNormal {
		r.mu.nexuses[s.nexusKey()] = s
	}
	return s, nil
}

// newTSIHLocked finds a TSIH that no session has, the next one after the last that was given.
func (r *Registry) newTSIHLocked() (pdu.TSIH, bool) {
	for range 1 << 16 {
		r.mu.lastTSIH++
		if _, used := r.mu.sessions[r.mu.lastTSIH]; r.mu.lastTSIH != 0 && !used {
			return r.mu.lastTSIH, true
		}
	}
	return 0, false
}

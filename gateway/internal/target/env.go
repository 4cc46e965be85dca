package target

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// Port is where a connection came in.
type Port struct {
	Group      uint16 // target portal group tag
	RelativeID uint16 // relative target port identifier, 1..65535
}

// Env is the surroundings of one login. It implements what login.Env asks of the exports and the session table; who failed
// too often is the portal's business.
type Env struct {
	r        *Registry
	port     Port
	admitted *Session
	joined   *Session
}

// NewEnv returns the surroundings of a login on a connection that came in at port.
func (r *Registry) NewEnv(port Port) *Env { return &Env{r: r, port: port} }

// Admitted returns the session that the login made; nil if it made none. It belongs to the caller, who ends it.
func (e *Env) Admitted() *Session { return e.admitted }

// Joined returns the session that the login adds a connection to; nil if it adds none. It belongs to its own owner.
func (e *Env) Joined() *Session { return e.joined }

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

// LookupDiscovery implements login.Env. Discovery is for initiators that may use a target, and takes each proof that one of
// those asks for; the session will list the targets which that proof opens.
func (e *Env) LookupDiscovery(initiator string) login.DiscoveryInfo {
	var info login.DiscoveryInfo
	for _, t := range e.r.now.Load().sorted {
		auth, ok := t.find(initiator)
		switch {
		case !ok:
			continue
		case auth.Initiator == nil:
			info.Open = true
		case len(info.Auths) < login.MaxDiscoveryAuths && !slices.ContainsFunc(info.Auths, sameProof(auth)):
			info.Auths = append(info.Auths, auth)
		}
		info.Allowed = true
	}
	return info
}

// sameProof compares what is asked of the initiator.
func sameProof(a login.Auth) func(login.Auth) bool {
	return func(b login.Auth) bool {
		return a.Initiator.User == b.Initiator.User && slices.EqualFunc(a.Initiator.Secrets, b.Initiator.Secrets,
			func(x, y login.Secret) bool { return bytes.Equal(x, y) })
	}
}

// Admit implements login.Env: it finds a place for the session in the table.
func (e *Env) Admit(a login.Admission) (login.Grant, error) {
	if a.TSIH != 0 {
		return e.join(a)
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

// join finds the session that a login wants to add a connection to, or to have one reinstated in (RFC 7143 sections 6.3.3
// and 6.3.4). Whether there is room for it is decided when it is added.
func (e *Env) join(a login.Admission) (login.Grant, error) {
	r := e.r
	r.mu.Lock()
	s := r.mu.sessions[a.TSIH]
	r.mu.Unlock()
	if s == nil || s.kind != a.Type || s.initiator != a.InitiatorName || s.target != a.TargetName || s.isid != a.ISID ||
		s.port.Group != e.port.Group {
		return login.Grant{}, refuse(login.StatusSessionDoesNotExist, "TSIH %d", a.TSIH)
	}
	control := s.control()
	if control == nil {
		return login.Grant{}, refuse(login.StatusSessionDoesNotExist, "TSIH %d begins or ends", a.TSIH)
	}
	e.joined = s
	g := login.Grant{TSIH: s.tsih}
	g.ExpCmdSN, g.MaxCmdSN = control.Numbers()
	return g, nil
}

// add makes a session. If one of the same name is there, the new one takes its place in the table, and Replaced returns
// it: it has to be closed before the login is answered.
func (r *Registry) add(a login.Admission, port Port) (*Session, error) {
	s := &Session{
		r: r, kind: a.Type, initiator: a.InitiatorName, target: a.TargetName, isid: a.ISID, port: port,
		level: a.Params.ISCSIProtocolLevel, done: make(chan struct{}),
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

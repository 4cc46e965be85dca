package target

import (
	"fmt"
	"sync"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// Control is how the registry reaches the connections and tasks of a session. Its methods return at once and do not call
// into this package.
type Control interface {
	// Close ends the session soon: tasks are aborted and fenced, connections closed. why is for the log.
	Close(why error)
	// AbortUnit aborts the session's tasks on lun, because another session reset the logical unit: when it returns they are
	// cancelled, and soon they end.
	AbortUnit(lun scsi.LUN)
	// RemoveUnit ends the session's tasks on lun soon, because it is no longer mapped.
	RemoveUnit(lun scsi.LUN)
	// LUNsChanged tells the session that the initiator sees other LUNs than before; lun is one of those that it keeps.
	LUNsChanged(lun scsi.LUN)
	// Numbers returns the session's ExpCmdSN and MaxCmdSN, for a connection more. It may wait for what the session does
	// just now, not for a medium or a peer.
	Numbers() (exp, last pdu.CmdSN)
}

// Session is a place in the session table, from the moment at which a login was admitted to End. It is what package
// session asks for as its Env.
type Session struct {
	r         *Registry
	kind      login.SessionType
	initiator string
	target    string
	isid      pdu.ISID
	level     uint8 // iSCSIProtocolLevel
	tsih      pdu.TSIH
	port      Port
	replaced  *Session
	nexus     *scsi.Nexus
	done      chan struct{}

	mu struct {
		sync.Mutex
		control Control
		closed  error // why, when Close came before Attach
		ended   bool
	}
}

// nexusKey is the name of an I_T nexus: initiator port and target port, RFC 7143 section 4.4.3.
type nexusKey struct {
	initiator string
	isid      pdu.ISID
	target    string
	group     uint16
}

func (s *Session) nexusKey() nexusKey { return nexusKey{s.initiator, s.isid, s.target, s.port.Group} }
func (s *Session) key() mapKey        { return mapKey{s.target, s.initiator} }

// TSIH returns the session's handle.
func (s *Session) TSIH() pdu.TSIH { return s.tsih }

// Initiator returns the initiator's name.
func (s *Session) Initiator() string { return s.initiator }

// Target returns the target's name, empty for a discovery session.
func (s *Session) Target() string { return s.target }

// Discovery reports that the session is a discovery session.
func (s *Session) Discovery() bool { return s.kind == login.SessionDiscovery }

// Replaced returns the session whose place this one takes, or nil. The caller closes it and waits for its Done before
// the login is answered, so that none of its writes can take effect after one of the new session.
func (s *Session) Replaced() *Session { return s.replaced }

// Done is closed when the session has ended: nothing of it takes effect any more.
func (s *Session) Done() <-chan struct{} { return s.done }

// Attach joins the session to its logical units and gives the registry the means to close it. It fails if the session
// was closed already. A discovery session has no nexus.
func (s *Session) Attach(control Control) (*scsi.Nexus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed != nil {
		return nil, s.mu.closed
	}
	s.mu.control = control
	if s.Discovery() {
		return nil, nil
	}
	attention := scsi.AttentionPowerOn
	if s.replaced != nil {
		attention = scsi.AttentionNexusLoss
	}
	s.nexus = scsi.NewNexus(scsi.NexusConfig{
		InitiatorPort: fmt.Sprintf("%s,i,0x%v", s.initiator, s.isid),
		InitiatorName: s.initiator,
		Reservation:   s.reservationNexus(),
		TargetPort: scsi.TargetPort{
			Name:       fmt.Sprintf("%s,t,0x%04x", s.target, s.port.Group),
			RelativeID: s.port.RelativeID,
			Group:      s.port.Group,
			Protocol:   protocolISCSI,
		},
		Attention:      attention,
		TaskManagement: s.taskManagement(),
		Copies:         s.r.copies,
		Aborted:        s.wasReset,
	}, s.r.useMap(s.key()))
	return s.nexus, nil
}

// taskManagement returns the task management functions that the session has: those of RFC 7143, and from
// iSCSIProtocolLevel 2 on those of RFC 7144.
func (s *Session) taskManagement() scsi.TaskManagement {
	m := scsi.TaskAbort | scsi.TaskAbortSet | scsi.TaskClearSet | scsi.TaskUnitReset | scsi.TaskTargetReset
	if s.level >= 2 {
		m |= scsi.TaskQuery | scsi.TaskQuerySet | scsi.TaskQueryAsync | scsi.TaskNexusReset
	}
	return m
}

// protocolISCSI is the protocol identifier of iSCSI (SPC-4 table 444).
const protocolISCSI = 5

// useMap returns the LUN map of a target and an initiator, and counts one more use of it.
func (r *Registry) useMap(key mapKey) *scsi.LUNMap {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.mu.maps[key]
	if m == nil {
		luns, err := scsi.NewLUNMap(r.mappingsLocked(key, r.now.Load())...)
		if err != nil {
			panic(fmt.Sprintf("target: checked LUNs do not fit: %v", err))
		}
		m = &sharedMap{luns: luns}
		r.mu.maps[key] = m
	}
	m.uses++
	return m.luns
}

// Close has the session closed for the reason why. It returns at once; see Done.
func (s *Session) Close(why error) {
	s.mu.Lock()
	control := s.mu.control
	if s.mu.closed == nil {
		s.mu.closed = why
	}
	s.mu.Unlock()
	if control != nil {
		control.Close(why)
	}
}

// End takes the session out of the table. It is called once all its tasks are aborted and fenced, also when its login
// came to nothing; calling it again does nothing.
func (s *Session) End() {
	s.mu.Lock()
	if s.mu.ended {
		s.mu.Unlock()
		return
	}
	s.mu.ended = true
	s.mu.control = nil
	nexus := s.nexus
	s.mu.Unlock()
	if nexus != nil {
		nexus.Close()
	}
	r := s.r
	r.mu.Lock()
	delete(r.mu.sessions, s.tsih)
	if r.mu.nexuses[s.nexusKey()] == s {
		delete(r.mu.nexuses, s.nexusKey())
	}
	if r.mu.perInitiator[s.initiator]--; r.mu.perInitiator[s.initiator] == 0 {
		delete(r.mu.perInitiator, s.initiator)
	}
	if m := r.mu.maps[s.key()]; nexus != nil && m != nil {
		if m.uses--; m.uses == 0 {
			delete(r.mu.maps, s.key())
			for _, l := range m.luns.Mappings() {
				r.mediums.Release(l.Backend)
			}
		}
	}
	r.mu.Unlock()
	close(s.done)
}

// judge returns why the session may not be under the configuration c, or nil.
func (s *Session) judge(c *snapshot) error {
	if s.Discovery() {
		return nil
	}
	t := c.targets[s.target]
	if t == nil {
		return ErrRemoved
	}
	if _, ok := t.find(s.initiator); !ok {
		return ErrDenied
	}
	return nil
}

// control returns the session's Control, or nil if it has none.
func (s *Session) control() Control {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.control
}

// removeUnit ends the tasks on lun.
func (s *Session) removeUnit(lun scsi.LUN) {
	if c := s.control(); c != nil {
		c.RemoveUnit(lun)
	}
}

// lunsChanged tells of a change of the LUN inventory.
func (s *Session) lunsChanged(lun scsi.LUN) {
	if c := s.control(); c != nil {
		c.LUNsChanged(lun)
	}
}

// wasReset is scsi.NexusConfig.Aborted: another nexus reset the logical unit. What this one has in flight is cancelled and
// then fenced, so that none of it takes effect after the reset was answered: what is still wanted is repeated under the new
// generation.
func (s *Session) wasReset(lun scsi.LUN) {
	if c := s.control(); c != nil {
		c.AbortUnit(lun)
	}
	s.Abort(lun)
}

// volume returns the volume at lun now.
func (s *Session) volume(lun scsi.LUN) (uint64, bool) {
	n, ok := lun.Number()
	t := s.r.now.Load().targets[s.target]
	if !ok || t == nil {
		return 0, false
	}
	for _, l := range t.luns {
		if l.Number == n {
			return l.Volume, true
		}
	}
	return 0, false
}

// Abort raises the fencing generation of the session's initiator on the volume at lun. For a LUN that is not mapped any
// more nothing is left to do: whoever took it away raised the volume's access generation.
func (s *Session) Abort(lun scsi.LUN) {
	if v, ok := s.volume(lun); ok {
		s.r.mediums.Abort(v, s.initiator)
	}
}

// AbortAll is Abort for all logical units of the target.
func (s *Session) AbortAll() {
	t := s.r.now.Load().targets[s.target]
	if t == nil {
		return
	}
	for _, l := range t.luns {
		s.r.mediums.Abort(l.Volume, s.initiator)
	}
}

// Acknowledged says that the initiator knows the outcomes of its COMPARE AND WRITE commands on lun.
func (s *Session) Acknowledged(lun scsi.LUN) {
	if v, ok := s.volume(lun); ok {
		s.r.mediums.Acknowledged(v, s.initiator)
	}
}

// ColdReset closes the other sessions of the target.
func (s *Session) ColdReset() {
	for _, o := range s.r.Sessions() {
		if o != s && o.target == s.target {
			o.Close(ErrReset)
		}
	}
}

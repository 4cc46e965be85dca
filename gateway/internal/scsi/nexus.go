package scsi

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/alua"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/conflict"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/lu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/thirdparty"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// TargetPort is the target's side of a nexus. It belongs to the portal, never to a volume.
type TargetPort = vpd.Port

// NexusConfig describes an I_T nexus, that is one session.
type NexusConfig struct {
	InitiatorPort string // port name, e.g. "iqn.1993-08.org.debian:01:abc,i,0x00023d000001"
	InitiatorName string // device name, e.g. "iqn.1993-08.org.debian:01:abc"
	// Reservation is the nexus as reservations know it.
	Reservation reservation.Nexus

	TargetPort TargetPort

	// Attention is the unit attention that every logical unit begins with: AttentionPowerOn for a new session,
	// AttentionNexusLoss for one that took the place of another, NoSense for none.
	Attention SenseCode

	// TaskManagement is what the transport supports, for REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
	TaskManagement TaskManagement

	// Copies is the copy manager of the gateway; nil: there is none, and third-party copies answer 05/55/03.
	Copies *CopyManager

	// Aborted, when not nil, is called when another nexus resets a logical unit that this one sees: the commands that
	// it has there are over and get no status. It must not block and must not call into this package.
	Aborted func(lun LUN)
}

// Nexus is one I_T nexus: an initiator port that is logged in to a target port. Its methods may be called from any
// goroutine.
type Nexus struct {
	config NexusConfig
	peer   lu.Peer
	luns   *LUNMap
	view   atomic.Pointer[view] // replaced whole, under luns.mu
	// operations are all commands, for the one that reports them: the table itself can not refer to the table.
	operations *operationList
}

// view is what a nexus sees, immutable.
type view struct {
	byLUN  map[uint16]*attachment
	sorted []*attachment
}

// listener is one I_T_L nexus. It outlives a change of the mapping's other properties.
type listener struct {
	lu.Listener
	nexus   *Nexus
	permit  atomic.Pointer[conflict.Permit] // what the reservations let the nexus do, as it was last judged
	results thirdparty.Results
}

// attachment is one I_T_L nexus with the properties that its mapping has now, immutable.
type attachment struct {
	*listener
	unit     *LogicalUnit
	backend  Backend
	readOnly bool
	groups   []PortGroup
	// sanitizer is backend, nil if it is none.
	sanitizer Sanitizer
	// prompt is backend, nil if it is none.
	prompt Prompt
}

// NewNexus joins a session to the logical units of luns. Close ends it.
func NewNexus(config NexusConfig, luns *LUNMap) *Nexus {
	n := &Nexus{config: config, luns: luns, operations: allOperations}
	n.peer = lu.Peer{Reservation: config.Reservation, Aborted: config.Aborted}
	luns.mu.Lock()
	defer luns.mu.Unlock()
	n.view.Store(&view{})
	v := n.build(luns.mu.mappings, n.view.Load())
	n.view.Store(v)
	luns.mu.nexuses[n] = struct{}{}
	return n
}

// Close ends the nexus: its unit attentions are gone and every LUN is absent. Commands that still run are not
// awaited.
func (n *Nexus) Close() {
	n.luns.mu.Lock()
	defer n.luns.mu.Unlock()
	delete(n.luns.mu.nexuses, n)
	for _, a := range n.view.Load().sorted {
		a.unit.Detach(&a.listener.Listener)
		a.endLegacy()
	}
	n.view.Store(&view{})
}

// InitiatorPort returns the name of the initiator port.
func (n *Nexus) InitiatorPort() string { return n.config.InitiatorPort }

// InitiatorName returns the name of the initiator device.
func (n *Nexus) InitiatorName() string { return n.config.InitiatorName }

// Present tells whether a logical unit is mapped at lun; task management needs it (SAM-5 7.1, INCORRECT LOGICAL
// UNIT NUMBER).
func (n *Nexus) Present(lun LUN) bool { return n.lookup(lun) != nil }

// Unit returns the logical unit and the backend that lun leads to now; ok is false when there is none.
func (n *Nexus) Unit(lun LUN) (unit *LogicalUnit, backend Backend, ok bool) {
	a := n.lookup(lun)
	if a == nil {
		return nil, nil, false
	}
	return a.unit, a.backend, true
}

// ResetLogicalUnit does what a LOGICAL UNIT RESET means for the device server: all nexuses find the unit attention
// 29/03 and the others are told through Aborted. The caller ends its own commands first. Nexuses of other processes are
// told too, and when they were, done is called: once, on any goroutine, perhaps before the return. It returns false, and done
// is not called, when lun is absent.
func (n *Nexus) ResetLogicalUnit(lun LUN, done func()) bool {
	a := n.lookup(lun)
	if a == nil {
		return false
	}
	n.reset([]*attachment{a}, AttentionDeviceReset, done)
	return true
}

// ResetTarget does the same for every logical unit that the nexus sees, with the unit attention 29/02.
func (n *Nexus) ResetTarget(done func()) {
	n.reset(n.view.Load().sorted, AttentionTargetReset, done)
}

func (n *Nexus) reset(all []*attachment, code SenseCode, done func()) {
	var left atomic.Int32
	left.Store(int32(len(all)) + 1)
	one := func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
	for _, a := range all {
		a.unit.Reset(&n.peer, code)
		a.tellReset(one)
	}
	one()
}

func (n *Nexus) lookup(lun LUN) *attachment {
	number, ok := lun.Number()
	if !ok {
		return nil
	}
	return n.view.Load().byLUN[number]
}

// remap moves the nexus to new mappings. The caller holds luns.mu.
func (n *Nexus) remap(mappings []Mapping) {
	old := n.view.Load()
	next := n.build(mappings, old)
	changed := len(next.sorted) != len(old.sorted)
	for number, was := range old.byLUN {
		if now := next.byLUN[number]; now == nil || now.listener != was.listener {
			changed = true
			was.unit.Detach(&was.listener.Listener)
			was.endLegacy()
		}
	}
	n.view.Store(next)
	for number, now := range next.byLUN {
		was := old.byLUN[number]
		if was == nil || was.listener != now.listener {
			continue
		}
		if changed {
			now.Attentions.Add(AttentionLUNsChanged)
		}
		if was.readOnly != now.readOnly {
			now.Attentions.Add(AttentionModeChanged)
		}
		if !slices.Equal(was.groups, now.groups) {
			now.Attentions.Add(AttentionAccessChanged)
		}
		if was.multiPort() != now.multiPort() {
			now.Attentions.Add(AttentionInquiryChanged)
		}
	}
}

// build makes the view of mappings, keeping the listeners of what stays.
func (n *Nexus) build(mappings []Mapping, old *view) *view {
	v := &view{
		byLUN:  make(map[uint16]*attachment, len(mappings)),
		sorted: make([]*attachment, 0, len(mappings)),
	}
	for _, m := range mappings {
		a := &attachment{unit: m.Unit, backend: m.Backend, readOnly: m.ReadOnly, groups: m.Groups}
		a.prompt, _ = m.Backend.(Prompt)
		a.sanitizer, _ = m.Backend.(Sanitizer)
		if len(a.groups) == 0 {
			port := n.config.TargetPort
			a.groups = []PortGroup{{Tag: port.Group, Port: port.RelativeID, State: alua.Optimized}}
		}
		if was := old.byLUN[m.LUN]; was != nil && was.unit == m.Unit {
			a.listener = was.listener
		} else {
			a.listener = &listener{nexus: n}
			a.LUN, a.Peer = m.LUN, &n.peer
			if n.config.Attention != NoSense {
				a.Attentions.Add(n.config.Attention)
			}
			m.Unit.Attach(&a.listener.Listener)
		}
		v.byLUN[m.LUN] = a
		v.sorted = append(v.sorted, a)
	}
	return v
}

// Execute runs c to its end in the calling goroutine and fills in its outcome. It returns nil when c has a Status,
// ctx's error when ctx ended before the command did, and ErrReset: then the command is aborted and no status may be sent. An
// aborted command reports nothing, so the unit attention that it would have reported waits for the next one.
func (n *Nexus) Execute(ctx context.Context, c *Command) error {
	c.buffer = nil
	c.clearResult()
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(c.CDB) == 0 {
		c.check(senseData{Code: InvalidOperationCode}, false)
		return nil
	}
	a := n.lookup(c.LUN)
	if a == nil {
		n.executeAbsent(c)
		return nil
	}
	if op := a.admit(c); op != nil {
		a.perform(ctx, op, c)
	}
	if code := c.attention; code != NoSense {
		if err := ctx.Err(); err != nil {
			c.clearResult()
			a.Attentions.Restore(code)
			return err
		}
	}
	return c.aborted
}

package lu

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/attention"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sam"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// Peer is an I_T nexus as the logical units that it sees know it.
type Peer struct {
	// Reservation is the nexus as reservations know it.
	Reservation reservation.Nexus

	// Aborted, when not nil, is called when another nexus took away the commands that this one has at lun. It must not
	// block and must not call into this package.
	Aborted func(lun sam.LUN)
}

// Listener is one I_T_L nexus as the logical unit sees it. It outlives a change of the mapping's other properties.
type Listener struct {
	Peer       *Peer
	LUN        uint16
	Attentions attention.Queue
}

// aborted tells the nexus that its commands are over.
func (l *Listener) aborted() {
	if f := l.Peer.Aborted; f != nil {
		f(sam.FlatLUN(l.LUN))
	}
}

// Attach has the logical unit tell l of what happens, until Detach.
func (u *Unit) Attach(l *Listener) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mu.listeners[l] = struct{}{}
}

// Detach ends Attach.
func (u *Unit) Detach(l *Listener) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.mu.listeners, l)
}

// Listeners returns how many I_T_L nexuses see the logical unit.
func (u *Unit) Listeners() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.mu.listeners)
}

// Attention establishes a unit attention condition for every nexus but except, which may be nil.
func (u *Unit) Attention(code sense.Code, except *Peer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.mu.listeners {
		if l.Peer != except {
			l.Attentions.Add(code)
		}
	}
}

// Reset is a logical unit reset (SAM-5 6.3.3) that by asked for: the mode pages have their default values, every nexus
// finds the unit attention code, and nothing else, every other one is told that its commands are over, and copies that
// write here end.
func (u *Unit) Reset(by *Peer, code sense.Code) {
	u.mu.Lock()
	u.resetModes()
	others := make([]*Listener, 0, len(u.mu.listeners))
	for l := range u.mu.listeners {
		l.Attentions.Reset(code)
		if l.Peer != by {
			others = append(others, l)
		}
	}
	u.mu.Unlock()
	u.Copies.Reset()
	for _, l := range others {
		l.aborted()
	}
}

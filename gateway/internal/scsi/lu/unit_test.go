package lu

import (
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sam"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

func newUnit(t *testing.T) *Unit {
	t.Helper()
	c := Config{
		Identity: vpd.Identity{NAA: [16]byte{0x60}, Serial: "1", Vendor: "A", Product: "P", Revision: "1"},
		Capacity: 1 << 20, BlockLength: 512, Limits: DefaultLimits(),
	}
	u, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// host is a nexus with the commands that it was told to be over.
type host struct {
	Peer
	over []sam.LUN
}

func newHost(name string) *host {
	h := &host{}
	h.Reservation = reservation.Nexus{Initiator: name, Port: 1}
	h.Aborted = func(lun sam.LUN) { h.over = append(h.over, lun) }
	return h
}

// sees attaches a host at a LUN.
func (h *host) sees(u *Unit, lun uint16) *Listener {
	l := &Listener{Peer: &h.Peer, LUN: lun}
	u.Attach(l)
	return l
}

// told takes what waits.
func told(l *Listener) (codes []sense.Code) {
	for code, ok := l.Attentions.Take(); ok; code, ok = l.Attentions.Take() {
		codes = append(codes, code)
	}
	return codes
}

func wantTold(t *testing.T, l *Listener, want ...sense.Code) {
	t.Helper()
	if got := told(l); !slices.Equal(got, want) {
		t.Errorf("%s at LUN %d was told %v, want %v", l.Peer.Reservation.Initiator, l.LUN, got, want)
	}
}

// TestWhoIsTold: everybody, all but one nexus whatever its LUNs, and nobody who went away.
func TestWhoIsTold(t *testing.T) {
	u, a, b := newUnit(t), newHost("a"), newHost("b")
	one, two, other := a.sees(u, 1), a.sees(u, 2), b.sees(u, 300)
	u.Attention(sense.AttentionSpaceThreshold, nil)
	u.Attention(sense.AttentionLUNsChanged, &a.Peer)
	wantTold(t, one, sense.AttentionSpaceThreshold)
	wantTold(t, two, sense.AttentionSpaceThreshold)
	wantTold(t, other, sense.AttentionSpaceThreshold, sense.AttentionLUNsChanged)
	u.Detach(two)
	if err := u.SetCapacity(1 << 21); err != nil || u.Listeners() != 2 {
		t.Fatal(err, u.Listeners())
	}
	wantTold(t, one, sense.AttentionCapacityChanged)
	wantTold(t, two)

	u.Attention(sense.AttentionSpaceThreshold, nil)
	u.Reset(&a.Peer, sense.AttentionDeviceReset)
	wantTold(t, one, sense.AttentionDeviceReset)
	wantTold(t, other, sense.AttentionDeviceReset)
	if len(a.over) != 0 || !slices.Equal(b.over, []sam.LUN{sam.FlatLUN(300)}) {
		t.Errorf("commands of a %v, of b %v are over", a.over, b.over)
	}
}

// TestModes: what one nexus changes the others are told, if it is a change; a reset takes it back.
func TestModes(t *testing.T) {
	u, a, b := newUnit(t), newHost("a"), newHost("b")
	own, other := a.sees(u, 0), b.sees(u, 0)
	list := append([]byte{0, 0, 0, 0}, u.Modes().Append(nil, mode.Control, 0, mode.Current)...)
	for _, step := range []struct {
		swp  byte
		want []sense.Code
	}{{8, []sense.Code{sense.AttentionModeChanged}}, {8, nil}} {
		list[4+4] = step.swp
		if fault := u.SelectModes(&a.Peer, mode.Medium{}, list, false); fault != nil {
			t.Fatal(fault)
		}
		if u.Settings() != mode.WriteProtect {
			t.Fatal(u.Settings())
		}
		wantTold(t, own)
		wantTold(t, other, step.want...)
	}
	list[4+3] ^= 0xFF
	if fault := u.SelectModes(&a.Peer, mode.Medium{}, list, false); fault == nil || u.Settings() != mode.WriteProtect {
		t.Fatal(fault, u.Settings())
	}
	u.Reset(nil, sense.AttentionDeviceReset)
	if u.Settings() != 0 {
		t.Fatal(u.Settings())
	}
}

// TestReservations: events are told once, with the version that they came with, and only by what is newer.
func TestReservations(t *testing.T) {
	u, a, b := newUnit(t), newHost("a"), newHost("b")
	own, other := a.sees(u, 0), b.sees(u, 0)
	one := &Reservations{Access: 1, State: &reservation.State{Version: 1}}
	u.SetReservations(one)
	two := &Reservations{Access: 2, State: &reservation.State{Version: 2, Events: []reservation.Event{
		{Nexuses: []reservation.Nexus{b.Reservation}, Version: 2, Attention: reservation.RegistrationsPreempted, Abort: true},
	}}}
	u.SetReservations(two)
	wantTold(t, own)
	wantTold(t, other, sense.AttentionRegistrationsPreempted)
	if len(a.over) != 0 || len(b.over) != 1 {
		t.Errorf("commands of a %v, of b %v are over", a.over, b.over)
	}
	for _, late := range []*Reservations{one, two, {Access: 1, State: two.State}} {
		if u.SetReservations(late); u.Reservations() != two {
			t.Fatal("what came late was taken")
		}
	}
	wantTold(t, other)
}

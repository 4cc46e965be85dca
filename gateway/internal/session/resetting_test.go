package session

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// elsewhere is a medium that other processes serve too. Its resets wait until told is called.
type elsewhere struct {
	*disk
	told  []func()
	err   error  // of writes
	learn func() // learns of changes
}

func (e *elsewhere) Write(context.Context, []byte, int64) error { return e.err }

func (*elsewhere) Reserve(context.Context, *reservation.Request) (reservation.Status, error) {
	return reservation.Good, nil
}

func (*elsewhere) Reservations(context.Context) (*scsi.Reservations, error) { return nil, nil }

func (*elsewhere) EndLegacy(*reservation.Request) {}

func (e *elsewhere) Reset(_ *reservation.Request, done func()) { e.told = append(e.told, done) }

func (e *elsewhere) Refresh(context.Context, *scsi.Reservations) error {
	e.learn()
	return nil
}

// newElsewhere makes a session of which both logical units lead to the same medium.
func newElsewhere(t *testing.T) (*peer, *elsewhere) {
	t.Helper()
	p := newPeer(t, defaults())
	e := &elsewhere{disk: p.disk}
	maps := p.luns.Mappings()
	for i := range maps {
		maps[i].Backend = e
		maps[i].Unit.SetReservations(&scsi.Reservations{Access: 1, State: &reservation.State{Version: 1}})
	}
	if err := p.luns.Update(maps...); err != nil {
		t.Fatal(err)
	}
	return p, e
}

// answers takes what c sends, each as the kind and the tag of the request.
func (p *peer) answers(t *testing.T, c *Conn) []string {
	t.Helper()
	var out []string
	p.take(t, c, func(u *PDU) { out = append(out, fmt.Sprintf("%v %d", u.Header.Opcode(), u.Header.ITT())) })
	return out
}

func (p *peer) manage(t *testing.T, f pdu.TMFFunction, itt pdu.ITT, sn uint32) {
	t.Helper()
	r := pdu.TMFRequest{Immediate: true, Function: f, ITT: itt, InitiatorSNs: pdu.InitiatorSNs{CmdSN: pdu.CmdSN(firstSN).Add(sn)}}
	if err := p.send(p.conns[0], header(&r, 0), nil, nil); err != nil {
		t.Fatal(err)
	}
}

// TestResetWaits: a reset is answered when other processes have been told of it, and commands meanwhile are.
func TestResetWaits(t *testing.T) {
	p, e := newElsewhere(t)
	c := p.conns[0]
	p.manage(t, pdu.TMFLogicalUnitReset, 1, 0)
	tur := pdu.SCSICommand{Final: true, ITT: 2, InitiatorSNs: pdu.InitiatorSNs{CmdSN: firstSN}}
	if err := p.send(c, header(&tur, 0), nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := p.answers(t, c); !slices.Equal(got, []string{fmt.Sprintf("%v 2", pdu.OpSCSIResponse)}) || len(e.told) != 1 {
		t.Fatalf("answered %v, %d to be told", got, len(e.told))
	}
	e.told[0]()
	p.settle()
	tmf := fmt.Sprintf("%v ", pdu.OpTMFResponse)
	if got := p.answers(t, c); !slices.Equal(got, []string{tmf + "1"}) {
		t.Fatalf("answered %v", got)
	}
	p.manage(t, pdu.TMFTargetWarmReset, 3, 1)
	for i, told := range e.told[1:] {
		if got := p.answers(t, c); len(got) != 0 {
			t.Fatalf("answered %v with %d of %d told", got, i, len(e.told)-1)
		}
		told()
		p.settle()
	}
	if got := p.answers(t, c); !slices.Equal(got, []string{tmf + "3"}) || len(e.told) != 3 {
		t.Fatalf("answered %v, %d were told", got, len(e.told))
	}
	for i := range resettingMax + 1 {
		p.manage(t, pdu.TMFLogicalUnitReset, pdu.ITT(10+i), 1)
	}
	if got := p.answers(t, c); !slices.Equal(got, []string{fmt.Sprint(tmf, 10+resettingMax)}) {
		t.Fatalf("of too many resets %v were answered", got)
	}
	c.Lost()
	for _, told := range e.told {
		told()
	}
	p.settle()
	p.over(t)
}

// TestResetElsewhere: a command that another process's reset aborted gets no status, and its place in the window is free again.
func TestResetElsewhere(t *testing.T) {
	p, e := newElsewhere(t)
	c := p.conns[0]
	e.err = scsi.ErrAccessChanged
	unit := p.luns.Mappings()[0].Unit
	next := unit.Reservations().State.Apply(&reservation.Request{Action: reservation.UnitReset, Nexus: reservation.Nexus{Port: 9}}).State
	next.AbortResets(1, 0)
	h := pdu.SCSICommand{
		Final: true, Write: true, ITT: 1, ExpectedDataTransferLength: blockSize, CDB: rw10(0x2A, 0, 1),
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: firstSN},
	}
	e.learn = func() { unit.SetReservations(&scsi.Reservations{Access: 2, State: next}) }
	p.hold = true
	if err := p.send(c, header(&h, blockSize), nil, make([]byte, blockSize)); err != nil {
		t.Fatal(err)
	}
	if n := p.finish(1); n != 1 {
		t.Fatalf("%d tasks", n)
	}
	if got := p.answers(t, c); len(got) != 0 || p.s.order.active != 0 || p.s.stats.Aborted != 1 {
		t.Errorf("answered %v, %d active, %d aborted", got, p.s.order.active, p.s.stats.Aborted)
	}
	p.over(t)
}

// TestResetOfWhatGoes: a logical unit that is unmapped while a reset of it ends its commands is told to be absent, and the
// reset has no place among those that wait.
func TestResetOfWhatGoes(t *testing.T) {
	p, e := newElsewhere(t)
	c := p.conns[0]
	p.hold = true
	h := pdu.SCSICommand{
		Final: true, Write: true, Attr: pdu.AttrSimple, ITT: 1, ExpectedDataTransferLength: blockSize, CDB: rw10(0x2a, 0, 1),
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: firstSN},
	}
	if err := p.send(c, header(&h, blockSize), nil, make([]byte, blockSize)); err != nil {
		t.Fatal(err)
	}
	p.aborted = func() {
		p.aborted = nil
		if err := p.luns.Update(p.luns.Mappings()[1:]...); err != nil {
			t.Error(err)
		}
	}
	p.manage(t, pdu.TMFLogicalUnitReset, 2, 1)
	result := pdu.TMFResult(0xff)
	p.take(t, c, func(u *PDU) { result = pdu.TMFResult(u.Header[2]) })
	if result != pdu.TMFNoSuchLUN || len(p.s.resetting) != 0 || len(e.told) != 0 || p.aborted != nil {
		t.Errorf("answered %v, %d wait, %d told elsewhere", result, len(p.s.resetting), len(e.told))
	}
	p.over(t)
}

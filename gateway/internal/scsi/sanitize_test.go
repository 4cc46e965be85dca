package scsi

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// erasable is a memory that is told to be sanitized, and says of it what the test wants.
type erasable struct {
	*memory
	status sanitize.Status
	orders []sanitize.Order
	size   int64
	done   chan struct{}
	exits  int
}

func (e *erasable) Sanitizing() sanitize.Status { return e.status }
func (e *erasable) ExitSanitize(context.Context, reservation.Nexus) error {
	e.exits++
	return nil
}

func (e *erasable) Sanitize(_ context.Context, _ reservation.Nexus, o sanitize.Order, size int64) (<-chan struct{}, error) {
	if e.status.State == sanitize.Running {
		return nil, ErrSanitizing
	}
	e.orders, e.size = append(e.orders, o), size
	return e.done, nil
}

func erasableRig(t *testing.T) (*rig, *erasable) {
	r := disk512(t)
	e := &erasable{memory: r.mem, done: make(chan struct{})}
	close(e.done)
	if err := r.luns.Update(Mapping{Unit: r.unit, Backend: e}); err != nil {
		t.Fatal(err)
	}
	return r, e
}

func TestSanitizeOrders(t *testing.T) {
	r, e := erasableRig(t)
	r.good("48 02 0000000000 0000 00")
	r.good("48 A2 0000000000 0000 00")
	r.good("48 01 0000000000 0006 00", fromHex(t, "83 00 0002 55 66")...)
	if len(e.orders) != 3 || e.size != 8197*512 {
		t.Fatalf("%+v, %d bytes", e.orders, e.size)
	}
	if o := e.orders[0]; o.Passes != 0 || o.Exit {
		t.Errorf("%+v", o)
	}
	if o := e.orders[1]; o.Passes != 0 || !o.Exit {
		t.Errorf("%+v", o)
	}
	if o := e.orders[2]; o.Passes != 3 || !o.Invert || o.Exit || len(o.Block) != 512 || o.Block[0] != 0x55 || o.Block[511] != 0x66 {
		t.Errorf("%+v", o)
	}
	whole := append(fromHex(t, "01 00 0200"), fill(512, 7)...)
	for _, test := range []struct {
		cdb  string
		data []byte
		code SenseCode
		sks  string
	}{
		{"48 02 0000000000 0008 00", make([]byte, 8), InvalidFieldInCDB, "CB0008"},
		{"48 01 0000000000 0000 00", nil, InvalidFieldInCDB, "CF0007"},
		{"48 01 0000000000 0004 00", whole, InvalidFieldInCDB, "CF0007"},
		{"48 01 0000000000 0205 00", append(whole, 0), InvalidFieldInCDB, "CF0007"},
		{"48 41 0000000000 0204 00", whole, InvalidFieldInCDB, "CE0001"},
		{"48 01 0100000000 0204 00", whole, InvalidFieldInCDB, "C80002"},
		{"48 01 0000000001 0204 00", whole, InvalidFieldInCDB, "C80006"},
		{"48 03 0000000000 0000 00", nil, InvalidFieldInCDB, "CC0001"}, // CRYPTOGRAPHIC ERASE
		{"48 00 0000000000 0000 00", nil, InvalidFieldInCDB, "CC0001"},
		{"48 1F 0000000000 0001 00", nil, InvalidFieldInCDB, "C80008"},
		{"48 01 0000000000 0005 00", fromHex(t, "00 00 0001 55"), InvalidFieldInParameters, "8C0000"},
		{"48 01 0000000000 0005 00", fromHex(t, "01 00 0002 55"), InvalidFieldInParameters, "8F0002"},
		{"48 01 0000000000 0005 00", fromHex(t, "21 00 0001 55"), InvalidFieldInParameters, "8E0000"},
	} {
		wantBytes(t, r.sense(test.code, test.cdb, test.data...).Sense()[15:18], test.sks)
	}
	for n := range whole {
		r.sense(InvalidFieldInCommandIU, "48 01 0000000000 0204 00", whole[:n]...)
	}
	r.good("48 01 0000000000 0204 00", whole...)
	r.good("48 BF 0000000000 0000 00") // EXIT FAILURE MODE, without a failure
	if len(e.orders) != 4 || e.exits != 0 {
		t.Errorf("%d orders, %d exits", len(e.orders), e.exits)
	}

	plain := disk512(t) // a backend that can not
	for _, cdb := range []string{"48 02 0000000000 0000 00", "48 1F 0000000000 0000 00"} {
		plain.sense(InvalidOperationCode, cdb)
	}
	readOnly := newRig(t, testConfig(64, 512), func(m *Mapping) { m.ReadOnly = true })
	readOnly.sense(WriteProtected, "48 02 0000000000 0000 00")
}

// TestWhileSanitized: what the standard leaves runs, and everything else says how far it is.
func TestWhileSanitized(t *testing.T) {
	r, e := erasableRig(t)
	e.status = sanitize.Status{State: sanitize.Running, Progress: 0x1234}
	for i := range allOperations.All {
		op := &allOperations.All[i]
		p := make([]byte, len(op.usage))
		p[0] = op.opcode()
		if op.action {
			p[1] = byte(op.serviceAction())
		}
		c := &Command{CDB: p, MaxDataIn: 256}
		if err := r.nexus.Execute(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if op.traits&(ignoreUA|whileErased) != 0 {
			if c.SenseCode() == SanitizeInProgress {
				t.Errorf("%s is refused", op.name)
			}
			continue
		}
		wantSense(t, c, SanitizeInProgress)
		wantBytes(t, c.Sense()[15:18], "801234")
	}
	wantBytes(t, r.good("03 00 0000 FF 00"), "70 00 02 00000000 0A 00000000 041B 00 801234")
	wantBytes(t, r.good("03 01 0000 FF 00"), "72 02 041B 000000 08 02 06 0000 801234 00")
	r.good("12 00 00 00FF 00")
	r.good("A0 00 00 000000 00000100 00 00")
	r.unit.Attention(AttentionCapacityChanged, nil) // comes first
	wantBytes(t, r.good("03 00 0000 FF 00"), "70 00 06 00000000 0A 00000000 2A09 00 000000")
	if len(e.orders) != 0 {
		t.Error("a second one was begun")
	}
}

func TestSanitizeFails(t *testing.T) {
	r, e := erasableRig(t)
	e.status = sanitize.Status{State: sanitize.Failed}
	r.sense(SanitizeFailed, cdbTestUnitReady)
	r.sense(SanitizeFailed, "28 00 00000000 00 0001 00")
	wantBytes(t, r.good("03 00 0000 FF 00"), "70 00 03 00000000 0A 00000000 3103 00 000000")
	r.sense(SanitizeFailed, "48 02 0000000000 0000 00")    // was begun, and the outcome is a failure again
	r.good("48 82 0000000000 0000 00")                     // IMMED
	r.sense(InvalidFieldInCDB, "48 1F 0000000000 0000 00") // AUSE was not set
	e.status.Exit = true
	r.good("48 1F 0000000000 0000 00")
	if len(e.orders) != 2 || e.exits != 1 {
		t.Errorf("%d orders, %d exits", len(e.orders), e.exits)
	}
}

// TestSanitizeAborted: the command ends without a status; it is nobody's business to end the operation.
func TestSanitizeAborted(t *testing.T) {
	r, e := erasableRig(t)
	e.done = make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	c := &Command{CDB: fromHex(t, "48 02 0000000000 0000 00")}
	if err := r.nexus.Execute(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err, c.Status)
	}
}

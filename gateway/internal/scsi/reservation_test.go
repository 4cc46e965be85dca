package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// reservable is a memory with reservations, as one initiator reaches it.
type reservable struct {
	*memory
	shared *shared
}

// shared is the reservations of a logical unit, as the metaserver has them.
type shared struct {
	mu        sync.Mutex
	unit      *LogicalUnit
	state     *reservation.State
	access    uint64
	refreshed int
}

func (r *reservable) Reserve(_ context.Context, q *reservation.Request) (reservation.Status, error) {
	s := r.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	q.Ports = []uint16{1, 2}
	res := s.state.Apply(q)
	s.state = res.State
	if res.Narrowed {
		s.access++
	}
	s.unit.SetReservations(&Reservations{Access: s.access, State: s.state})
	return res.Status, nil
}

func (r *reservable) Reservations(context.Context) (*Reservations, error) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	now := &Reservations{Access: r.shared.access, State: r.shared.state}
	r.shared.unit.SetReservations(now)
	return now, nil
}

func (r *reservable) Refresh(ctx context.Context, _ *Reservations) error {
	r.shared.refreshed++
	_, err := r.Reservations(ctx)
	return err
}

func (r *reservable) EndLegacy(q *reservation.Request) { _, _ = r.Reserve(context.Background(), q) }

func (r *reservable) Reset(q *reservation.Request, done func()) {
	r.EndLegacy(q)
	done()
}

// Write refuses what is bound to an older access generation, as the store does.
func (r *reservable) Write(ctx context.Context, p []byte, off int64) error {
	if bound := reservation.AccessOf(ctx); bound != 0 && bound < r.shared.access {
		return ErrAccessChanged
	}
	return r.memory.Write(ctx, p, off)
}

// hosts is a logical unit that three hosts see.
type hosts struct {
	*rig
	shared  *shared
	nexuses map[byte]*Nexus
	aborted []byte
}

func newHosts(t *testing.T) *hosts {
	s := &shared{state: &reservation.State{}, access: 1}
	r := newRig(t, testConfig(8197, 512), func(m *Mapping) {
		s.unit = m.Unit
		m.Backend = &reservable{memory: newMemory(8197 * 512), shared: s}
	})
	h := &hosts{rig: r, shared: s, nexuses: map[byte]*Nexus{}}
	for i, name := range []byte("abc") {
		h.nexuses[name] = NewNexus(NexusConfig{
			InitiatorName: fmt.Sprintf("iqn.%c", name), TargetPort: testPort,
			Reservation: reservation.Nexus{Initiator: fmt.Sprintf("iqn.%c", name), ISID: reservation.ISID{byte(i)}, Port: 1},
			Aborted:     func(LUN) { h.aborted = append(h.aborted, name) },
		}, r.luns)
	}
	s.unit.SetReservations(&Reservations{Access: 1, State: s.state})
	return h
}

// as runs a command as one of the hosts and returns its status, or its sense code.
func (h *hosts) as(name byte, cdb string, dataOut ...byte) string {
	h.t.Helper()
	c := &Command{CDB: fromHex(h.t, cdb), DataOut: dataOut, MaxDataIn: 1 << 20}
	if err := h.nexuses[name].Execute(h.t.Context(), c); err != nil {
		h.t.Fatal(err)
	}
	if c.Status == StatusCheckCondition {
		return c.SenseCode().String()
	}
	return c.Status.String()
}

// out runs PERSISTENT RESERVE OUT.
func (h *hosts) out(name byte, action, scopeType byte, key, service uint64) string {
	h.t.Helper()
	p := make([]byte, 24)
	binary.BigEndian.PutUint64(p, key)
	binary.BigEndian.PutUint64(p[8:], service)
	return h.as(name, fmt.Sprintf("5F %02X %02X 0000 00000018 00", action, scopeType), p...)
}

const (
	good    = "GOOD"
	refused = "RESERVATION CONFLICT"
)

func (h *hosts) want(got, want string) {
	h.t.Helper()
	if got != want {
		h.t.Fatalf("%s, want %s", got, want)
	}
}

// TestConflicts is the tables of conflicts: what a stranger and a registered nexus may do under a write exclusive and an
// exclusive access reservation, and under RESERVE.
func TestConflicts(t *testing.T) {
	block := make([]byte, 1024)
	commands := []struct {
		cdb                string
		we, ea, legacyFree bool // allowed to strangers
	}{
		{"00 00000000 00", true, true, false},                       // TEST UNIT READY
		{"03 00000012 00", true, true, true},                        // REQUEST SENSE
		{"12 00000024 00", true, true, true},                        // INQUIRY
		{"A0 00 00 000000 00000100 00 00", true, true, true},        // REPORT LUNS
		{"25 00 00000000 000000 00", true, true, true},              // READ CAPACITY(10)
		{"9E 10 0000000000000000 00000020 00 00", true, true, true}, // READ CAPACITY(16)
		{"4D 00 40 00 00 0000 0100 00", true, true, true},           // LOG SENSE
		{"1B 00 00 00 01 00", true, true, false},                    // START STOP UNIT, start
		{"1B 00 00 00 00 00", false, false, false},                  // stop
		{"5E 00 0000000000 0100 00", true, true, false},             // PERSISTENT RESERVE IN
		{"5E 03 0000000000 0100 00", true, true, false},
		{"1A 00 3F 00 FF 00", true, false, false},                       // MODE SENSE(6)
		{"A3 0C 00 00 0000 00001000 00 00", true, false, false},         // REPORT SUPPORTED OPERATION CODES
		{"28 00 00000000 00 0001 00", true, false, false},               // READ(10)
		{"2F 00 00000000 00 0001 00", true, false, false},               // VERIFY(10)
		{"9E 12 0000000000000000 00000020 00 00", true, false, false},   // GET LBA STATUS
		{"34 00 00000000 00 0001 00", true, false, false},               // PRE-FETCH(10)
		{"2A 00 00000000 00 0001 00", false, false, false},              // WRITE(10)
		{"8A 00 0000000000000000 00000001 00 00", false, false, false},  // WRITE(16)
		{"89 00 0000000000000000 000000 01 00 00", false, false, false}, // COMPARE AND WRITE
		{"35 00 00000000 00 0000 00", false, false, false},              // SYNCHRONIZE CACHE(10)
		{"41 00 00000000 00 0001 00", false, false, false},              // WRITE SAME(10)
		{"42 00 00000000 00 0000 00", false, false, false},              // UNMAP
	}
	for _, typ := range []byte{1, 3, 5, 6, 7, 8} {
		h := newHosts(t)
		h.want(h.out('a', 0, 0, 0, 1), good)
		h.want(h.out('b', 0, 0, 0, 2), good)
		h.want(h.out('a', 1, typ, 1, 0), good)
		for _, c := range commands {
			free := c.we
			if typ == 3 || typ == 6 || typ == 8 {
				free = c.ea
			}
			for who, ok := range map[byte]bool{'a': true, 'b': free || typ >= 5, 'c': free} {
				if got := h.as(who, c.cdb, block...); (got == refused) == ok {
					t.Errorf("type %d, %c: %s: %s", typ, who, c.cdb, got)
				}
			}
		}
	}
	h := newHosts(t)
	h.want(h.as('a', "16 00000000 00"), good)
	for _, c := range commands {
		if got := h.as('b', c.cdb, block...); (got == refused) == c.legacyFree {
			t.Errorf("RESERVE: %s: %s", c.cdb, got)
		}
	}
}

func TestPersistentReserve(t *testing.T) {
	h := newHosts(t)
	h.want(h.out('a', 0, 0, 0, 0xA), good)
	h.want(h.out('a', 0, 0, 0xB, 0xC), refused)
	h.want(h.out('b', 6, 0, 0x9, 0xB), good)
	h.want(h.out('a', 1, 0x25, 0xA, 0), "05/24/00") // scope 2
	h.want(h.out('a', 1, 0x05, 0xA, 0), good)
	h.want(h.out('b', 1, 0x05, 0xB, 0), refused)
	h.want(h.out('a', 2, 0x06, 0xA, 0), "05/26/04")
	h.want(h.out('b', 4, 0x05, 0xB, 0), "05/26/00")
	h.want(h.as('a', "5F 08 00 0000 00000018 00"), "05/24/00")
	h.want(h.as('a', "5F 00 00 0000 00000017 00", make([]byte, 23)...), "05/1A/00")
	h.want(h.as('a', "5F 00 00 0000 FFFFFFFF 00", make([]byte, 24)...), "05/1A/00")
	h.want(h.as('a', "5F 00 00 0000 00000018 00", make([]byte, 23)...), "05/0E/03")
	h.want(h.as('a', "5F 00 00 0000 00000019 00", make([]byte, 25)...), "05/1A/00")
	h.want(h.as('a', "5E 04 0000000000 0100 00"), "05/24/00")
	h.want(h.out('b', 5, 0x06, 0xB, 0xA), good)
	if !slices.Equal(h.aborted, []byte("a")) {
		t.Fatalf("aborted: %s", h.aborted)
	}
	h.want(h.as('a', "00 00000000 00"), "06/2A/05")
	h.want(h.as('a', "28 00 00000000 00 0001 00"), refused)
	h.want(h.as('b', "28 00 00000000 00 0001 00"), good)
	h.want(h.out('c', 0, 0, 0, 0xC), good)
	h.want(h.out('b', 2, 0x06, 0xB, 0), good)
	h.want(h.as('c', "00 00000000 00"), "06/2A/04")
	h.want(h.out('b', 3, 0, 0xB, 0), good)
	h.want(h.as('c', "00 00000000 00"), "06/2A/03")
	for who := range h.nexuses {
		h.want(h.as(who, "00 00000000 00"), good)
	}
}

func TestReadKeysIsCut(t *testing.T) {
	h := newHosts(t)
	h.want(h.out('a', 0, 0, 0, 0xA), good)
	for _, n := range []int{0, 4, 8, 12, 16, 17} {
		c := &Command{CDB: fromHex(t, fmt.Sprintf("5E 00 0000000000 %04X 00", n)), MaxDataIn: 1 << 20}
		if err := h.nexuses['b'].Execute(t.Context(), c); err != nil || c.Status != StatusGood {
			t.Fatal(err, c.Status)
		}
		want := fromHex(t, "00000001 00000008 000000000000000A")
		want = want[:min(n, len(want))]
		if !slices.Equal(c.DataIn, want) {
			t.Errorf("allocation length %d: % X", n, c.DataIn)
		}
	}
}

func TestReserveAndRelease(t *testing.T) {
	const reserve6, release6, reserve10, release10, tur = "16 00000000 00", "17 00000000 00", "56 00 00000000000000 00",
		"57 00 00000000000000 00", "00 00000000 00"
	h := newHosts(t)
	h.want(h.as('a', "16 01 000000 00"), "05/24/00")
	h.want(h.as('a', reserve6), good)
	h.want(h.as('a', reserve10), good)
	h.want(h.as('b', reserve6), refused)
	h.want(h.as('b', release10), good)
	h.want(h.as('b', tur), refused)
	h.want(h.out('a', 0, 0, 0, 1), refused)
	h.want(h.as('a', release10), good)
	h.want(h.as('b', reserve10), good)
	h.nexuses['a'].ResetLogicalUnit(FlatLUN(0), func() {})
	h.want(h.as('c', tur), "06/29/03")
	h.want(h.as('c', reserve6), good)
	h.nexuses['c'].ResetNexus()
	h.want(h.as('c', tur), "06/29/07")
	h.want(h.as('b', tur), "06/29/03")
	h.want(h.as('b', reserve6), good)
	h.want(h.as('b', release6), good)
	h.want(h.as('c', reserve6), good)
	h.nexuses['c'].Close()
	h.want(h.as('a', tur), "06/29/03")
	h.want(h.as('a', tur), good)
	h.want(h.out('a', 0, 0, 0, 1), good)
	h.want(h.as('a', reserve6), refused)
	h.want(h.as('a', release6), refused)
}

// TestJudgedAgain changes the reservations through another process: what this one knows is older.
func TestJudgedAgain(t *testing.T) {
	const write = "2A 00 00000000 00 0001 00"
	h := newHosts(t)
	h.want(h.out('a', 0, 0, 0, 1), good)
	h.want(h.out('b', 0, 0, 0, 2), good)
	h.want(h.out('a', 1, 1, 1, 0), good)
	change := func(requests ...reservation.Request) {
		for _, r := range requests {
			res := h.shared.state.Apply(&r)
			if res.Status != reservation.Good {
				t.Fatalf("%+v: %d", r, res.Status)
			}
			h.shared.state = res.State
			if res.Narrowed {
				h.shared.access++
			}
		}
	}
	block := make([]byte, 512)
	a, b := h.nexuses['a'].config.Reservation, h.nexuses['b'].config.Reservation
	h.want(h.as('a', write, block...), good)
	h.want(h.as('b', write, block...), refused)
	change(reservation.Request{Nexus: a, Action: reservation.Release, Key: 1, Type: 1})
	h.want(h.as('b', write, block...), good) // was released elsewhere
	change(reservation.Request{Nexus: a, Action: reservation.Reserve, Key: 1, Type: 1})
	h.want(h.as('a', "00 00000000 00"), good)
	if _, err := h.nexuses['a'].lookup(FlatLUN(0)).backend.(Reserver).Reservations(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := h.shared.refreshed
	change(reservation.Request{Nexus: b, Action: reservation.PreemptAndAbort, Key: 2, ServiceKey: 1, Type: 3})
	h.want(h.as('a', write, block...), refused) // was preempted elsewhere: the store refuses, then the state does
	if h.shared.refreshed == before {
		t.Fatal("the reservations were not read anew")
	}
	h.want(h.as('a', "00 00000000 00"), "06/2A/05")
	if !slices.Equal(h.aborted, []byte("a")) {
		t.Fatalf("aborted: %s", h.aborted)
	}
}

// TestResetElsewhere: a reset through another target port is told in the place of all else. It ends the commands here if it is
// known in time, before its answer.
func TestResetElsewhere(t *testing.T) {
	h := newHosts(t)
	h.want(h.out('a', 0, 0, 0, 1), good)
	h.want(h.out('b', 0, 0, 0, 2), good)
	h.want(h.out('a', 3, 0, 1, 0), good)
	elsewhere := &reservation.Request{Nexus: reservation.Nexus{Initiator: "iqn.d", Port: 2}, Action: reservation.UnitReset}
	h.nexuses['a'].lookup(FlatLUN(0)).backend.(Reserver).EndLegacy(elsewhere)
	if len(h.aborted) != 0 {
		t.Errorf("aborted: %s", h.aborted)
	}
	for who := range h.nexuses {
		h.want(h.as(who, "00 00000000 00"), "06/29/03")
		h.want(h.as(who, "00 00000000 00"), good)
	}
	h.nexuses['a'].ResetLogicalUnit(FlatLUN(0), func() {}) // told to the others here without a detour
	slices.Sort(h.aborted)
	if string(h.aborted) != "bc" {
		t.Errorf("aborted: %s", h.aborted)
	}
	h.aborted = nil
	before := h.shared.state
	in := before.Apply(elsewhere).State
	in.AbortResets(before.Version, 1)
	h.shared.unit.SetReservations(&Reservations{Access: h.shared.access + 1, State: in})
	slices.Sort(h.aborted)
	if string(h.aborted) != "abc" {
		t.Errorf("aborted by a reset that is known in time: %s", h.aborted)
	}
}

// TestOvertakenByReset: a command that the store refuses because the logical unit was reset through another target port is not
// done. It is aborted if it was surely sent before the reset was answered, else it reports the reset.
func TestOvertakenByReset(t *testing.T) {
	const write = "2A 00 00000000 00 0001 00"
	for _, abort := range []bool{false, true} {
		h := newHosts(t)
		block := bytes.Repeat([]byte{1}, 512)
		h.want(h.as('a', write, block...), good)
		before := h.shared.state
		h.shared.state = before.Apply(&reservation.Request{
			Nexus: reservation.Nexus{Initiator: "iqn.d", Port: 2}, Action: reservation.UnitReset,
		}).State
		h.shared.access++
		if abort {
			h.shared.state.AbortResets(before.Version, 1)
		}
		block[0] = 2
		c := &Command{LUN: FlatLUN(0), CDB: fromHex(t, write), DataOut: block}
		err := h.nexuses['a'].Execute(t.Context(), c)
		switch {
		case abort && !errors.Is(err, ErrReset):
			t.Errorf("not aborted: %v, %v", err, c.SenseCode())
		case !abort && (err != nil || c.SenseCode() != AttentionDeviceReset):
			t.Errorf("did not report the reset: %v, %v", err, c.SenseCode())
		}
		read := make([]byte, 1)
		if err := h.nexuses['a'].lookup(FlatLUN(0)).backend.Read(t.Context(), read, 0); err != nil || read[0] != 1 {
			t.Errorf("the write was done: %d, %v", read[0], err)
		}
		if abort {
			h.want(h.as('a', "00 00000000 00"), "06/29/03")
		}
		h.want(h.as('a', write, block...), good)
		h.want(h.as('b', "00 00000000 00"), "06/29/03")
	}
}

// TestOldReservations: what comes late does not replace what is newer.
func TestOldReservations(t *testing.T) {
	u := disk512(t).unit
	state := func(version uint64) *reservation.State { return &reservation.State{Version: version} }
	newest := &Reservations{Access: 5, State: state(3)}
	u.SetReservations(newest)
	for _, r := range []*Reservations{{Access: 5, State: state(2)}, {Access: 4, State: state(3)}, {Access: 5, State: state(3)}, {Access: 4, State: state(2)}} {
		if u.SetReservations(r); u.Reservations() != newest {
			t.Errorf("replaced by version %d of %d", r.State.Version, r.Access)
		}
	}
	for _, r := range []*Reservations{{Access: 6, State: state(3)}, {Access: 6, State: state(4)}} {
		if u.SetReservations(r); u.Reservations() != r {
			t.Errorf("version %d of %d was not taken", r.State.Version, r.Access)
		}
	}
}

// sanitizable is a reservable medium that is sanitized through another process from some time on.
type sanitizable struct {
	*reservable
	status sanitize.Status
}

func (s *sanitizable) Sanitizing() sanitize.Status { return s.status }

func (*sanitizable) Sanitize(context.Context, reservation.Nexus, sanitize.Order, int64) (<-chan struct{}, error) {
	return nil, ErrSanitizing
}

func (*sanitizable) ExitSanitize(context.Context, reservation.Nexus) error { return ErrSanitizing }

func (s *sanitizable) Refresh(ctx context.Context, seen *Reservations) error {
	s.status.State = sanitize.Running
	return s.reservable.Refresh(ctx, seen)
}

// TestOvertakenBySanitize: a command that the store refuses because a SANITIZE began through another process is not done when it
// is judged again.
func TestOvertakenBySanitize(t *testing.T) {
	const write = "2A 00 00000000 00 0001 00"
	h := newHosts(t)
	maps := h.luns.Mappings()
	maps[0].Backend = &sanitizable{reservable: maps[0].Backend.(*reservable)}
	if err := h.luns.Update(maps...); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 512)
	h.want(h.as('a', write, block...), good)
	h.shared.state = h.shared.state.Apply(&reservation.Request{
		Action: reservation.SanitizeBegin, Nexus: reservation.Nexus{Initiator: "iqn.d", Port: 2}, Sanitize: &reservation.Sanitize{Size: 512},
	}).State
	h.shared.access++
	h.want(h.as('a', write, block...), "02/04/1B")
	h.want(h.as('b', "48 1F 0000000000 0000 00"), "02/04/1B")
}

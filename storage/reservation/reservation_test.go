package reservation

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// Nexuses of the tests: two ports of host a, one of b and c, and a at another target port.
var (
	nexusA  = Nexus{Initiator: "iqn.a", ISID: ISID{1}, Port: 1}
	nexusA2 = Nexus{Initiator: "iqn.a", ISID: ISID{2}, Port: 1}
	nexusAp = Nexus{Initiator: "iqn.a", ISID: ISID{1}, Port: 2}
	nexusB  = Nexus{Initiator: "iqn.b", ISID: ISID{1}, Port: 1}
	nexusC  = Nexus{Initiator: "iqn.c", ISID: ISID{1}, Port: 2}
	nexuses = []Nexus{nexusA, nexusA2, nexusAp, nexusB, nexusC}
	ports   = []uint16{1, 2}
)

// steps runs requests that must be answered GOOD.
func steps(t *testing.T, s *State, requests ...Request) *State {
	t.Helper()
	for i := range requests {
		r := requests[i]
		r.Ports = ports
		res := s.Apply(&r)
		if res.Status != Good {
			t.Fatalf("step %d: %+v: status %d", i, r, res.Status)
		}
		s = res.State
	}
	return s
}

func reg(n Nexus, k Key) Request { return Request{Nexus: n, Action: Register, ServiceKey: k} }

func hold(n Nexus, k Key, t Type) Request { return Request{Nexus: n, Action: Reserve, Key: k, Type: t} }

func keysOf(s *State) map[Nexus]Key {
	m := map[Nexus]Key{}
	for _, r := range s.Registrations {
		m[r.Nexus] = r.Key
	}
	return m
}

func TestRegister(t *testing.T) {
	one := []Request{reg(nexusA, 1)}
	for _, c := range []struct {
		name   string
		before []Request
		do     Request
		status Status
		want   map[Nexus]Key
		gen    uint32 // how much PRGENERATION rises
	}{
		{"new", nil, reg(nexusA, 1), Good, map[Nexus]Key{nexusA: 1}, 1},
		{"nothing", nil, reg(nexusA, 0), Good, map[Nexus]Key{}, 0},
		{"a key that was never registered", nil, Request{Nexus: nexusA, Key: 1, ServiceKey: 2}, Conflict, map[Nexus]Key{}, 0},
		{"another key", one, Request{Nexus: nexusA, Key: 1, ServiceKey: 2}, Good, map[Nexus]Key{nexusA: 2}, 1},
		{"no key where there is one", one, reg(nexusA, 2), Conflict, map[Nexus]Key{nexusA: 1}, 0},
		{"wrong key", one, Request{Nexus: nexusA, Key: 3, ServiceKey: 2}, Conflict, map[Nexus]Key{nexusA: 1}, 0},
		{"unregister", one, Request{Nexus: nexusA, Key: 1}, Good, map[Nexus]Key{}, 1},
		{"another port of the same host", one, reg(nexusA2, 1), Good, map[Nexus]Key{nexusA: 1, nexusA2: 1}, 1},
		{"ignoring, new", nil, Request{Nexus: nexusA, Action: RegisterAndIgnore, Key: 9, ServiceKey: 2}, Good, map[Nexus]Key{nexusA: 2}, 1},
		{"ignoring", one, Request{Nexus: nexusA, Action: RegisterAndIgnore, Key: 9, ServiceKey: 2}, Good, map[Nexus]Key{nexusA: 2}, 1},
		{"ignoring, unregister", one, Request{Nexus: nexusA, Action: RegisterAndIgnore, Key: 9}, Good, map[Nexus]Key{}, 1},
		{"ignoring, nothing", nil, Request{Nexus: nexusA, Action: RegisterAndIgnore, Key: 9}, Good, map[Nexus]Key{}, 0},
		{"ignoring with SPEC_I_PT", nil, Request{Nexus: nexusA, Action: RegisterAndIgnore, ServiceKey: 1, SpecIPT: true}, InvalidFieldInParameters, map[Nexus]Key{}, 0},
		{"all ports", nil, Request{Nexus: nexusA, ServiceKey: 1, AllPorts: true}, Good, map[Nexus]Key{nexusA: 1, nexusAp: 1}, 1},
		{
			"SPEC_I_PT", nil,
			Request{Nexus: nexusA, ServiceKey: 1, SpecIPT: true, Initiators: []Nexus{nexusB}},
			Good,
			map[Nexus]Key{nexusA: 1, nexusB: 1},
			1,
		},
		{
			"SPEC_I_PT leaves those that are registered",
			[]Request{reg(nexusB, 7)},
			Request{Nexus: nexusA, ServiceKey: 1, SpecIPT: true, Initiators: []Nexus{nexusB}},
			Good,
			map[Nexus]Key{nexusA: 1, nexusB: 7},
			1,
		},
		{"SPEC_I_PT of one that is registered", one, Request{Nexus: nexusA, Key: 1, ServiceKey: 2, SpecIPT: true}, InvalidFieldInCDB, map[Nexus]Key{nexusA: 1}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := steps(t, &State{}, c.before...)
			c.do.Ports = ports
			res := s.Apply(&c.do)
			if res.Status != c.status || !reflect.DeepEqual(keysOf(res.State), c.want) {
				t.Fatalf("status %d, keys %v; want %d, %v", res.Status, keysOf(res.State), c.status, c.want)
			}
			if rose := res.State.Generation - s.Generation; rose != c.gen {
				t.Fatalf("PRGENERATION rose by %d, not %d", rose, c.gen)
			}
		})
	}
}

func TestRegistrationsAreBounded(t *testing.T) {
	s := &State{}
	for i := range RegistrationsMax {
		s = steps(t, s, reg(Nexus{Initiator: fmt.Sprintf("iqn.%d", i), Port: 1}, 1))
	}
	r := reg(nexusA, 1)
	if res := s.Apply(&r); res.Status != NoResources || res.Changed {
		t.Fatalf("got %+v", res)
	}
	s = steps(t, s, Request{Nexus: Nexus{Initiator: "iqn.7", Port: 1}, Key: 1}, r)
	if len(s.Registrations) != RegistrationsMax || !s.Valid() {
		t.Fatalf("%d registrations", len(s.Registrations))
	}
}

// TestAllows is SPC-4 table 65: who may read and write under which type.
func TestAllows(t *testing.T) {
	for _, c := range []struct {
		typ                                         Type
		strangerRead, registrantRead, registrantWrt bool
	}{
		{WriteExclusive, true, true, false},
		{ExclusiveAccess, false, false, false},
		{WriteExclusiveRegistrants, true, true, true},
		{ExclusiveAccessRegistrants, false, true, true},
		{WriteExclusiveAll, true, true, true},
		{ExclusiveAccessAll, false, true, true},
	} {
		s := steps(t, &State{}, reg(nexusA, 1), reg(nexusB, 2), hold(nexusA, 1, c.typ))
		got := []bool{
			s.Allows(nexusA, Read), s.Allows(nexusA, Write), s.Allows(nexusC, Read), s.Allows(nexusC, Write),
			s.Allows(nexusB, Read), s.Allows(nexusB, Write), s.Allows(nexusC, Query), s.Allows(nexusC, Free),
		}
		want := []bool{true, true, c.strangerRead, false, c.registrantRead, c.registrantWrt, true, true}
		if !slices.Equal(got, want) {
			t.Errorf("type %d: %v, want %v", c.typ, got, want)
		}
	}
}

func TestReserveAndRelease(t *testing.T) {
	two := []Request{reg(nexusA, 1), reg(nexusB, 2)}
	for _, c := range []struct {
		name   string
		before []Request
		do     Request
		status Status
		typ    Type
	}{
		{"unregistered", nil, hold(nexusA, 0, WriteExclusive), Conflict, 0},
		{"wrong key", two, hold(nexusA, 2, WriteExclusive), Conflict, 0},
		{"bad type", two, hold(nexusA, 1, 2), InvalidFieldInCDB, 0},
		{"bad scope", two, Request{Nexus: nexusA, Action: Reserve, Key: 1, Type: 1, Scope: 2}, InvalidFieldInCDB, 0},
		{"again", append(two, hold(nexusA, 1, 3)), hold(nexusA, 1, 3), Good, 3},
		{"another type", append(two, hold(nexusA, 1, 3)), hold(nexusA, 1, 1), Conflict, 3},
		{"another nexus", append(two, hold(nexusA, 1, 3)), hold(nexusB, 2, 3), Conflict, 3},
		{"another of all registrants", append(two, hold(nexusA, 1, 7)), hold(nexusB, 2, 7), Good, 7},
		{"release", append(two, hold(nexusA, 1, 3)), Request{Nexus: nexusA, Action: Release, Key: 1, Type: 3}, Good, 0},
		{"release of another", append(two, hold(nexusA, 1, 3)), Request{Nexus: nexusB, Action: Release, Key: 2, Type: 3}, Good, 3},
		{"release with another type", append(two, hold(nexusA, 1, 3)), Request{Nexus: nexusA, Action: Release, Key: 1, Type: 1}, InvalidRelease, 3},
		{"release by any registrant", append(two, hold(nexusA, 1, 8)), Request{Nexus: nexusB, Action: Release, Key: 2, Type: 8}, Good, 0},
		{"release with the wrong key", append(two, hold(nexusA, 1, 3)), Request{Nexus: nexusA, Action: Release, Key: 2, Type: 3}, Conflict, 3},
		{"unregister the holder", append(two, hold(nexusA, 1, 5)), Request{Nexus: nexusA, Key: 1}, Good, 0},
		{"unregister one of all", append(two, hold(nexusA, 1, 7)), Request{Nexus: nexusA, Key: 1}, Good, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := steps(t, &State{}, c.before...)
			res := s.Apply(&c.do)
			if res.Status != c.status || res.State.Type != c.typ || !res.State.Valid() {
				t.Fatalf("status %d, type %d; want %d, %d", res.Status, res.State.Type, c.status, c.typ)
			}
			if c.do.Action != Register && res.State.Generation != s.Generation {
				t.Fatal("PRGENERATION rose")
			}
		})
	}
}

// told returns by what a nexus is told of the step from version since to s.
func told(s *State, n Nexus, since uint64) []Attention {
	var out []Attention
	s.Told(n, since, func(a Attention, _ bool) { out = append(out, a) })
	return out
}

func TestPreempt(t *testing.T) {
	three := []Request{reg(nexusA, 1), reg(nexusB, 2), reg(nexusC, 2)}
	for _, c := range []struct {
		name    string
		before  []Request
		service Key
		typ     Type
		status  Status
		left    map[Nexus]Key
		now     Type
		holder  Nexus
		b       []Attention
	}{
		{"registrations", three, 2, 1, Good, map[Nexus]Key{nexusA: 1}, 0, Nexus{}, []Attention{RegistrationsPreempted}},
		{"nobody", three, 9, 1, Conflict, nil, 0, Nexus{}, nil},
		{"no key", three, 0, 1, InvalidFieldInParameters, nil, 0, Nexus{}, nil},
		{"the holder", append(three, hold(nexusB, 2, 1)), 2, 3, Good, map[Nexus]Key{nexusA: 1}, 3, nexusA, []Attention{RegistrationsPreempted}},
		{"the holder with a bad type", append(three, hold(nexusB, 2, 1)), 2, 4, InvalidFieldInCDB, nil, 1, nexusB, nil},
		{"itself", append(three, hold(nexusA, 1, 5)), 1, 6, Good, map[Nexus]Key{nexusA: 1, nexusB: 2, nexusC: 2}, 6, nexusA, []Attention{ReservationsReleased}},
		{"others than the holder", append(three, hold(nexusA, 1, 5)), 2, 6, Good, map[Nexus]Key{nexusA: 1}, 5, nexusA, []Attention{RegistrationsPreempted}},
		{"all, by no key", append(three, hold(nexusB, 2, 7)), 0, 1, Good, map[Nexus]Key{nexusA: 1}, 1, nexusA, []Attention{RegistrationsPreempted}},
		{"some of all", append(three, hold(nexusB, 2, 7)), 2, 1, Good, map[Nexus]Key{nexusA: 1}, 7, Nexus{}, []Attention{RegistrationsPreempted}},
		{"the holder, no key", append(three, hold(nexusB, 2, 1)), 0, 1, InvalidFieldInParameters, nil, 1, nexusB, nil},
	} {
		for _, action := range []Action{Preempt, PreemptAndAbort} {
			t.Run(fmt.Sprintf("%s/%d", c.name, action), func(t *testing.T) {
				s := steps(t, &State{}, c.before...)
				res := s.Apply(&Request{Nexus: nexusA, Action: action, Key: 1, ServiceKey: c.service, Type: c.typ})
				left := c.left
				if left == nil {
					left = keysOf(s)
				}
				if res.Status != c.status || !reflect.DeepEqual(keysOf(res.State), left) || res.State.Type != c.now || res.State.Holder != c.holder {
					t.Fatalf("got %d %+v", res.Status, res.State)
				}
				if got := told(res.State, nexusB, s.Version); !slices.Equal(got, c.b) {
					t.Fatalf("b is told %v, want %v", got, c.b)
				}
				if got := told(res.State, nexusA, s.Version); got != nil {
					t.Fatalf("the one that preempts is told %v", got)
				}
				res.State.Told(nexusB, s.Version, func(a Attention, abort bool) {
					if abort != (action == PreemptAndAbort && a == RegistrationsPreempted) {
						t.Errorf("attention %d: abort %v", a, abort)
					}
				})
			})
		}
	}
}

func TestWhoIsTold(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  Type
		do   Request
		b    []Attention
	}{
		{"release of an exclusive one", 3, Request{Nexus: nexusA, Action: Release, Key: 1, Type: 3}, nil},
		{"release for registrants", 6, Request{Nexus: nexusA, Action: Release, Key: 1, Type: 6}, []Attention{ReservationsReleased}},
		{"release for all", 8, Request{Nexus: nexusA, Action: Release, Key: 1, Type: 8}, []Attention{ReservationsReleased}},
		{"unregistering the holder", 5, Request{Nexus: nexusA, Key: 1}, []Attention{ReservationsReleased}},
		{"unregistering the holder of an exclusive one", 1, Request{Nexus: nexusA, Key: 1}, nil},
		{"clear", 1, Request{Nexus: nexusA, Action: Clear, Key: 1}, []Attention{ReservationsPreempted}},
	} {
		s := steps(t, &State{}, reg(nexusA, 1), reg(nexusB, 2), hold(nexusA, 1, c.typ))
		next := steps(t, s, c.do)
		if got := told(next, nexusB, s.Version); !slices.Equal(got, c.b) {
			t.Errorf("%s: %v, want %v", c.name, got, c.b)
		}
		if next.Type != 0 {
			t.Errorf("%s: still reserved", c.name)
		}
	}
}

func TestMove(t *testing.T) {
	held := []Request{reg(nexusA, 1), reg(nexusB, 2), hold(nexusA, 1, 5)}
	move := Request{Nexus: nexusA, Action: RegisterAndMove, Key: 1, ServiceKey: 9, Destination: nexusC, Ports: ports}
	unreg, self, nokey, noport, notHolder := move, move, move, move, move
	unreg.Unregister = true
	self.Destination = nexusA
	nokey.ServiceKey = 0
	noport.Destination.Port = 7
	notHolder.Nexus, notHolder.Key = nexusB, 2
	for _, c := range []struct {
		name   string
		before []Request
		do     Request
		status Status
		left   map[Nexus]Key
	}{
		{"move", held, move, Good, map[Nexus]Key{nexusA: 1, nexusB: 2, nexusC: 9}},
		{"move and unregister", held, unreg, Good, map[Nexus]Key{nexusB: 2, nexusC: 9}},
		{"to one that is registered", append(held, reg(nexusC, 3)), move, Good, map[Nexus]Key{nexusA: 1, nexusB: 2, nexusC: 9}},
		{"to itself", held, self, InvalidFieldInParameters, nil},
		{"without a key", held, nokey, InvalidFieldInParameters, nil},
		{"to no port", held, noport, InvalidFieldInParameters, nil},
		{"by another", held, notHolder, Conflict, nil},
		{"of all registrants", []Request{reg(nexusA, 1), hold(nexusA, 1, 7)}, move, Conflict, nil},
		{"of nothing", []Request{reg(nexusA, 1)}, move, Conflict, nil},
	} {
		s := steps(t, &State{}, c.before...)
		res := s.Apply(&c.do)
		if res.Status != c.status {
			t.Errorf("%s: status %d, want %d", c.name, res.Status, c.status)
			continue
		}
		if c.left != nil && (!reflect.DeepEqual(keysOf(res.State), c.left) || res.State.Holder != nexusC || res.State.Type != 5) {
			t.Errorf("%s: %+v", c.name, res.State)
		}
	}
}

func TestLegacy(t *testing.T) {
	take := Request{Nexus: nexusA, Action: LegacyReserve}
	s := steps(t, &State{}, take)
	again := steps(t, s, take)
	if again != s {
		t.Fatal("reserving again changed something")
	}
	for _, c := range []struct {
		name   string
		do     Request
		status Status
		held   bool
	}{
		{"another", Request{Nexus: nexusB, Action: LegacyReserve}, Conflict, true},
		{"release by another", Request{Nexus: nexusB, Action: LegacyRelease}, Good, true},
		{"release", Request{Nexus: nexusA, Action: LegacyRelease}, Good, false},
		{"nexus lost", Request{Nexus: nexusA, Action: NexusLost, Since: s.Version}, Good, false},
		{"nexus lost of another time", Request{Nexus: nexusA, Action: NexusLost, Since: s.Version - 1}, Good, true},
		{"another nexus lost", Request{Nexus: nexusB, Action: NexusLost, Since: s.Version}, Good, true},
		{"reset", Request{Nexus: nexusB, Action: UnitReset, Since: s.Version}, Good, false},
		{"reset before", Request{Nexus: nexusB, Action: UnitReset, Since: s.Version - 1}, Good, true},
		{"register", reg(nexusA, 1), Conflict, true},
	} {
		res := s.Apply(&c.do)
		if res.Status != c.status || (res.State.Legacy != nil) != c.held {
			t.Errorf("%s: %d, %+v", c.name, res.Status, res.State)
		}
	}
	var over []Nexus
	if res := s.Apply(&Request{Nexus: nexusB, Action: UnitReset}); !res.Narrowed {
		t.Error("what was under way before a reset is let go on")
	}
	next := steps(t, s, Request{Nexus: nexusB, Action: UnitReset, Since: s.Version})
	for _, n := range nexuses {
		next.Told(n, s.Version, func(a Attention, abort bool) {
			if a == UnitWasReset && !abort {
				over = append(over, n)
			}
		})
	}
	if !slices.Equal(over, []Nexus{nexusAp, nexusC}) {
		t.Errorf("told of the reset: %v", over)
	}
	if s.Allows(nexusB, Query) || s.Allows(nexusB, Read) || !s.Allows(nexusB, Free) || !s.Allows(nexusA, Write) {
		t.Error("wrong rights under an SPC-2 reservation")
	}
	s = steps(t, &State{}, reg(nexusA, 1))
	if res := s.Apply(&take); res.Status != Conflict {
		t.Errorf("beside a registration: %d", res.Status)
	}
}

func TestIgnoreISID(t *testing.T) {
	s := steps(t, &State{IgnoreISID: true}, reg(nexusA, 1), hold(nexusA, 1, 3))
	if !s.Allows(nexusA2, Write) || s.Allows(nexusAp, Read) || s.KeyOf(nexusA2) != 1 {
		t.Fatal("the initiator is not known under another ISID")
	}
	any := Nexus{Initiator: "iqn.b", AnyISID: true, Port: 1}
	s = steps(t, &State{}, Request{Nexus: nexusA, ServiceKey: 1, SpecIPT: true, Initiators: []Nexus{any}})
	if s.KeyOf(nexusB) != 1 || s.KeyOf(nexusA2) != 0 {
		t.Fatal("a registration for any port of the host")
	}
}

// check runs one request and asserts what holds for all.
func check(t *testing.T, s *State, r Request) *State {
	t.Helper()
	before := *s
	before.Registrations = slices.Clone(s.Registrations)
	before.Events = slices.Clone(s.Events)
	res := s.Apply(&r)
	if !reflect.DeepEqual(*s, before) {
		t.Fatalf("%+v changed the state that it was applied to", r)
	}
	next := res.State
	switch {
	case !next.Valid():
		t.Fatalf("%+v led to %+v", r, next)
	case res.Changed != (next != s), res.Changed && (next.Version != s.Version+1 || res.Status != Good):
		t.Fatalf("%+v: changed %v, version %d to %d, status %d", r, res.Changed, s.Version, next.Version, res.Status)
	case next.Generation != s.Generation && (r.Action == Reserve || r.Action == Release || r.Action >= LegacyReserve):
		t.Fatalf("%+v raised PRGENERATION", r)
	}
	less := false
	for _, n := range append(slices.Clone(nexuses), Nexus{Initiator: "iqn.none", Port: 1}) {
		for _, c := range []Class{Read, Write} {
			less = less || s.Allows(n, c) && !next.Allows(n, c)
		}
		if s.KeyOf(n) != 0 && next.KeyOf(n) == 0 && n != r.Nexus && !r.AllPorts && told(next, n, s.Version) == nil {
			t.Fatalf("%+v: %+v lost its registration and is not told", r, n)
		}
	}
	if less && !res.Narrowed {
		t.Fatalf("%+v takes access away unnoticed: %+v to %+v", r, s, next)
	}
	if n := len(told(next, r.Nexus, s.Version)); n != 0 {
		t.Fatalf("%+v is told of what it did itself", r)
	}
	return next
}

func TestRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		s := &State{}
		for range 60 {
			b := make([]byte, 9)
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			s = check(t, s, request(s, b))
		}
	}
}

// request makes a request of 9 bytes that is often one that succeeds.
func request(s *State, b []byte) Request {
	actions := []Action{
		Register, Reserve, Release, Clear, Preempt, PreemptAndAbort, RegisterAndIgnore, RegisterAndMove, LegacyReserve, LegacyRelease,
		NexusLost, UnitReset, Reserve, Register, RegisterAndIgnore, Reserve,
	}
	r := Request{
		Nexus: nexuses[int(b[0])%len(nexuses)], Action: actions[b[1]%16], Type: Type(b[2] % 9), ServiceKey: Key(b[4] % 4),
		AllPorts: b[5]%8 == 0, Unregister: b[5]%2 == 0, Destination: nexuses[int(b[6])%len(nexuses)], Since: uint64(b[7]), Ports: ports,
	}
	r.Key = s.KeyOf(r.Nexus)
	if b[3]%8 == 0 {
		r.Key = Key(b[3] % 4)
	}
	if b[8]%4 == 0 && r.Action == Register {
		r.SpecIPT, r.Initiators = true, []Nexus{nexuses[int(b[8])%len(nexuses)]}
	}
	return r
}

func FuzzApply(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 1, 0, 0, 1, 0, 1, 3, 1, 1, 1, 0, 0, 1})
	f.Add([]byte{3, 8, 0, 1, 1, 1, 0, 0, 1, 3, 10, 3, 1, 1, 1, 0, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &State{}
		for ; len(b) >= 9; b = b[9:] {
			s = check(t, s, request(s, b))
		}
	})
}

func TestEventsAreBounded(t *testing.T) {
	s := steps(t, &State{}, reg(nexusA, 1))
	for range 3 * eventsMax {
		s = steps(t, s, reg(nexusB, 2), Request{Nexus: nexusA, Action: Preempt, Key: 1, ServiceKey: 2})
	}
	if len(s.Events) != eventsMax || s.Events[eventsMax-1].Version != s.Version {
		t.Fatalf("%d events, the last of version %d of %d", len(s.Events), s.Events[len(s.Events)-1].Version, s.Version)
	}
}

// TestResetSince: a reset is for the nexuses of other target ports, and ends their commands where it is known to be in time.
func TestResetSince(t *testing.T) {
	s := steps(t, &State{}, Request{Nexus: nexusA, Action: UnitReset}, Request{Nexus: nexusAp, Action: UnitReset}, reg(nexusA, 1))
	for _, c := range []struct {
		since uint64
		port  uint16
		want  uint64
	}{
		{0, nexusA.Port, 2}, {0, nexusAp.Port, 1}, {1, nexusAp.Port, 0}, {1, nexusA.Port, 2}, {2, 9, 0}, {0, 9, 2},
	} {
		if got := s.ResetSince(c.since, c.port); got != c.want {
			t.Errorf("of port %d since %d: %d, want %d", c.port, c.since, got, c.want)
		}
	}
	s.AbortResets(0, nexusA.Port)
	for n, want := range map[Nexus]bool{nexusA: true, nexusAp: false} {
		n.ISID = ISID{9}
		s.Told(n, 0, func(a Attention, abort bool) {
			if a != UnitWasReset || abort != want {
				t.Errorf("%v: %d, abort %v", n, a, abort)
			}
		})
	}
}

// TestModes: settings are for all nexuses, of which the others are told, and a reset leaves what was saved.
func TestModes(t *testing.T) {
	s := new(State)
	do := func(r Request, status Status, now, saved Settings, narrowed bool, told ...Nexus) {
		t.Helper()
		r.Action = cmp.Or(r.Action, ModeSelect)
		before := s.Version
		res := s.Apply(&r)
		s = res.State
		if res.Status != status || res.Narrowed != narrowed || s.Modes != (Modes{Now: now, Saved: saved}) {
			t.Errorf("%+v: %d, narrowed %v, %+v", r, res.Status, res.Narrowed, s.Modes)
		}
		var got []Nexus
		for _, n := range nexuses {
			s.Told(n, before, func(a Attention, _ bool) {
				if a == ModesChanged {
					got = append(got, n)
				}
			})
		}
		if !slices.Equal(got, told) {
			t.Errorf("%+v: told %v, want %v", r, got, told)
		}
	}
	butA := slices.DeleteFunc(slices.Clone(nexuses), func(n Nexus) bool { return n == nexusA })
	do(Request{Nexus: nexusA, Settings: WriteProtect}, Good, WriteProtect, 0, true, butA...)
	do(Request{Nexus: nexusA, Settings: WriteProtect}, Good, WriteProtect, 0, false)
	do(Request{Nexus: nexusA, Settings: DescriptorSense}, Good, DescriptorSense, 0, false, butA...)
	do(Request{Nexus: nexusB, Settings: DescriptorSense, Save: true}, Good, DescriptorSense, DescriptorSense, false)
	do(Request{Nexus: nexusA}, Good, 0, DescriptorSense, false, butA...)
	do(Request{Nexus: nexusB, Action: UnitReset}, Good, DescriptorSense, DescriptorSense, true)
	do(Request{Nexus: nexusB, Action: LegacyReserve}, Good, DescriptorSense, DescriptorSense, true)
	do(Request{Nexus: nexusA, Settings: WriteProtect}, Conflict, DescriptorSense, DescriptorSense, false)
}

// TestSanitize: one runs at a time, who has the claim tells how far it is, another one may take the claim, and a failure stays.
func TestSanitize(t *testing.T) {
	s := new(State)
	do := func(action Action, by Nexus, z Sanitize, status Status, narrowed bool) {
		t.Helper()
		version := s.Version
		res := s.Apply(&Request{Action: action, Nexus: by, Sanitize: &z})
		s = res.State
		if res.Status != status || res.Narrowed != narrowed || res.Changed != (status == Good) || s.Version != version && !s.Valid() {
			t.Fatalf("%x: %d, narrowed %v, changed %v, %+v", action, res.Status, res.Narrowed, res.Changed, s.Sanitize)
		}
	}
	order := Sanitize{Passes: 2, Pattern: []byte{1}, Size: 10, Exit: true, Done: 99, Failed: true, Claim: 7}
	do(SanitizeBegin, nexusA, order, Good, true)
	id := s.Version
	if z := *s.Sanitize; z.ID != id || z.Done != 0 || z.Failed || z.Claim != 1 || z.Port != nexusA.Port || z.Total() != 20 {
		t.Fatalf("%+v", z)
	}
	do(SanitizeBegin, nexusB, order, Sanitizing, false)
	do(SanitizeExit, nexusB, order, Sanitizing, false)
	do(SanitizeReport, nexusA, Sanitize{ID: id, Claim: 1, Done: 5}, Good, false)
	do(SanitizeReport, nexusA, Sanitize{ID: id, Claim: 1, Done: 4}, Good, false)
	do(SanitizeReport, nexusA, Sanitize{ID: id + 1, Claim: 1, Done: 9}, Conflict, false)
	do(SanitizeClaim, nexusAp, Sanitize{ID: id, Claim: 2}, Conflict, false)
	do(SanitizeClaim, nexusAp, Sanitize{ID: id, Claim: 1}, Good, true)
	do(SanitizeClaim, nexusA, Sanitize{ID: id, Claim: 1}, Conflict, false)
	do(SanitizeReport, nexusA, Sanitize{ID: id, Claim: 1, Done: 20}, Conflict, false)
	if z := *s.Sanitize; z.Done != 5 || z.Claim != 2 || z.Port != nexusAp.Port || z.Beat != 2 {
		t.Fatalf("%+v", z)
	}
	do(SanitizeReport, nexusAp, Sanitize{ID: id, Claim: 2, Done: 6, Failed: true}, Good, false)
	do(SanitizeReport, nexusAp, Sanitize{ID: id, Claim: 2, Done: 20}, Conflict, false)
	do(SanitizeClaim, nexusA, Sanitize{ID: id, Claim: 2}, Conflict, false)
	if z := *s.Sanitize; !z.Failed || z.Runs() || z.Done != 6 {
		t.Fatalf("%+v", z)
	}
	do(SanitizeExit, nexusB, order, Good, false)
	order.Exit, order.Passes = false, 0
	do(SanitizeBegin, nexusB, order, Good, true)
	do(SanitizeReport, nexusB, Sanitize{ID: s.Sanitize.ID, Claim: 1, Failed: true}, Good, false)
	do(SanitizeExit, nexusB, order, InvalidFieldInCDB, false)
	do(SanitizeBegin, nexusB, order, Good, true)
	do(SanitizeReport, nexusB, Sanitize{ID: s.Sanitize.ID, Claim: 1, Done: 10}, Good, false)
	if s.Sanitize != nil {
		t.Fatalf("%+v", s.Sanitize)
	}
	res := s.Apply(&Request{Action: LegacyReserve, Nexus: nexusA})
	s = res.State
	do(SanitizeBegin, nexusB, order, Conflict, false)
}

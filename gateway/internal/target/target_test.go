package target

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

const (
	nameA = "iqn.2026-11.dev.ashlar:a"
	nameB = "iqn.2026-11.dev.ashlar:b"
	host1 = "iqn.2026-11.dev.host:1"
	host2 = "iqn.2026-11.dev.host:2"
)

// nothing is a medium that is never reached.
type nothing struct {
	volume    uint64
	initiator string
}

func (nothing) Read(context.Context, []byte, int64) error  { return scsi.ErrGone }
func (nothing) Write(context.Context, []byte, int64) error { return scsi.ErrGone }
func (nothing) Unmap(context.Context, int64, int64) error  { return scsi.ErrGone }
func (nothing) CompareAndWrite(context.Context, int64, []byte, []byte) (int, error) {
	return 0, scsi.ErrGone
}

func (nothing) Allocated(context.Context, int64, int64) (bool, int64, error) {
	return false, 0, scsi.ErrGone
}

// mediums notes what is asked of it, and counts the uses of each medium.
type mediums struct {
	notes []string
	uses  map[nothing]int
}

func (m *mediums) Open(v uint64, i string) scsi.Backend {
	b := nothing{v, i}
	m.uses[b]++
	return b
}

func (m *mediums) Release(b scsi.Backend) {
	n := b.(nothing)
	if m.uses[n]--; m.uses[n] == 0 {
		delete(m.uses, n)
	}
}

func (m *mediums) Abort(v uint64, i string) {
	m.notes = append(m.notes, fmt.Sprint("abort ", v, " ", i))
}

func (m *mediums) Acknowledged(v uint64, i string) {
	m.notes = append(m.notes, fmt.Sprint("acknowledged ", v, " ", i))
}

// control notes what the registry wants of a session.
type control struct {
	closed []error
	aborts []scsi.LUN
	gone   []scsi.LUN
	news   []scsi.LUN
}

func (c *control) Close(why error)        { c.closed = append(c.closed, why) }
func (c *control) AbortUnit(lun scsi.LUN) { c.aborts = append(c.aborts, lun) }

func (c *control) RemoveUnit(lun scsi.LUN) { c.gone = append(c.gone, lun) }

func (c *control) LUNsChanged(lun scsi.LUN) { c.news = append(c.news, lun) }

func (c *control) Numbers() (exp, last pdu.CmdSN) { return 100, 127 }

func unit(id byte, size int64) scsi.UnitConfig {
	return scsi.UnitConfig{
		Identity: scsi.Identity{NAA: [16]byte{0x60, 15: id}, Serial: fmt.Sprint(id), Vendor: "A", Product: "P", Revision: "1"},
		Capacity: size, BlockLength: 512, Limits: scsi.DefaultLimits(),
	}
}

func config() Config {
	secret := login.Auth{Initiator: &login.Credentials{User: "u", Secrets: []login.Secret{login.Secret("0123456789ab")}}}
	return Config{
		Portals: []Portal{{"10.0.0.1:3260", 1}, {"[::1]:3261", 2}},
		Volumes: map[uint64]scsi.UnitConfig{1: unit(1, 1<<20), 2: unit(2, 1<<20)},
		Targets: []Target{
			{Name: nameB, LUNs: []LUN{{0, 2, true}}, Access: []Access{{Initiator: AnyInitiator}}},
			{Name: nameA, LUNs: []LUN{{0, 1, false}, {1, 2, false}}, Access: []Access{{Initiator: host1, Auth: secret}}},
		},
	}
}

func newRegistry(t *testing.T, l Limits) (*Registry, *mediums) {
	t.Helper()
	m := &mediums{uses: map[nothing]int{}}
	r := New(m, l)
	if err := r.Apply(config()); err != nil {
		t.Fatal(err)
	}
	return r, m
}

var roomy = Limits{Sessions: 100, SessionsPerInitiator: 10}

// admit logs in and attaches.
func admit(t *testing.T, r *Registry, initiator, target string, isid byte) (*Session, *control) {
	t.Helper()
	e := r.NewEnv(Port{Group: 1, RelativeID: 1})
	g, err := e.Admit(login.Admission{InitiatorName: initiator, TargetName: target, ISID: pdu.ISID{5: isid}, CID: 3})
	if err != nil {
		t.Fatal(err)
	}
	s := e.Admitted()
	if s.TSIH() != g.TSIH || g.TSIH == 0 {
		t.Fatalf("TSIH %d, granted %d", s.TSIH(), g.TSIH)
	}
	c := &control{}
	if _, err := s.Attach(c); err != nil {
		t.Fatal(err)
	}
	return s, c
}

func status(err error) login.Status {
	s, _ := errors.AsType[*login.StatusError](err)
	if s == nil {
		return 0
	}
	return s.Status
}

func TestSendTargets(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	for _, c := range []struct {
		initiator, name string
		want            []string
	}{
		{host1, "", []string{nameA, nameB}},
		{host2, "", []string{nameB}},
		{host2, nameA, nil},
		{host1, nameA, []string{nameA}},
		{host1, "iqn.2026-11.dev.ashlar:none", nil},
	} {
		var got []string
		for _, x := range r.Targets(c.initiator, c.name) {
			got = append(got, x.Name)
			if !slices.Equal(x.Addresses, []string{"10.0.0.1:3260,1", "[::1]:3261,2"}) {
				t.Errorf("addresses %q", x.Addresses)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %q: %q, want %q", c.initiator, c.name, got, c.want)
		}
	}
}

func TestLookup(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	e := r.NewEnv(Port{Group: 7, RelativeID: 1})
	if i := e.LookupTarget(host1, nameA); !i.Exists || !i.Allowed || i.PortalGroupTag != 7 || i.Auth.Initiator == nil {
		t.Errorf("%+v", i)
	}
	if i := e.LookupTarget(host2, nameA); !i.Exists || i.Allowed {
		t.Errorf("%+v", i)
	}
	if i := e.LookupTarget(host2, "iqn.2026-11.dev.ashlar:none"); i.Exists {
		t.Errorf("%+v", i)
	}
	moved := config()
	moved.Targets[0].Redirect = &login.Redirect{Address: "10.0.0.9:3260"}
	if err := r.Apply(moved); err != nil {
		t.Fatal(err)
	}
	if i := e.LookupTarget(host1, moved.Targets[0].Name); i.Redirect == nil || i.Redirect.Address != "10.0.0.9:3260" {
		t.Errorf("%+v", i)
	}
	if d := e.LookupDiscovery(host2); !d.Allowed || !d.Open || len(d.Auths) != 0 {
		t.Errorf("%+v", d)
	}
	c := config()
	c.Targets = c.Targets[1:]
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	if d := e.LookupDiscovery(host1); !d.Allowed || d.Open || len(d.Auths) != 1 {
		t.Errorf("%+v", d)
	}
	if d := e.LookupDiscovery(host2); d.Allowed {
		t.Errorf("%+v", d)
	}
}

func TestReinstatement(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	a, _ := admit(t, r, host1, nameA, 1)
	b, _ := admit(t, r, host1, nameA, 2)
	if a.Replaced() != nil || b.Replaced() != nil {
		t.Fatal("a new session replaces another")
	}
	c, _ := admit(t, r, host1, nameA, 1)
	if c.Replaced() != a {
		t.Fatal("the session of the same name is not found")
	}
	a.End()
	a.End()
	<-a.Done()
	d, _ := admit(t, r, host1, nameA, 1)
	if d.Replaced() != c {
		t.Fatal("the end of the replaced session took the new one out of the table")
	}
	for _, s := range []*Session{b, c, d} {
		s.End()
	}
	if n := len(r.Sessions()); n != 0 || len(r.mu.perInitiator) != 0 || len(r.mu.nexuses) != 0 || len(r.mu.maps) != 0 {
		t.Errorf("%d sessions, %v, %v, %v left", n, r.mu.perInitiator, r.mu.nexuses, r.mu.maps)
	}
}

// TestMediumsInUse counts the uses of media: one for each LUN of each pair of target and initiator that has a session,
// whatever the configuration does in between.
func TestMediumsInUse(t *testing.T) {
	r, m := newRegistry(t, roomy)
	want := func(when string, uses map[nothing]int) {
		t.Helper()
		if !maps.Equal(m.uses, uses) {
			t.Fatalf("%s: %v, want %v", when, m.uses, uses)
		}
	}
	one, two := nothing{1, host1}, nothing{2, host1}
	a, _ := admit(t, r, host1, nameA, 1)
	b, _ := admit(t, r, host1, nameA, 2)
	want("two sessions of one target", map[nothing]int{one: 1, two: 1})
	c, _ := admit(t, r, host1, nameB, 1)
	want("another target with the same volume", map[nothing]int{one: 1, two: 2})
	next := config()
	next.Targets[1].LUNs = []LUN{{0, 1, true}, {7, 1, false}}
	if err := r.Apply(next); err != nil {
		t.Fatal(err)
	}
	want("other LUNs", map[nothing]int{one: 2, two: 1})
	a.End()
	want("one of two sessions ended", map[nothing]int{one: 2, two: 1})
	b.End()
	b.End()
	want("both ended", map[nothing]int{two: 1})
	if err := r.Apply(Config{}); err != nil {
		t.Fatal(err)
	}
	want("nothing exported", map[nothing]int{})
	c.End()
	want("all ended", map[nothing]int{})
	e := r.NewEnv(Port{Group: 1, RelativeID: 1})
	if err := r.Apply(config()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Admit(login.Admission{InitiatorName: host1, TargetName: nameA}); err != nil {
		t.Fatal(err)
	}
	e.Admitted().End()
	want("a login that came to nothing", map[nothing]int{})
}

func TestJoin(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	s, c := admit(t, r, host1, nameA, 1)
	join := func(tsih pdu.TSIH, initiator string, isid byte, group uint16) (*Session, login.Grant, login.Status) {
		e := r.NewEnv(Port{Group: group})
		g, err := e.Admit(login.Admission{InitiatorName: initiator, TargetName: nameA, ISID: pdu.ISID{5: isid}, TSIH: tsih, CID: 4})
		if e.Admitted() != nil {
			t.Error("a connection more is a new session")
		}
		return e.Joined(), g, status(err)
	}
	for _, bad := range []struct {
		tsih      pdu.TSIH
		initiator string
		isid      byte
		group     uint16
	}{{s.TSIH() + 1, host1, 1, 1}, {s.TSIH(), host2, 1, 1}, {s.TSIH(), host1, 2, 1}, {s.TSIH(), host1, 1, 2}} {
		if j, _, got := join(bad.tsih, bad.initiator, bad.isid, bad.group); j != nil || got != login.StatusSessionDoesNotExist {
			t.Errorf("%+v: %v", bad, got)
		}
	}
	if j, g, got := join(s.TSIH(), host1, 1, 1); j != s || got != 0 || g != (login.Grant{TSIH: s.TSIH(), ExpCmdSN: 100, MaxCmdSN: 127}) {
		t.Errorf("%+v %v", g, got)
	}
	if len(c.closed) != 0 {
		t.Errorf("closed %v", c.closed)
	}
	s.End()
	if j, _, got := join(s.TSIH(), host1, 1, 1); j != nil || got != login.StatusSessionDoesNotExist {
		t.Errorf("after the end: %v", got)
	}
}

func TestLimits(t *testing.T) {
	r, _ := newRegistry(t, Limits{Sessions: 3, SessionsPerInitiator: 2})
	try := func(initiator string, isid byte) login.Status {
		_, err := r.NewEnv(Port{Group: 1}).Admit(login.Admission{InitiatorName: initiator, TargetName: nameB, ISID: pdu.ISID{5: isid}})
		return status(err)
	}
	for _, c := range []struct {
		initiator string
		isid      byte
		want      login.Status
	}{
		{host1, 1, 0},
		{host1, 2, 0},
		{host1, 3, login.StatusOutOfResources},
		{host1, 2, 0}, // takes the place of its own
		{host2, 1, login.StatusOutOfResources},
	} {
		if got := try(c.initiator, c.isid); got != c.want {
			t.Errorf("%s %d: %v, want %v", c.initiator, c.isid, got, c.want)
		}
	}
}

func TestApply(t *testing.T) {
	r, m := newRegistry(t, roomy)
	a, ca := admit(t, r, host1, nameA, 1)
	b, cb := admit(t, r, host2, nameB, 1)
	before := r.Unit(1)

	c := config() // LUN 1 of A goes, volume 1 grows
	c.Targets[1].LUNs = c.Targets[1].LUNs[:1]
	c.Volumes[1] = unit(1, 2<<20)
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	if r.Unit(1) != before || before.Blocks() != 4096 {
		t.Error("a grown volume is not the same unit")
	}
	if !slices.Equal(ca.gone, []scsi.LUN{scsi.FlatLUN(1)}) || len(ca.aborts)+len(ca.closed) != 0 || len(cb.gone) != 0 {
		t.Errorf("gone %v and %v, aborts %v, closed %v", ca.gone, cb.gone, ca.aborts, ca.closed)
	}
	if !slices.Equal(ca.news, []scsi.LUN{scsi.FlatLUN(0)}) || len(cb.news) != 0 {
		t.Errorf("news %v and %v", ca.news, cb.news)
	}
	if a.nexus.Present(scsi.FlatLUN(1)) || !a.nexus.Present(scsi.FlatLUN(0)) {
		t.Error("the LUNs are not what they should be")
	}
	a.Abort(scsi.FlatLUN(0))
	a.Abort(scsi.FlatLUN(1)) // gone
	b.Acknowledged(scsi.FlatLUN(0))
	if !slices.Equal(m.notes, []string{"abort 1 " + host1, "acknowledged 2 " + host2}) {
		t.Errorf("notes %q", m.notes)
	}

	c.Targets[0].Access = []Access{{Initiator: host1}} // host2 is denied
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	if len(cb.closed) != 1 || !errors.Is(cb.closed[0], ErrDenied) || len(ca.closed) != 0 {
		t.Errorf("closed %v and %v", ca.closed, cb.closed)
	}
	if err := r.Apply(Config{}); err != nil {
		t.Fatal(err)
	}
	if len(ca.closed) != 1 || !errors.Is(ca.closed[0], ErrRemoved) {
		t.Errorf("closed %v", ca.closed)
	}
	a.End()
	b.End()
}

// cancelling notes when the commands of a session are cancelled, beside what the mediums note.
type cancelling struct {
	control
	m *mediums
}

func (c *cancelling) AbortUnit(lun scsi.LUN) {
	c.m.notes = append(c.m.notes, fmt.Sprint("cancel ", lun))
}

// TestFenceAfterCancel: a reset by another nexus, and the end of everything, fence what is cancelled by then.
func TestFenceAfterCancel(t *testing.T) {
	r, m := newRegistry(t, roomy)
	e := r.NewEnv(Port{Group: 1, RelativeID: 1})
	if _, err := e.Admit(login.Admission{InitiatorName: host1, TargetName: nameA}); err != nil {
		t.Fatal(err)
	}
	a := e.Admitted()
	if _, err := a.Attach(&cancelling{m: m}); err != nil {
		t.Fatal(err)
	}
	b, _ := admit(t, r, host2, nameB, 1)
	b.nexus.ResetLogicalUnit(scsi.FlatLUN(0), func() {}) // volume 2, at LUN 1 for the other one
	if want := []string{fmt.Sprint("cancel ", scsi.FlatLUN(1)), "abort 2 " + host1}; !slices.Equal(m.notes, want) {
		t.Errorf("%q, want %q", m.notes, want)
	}
	m.notes = nil
	a.AbortAll()
	if want := []string{"abort 1 " + host1, "abort 2 " + host1}; !slices.Equal(m.notes, want) {
		t.Errorf("%q, want %q", m.notes, want)
	}
	a.End()
	b.End()
	if err := r.Apply(Config{}); err != nil {
		t.Fatal(err)
	}
	a.AbortAll() // nothing is left that could be fenced
}

func TestCloseBeforeAttach(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	e := r.NewEnv(Port{Group: 1, RelativeID: 1})
	if _, err := e.Admit(login.Admission{InitiatorName: host1, TargetName: nameA}); err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(Config{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Admitted().Attach(&control{}); !errors.Is(err, ErrRemoved) {
		t.Errorf("attached: %v", err)
	}
	e.Admitted().End()
	if _, err := e.Admit(login.Admission{InitiatorName: host1, TargetName: nameA}); status(err) != login.StatusAuthorizationFailure {
		t.Errorf("admitted to a removed target: %v", err)
	}
}

func TestColdReset(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	a, ca := admit(t, r, host1, nameA, 1)
	_, cb := admit(t, r, host1, nameA, 2)
	_, cc := admit(t, r, host1, nameB, 1)
	a.ColdReset()
	if len(ca.closed) != 0 || len(cb.closed) != 1 || len(cc.closed) != 0 {
		t.Errorf("closed %v, %v, %v", ca.closed, cb.closed, cc.closed)
	}
}

func TestApplyRefuses(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	for name, change := range map[string]func(*Config){
		"name":         func(c *Config) { c.Targets[0].Name = "not a name" },
		"twice":        func(c *Config) { c.Targets[0].Name = nameA },
		"volume":       func(c *Config) { c.Targets[0].LUNs[0].Volume = 9 },
		"LUN twice":    func(c *Config) { c.Targets[1].LUNs[1].Number = 0 },
		"LUN":          func(c *Config) { c.Targets[1].LUNs[1].Number = scsi.LUNMax + 1 },
		"initiator":    func(c *Config) { c.Targets[0].Access[0].Initiator = "x" },
		"access twice": func(c *Config) { c.Targets[0].Access = append(c.Targets[0].Access, c.Targets[0].Access[0]) },
		"unit":         func(c *Config) { c.Volumes[1] = scsi.UnitConfig{} },
	} {
		c := config()
		change(&c)
		if err := r.Apply(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if len(r.Targets(host1, "")) != 2 {
			t.Fatalf("%s changed something", name)
		}
	}
	c := config()
	c.Volumes[1] = unit(1, 1<<19)
	if err := r.Apply(c); !errors.Is(err, ErrShrink) {
		t.Errorf("shrinking: %v", err)
	}
}

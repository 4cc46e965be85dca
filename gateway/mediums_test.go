package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const testTarget = "iqn.2026-11.dev.ashlar:demo"

// visitors is a session table that exports testVolume to everybody, over ms.
func visitors(t *testing.T, ms *mediums) *target.Registry {
	t.Helper()
	r := target.New(backends{ms}, target.Limits{Sessions: sessions, SessionsPerInitiator: sessionsPerInitiator})
	unit := scsi.UnitConfig{
		Identity: scsi.Identity{NAA: [16]byte{0x60}, Serial: "5", Vendor: scsi.DefaultVendor, Product: "P", Revision: "1"},
		Capacity: 1 << 20, BlockLength: 512, Limits: scsi.DefaultLimits(),
	}
	must(t, r.Apply(target.Config{
		Volumes: map[uint64]scsi.UnitConfig{uint64(testVolume): unit},
		Targets: []target.Target{{
			Name: testTarget, LUNs: []target.LUN{{Volume: uint64(testVolume)}}, Access: []target.Access{{Initiator: target.AnyInitiator}},
		}},
	}))
	return r
}

// visit is a session of an initiator, with the medium that it reaches.
type visit struct {
	*target.Session
	disk scsi.Backend
}

// deaf is a target.Control: the sessions of these tests end when the test says so.
type deaf struct{}

func (deaf) Close(error)                    {}
func (deaf) AbortUnit(scsi.LUN)             {}
func (deaf) LUNsChanged(scsi.LUN)           {}
func (deaf) RemoveUnit(scsi.LUN)            {}
func (deaf) Numbers() (exp, last pdu.CmdSN) { return 0, 0 }

// logIn makes a session; isid tells those of one initiator apart.
func logIn(r *target.Registry, initiator string, isid byte, c target.Control) (visit, error) {
	e := r.NewEnv(target.Port{Group: 1, RelativeID: 1})
	if _, err := e.Admit(login.Admission{InitiatorName: initiator, TargetName: testTarget, ISID: pdu.ISID{5: isid}}); err != nil {
		return visit{}, err
	}
	nexus, err := e.Admitted().Attach(c)
	if err != nil {
		e.Admitted().End()
		return visit{}, err
	}
	_, disk, ok := nexus.Unit(scsi.FlatLUN(0))
	if !ok {
		return visit{}, errors.New("LUN 0 is absent")
	}
	return visit{e.Admitted(), disk}, nil
}

// tally returns how many media there are, and how many of them no session uses.
func (ms *mediums) tally() (all, unused int) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return len(ms.mu.open), ms.mu.unused.Len()
}

// TestManyInitiators has hosts with 10,000 names log in, write and log out, several at a time: what is left of them is
// bounded, and the medium of a host that stays is never dropped.
func TestManyInitiators(t *testing.T) {
	const names, workers, bound = 10_000, 8, 64
	f := newFakeStore()
	ms := testMediums(t, f)
	ms.unusedMax = bound
	r := visitors(t, ms)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stays, err := logIn(r, "iqn.2026-11.dev.host:stays", 0, deaf{})
	must(t, err)
	must(t, stays.disk.Write(ctx, make([]byte, 512), 0))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := w; n < names; n += workers {
				if err := passBy(ctx, r, fmt.Sprintf("iqn.2026-11.dev.host:%d", n), n%3 != 0); err != nil {
					t.Error(err)
					return
				}
				if all, _ := ms.tally(); all > 1+workers+bound {
					t.Errorf("%d media with %d sessions", all, 1+workers)
					return
				}
			}
		})
	}
	for range 100 {
		must(t, stays.disk.Write(ctx, make([]byte, 512), 0))
	}
	wg.Wait()
	if all, unused := ms.tally(); all != 1+bound || unused != bound {
		t.Errorf("%d media are left, %d of them unused, want %d and %d", all, unused, 1+bound, bound)
	}
	if again := ms.Open(testVolume, stays.Initiator()); scsi.Backend(again) != stays.disk {
		t.Error("a medium in use was dropped")
	}
	must(t, stays.disk.Write(ctx, make([]byte, 512), 0))
	f.mu.Lock()
	defer f.mu.Unlock()
	if first, last := f.requests[0], f.requests[len(f.requests)-1]; first.Fence != last.Fence || first.Initiator != last.Initiator {
		t.Errorf("the host that stays wrote as %d under %v, then as %d under %v", first.Initiator, first.Fence, last.Initiator, last.Fence)
	}
}

// passBy is a session, in which the initiator writes or does not reach the medium.
func passBy(ctx context.Context, r *target.Registry, initiator string, write bool) error {
	v, err := logIn(r, initiator, 0, deaf{})
	if err != nil {
		return err
	}
	defer v.End()
	if !write {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return v.disk.Write(ctx, make([]byte, 512), 0)
}

// TestUnused keeps what was used last, and of that only what has an epoch.
func TestUnused(t *testing.T) {
	ms := testMediums(t, newFakeStore())
	ms.unusedMax = 2
	block := make([]byte, 512)
	use := func(initiator string, write bool) *medium {
		t.Helper()
		m := ms.Open(testVolume, initiator)
		if write {
			must(t, m.Write(t.Context(), block, 0))
		}
		return m
	}
	has := func(initiator string) bool { return ms.mu.open[mediumKey{testVolume, initiator}] != nil }
	ms.Release(use("idle", false))
	if has("idle") {
		t.Error("a medium that was never reached is kept")
	}
	a, b := use("a", true), use("b", true)
	ms.Release(a)
	ms.Release(b)
	ms.Release(use("a", false)) // a is now the one that was used last
	twice := use("twice", true)
	ms.Open(testVolume, "twice")
	ms.Release(twice)
	ms.Release(use("c", true))
	if !has("a") || has("b") || !has("c") || !has("twice") {
		t.Errorf("a %v, b %v, c %v, twice %v", has("a"), has("b"), has("c"), has("twice"))
	}
	if err := b.Write(t.Context(), block, 0); !errors.Is(err, scsi.ErrStaleEpoch) {
		t.Errorf("a dropped medium answers %v", err)
	}
	ms.update(testVolumes(1), func(_ layout.VolumeID, initiator string) bool { return initiator == "c" })
	if all, unused := ms.tally(); all != 1 || unused != 1 {
		t.Errorf("%d media, %d unused, after all but one were taken away", all, unused)
	}
	again := use("twice", true)
	ms.Release(twice) // its LUN went away after it had come back
	if all, unused := ms.tally(); again == twice || !has("twice") || all != 2 || unused != 1 {
		t.Errorf("%d media, %d unused, after one came back", all, unused)
	}
}

// TestComingAndGoing has a few hosts log in and out at two gateways at random, several sessions at a time. No command fails, none
// is served twice, none is under the epoch of another one, and nothing is left.
func TestComingAndGoing(t *testing.T) {
	const workers, rounds, hosts = 8, 40, 3
	f := newFakeStore()
	var gateways [2]*Gateway
	for i := range gateways {
		g := &Gateway{log: zap.NewNop(), mediums: mediumsOf(t, f, fakeNode{f, uint64(i + 1)})}
		g.mediums.unusedMax = 1 + i*hosts
		g.registry = visitors(t, g.mediums)
		gateways[i] = g
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for range rounds {
				g := gateways[rnd.IntN(len(gateways))]
				if err := comeAndGo(g, fmt.Sprintf("iqn.2026-11.dev.host:%d", rnd.IntN(hosts)), byte(w), rnd.IntN(4)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, g := range gateways {
		must(t, comeAndGo(g, "iqn.2026-11.dev.host:0", 0, 1))
		if all, unused := g.mediums.tally(); all != unused || all > g.mediums.unusedMax {
			t.Errorf("%d media are left, %d of them unused", all, unused)
		}
		if n := len(g.registry.Sessions()); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	}
	if f.repeated != 0 {
		t.Errorf("%d of %d requests had the number of another one", f.repeated, len(f.requests))
	}
}

// comeAndGo is a session with some writes, and perhaps an abort.
func comeAndGo(g *Gateway, initiator string, isid byte, writes int) error {
	ctx, cancel := context.WithCancel(context.Background())
	v, err := logIn(g.registry, initiator, isid, deaf{})
	if err != nil {
		cancel()
		return err
	}
	defer v.End()
	defer cancel()
	for range writes {
		if err := v.disk.Write(ctx, make([]byte, 512), 0); err != nil {
			return err
		}
	}
	if writes == 3 {
		v.Abort(scsi.FlatLUN(0))
	}
	return nil
}

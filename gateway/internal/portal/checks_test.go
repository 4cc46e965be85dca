package portal

import (
	"context"
	"os"
	"regexp"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/checks"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Names and secrets of the target that the checks are run against.
const (
	chapTarget    = "iqn.2026-11.dev.ashlar:chap"
	foreignTarget = "iqn.2026-11.dev.ashlar:foreign"
	foreignVolume = 8
	movedTarget   = "iqn.2026-11.dev.ashlar:moved"
	goneTarget    = "iqn.2026-11.dev.ashlar:gone"
	chapUser      = "user"
	chapSecret    = "initiator-secret"
	chapMutual    = "target-secret-16"
)

// checked is a configuration with an open target, one with CHAP, and one that only another initiator may use.
func checked(addr string) target.Config {
	c := exported(addr, testSize, 512)
	foreign := unitConfig(testSize, 512)
	foreign.Identity.NAA[15]++
	foreign.Identity.Serial = "0000000000000008"
	c.Volumes[foreignVolume] = foreign
	c.Targets = append(c.Targets, target.Target{
		Name: chapTarget, LUNs: []target.LUN{{Number: 0, Volume: testVolume}},
		Access: []target.Access{{Initiator: target.AnyInitiator, Auth: login.Auth{
			Initiator: &login.Credentials{User: chapUser, Secrets: []login.Secret{login.Secret(chapSecret)}},
			Mutual:    &login.MutualCredentials{User: "target", Secret: login.Secret(chapMutual)},
		}}},
	}, target.Target{
		Name: foreignTarget, LUNs: []target.LUN{{Number: 0, Volume: foreignVolume}},
		Access: []target.Access{{Initiator: "iqn.2026-11.dev.ashlar:other"}},
	})
	return c
}

// elsewhere starts another portal, and returns its address and the targets that are served there.
func elsewhere(t testing.TB) (addr string, moved []target.Target) {
	t.Helper()
	cfg := Default()
	cfg.Addresses = []string{"127.0.0.1:0"}
	m := &mediums{disks: map[uint64]*disk{testVolume: newDisk(testSize)}}
	serverOf(t, cfg, m, func(at string) target.Config {
		addr = at
		c := exported(at, testSize, 512)
		for _, name := range []string{movedTarget, goneTarget} {
			to := c.Targets[0]
			to.Name, to.Redirect = name, &login.Redirect{Permanent: name == goneTarget, Address: addr}
			moved = append(moved, to)
		}
		c.Targets = moved
		return c
	})
	return addr, moved
}

// checkedServer is a portal over memory for the checks, and what they are told of it.
func checkedServer(t testing.TB) (*Portal, *peer.Target) {
	t.Helper()
	cfg := Default()
	cfg.Addresses = []string{"127.0.0.1:0"}
	cfg.MemoryMax = 256 << 20
	cfg.LoginTimeout = 2 * time.Second
	m := &mediums{disks: map[uint64]*disk{testVolume: newDisk(testSize), foreignVolume: newDisk(testSize)}}
	other, moved := elsewhere(t)
	p, _ := serverOf(t, cfg, m, func(addr string) target.Config {
		c := checked(addr)
		c.Targets = append(c.Targets, moved...)
		return c
	})
	foreign := checked("x:1").Volumes[foreignVolume].Identity.NAA
	return p, &peer.Target{
		Portal: p.Addrs()[0].String(), Name: testTarget, Initiator: testInitiator,
		Foreign: foreign[:], LoginTimeout: cfg.LoginTimeout,
		Moved: []peer.Moved{{Name: movedTarget, Address: other}, {Name: goneTarget, Permanent: true, Address: other}},
		CHAP: &peer.CHAP{
			Name: chapTarget, Initiator: testInitiator, User: chapUser, Secret: chapSecret, TargetUser: "target", Mutual: chapMutual,
			Algorithms: []int{wire.CHAPMD5, wire.CHAPSHA1, wire.CHAPSHA256, wire.CHAPSHA3},
		},
	}
}

// witness is an initiator that must not notice what the checks do to others. It has a logical unit of its own, whose
// data it reads back all the time.
func witness(t *testing.T, g *peer.Target) (rounds *atomic.Int64) {
	t.Helper()
	h, err := wire.Open(t.Context(), g.Portal, wire.Login{Initiator: "iqn.2026-11.dev.ashlar:other", Target: foreignTarget})
	if err == nil {
		err = h.Ready()
	}
	if err != nil {
		t.Fatal(err)
	}
	rounds = new(atomic.Int64)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		data := random(4096)
		for lba := byte(0); ; lba += 8 {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if r, err := h.Do([]byte{0x2a, 0, 0, 0, 0, lba, 0, 0, 8, 0}, 0, data); err != nil || r.Err() != nil {
				t.Errorf("the witness can not write: %v, %v", err, r.Err())
				return
			}
			if r, err := h.Do([]byte{0x28, 0, 0, 0, 0, lba, 0, 0, 8, 0}, len(data), nil); err != nil || string(r.Data) != string(data) {
				t.Errorf("the witness can not read what it wrote: %v, %d bytes", err, len(r.Data))
				return
			}
			rounds.Add(1)
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		h.Close()
	})
	return rounds
}

// Bounds of what the portal holds when nobody but the witness is there.
const (
	idleGoroutines = 24 // beyond those that were there before the checks
	idleBytes      = 32 << 20
)

// TestChecks runs the checks of an independent initiator, each over sockets of its own: no panic, no memory or goroutine
// left behind, and a witness that notices nothing. CHECKS selects by regular expression (suite/title).
func TestChecks(t *testing.T) {
	only := regexp.MustCompile(os.Getenv("CHECKS"))
	p, g := checkedServer(t)
	rounds := witness(t, g)
	before := runtime.NumGoroutine()
	reserved := p.Stats().MemoryUsed
	for _, c := range checks.All() {
		name := c.Suite + "/" + c.Title
		if !only.MatchString(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			began := rounds.Load()
			c.Run(t, g)
			if p.Stats().Panics != 0 {
				t.Fatal("a goroutine of the portal panicked")
			}
			eventually(t, "the witness goes on", func() bool { return rounds.Load() > began })
		})
		if p.Stats().Panics != 0 {
			t.Fatal("no use in going on after a panic")
		}
	}
	eventually(t, "connections of the checks end", func() bool { return p.Stats().Conns == 1 })
	eventually(t, "memory is given back", func() bool { return p.Stats().MemoryUsed <= reserved })
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before+idleGoroutines })
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if held := m.HeapInuse - 2*testSize; int64(held) > idleBytes {
		t.Logf("%d MiB of heap beside the disks", held>>20)
	}
}

// TestChecksDrain runs the check that ends the target.
func TestChecksDrain(t *testing.T) {
	p, g := checkedServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	done := make(chan struct{})
	g.Drain = func() {
		go func() {
			defer close(done)
			p.Drain(ctx)
		}()
	}
	for _, c := range checks.Feature() {
		if c.Title == "asynchronous logout request" {
			t.Run(c.Title, func(t *testing.T) { c.Run(t, g) })
		}
	}
	<-done
}

// TestChallengesAfterRestart compares the challenges of two portals that were just started.
func TestChallengesAfterRestart(t *testing.T) {
	seen := map[string]bool{}
	for range 4 {
		_, g := checkedServer(t)
		c, err := wire.Dial(t.Context(), g.Portal)
		if err != nil {
			t.Fatal(err)
		}
		h := wire.NewHost(c, 1)
		if _, err := h.Step(0, wire.Security, 0, "InitiatorName="+testInitiator, "TargetName="+chapTarget, "AuthMethod=CHAP"); err != nil {
			t.Fatal(err)
		}
		r, err := h.Step(0, wire.Security, 0, "CHAP_A=5")
		if err != nil {
			t.Fatal(err)
		}
		_, challenge, err := wire.Challenge(r.Data)
		if err != nil || len(challenge) < 16 || seen[string(challenge)] {
			t.Fatalf("challenge % x, %v", challenge, err)
		}
		seen[string(challenge)] = true
		c.Close()
	}
}

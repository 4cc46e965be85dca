package target

import (
	"fmt"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// paths are n gateways that are up, with IDs from 1 on, and a target that all of them serve.
func paths(n int) (*snapshot, *target) {
	s := &snapshot{}
	for i := range n {
		s.gateways = append(s.gateways, Gateway{ID: uint64(i + 1), Port: Port{Group: uint16(i + 10), RelativeID: uint16(i + 20)}, Up: true})
	}
	return s, &target{}
}

// optimized returns the place of the one group that is active/optimized, and checks that there is one and what the others are.
func optimized(t *testing.T, s *snapshot, tg *target, initiator string) int {
	t.Helper()
	found := -1
	for i, g := range s.groups(tg, initiator) {
		gw := s.gateways[i]
		want := scsi.PortNonOptimized
		switch {
		case !gw.Up:
			want = scsi.PortUnavailable
		case g.State == scsi.PortOptimized && found < 0:
			found, want = i, scsi.PortOptimized
		}
		if g.State != want || g.Tag != gw.Port.Group || g.Port != gw.Port.RelativeID {
			t.Fatalf("gateway %d: %+v, want state %d", gw.ID, g, want)
		}
	}
	return found
}

func TestOneGatewayIsOptimized(t *testing.T) {
	const hosts = 3000
	s, tg := paths(3)
	before, count := make([]int, hosts), make([]int, 3)
	name := func(i int) string { return fmt.Sprintf("iqn.1993-08.org.debian:01:%d", i) }
	for i := range hosts {
		before[i] = optimized(t, s, tg, name(i))
		count[before[i]]++
	}
	for i, n := range count {
		if n < hosts/3-150 || n > hosts/3+150 {
			t.Errorf("gateway %d has %d of %d hosts", i+1, n, hosts)
		}
	}
	// Only the hosts of the gateway that goes down move, and they come back to it.
	s.gateways[1].Up = false
	for i := range hosts {
		if now := optimized(t, s, tg, name(i)); before[i] != 1 && now != before[i] || now == 1 {
			t.Fatalf("host %d moved from %d to %d", i, before[i], now)
		}
	}
	s.gateways[1].Up = true
	for i := range hosts {
		if now := optimized(t, s, tg, name(i)); now != before[i] {
			t.Fatalf("host %d is at %d, was at %d", i, now, before[i])
		}
	}
	// The order in which gateways are known makes no difference.
	s.gateways[0], s.gateways[2] = s.gateways[2], s.gateways[0]
	for i := range hosts {
		if now := optimized(t, s, tg, name(i)); now != 2-before[i] {
			t.Fatalf("host %d is at place %d, was at %d", i, now, before[i])
		}
	}
}

func TestRedirectedGatewayIsNotOptimized(t *testing.T) {
	s, tg := paths(3)
	tg.elsewhere = []uint64{1, 3}
	for i := range 100 {
		if now := optimized(t, s, tg, fmt.Sprint(i)); now != 1 {
			t.Fatalf("host %d is at %d", i, now)
		}
	}
	s.gateways[1].Up = false // then one that redirects: a host that is still there goes on
	for i := range 100 {
		if now := optimized(t, s, tg, fmt.Sprint(i)); now != 0 && now != 2 {
			t.Fatalf("host %d is at %d", i, now)
		}
	}
	s.gateways[0].Up, s.gateways[2].Up = false, false
	if now := optimized(t, s, tg, "x"); now != -1 {
		t.Fatal(now)
	}
	if got := (&snapshot{}).groups(tg, "x"); len(got) != 0 {
		t.Fatal(got)
	}
}

// TestPathsOfSessions: sessions are told of the gateways as they are when they begin, and of changes.
func TestPathsOfSessions(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	c := config()
	for id := uint64(1); id <= 2; id++ {
		c.Gateways = append(c.Gateways, Gateway{ID: id, Port: Port{Group: uint16(id), RelativeID: uint16(id)}, Up: true})
	}
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	s, _ := admit(t, r, host1, nameA, 1)
	do := func(cdb ...byte) *scsi.Command {
		t.Helper()
		cmd := &scsi.Command{CDB: cdb, LUN: scsi.FlatLUN(1), MaxDataIn: 4096}
		if err := s.nexus.Execute(t.Context(), cmd); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	ready := func() scsi.SenseCode { return do(0, 0, 0, 0, 0, 0).SenseCode() }
	states := func() [2]scsi.PortGroup {
		t.Helper()
		d := do(0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0).DataIn
		if len(d) != 4+2*12 {
			t.Fatalf("% X", d)
		}
		var out [2]scsi.PortGroup
		for i := range out {
			g := d[4+12*i:]
			out[i] = scsi.PortGroup{Tag: uint16(g[3]), Port: uint16(g[11])}
			switch g[0] {
			case 1:
				out[i].State = scsi.PortNonOptimized
			case 3:
				out[i].State = scsi.PortUnavailable
			}
		}
		return out
	}
	if code := ready(); code != scsi.AttentionPowerOn {
		t.Fatal(code)
	}
	both := states()
	if both[0].Tag != 1 || both[1].Tag != 2 || both[0].State == both[1].State {
		t.Fatalf("%+v", both)
	}
	// The volume's other properties are as they were: nothing is told.
	if err := r.Apply(c); err != nil || ready() != scsi.NoSense {
		t.Fatal("something was told")
	}
	next := c
	next.Gateways = []Gateway{c.Gateways[0], c.Gateways[1]}
	next.Gateways[1].Up = false
	if err := r.Apply(next); err != nil {
		t.Fatal(err)
	}
	if code := ready(); code != scsi.AttentionAccessChanged {
		t.Fatal(code)
	}
	if now := states(); now[0].State != scsi.PortOptimized || now[1].State != scsi.PortUnavailable {
		t.Fatalf("%+v", now)
	}
	if err := r.Apply(c); err != nil || ready() != scsi.AttentionAccessChanged || ready() != scsi.NoSense {
		t.Fatal("the gateway that is back was not told of, or twice")
	}
	if now := states(); now != both {
		t.Fatalf("%+v, was %+v", now, both)
	}
}

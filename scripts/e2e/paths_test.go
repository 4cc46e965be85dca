//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// Asymmetric access states.
const (
	optimized    = 0
	nonOptimized = 1
	unavailable  = 3
)

// accessStates reads REPORT TARGET PORT GROUPS with the extended header: the state of each group, in the order of their tags,
// each with one port.
func accessStates(ctx context.Context, t *testing.T, s *initiator.Session) []byte {
	t.Helper()
	c := &initiator.Command{CDB: [16]byte{0xA3, 0x2A}, In: make([]byte, 256)}
	binary.BigEndian.PutUint32(c.CDB[6:], 256)
	residual, err := s.Do(ctx, c)
	must(t, err)
	d := c.In[:256-residual]
	if len(d) < 8 || int(binary.BigEndian.Uint32(d)) != len(d)-4 || d[4] != 0x10 || (len(d)-8)%12 != 0 {
		t.Fatalf("% X", d)
	}
	var states []byte
	for g := d[8:]; len(g) > 0; g = g[12:] {
		if n := uint16(len(states) + 1); binary.BigEndian.Uint16(g[2:]) != n || g[7] != 1 || binary.BigEndian.Uint16(g[10:]) != n {
			t.Fatalf("group %d: % X", n, g[:12])
		}
		states = append(states, g[0])
	}
	return states
}

// place returns where accessStates has the group of the gateway that a session is at: the tag in page 83h, less 1.
func place(ctx context.Context, t *testing.T, s *initiator.Session) int {
	t.Helper()
	c := &initiator.Command{CDB: [16]byte{0x12, 0x01, 0x83, 0x01}, In: make([]byte, 256)}
	_, err := s.Do(ctx, c)
	must(t, err)
	at := bytes.Index(c.In, []byte{0x51, 0x95, 0x00, 0x04}) // iSCSI, target port group
	if at < 0 {
		t.Fatalf("no target port group: % X", c.In)
	}
	return int(binary.BigEndian.Uint16(c.In[at+6:])) - 1
}

// statesChanged tells whether a command ended with the unit attention of a change of access states.
func statesChanged(err error) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Key == 0x06 && s.ASC == 0x2A && s.ASCQ == 0x06
}

// awaitStatesChanged sends TEST UNIT READY until it is told of a change.
func awaitStatesChanged(ctx context.Context, t *testing.T, s *initiator.Session, limit time.Duration) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		_, err := s.Do(ctx, &initiator.Command{})
		switch {
		case statesChanged(err):
			t.Logf("told after %v", time.Since(began).Round(time.Millisecond))
			return
		case err != nil:
			t.Fatal(err)
		case time.Since(began) > limit:
			t.Fatalf("not told within %v", limit)
		}
	}
}

// TestPathsAreToldOf asks two gateways for the paths of hosts: both say the same, and each host has one gateway that is
// optimized. One stops in order and comes back, then is killed: the hosts of the other one are told each time, in the first
// case long before the metaserver would have noticed. A change of the metaserver is nothing that hosts hear of.
func TestPathsAreToldOf(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	hosts := map[int]*initiator.Session{} // by the place of the gateway that is optimized, the session at gateway 1
	var one int                           // the place of gateway 1
	for i := 0; len(hosts) < 2; i++ {
		if i == 64 {
			t.Fatal("all hosts are drawn to one gateway")
		}
		name := fmt.Sprint("paths-", i)
		s := host(ctx, t, cl, cl.Portals[0], name)
		one = place(ctx, t, s)
		states := accessStates(ctx, t, s)
		if other := accessStates(ctx, t, host(ctx, t, cl, cl.Portals[1], name)); !bytes.Equal(states, other) {
			t.Fatalf("%s: gateway 1 reports % X, gateway 2 % X", name, states, other)
		}
		best := bytes.IndexByte(states, optimized)
		if best < 0 || len(states) != 2 || states[1-best] != nonOptimized {
			t.Fatalf("%s: % X", name, states)
		}
		hosts[best] = s
	}
	// want looks at what the host that is drawn to gateway 1 is told of gateways 1 and 2, and then the other host.
	want := func(when string, states ...[2]byte) {
		t.Helper()
		for i, s := range []*initiator.Session{hosts[one], hosts[1-one]} {
			got := accessStates(ctx, t, s)
			if got[one] != states[i][0] || got[1-one] != states[i][1] {
				t.Errorf("%s: host %d is told %d and %d, want %v", when, i+1, got[one], got[1-one], states[i])
			}
		}
	}
	all := func(limit time.Duration) {
		t.Helper()
		for _, s := range hosts {
			awaitStatesChanged(ctx, t, s, limit)
		}
	}
	down, first, second := [2]byte{optimized, unavailable}, [2]byte{optimized, nonOptimized}, [2]byte{nonOptimized, optimized}

	must(t, cl.Signal("gateway-2", syscall.SIGTERM))
	all(2 * time.Second)
	want("gateway 2 stopped", down, down)
	awaitRoleGone(t, cl, "gateway-2")
	must(t, cl.StartRole(ctx, "gateway-2"))
	all(10 * time.Second)
	want("gateway 2 is back", first, second)

	must(t, cl.Kill("metaserver-1"))
	must(t, cl.StartRole(ctx, "metaserver-1"))
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		for _, s := range hosts {
			if _, err := s.Do(ctx, &initiator.Command{}); err != nil {
				t.Fatalf("after a restart of the metaserver: %v", err)
			}
		}
	}
	want("a new metaserver", first, second)

	must(t, cl.Kill("gateway-2"))
	all(15 * time.Second)
	want("gateway 2 killed", down, down)
}

// awaitRoleGone waits for the end of a process that was asked to stop.
func awaitRoleGone(t *testing.T, cl *cluster.Cluster, role string) {
	t.Helper()
	pid, err := cl.PID(role)
	for deadline := time.Now().Add(15 * time.Second); err == nil && cluster.Running(pid); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not stop", role)
		}
	}
}

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// Limits of the control plane's faults.
const (
	controlPause = time.Second      // the longest operation while the control plane is away (reliability F6)
	takeOver     = 10 * time.Second // until the standby is active
)

// TestFaultControlPlane kills and stops metaservers and etcd under load. The data path must not notice.
func TestFaultControlPlane(t *testing.T) {
	cl := startCluster(t, cluster.Options{Metaservers: 2})
	awaitHealthy(t, cl, 30*time.Second)
	r := startLoad(t, cl, mixed)
	r.check("before", 0)
	ok := t.Run("kill the active metaserver", func(t *testing.T) { killActive(t, cl, r) }) &&
		t.Run("stop the active metaserver", func(t *testing.T) { stopActive(t, cl, r) }) &&
		t.Run("stop etcd", func(t *testing.T) { stopEtcd(t, cl, r) })
	if !ok {
		return
	}
	r.stop()
	r.verify("after the control plane's faults")
	if n := r.client.Reconnects(); n != 0 {
		t.Errorf("the session ended %d times because the control plane did", n)
	}
}

// metaserver is the role of the metaserver with index i.
func metaserver(i int) string { return fmt.Sprintf("metaserver-%d", i+1) }

func killActive(t *testing.T, cl *cluster.Cluster, r *loaded) {
	was := active(t, cl, takeOver)
	must(t, cl.Kill(metaserver(was)))
	start := time.Now()
	now := awaitOther(t, cl, was)
	t.Logf("%s is active %v after the kill of %s", metaserver(now), time.Since(start).Round(100*time.Millisecond), metaserver(was))
	admin(t, cl, "volume", "create", "after-kill", "--size", "64MiB")
	r.flow(50)
	r.check("kill -9 "+metaserver(was), controlPause)
	must(t, cl.StartRole(t.Context(), metaserver(was)))
	// The administration works through either address: a standby sends its caller to the active one.
	for i, addr := range cl.Meta {
		if _, err := cl.AdminAt(t.Context(), addr, "volume", "show", "after-kill"); err != nil {
			t.Errorf("through %s: %v", metaserver(i), err)
		}
	}
	awaitHealthy(t, cl, 30*time.Second)
}

// awaitOther waits until another metaserver than was is active.
func awaitOther(t *testing.T, cl *cluster.Cluster, was int) int {
	t.Helper()
	other := (was + 1) % len(cl.Meta)
	deadline := time.Now().Add(takeOver)
	var o object
	var err error
	for time.Now().Before(deadline) {
		if o, err = status(t, cl, cl.Meta[other]); err == nil && activeOf(cl, o) == other {
			return other
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s is not active %v after the loss of %s: %v %v", metaserver(other), takeOver, metaserver(was), o, err)
	return -1
}

// stopActive stops the active metaserver for longer than its lease: when it runs again it must step down.
func stopActive(t *testing.T, cl *cluster.Cluster, r *loaded) {
	const stopped = 12 * time.Second
	was := active(t, cl, takeOver)
	must(t, cl.Signal(metaserver(was), syscall.SIGSTOP))
	start := time.Now()
	now := awaitOther(t, cl, was)
	t.Logf("%s is active %v after the stop of %s", metaserver(now), time.Since(start).Round(100*time.Millisecond), metaserver(was))
	time.Sleep(time.Until(start.Add(stopped)))
	must(t, cl.Signal(metaserver(was), syscall.SIGCONT))
	for range 10 {
		if got := active(t, cl, takeOver); got != now {
			t.Fatalf("%s is active after %s went on, want %s to stay", metaserver(got), metaserver(was), metaserver(now))
		}
		if _, err := cl.AdminAt(t.Context(), cl.Meta[was], "volume", "list"); err != nil {
			t.Logf("through the resumed %s: %v", metaserver(was), err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	r.flow(50)
	r.check("SIGSTOP "+metaserver(was), controlPause)
}

// stopEtcd stops etcd: I/O goes on, and an initiator that the gateway holds may log in again.
func stopEtcd(t *testing.T, cl *cluster.Cluster, r *loaded) {
	roles := cl.Roles("etcd-")
	if len(roles) == 0 {
		t.Fatal("no etcd process in DIR/run")
	}
	// The same initiator under another ISID: a second session of a host that is known.
	again := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s, err := initiator.Dial(ctx, initiator.Config{
			Portal: cl.Portals[0], Target: cl.Target, LUN: cl.LUN,
			Name: "iqn.2026-11.dev.ashlar.test:load", ISID: [6]byte{0x80, 1, 2, 3, 0, 9},
		})
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.Ready(ctx); err != nil {
			return err
		}
		blocks, lb, err := s.Capacity(ctx)
		if err != nil {
			return err
		}
		return s.Read(ctx, blocks-1, lb, make([]byte, lb))
	}
	must(t, again())
	r.check("before the stop of etcd", controlPause)
	for _, role := range roles {
		must(t, cl.Signal(role, syscall.SIGSTOP))
	}
	start, away := time.Now(), seconds(t, 20)
	for _, at := range []time.Duration{away / 10, away / 2, away - time.Second} {
		time.Sleep(time.Until(start.Add(at)))
		if err := again(); err != nil {
			t.Errorf("a known initiator can not log in %v after etcd went away: %v", at, err)
		}
	}
	if _, err := cl.Admin(t.Context(), "volume", "list", "--timeout", "1s"); err == nil || !strings.Contains(err.Error(), "is etcd reachable?") {
		t.Errorf("administration while etcd is away: %v", err)
	}
	time.Sleep(time.Until(start.Add(away)))
	r.flow(50)
	rep := r.check(fmt.Sprintf("SIGSTOP etcd for %v", time.Since(start).Round(time.Second)), controlPause)
	t.Logf("longest operation while etcd was away: %v", rep.Latency.Max().Round(time.Millisecond))
	for _, role := range roles {
		must(t, cl.Signal(role, syscall.SIGCONT))
	}
	start = time.Now()
	active(t, cl, 2*takeOver)
	awaitHealthy(t, cl, 30*time.Second)
	t.Logf("administration works %v after etcd went on", time.Since(start).Round(100*time.Millisecond))
	r.check("after etcd's return", controlPause)
}

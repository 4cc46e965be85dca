//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// Limits of an administrator's command.
const (
	// commandMax: all gateways answer.
	commandMax = 2 * time.Second
	// commandSilentMax: one does not.
	commandSilentMax = 5 * time.Second
)

// changed runs a command that changes what is exported, within a limit, and returns the gateways that it names.
func changed(t *testing.T, cl *cluster.Cluster, limit time.Duration, args ...string) []string {
	t.Helper()
	begin := time.Now()
	text := admin(t, cl, append(args, "-o", "json")...)
	took := time.Since(begin)
	t.Logf("%s: %v", strings.Join(args[:2], " "), took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("%s took %v, limit %v", strings.Join(args, " "), took, limit)
	}
	var out struct {
		Pending []string `json:"pending_gateways"`
	}
	must(t, json.Unmarshal([]byte(text), &out))
	return out.Pending
}

// at logs in at one gateway and asks for the capacity of a LUN.
func at(t *testing.T, portal, target, name string, lun uint16) (*initiator.Session, uint64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.Config{Portal: portal, Target: target, LUN: lun, Name: name})
	if err != nil {
		return nil, 0, err
	}
	if err = s.Ready(ctx); err == nil {
		var blocks uint64
		var lb int
		if blocks, lb, err = s.Capacity(ctx); err == nil {
			return s, blocks * uint64(lb), nil
		}
	}
	s.Close()
	return nil, 0, err
}

// TestAccessAtOnce: what an administrator changes is in force at every gateway when the command ends.
func TestAccessAtOnce(t *testing.T) {
	const target, host = "iqn.2026-11.dev.ashlar.test:at-once", "iqn.2026-11.dev.ashlar.test:at-once-host"
	cl := startCluster(t, cluster.Options{Gateways: 2})
	do := func(args ...string) {
		t.Helper()
		if p := changed(t, cl, commandMax, args...); len(p) > 0 {
			t.Errorf("%s: %q are named", strings.Join(args, " "), p)
		}
	}
	admin(t, cl, "volume", "create", "at-once", "--size", "64MiB")
	do("target", "create", target)
	for round := range 3 {
		do("target", "map", target, "--lun", "1", "--volume", "at-once")
		do("target", "allow", target, "--initiator", host)
		size := uint64(64+round) << 20
		do("volume", "resize", "at-once", "--size", fmt.Sprint(size))
		var open []*initiator.Session
		for i, portal := range cl.Portals {
			s, got, err := at(t, portal, target, host, 1)
			if err != nil || got != size {
				t.Fatalf("gateway-%d just after \"allow\" and \"resize\": %d bytes, %v; want %d", i+1, got, err, size)
			}
			defer s.Close()
			open = append(open, s)
		}
		do("target", "deny", target, "--initiator", host)
		for i, s := range open {
			select {
			case <-s.Done():
			case <-time.After(time.Second):
				t.Errorf("gateway-%d: the session is still open 1 s after \"deny\"", i+1)
			}
			var refused *initiator.LoginError
			if _, _, err := at(t, cl.Portals[i], target, host, 1); !errors.As(err, &refused) {
				t.Errorf("gateway-%d just after \"deny\": %v", i+1, err)
			}
		}
		do("target", "unmap", target, "--lun", "1")
	}
	silentGateway(t, cl, target, host)
}

// silentGateway stops a gateway: the command ends in time, names it, and the other one has the change. It has it too, soon
// after it goes on.
func silentGateway(t *testing.T, cl *cluster.Cluster, target, host string) {
	must(t, cl.Signal("gateway-2", syscall.SIGSTOP))
	resumed := false
	defer func() {
		if !resumed {
			must(t, cl.Signal("gateway-2", syscall.SIGCONT))
		}
	}()
	p := changed(t, cl, commandSilentMax, "target", "map", target, "--lun", "2", "--volume", "at-once")
	if len(p) != 1 || !strings.HasPrefix(p[0], "gateway-2 ") {
		t.Errorf("with gateway-2 stopped %q are named", p)
	}
	changed(t, cl, commandSilentMax, "target", "allow", target, "--initiator", host)
	s, _, err := at(t, cl.Portals[0], target, host, 2)
	if err != nil {
		t.Fatalf("gateway-1: %v", err)
	}
	s.Close()
	must(t, cl.Signal("gateway-2", syscall.SIGCONT))
	resumed = true
	for begin := time.Now(); time.Since(begin) < 5*time.Second; time.Sleep(50 * time.Millisecond) {
		if s, _, err = at(t, cl.Portals[1], target, host, 2); err == nil {
			s.Close()
			return
		}
	}
	t.Errorf("gateway-2 does not have the change 5 s after it went on: %v", err)
}

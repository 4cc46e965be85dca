//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// Service actions of PERSISTENT RESERVE OUT, and the type that the tests use.
const (
	prRegister, prReserve, prPreemptAndAbort = 0, 1, 5
	prRegistrantsOnly                        = 5 // write exclusive, registrants only
)

// reserveOut sends PERSISTENT RESERVE OUT (SPC-4 6.16). A unit attention is taken and the command sent again.
func reserveOut(ctx context.Context, s *initiator.Session, action, typ byte, key, service uint64) error {
	for {
		c := &initiator.Command{Out: make([]byte, 24)}
		c.CDB[0], c.CDB[1], c.CDB[2], c.CDB[8] = 0x5F, action, typ, 24
		binary.BigEndian.PutUint64(c.Out, key)
		binary.BigEndian.PutUint64(c.Out[8:], service)
		if _, err := s.Do(ctx, c); err == nil || !initiator.Retryable(err) {
			return err
		}
	}
}

// reservationKeys are those that READ KEYS shows.
func reservationKeys(ctx context.Context, t *testing.T, s *initiator.Session) []uint64 {
	t.Helper()
	c := &initiator.Command{In: make([]byte, 1024)}
	c.CDB[0], c.CDB[7] = 0x5E, 4
	if _, err := s.Do(ctx, c); err != nil {
		t.Fatal(err)
	}
	var out []uint64
	for at := 8; at < 8+int(binary.BigEndian.Uint32(c.In[4:])); at += 8 {
		out = append(out, binary.BigEndian.Uint64(c.In[at:]))
	}
	return out
}

// host logs in to a portal and takes the unit attentions of a new session.
func host(ctx context.Context, t *testing.T, cl *cluster.Cluster, portal, name string) *initiator.Session {
	t.Helper()
	s, err := initiator.Dial(ctx, initiator.Config{
		Portal: portal, Target: cl.Target, LUN: cl.LUN, Name: "iqn.2026-11.dev.ashlar.test:" + name,
	})
	must(t, err)
	t.Cleanup(s.Close)
	must(t, s.Ready(ctx))
	return s
}

// conflicted tells whether a command ended with RESERVATION CONFLICT.
func conflicted(err error) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Status == initiator.StatusReservationConflict
}

// TestPreemptedWritesDoNotLand stops the gateway of a host that writes, has its reservation preempted through another
// gateway, and writes there. What the stopped gateway still has under way, and what it takes when it goes on, changes nothing.
func TestPreemptedWritesDoNotLand(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	const keyA, keyB, block, blocks = 0xA, 0xB, 4096, 64
	a, b := host(ctx, t, cl, cl.Portals[0], "preempted"), host(ctx, t, cl, cl.Portals[1], "preempting")
	_, length, err := a.Capacity(ctx)
	must(t, err)
	at := func(i int) uint64 { return uint64(i * block / length) }
	must(t, reserveOut(ctx, a, prRegister, 0, 0, keyA))
	must(t, reserveOut(ctx, b, prRegister, 0, 0, keyB))
	must(t, reserveOut(ctx, a, prReserve, prRegistrantsOnly, keyA, 0))
	c := host(ctx, t, cl, cl.Portals[1], "stranger")
	if err := c.Write(ctx, 0, length, make([]byte, block)); !conflicted(err) {
		t.Errorf("a host that is not registered writes through the other gateway: %v", err)
	}

	// Eight writers of host a, each over its own blocks, until they are told to stop or refused.
	writing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var mu sync.Mutex
	refused, written := 0, 0
	for w := range 8 {
		wg.Go(func() {
			data := bytes.Repeat([]byte{0xA0 | byte(w)}, block)
			for i := w; writing.Err() == nil; i = (i + 8) % blocks {
				err := a.Write(ctx, at(i), length, data)
				mu.Lock()
				if err == nil {
					written++
				} else if !initiator.Retryable(err) {
					refused++
				}
				mu.Unlock()
				if err != nil && !initiator.Retryable(err) {
					return
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	must(t, cl.Signal("gateway-1", syscall.SIGSTOP))
	defer cl.Signal("gateway-1", syscall.SIGCONT) //nolint:errcheck // it goes on below
	start := time.Now()
	must(t, reserveOut(ctx, b, prPreemptAndAbort, prRegistrantsOnly, keyB, keyA))
	t.Logf("PREEMPT AND ABORT answered after %v", time.Since(start).Round(time.Millisecond))
	if keys := reservationKeys(ctx, t, b); len(keys) != 1 || keys[0] != keyB {
		t.Errorf("registered after the preemption: %X", keys)
	}
	mine := bytes.Repeat([]byte{0xBB}, block*blocks)
	must(t, b.Write(ctx, 0, length, mine))
	must(t, cl.Signal("gateway-1", syscall.SIGCONT))
	time.Sleep(3 * time.Second)
	got := make([]byte, len(mine))
	must(t, b.Read(ctx, 0, length, got))
	for i := range blocks {
		if p := got[i*block : (i+1)*block]; !bytes.Equal(p, mine[:block]) {
			t.Errorf("block %d holds %#x: a write of the preempted host landed", i, p[0])
		}
	}
	mu.Lock()
	if written == 0 {
		t.Error("the host that was preempted has written nothing before")
	}
	t.Logf("%d writes before, %d writers refused", written, refused)
	mu.Unlock()
	stop()
	// The aborted commands get no status; a new session of the host finds itself unregistered.
	again := host(ctx, t, cl, cl.Portals[0], "preempted-too")
	if err := again.Write(ctx, 0, length, make([]byte, block)); !conflicted(err) {
		t.Errorf("after the preemption: %v", err)
	}
	a.Close()
}

// TestReservationsSurvive kills every daemon: registrations and the reservation are still there, and still hold.
func TestReservationsSurvive(t *testing.T) {
	cl := startCluster(t, cluster.Options{})
	awaitHealthy(t, cl, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	a := host(ctx, t, cl, cl.Portals[0], "holder")
	must(t, reserveOut(ctx, a, prRegister, 0, 0, 0xA))
	must(t, reserveOut(ctx, a, prReserve, 3, 0xA, 0))
	must(t, cl.KillAll())
	must(t, cl.Restart(ctx))
	awaitHealthy(t, cl, 60*time.Second)
	again, other := host(ctx, t, cl, cl.Portals[0], "holder"), host(ctx, t, cl, cl.Portals[0], "other")
	if keys := reservationKeys(ctx, t, other); len(keys) != 1 || keys[0] != 0xA {
		t.Errorf("keys after the restart: %X", keys)
	}
	block := make([]byte, 4096)
	if err := other.Read(ctx, 0, 512, block); !conflicted(err) {
		t.Errorf("another host reads: %v", err)
	}
	must(t, again.Write(ctx, 0, 512, block))
}

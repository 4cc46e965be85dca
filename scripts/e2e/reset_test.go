//go:build e2e

package e2e

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// wasReset tells whether a command ended with the unit attention of a logical unit reset.
func wasReset(err error) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Key == 0x06 && s.ASC == 0x29 && s.ASCQ == 0x03
}

// TestResetIsForAllGateways resets a logical unit through one gateway, while hosts write through another one. What those have
// under way gets no status, or was done before; what a host sends after the answer is answered, first with the unit attention of
// the reset.
func TestResetIsForAllGateways(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	const rounds, writers = 10, 8
	a, b := host(ctx, t, cl, cl.Portals[0], "resets"), host(ctx, t, cl, cl.Portals[1], "other-path")
	_, length, err := b.Capacity(ctx)
	must(t, err)
	var longest time.Duration
	lost := 0
	for round := range rounds {
		busy := host(ctx, t, cl, cl.Portals[1], "busy")
		writing, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		var answered [writers]atomic.Int64
		for w := range writers {
			wg.Go(func() {
				block := make([]byte, 4096)
				for at := uint64(w); ; at += writers {
					err := busy.Write(writing, at%1024*8, length, block)
					answered[w].Add(1)
					switch {
					case writing.Err() != nil:
						return
					case err != nil && !initiator.Retryable(err):
						t.Errorf("round %d: a write that was not aborted: %v", round, err)
						return
					}
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		must(t, a.ResetLUN(ctx))
		longest = max(longest, time.Since(began))
		after, done := context.WithTimeout(ctx, 5*time.Second)
		if err := b.Write(after, 0, length, make([]byte, 4096)); !wasReset(err) {
			t.Errorf("round %d: the first command after the reset: %v", round, err)
		}
		for {
			err := b.Write(after, 0, length, make([]byte, 4096))
			if !initiator.Retryable(err) {
				must(t, err)
				break
			}
		}
		must(t, a.Ready(after))
		done()
		var before [writers]int64
		for w := range writers {
			before[w] = answered[w].Load()
		}
		time.Sleep(300 * time.Millisecond)
		for w := range writers {
			if answered[w].Load() == before[w] {
				lost++
			}
		}
		stop()
		wg.Wait()
		busy.Close()
	}
	t.Logf("the longest reset took %v; %d of %d writers got no status", longest.Round(time.Millisecond), lost, rounds*writers)
	if longest > 3*time.Second {
		t.Errorf("a reset took %v", longest)
	}
	if lost == 0 {
		t.Error("no command that was under way on the other gateway was aborted")
	}
}

// TestMultipathIO runs what iscsi-test-cu knows of two paths over two gateways.
func TestMultipathIO(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	u := createUnit(t, cl, "256MiB")
	for _, name := range []string{"Simple", "Reset", "CompareAndWrite", "CompareAndWriteAsync"} {
		if v, why := conform(t, u, "MultipathIO."+name); v != vPass {
			t.Errorf("%s %s: %s", v, name, why)
		}
	}
}

// TestResetDoesNotWaitForADeadGateway stops the other gateway. The reset is answered in time all the same, and a command that was
// sent after it to the gateway that hung is answered when that goes on: with the unit attention of the reset.
func TestResetDoesNotWaitForADeadGateway(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	a, b := host(ctx, t, cl, cl.Portals[0], "resets"), host(ctx, t, cl, cl.Portals[1], "other-path")
	_, length, err := b.Capacity(ctx)
	must(t, err)
	must(t, b.Write(ctx, 0, length, make([]byte, 4096)))
	must(t, cl.Signal("gateway-2", syscall.SIGSTOP))
	defer cl.Signal("gateway-2", syscall.SIGCONT) //nolint:errcheck // it goes on below
	began := time.Now()
	must(t, a.ResetLUN(ctx))
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the reset took %v", took)
	} else {
		t.Logf("the reset took %v without the other gateway", took.Round(time.Millisecond))
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 4 {
		wg.Go(func() {
			late, cancel := context.WithTimeout(ctx, 15*time.Second)
			defer cancel()
			for {
				err := b.Write(late, 0, length, make([]byte, 4096))
				if !initiator.Retryable(err) {
					if err != nil {
						t.Errorf("a command that was sent after the answer: %v", err)
					}
					return
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	must(t, cl.Signal("gateway-2", syscall.SIGCONT))
}

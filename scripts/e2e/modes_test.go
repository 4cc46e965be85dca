//go:build e2e

package e2e

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// controlPage reads the Control mode page, its current or its saved values (SPC-4 6.13), and returns its bytes 0, 2 and 4.
func controlPage(ctx context.Context, t *testing.T, s *initiator.Session, saved bool) [3]byte {
	t.Helper()
	for {
		c := &initiator.Command{In: make([]byte, 64)}
		c.CDB[0], c.CDB[1], c.CDB[2], c.CDB[4] = 0x1A, 0x08, 0x0A, 64
		if saved {
			c.CDB[2] |= 0xC0
		}
		_, err := s.Do(ctx, c)
		if err == nil {
			return [3]byte{c.In[4], c.In[6], c.In[8]}
		}
		if !initiator.Retryable(err) {
			t.Fatal(err)
		}
	}
}

// selectControl changes D_SENSE and SWP by MODE SELECT(6).
func selectControl(ctx context.Context, t *testing.T, s *initiator.Session, page [3]byte, save byte) {
	t.Helper()
	c := &initiator.Command{Out: []byte{0, 0, 0, 0, page[0], 0x0A, page[1], 0x10, page[2], 0, 0, 0, 0xFF, 0xFF, 0, 0}}
	c.CDB[0], c.CDB[1], c.CDB[4] = 0x15, 0x10|save, byte(len(c.Out))
	_, err := s.Do(ctx, c)
	must(t, err)
}

// protected tells whether a write was refused by SWP.
func protected(err error) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Key == 0x07 && s.ASC == 0x27 && s.ASCQ == 0x02
}

// TestWriteProtectionIsForAllGateways sets SWP through one gateway while a host writes through another one: from the answer on
// no write succeeds there. What was saved outlives a reset and the processes.
func TestWriteProtectionIsForAllGateways(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	a, b := host(ctx, t, cl, cl.Portals[0], "protects"), host(ctx, t, cl, cl.Portals[1], "writes")
	_, length, err := b.Capacity(ctx)
	must(t, err)
	block := make([]byte, 4096)
	must(t, b.Write(ctx, 0, length, block))
	page := controlPage(ctx, t, a, false)
	if page != [3]byte{0x8A, 0x20, 0} || page != controlPage(ctx, t, a, true) {
		t.Fatalf("the Control page begins as % X", page)
	}
	protect := page
	protect[2] = 0x08
	for range 5 {
		var wg sync.WaitGroup
		set := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					after := false
					select {
					case <-set:
						after = true
					default:
					}
					err := b.Write(ctx, 0, length, block)
					switch {
					case after && err == nil:
						t.Error("a write succeeded after the medium was protected through the other gateway")
						return
					case protected(err):
						return
					case err != nil && !initiator.Retryable(err):
						t.Error(err)
						return
					}
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		selectControl(ctx, t, a, protect, 0)
		close(set)
		wg.Wait()
		if got := controlPage(ctx, t, b, false); got != protect {
			t.Errorf("the other gateway shows % X", got)
		}
		must(t, a.ResetLUN(ctx))
		if got := controlPage(ctx, t, b, false); got != page {
			t.Errorf("after a reset the other gateway shows % X", got)
		}
		must(t, a.Ready(ctx))
		must(t, b.Ready(ctx))
		must(t, b.Write(ctx, 0, length, block))
	}
	selectControl(ctx, t, a, protect, 1)
	must(t, cl.KillAll())
	must(t, cl.Restart(ctx))
	awaitHealthy(t, cl, 60*time.Second)
	a, b = host(ctx, t, cl, cl.Portals[0], "protects"), host(ctx, t, cl, cl.Portals[1], "writes")
	if err := b.Write(ctx, 0, length, block); !protected(err) {
		t.Errorf("saved write protection is gone: %v", err)
	}
	selectControl(ctx, t, a, page, 1)
	must(t, b.Ready(ctx))
	must(t, b.Write(ctx, 0, length, block))
}

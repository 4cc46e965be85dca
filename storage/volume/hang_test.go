package volume

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Hang is as if the process had hung until now.
func (c *Client) Hang() { c.hangs.beat.Store(c.hangs.now() - int64(2*hangMin)) }

// TestHangIsCounted: a process that runs has none, and one that was stopped has one, whoever looks first.
func TestHangIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil, nil, 1, nil)
		time.Sleep(10 * hangMin)
		if n := c.hangs.count(); n != 0 {
			t.Errorf("%d hangs while nobody watches", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Watch(ctx) }()
		time.Sleep(10 * hangMin)
		if n := c.hangs.count(); n != 0 {
			t.Errorf("%d hangs while it runs", n)
		}
		c.Hang()
		if n := c.hangs.count(); n != 1 {
			t.Errorf("%d hangs", n)
		}
		c.Hang()
		time.Sleep(beatEvery)
		synctest.Wait()
		if n := c.hangs.count(); n != 2 {
			t.Errorf("%d hangs, the second of which Watch saw", n)
		}
		cancel()
		<-ended
		time.Sleep(10 * hangMin)
		if n := c.hangs.count(); n != 2 {
			t.Errorf("%d hangs after the end", n)
		}
	})
}

// TestHangWhileLooking: a hang that begins after Watch has looked at the clock, and before it says so, is found by the next look.
func TestHangWhileLooking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, next := range []func(*hangs){func(g *hangs) { g.count() }, func(g *hangs) { g.look(g.now()) }} {
			g := &hangs{begin: time.Now()}
			time.Sleep(beatEvery)
			g.look(g.now())
			time.Sleep(beatEvery)
			now := g.now()
			time.Sleep(2 * hangMin)
			g.look(now)
			if next(g); g.seen.Load() != 1 {
				t.Errorf("%d hangs", g.seen.Load())
			}
			if n := g.count(); n != 1 {
				t.Errorf("%d hangs after the second look", n)
			}
		}
	})
}

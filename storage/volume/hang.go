package volume

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// beatEvery is how often Watch looks at the clock, and hangMin how long it must not have done so for a hang.
	beatEvery, hangMin = 100 * time.Millisecond, time.Second
)

// hangs counts how often the process hung: was stopped, or did not get to run. While it did, its initiators may have given up
// what they had sent, and gone elsewhere. Nothing tells of that but the clock, so whoever is about to send something looks at it.
type hangs struct {
	begin time.Time
	beat  atomic.Int64 // when Watch looked at the clock last, after begin; 0: nobody does
	seen  atomic.Uint64
}

// count returns how often the process hung until now.
func (g *hangs) count() uint64 {
	if beat, now := g.beat.Load(), g.now(); beat != 0 && now-beat > int64(hangMin) {
		g.seen.Add(1) // first: who finds the new beat finds this. That several count the same hang does no harm
		g.beat.CompareAndSwap(beat, now)
	}
	return g.seen.Load()
}

// now is later than begin, in nanoseconds.
func (g *hangs) now() int64 { return int64(time.Since(g.begin)) }

// look makes a look at the clock that found now the beat. It does not look again: a hang that came between the two would be
// nobody's.
func (g *hangs) look(now int64) {
	if beat := g.beat.Load(); beat != 0 && now-beat > int64(hangMin) {
		g.seen.Add(1)
	}
	g.beat.Store(now)
}

// Watch has the client's handles notice that the process hung, until ctx ends: an operation that is not on its way by then has to
// be proven anew. It returns the error of ctx.
func (c *Client) Watch(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	defer c.hangs.beat.Store(0)
	for {
		c.hangs.look(c.hangs.now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

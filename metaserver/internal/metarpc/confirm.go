package metarpc

import (
	"context"
	"fmt"
	"time"

	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
)

// confirmMax bounds how long a call that changes what gateways export waits for them, from its beginning. Callers give an
// attempt up after 4 s.
const confirmMax = 3 * time.Second

// confirmLeast is how long the wait is at least, after a change that took long.
const confirmLeast = 250 * time.Millisecond

// confirmAgain is how often the wait looks at who lives; confirmations wake it at once.
const confirmAgain = 200 * time.Millisecond

// Confirmed takes in that a gateway serves by a revision. The caller has checked that there is such a gateway.
func (e *Exports) Confirmed(gateway uint64, revision int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if revision > e.mu.confirmed[gateway] {
		e.mu.confirmed[gateway] = revision
		e.newsLocked()
	}
}

// newsLocked wakes those who wait in Await.
func (e *Exports) newsLocked() {
	close(e.mu.news)
	e.mu.news = make(chan struct{})
}

// Await waits until every gateway that may be serving serves by what is on record at the time of the call, until the given
// time at most, and returns the names of those that do not, each with when it was heard of. The error is that of ctx.
func (e *Exports) Await(ctx context.Context, t *topology.Topology, until time.Time) ([]string, error) {
	return e.await(ctx, t.MayServe, until)
}

// await is Await for the gateways that who returns at the time.
func (e *Exports) await(ctx context.Context, who func() []topology.Serving, until time.Time) ([]string, error) {
	bound := time.NewTimer(max(time.Until(until), confirmLeast))
	defer bound.Stop()
	again := time.NewTicker(confirmAgain)
	defer again.Stop()
	w := wanted{ask: e.ask()}
	for {
		behind, news := e.behind(who(), &w)
		if len(behind) == 0 {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-bound.C:
			return behind, nil
		case <-again.C:
		case <-news:
		}
	}
}

// wanted is what one wait is for: the revision of a set that was built after ask, 0 while there is none.
type wanted struct {
	ask      uint64
	revision int64
}

// ask has a set built that has all that is on record now, and returns its number among the askings.
func (e *Exports) ask() uint64 {
	e.mu.Lock()
	e.mu.asked++
	n := e.mu.asked
	e.mu.Unlock()
	e.Changed()
	return n
}

// behind names those of the gateways that have not confirmed what is wanted, and returns a channel that is closed when there
// is something new.
func (e *Exports) behind(gateways []topology.Serving, w *wanted) ([]string, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.revision == 0 && e.mu.built >= w.ask {
		w.revision = e.mu.last.GetRevision()
	}
	var out []string
	for _, g := range gateways {
		if w.revision != 0 && e.mu.confirmed[g.ID] >= w.revision {
			continue
		}
		heard := "not heard of since this metaserver became active"
		if g.Heard {
			heard = fmt.Sprintf("last heard of %v ago", g.Silent.Round(100*time.Millisecond))
		}
		out = append(out, fmt.Sprintf("%s (%s)", g.Name, heard))
	}
	return out, e.mu.news
}

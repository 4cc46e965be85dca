package metarpc

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// resetWait bounds how long a reset of a logical unit waits for the gateways, from when it was made. The gateway that asked
	// for it promises to wait longer.
	resetWait = 1200 * time.Millisecond
	// resetHold is how long a gateway that was told of a reset waits for who asked for it to come back.
	resetHold = 250 * time.Millisecond
)

// resetKey names a reset: the volume, and the version of the reservations that it led to.
type resetKey struct {
	volume  layout.VolumeID
	version uint64
}

// resets are those of one term whose answers may still wait. A gateway aborts for a reset what it has under way only while
// the answer surely waits, for later it might be a command that a host sent after it.
//
//	asking gateway   Reserve ──► made           AwaitReset ──► await ········ forget: answered
//	                                 └ reply ─────► promise: no answer within resetWait, or AwaitReset says so
//	another one                                   ResetAwaited ──► left: the rest of resetWait, then acts and confirms
//
// That the promise is given is known when AwaitReset comes, and it was given after made. So resetWait counts from there.
type resets struct {
	mu   sync.Mutex
	of   map[resetKey]*reset
	news chan struct{} // closed when something changes
}

// reset is one of them.
type reset struct {
	until   time.Time
	awaited bool
	// owing are the gateways that were told that it is.
	owing []uint64
}

func newResets() *resets {
	return &resets{of: map[resetKey]*reset{}, news: make(chan struct{})}
}

func (r *resets) newsLocked() {
	close(r.news)
	r.news = make(chan struct{})
}

// made takes a reset in, before its Reserve is answered. Those that are over go.
func (r *resets) made(k resetKey, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for old, x := range r.of {
		if !x.awaited && now.After(x.until) {
			delete(r.of, old)
		}
	}
	r.of[k] = &reset{until: now.Add(resetWait)}
}

// await notes that the answer of a reset waits, and returns until when at most. One that was made in another term is waited
// for as long, but no gateway is told so.
func (r *resets) await(k resetKey, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.of[k]
	if x == nil {
		return now.Add(resetWait)
	}
	x.awaited = now.Before(x.until)
	r.newsLocked()
	return x.until
}

// forget notes that the answer of a reset does not wait any more.
func (r *resets) forget(k resetKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, k)
	r.newsLocked()
}

// left returns for how long the answer of a reset still waits for gateway, 0 if it does not.
func (r *resets) left(ctx context.Context, k resetKey, gateway uint64) time.Duration {
	hold := time.NewTimer(resetHold)
	defer hold.Stop()
	for {
		r.mu.Lock()
		x, news := r.of[k], r.news
		if x != nil && x.awaited {
			left := time.Until(x.until)
			if left > 0 && !slices.Contains(x.owing, gateway) {
				x.owing = append(x.owing, gateway)
			}
			r.mu.Unlock()
			return max(left, 0)
		}
		r.mu.Unlock()
		select {
		case <-news:
		case <-hold.C:
			return 0
		case <-ctx.Done():
			return 0
		}
	}
}

// others returns the gateways that may be serving, but for one.
func others(t *topology.Topology, gateway uint64) []topology.Serving {
	return slices.DeleteFunc(t.MayServe(), func(s topology.Serving) bool { return s.ID == gateway })
}

// others returns the gateways that a reset waits for: those that may be serving, but for the one that asked for it, and those
// that were told that it waits for them.
func (r *resets) others(k resetKey, asked uint64, t *topology.Topology) []topology.Serving {
	out := others(t, asked)
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := r.of[k]; x != nil {
		for _, id := range x.owing {
			if !slices.ContainsFunc(out, func(s topology.Serving) bool { return s.ID == id }) {
				out = append(out, topology.Serving{ID: id, Name: t.GatewayName(id)})
			}
		}
	}
	return out
}

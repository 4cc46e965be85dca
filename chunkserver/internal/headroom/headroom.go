// Package headroom decides what becomes of writes while the free space of a disk is short.
//
//	free space ≥ limit ──► Open ──────────────────── free ≥ limit ◄──────────────────┐
//	                        │ free < limit: space is reclaimed                       │
//	                        ▼                                                        │
//	                       Wait ── Patience ──► Full ── more waits to be free, and ──┤
//	                        ▲                           it would be enough           │
//	                        └────────────────────────────────────────────────────────┘
//
// Content that was overwritten, unmapped or deleted is not free at once: a checkpoint has to forget it, and the raft log must have let
// go of the entries that wrote it, of which a tail stays for followers that lag. On a full disk that tail is worth less than room.
// While the data file grows, less looks free than is; that passes too.
package headroom

import (
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
)

const (
	// Patience is for how long writes wait for space that is being reclaimed before they are refused.
	Patience = 2 * time.Second
	// soonEvery is the time between two attempts to reclaim while writes wait, laterEvery when they do not any more.
	soonEvery, laterEvery = 500 * time.Millisecond, 10 * time.Second
)

// Verdict says what becomes of a write.
type Verdict uint32

// The verdicts.
const (
	// Open: it is taken.
	Open Verdict = iota
	// Wait: it is to come again in a moment.
	Wait
	// Full: it is refused.
	Full
)

// Gate is the verdict of a disk. The zero value is open. One goroutine looks, any may ask.
type Gate struct {
	verdict atomic.Uint32
	low     bool
	since   time.Duration // since when writes have had to wait
	tried   time.Duration // when space was last to be reclaimed
	pending int64         // how much waited to be free, in bytes
}

// Verdict returns what the last Look found.
func (g *Gate) Verdict() Verdict { return Verdict(g.verdict.Load()) }

// Look judges the space of a disk, of which margin bytes above the reserve are to stay free, and tells whether space is to be
// reclaimed now: by a checkpoint of everything and a log with a short tail. now is from any origin. It is called a few times a second.
func (g *Gate) Look(now time.Duration, u blockstore.Usage, margin int64) (reclaim bool) {
	limit := u.Reserve + margin
	if u.Free >= limit {
		g.low = false
		g.verdict.Store(uint32(Open))
		return false
	}
	enough := u.Free+u.PendingFree >= limit
	fresh := !g.low || enough && u.PendingFree > g.pending
	g.low, g.pending = true, u.PendingFree
	if fresh {
		g.since = now
	}
	verdict, every := Wait, soonEvery
	if now-g.since >= Patience {
		verdict, every = Full, laterEvery // an image or a reader may have it
	}
	g.verdict.Store(uint32(verdict))
	if fresh || enough && now-g.tried >= every {
		g.tried = now
		return true
	}
	return false
}

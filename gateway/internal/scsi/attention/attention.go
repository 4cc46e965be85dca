// Package attention is the queue of unit attention conditions of one I_T_L nexus (SAM-5 5.14).
//
//	Add ──► [ oldest … newest ] ──► Take ──► the outcome of a command
//	            ▲                       │
//	            └─────── Restore ───────┘   (the command was aborted before it told it)
package attention

import (
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
)

// powerOn tells an initiator to look at everything again: POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
const powerOn sense.Code = 0x062900

// queueMax bounds the conditions that wait. Equal ones are kept once; one more than the bound replaces them all by powerOn.
const queueMax = 8

// Queue holds the conditions that wait, oldest first. The zero value is empty. Its methods may be called from any goroutine.
type Queue struct {
	pending atomic.Bool // lets the data path look without the lock
	mu      struct {
		sync.Mutex
		codes [queueMax]sense.Code
		n     int
	}
}

// Add appends code unless it waits already.
func (q *Queue) Add(code sense.Code) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, have := range q.mu.codes[:q.mu.n] {
		if have == code {
			return
		}
	}
	if q.mu.n == queueMax {
		q.mu.codes[0], q.mu.n = powerOn, 1
	} else {
		q.mu.codes[q.mu.n] = code
		q.mu.n++
	}
	q.pending.Store(true)
}

// Reset drops what waits and leaves code: a reset tells everything that was to be told.
func (q *Queue) Reset(code sense.Code) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.codes[0], q.mu.n = code, 1
	q.pending.Store(true)
}

// Take removes the oldest condition and returns it; ok is false when none waits.
func (q *Queue) Take() (code sense.Code, ok bool) {
	if !q.pending.Load() {
		return 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.n == 0 {
		return 0, false
	}
	code = q.mu.codes[0]
	copy(q.mu.codes[:], q.mu.codes[1:q.mu.n])
	q.mu.n--
	q.pending.Store(q.mu.n > 0)
	return code, true
}

// Restore puts back a condition that was taken and not told, as the oldest one. A reset that waits by now came later, and
// tells it too.
func (q *Queue) Restore(code sense.Code) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, have := range q.mu.codes[:q.mu.n] {
		if have == code || have.ASC() == ascReset {
			return
		}
	}
	if q.mu.n == queueMax {
		q.mu.codes[0], q.mu.n = powerOn, 1
	} else {
		copy(q.mu.codes[1:], q.mu.codes[:q.mu.n])
		q.mu.codes[0] = code
		q.mu.n++
	}
	q.pending.Store(true)
}

// ascReset is the additional sense code of everything that resets: power on, the resets, I_T nexus loss.
const ascReset = 0x29

// Drop removes code if it waits.
func (q *Queue) Drop(code sense.Code) {
	if !q.pending.Load() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := 0
	for _, have := range q.mu.codes[:q.mu.n] {
		if have != code {
			q.mu.codes[kept] = have
			kept++
		}
	}
	q.mu.n = kept
	q.pending.Store(kept > 0)
}

// Peek returns the oldest condition, which stays, and how many wait.
func (q *Queue) Peek() (code sense.Code, waiting int) {
	if !q.pending.Load() {
		return 0, 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.n == 0 {
		return 0, 0
	}
	return q.mu.codes[0], q.mu.n
}

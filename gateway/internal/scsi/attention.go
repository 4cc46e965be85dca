package scsi

import (
	"sync"
	"sync/atomic"
)

// attentionMax bounds the unit attention conditions that wait for one I_T_L nexus. Equal ones are kept once; one
// more than the bound replaces them all by AttentionPowerOn, which tells the initiator to look at everything again
// (SAM-5 5.14).
const attentionMax = 8

// attentions is the queue of unit attention conditions of one I_T_L nexus, oldest first.
type attentions struct {
	pending atomic.Bool // lets the data path look without the lock
	mu      struct {
		sync.Mutex
		codes [attentionMax]SenseCode
		n     int
	}
}

// add appends code unless it waits already.
func (q *attentions) add(code SenseCode) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, have := range q.mu.codes[:q.mu.n] {
		if have == code {
			return
		}
	}
	if q.mu.n == attentionMax {
		q.mu.codes[0], q.mu.n = AttentionPowerOn, 1
	} else {
		q.mu.codes[q.mu.n] = code
		q.mu.n++
	}
	q.pending.Store(true)
}

// reset drops what waits and leaves code: a reset tells everything that was to be told.
func (q *attentions) reset(code SenseCode) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.codes[0], q.mu.n = code, 1
	q.pending.Store(true)
}

// take removes the oldest condition and returns it; ok is false when none waits.
func (q *attentions) take() (code SenseCode, ok bool) {
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

// restore puts back a condition that was taken and not told, as the oldest one. A reset that waits by now came later, and
// tells it too.
func (q *attentions) restore(code SenseCode) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, have := range q.mu.codes[:q.mu.n] {
		if have == code || have.ASC() == ascReset {
			return
		}
	}
	if q.mu.n == attentionMax {
		q.mu.codes[0], q.mu.n = AttentionPowerOn, 1
	} else {
		copy(q.mu.codes[1:], q.mu.codes[:q.mu.n])
		q.mu.codes[0] = code
		q.mu.n++
	}
	q.pending.Store(true)
}

// ascReset is the additional sense code of everything that resets: power on, the resets, I_T nexus loss.
const ascReset = 0x29

// drop removes code if it waits.
func (q *attentions) drop(code SenseCode) {
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

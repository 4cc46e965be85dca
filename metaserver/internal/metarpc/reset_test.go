package metarpc

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestResetLeft: another gateway is told that a reset's answer waits only after who asked for it has come back, and no longer
// than that one promised.
func TestResetLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, other := resetKey{1, 5}, uint64(2)
		r := newResets()
		began := time.Now()
		if left := r.left(t.Context(), k, other); left != 0 || time.Since(began) != resetHold {
			t.Errorf("of one that was not made: %v after %v", left, time.Since(began))
		}
		made := time.Now()
		r.made(k, made)
		go func() {
			time.Sleep(resetHold / 2)
			r.await(k, time.Now())
		}()
		if left := r.left(t.Context(), k, other); left != resetWait-resetHold/2 {
			t.Errorf("left %v of %v", left, resetWait)
		}
		if got := r.of[k].owing; len(got) != 1 || got[0] != other {
			t.Errorf("owing %v", got)
		}
		time.Sleep(resetWait - time.Since(made))
		if left := r.left(t.Context(), k, other); left != 0 {
			t.Errorf("left %v after its end", left)
		}
		r.forget(k)
		if left := r.left(t.Context(), k, other); left != 0 {
			t.Errorf("left %v after the answer", left)
		}
	})
}

// TestResetTooLate: who comes back after its promise has run out, or in another term, is not one for whom others abort.
func TestResetTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResets()
		late, unknown := resetKey{1, 5}, resetKey{1, 6}
		r.made(late, time.Now())
		time.Sleep(resetWait)
		if until := r.await(late, time.Now()); until.After(time.Now()) {
			t.Errorf("waits %v longer", time.Until(until))
		}
		if until := r.await(unknown, time.Now()); time.Until(until) != resetWait {
			t.Errorf("one of another term waits %v", time.Until(until))
		}
		for _, k := range []resetKey{late, unknown} {
			if left := r.left(t.Context(), k, 2); left != 0 {
				t.Errorf("%v: left %v", k, left)
			}
		}
		r.forget(late)
		r.made(resetKey{1, 7}, time.Now())
		time.Sleep(2 * resetWait)
		r.made(resetKey{1, 8}, time.Now())
		if len(r.of) != 1 {
			t.Errorf("%d are kept", len(r.of))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if left := r.left(gone, resetKey{1, 8}, 2); left != 0 {
			t.Errorf("left %v for one that has gone", left)
		}
	})
}

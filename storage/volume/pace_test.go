package volume

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: a pause follows a tenancy that was lost soon, is short when something was done in it, and doubles when nothing was.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		for i, c := range []struct {
			lasts time.Duration
			done  bool
			want  time.Duration
		}{
			{10 * time.Millisecond, false, paceMin},
			{0, false, 2 * paceMin},
			{10 * time.Millisecond, false, 4 * paceMin},
			{10 * time.Millisecond, true, paceMin},
			{999 * time.Millisecond, true, paceMin},
			{0, false, 2 * paceMin},
			{paceYoung, false, 0},
			{10 * time.Millisecond, true, paceMin},
			{paceYoung, true, 0},
		} {
			p.next()
			time.Sleep(2 * paceYoung) // until the initiator has shown that it is there
			p.send()
			p.done = c.done
			time.Sleep(c.lasts)
			p.end()
			if p.pause != c.want || time.Until(p.until) != c.want || p.lasted != c.lasts {
				t.Errorf("%d: pause %v, to end in %v, after %v", i, p.pause, time.Until(p.until), p.lasted)
			}
		}
		for range 20 {
			p.next()
			p.end()
		}
		if p.pause != paceMax || p.lasted != 0 {
			t.Errorf("nothing is ever done: pause %v after %v", p.pause, p.lasted)
		}
	})
}

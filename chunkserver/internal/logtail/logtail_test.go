package logtail

import "testing"

func TestCut(t *testing.T) {
	var small Tail
	for i := uint64(1); i <= 2000; i++ {
		small.Add(i, 100)
	}
	if got := small.Cut(1500, 1024, 16<<20); got != 476 {
		t.Errorf("by entries: cut at %d", got)
	}
	if got := small.Cut(100, 1024, 16<<20); got != 0 {
		t.Errorf("less than the tail: cut at %d", got)
	}
	var big Tail
	for i := uint64(1); i <= 100; i++ {
		big.Add(i, 1<<20)
	}
	if got := big.Cut(100, 1024, 16<<20); got != 84 {
		t.Errorf("by bytes: cut at %d", got)
	}
	if got := big.Cut(50, 1024, 16<<20); got > 50 {
		t.Errorf("cut at %d, applied is 50", got)
	}
}

func TestHold(t *testing.T) {
	var l Tail
	l.Hold(30)
	l.Hold(20)
	l.Hold(20)
	for _, want := range []uint64{20, 20, 30, 50} {
		if got := l.Held(50); got != want {
			t.Errorf("held at %d, want %d", got, want)
		}
		if want == 30 {
			l.Release(30)
		} else {
			l.Release(20)
		}
	}
}

package lease

import (
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// majority is the quorum of peers 1 to 3.
func majority(reached func(layout.PeerID) uint64) uint64 {
	a, b, c := reached(1), reached(2), reached(3)
	return max(min(a, b), min(a, c), min(b, c))
}

func TestLength(t *testing.T) {
	if got := Length(100*time.Millisecond, 8, 10); got != 630*time.Millisecond {
		t.Errorf("7 ticks of 100 ms less 10%% are %v", got)
	}
}

// TestEnd: the lease runs from the sending of what a quorum answered, not from the answer.
func TestEnd(t *testing.T) {
	const self, length = 1, 100
	for _, c := range []struct {
		what string
		note map[layout.PeerID]Stamp
		now  time.Duration
		want time.Duration
	}{
		{"nobody answered", nil, 50, 0},
		{"one of two followers", map[layout.PeerID]Stamp{2: 10}, 50, 110},
		{"both: the newer one counts", map[layout.PeerID]Stamp{2: 10, 3: 30}, 50, 130},
		{"a stamp of the future was not made here", map[layout.PeerID]Stamp{2: 51}, 50, 0},
		{"no stamp", map[layout.PeerID]Stamp{2: 0}, 50, 0},
		{"a peer that is no voter", map[layout.PeerID]Stamp{9: 40}, 50, 0},
	} {
		var a Answers
		for p, s := range c.note {
			a.Note(p, s, c.now)
		}
		if got := a.End(self, c.now, length, majority); got != c.want {
			t.Errorf("%s: the lease ends at %d, want %d", c.what, got, c.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	var a Answers
	a.Note(2, 20, 50)
	a.Note(2, 10, 50) // overtaken by a later one
	if a.Of(2) != 20 {
		t.Errorf("an older answer took the place of a newer one: %d", a.Of(2))
	}
	if !a.Within(2, 30, 50) || a.Within(2, 29, 50) || a.Within(3, 50, 50) {
		t.Error("who answered lately is not known")
	}
	a.Reset()
	if a.Of(2) != 0 || a.End(1, 50, 100, majority) != 0 {
		t.Error("answers of an older term count")
	}
}

func TestEcho(t *testing.T) {
	var e Echo
	e.Arrive(5, 1, 10)
	if e.To(5, 1) != 0 {
		t.Error("a stamp is answered before raft took the message")
	}
	e.Settle(5, 1)
	if e.To(5, 1) != 10 {
		t.Error("the stamp is not answered")
	}
	e.Arrive(5, 1, 9) // a packet that was overtaken
	e.Settle(5, 1)
	if e.To(5, 1) != 10 {
		t.Error("an older stamp took the place of a newer one")
	}
	e.Arrive(5, 1, 20)
	e.Settle(5, 0) // raft follows nobody
	e.Settle(5, 1)
	if e.To(5, 1) != 10 {
		t.Error("a stamp is answered that raft did not take")
	}
	if e.To(6, 1) != 0 || e.To(5, 2) != 0 {
		t.Error("the stamp is answered to another leader, or in another term")
	}
	e.Arrive(6, 2, 3) // another clock
	e.Settle(6, 2)
	if e.To(6, 2) != 3 || e.To(5, 1) != 0 {
		t.Error("the new leader's stamp is not answered")
	}
}

func TestTicked(t *testing.T) {
	const last, now, tick = 100, 350, 100
	if got := Mistake(0).Ticked(last, now, tick); got != now {
		t.Errorf("ticks are made up: %d", got)
	}
	if got := TicksMadeUp.Ticked(last, now, tick); got != last+tick {
		t.Errorf("the mistake is none: %d", got)
	}
}

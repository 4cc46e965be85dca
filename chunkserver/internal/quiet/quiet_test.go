package quiet

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	period   = 2
	election = 8
)

// TestPulse: a process is lost after an election timeout of whole periods, once, and is there again when it is heard.
func TestPulse(t *testing.T) {
	p := NewPulse(1, period, election)
	if p.Heard(2, 7) || p.Heard(3, 7) || !p.Alive(2) || p.Alive(4) {
		t.Fatal("a process that was heard first is not simply there")
	}
	ticks := 0
	for {
		ticks++
		p.Heard(3, 7)
		lost := p.Tick()
		if len(lost) == 0 {
			continue
		}
		if !slices.Equal(lost, []layout.ChunkserverID{2}) {
			t.Fatalf("lost are %v", lost)
		}
		break
	}
	// Between the last sign and the first tick there may be nothing.
	if (ticks-1)*period < election || (ticks-2)*period >= election {
		t.Errorf("lost after %d periods of %d ticks, the timeout is %d", ticks, period, election)
	}
	if p.Alive(2) || p.Trust(2, 7) || len(p.Tick()) != 0 {
		t.Error("it is lost, and told once")
	}
	if p.Heard(2, 7) {
		t.Error("the same incarnation is told as another")
	}
	if !p.Trust(2, 7) {
		t.Error("it is there again and not trusted")
	}
}

// TestTrust: only the incarnation that is heard is trusted, and trust is a sign of life.
func TestTrust(t *testing.T) {
	p := NewPulse(1, period, election)
	if p.Trust(2, 7) || p.Trust(2, 0) {
		t.Error("a process that was never heard is trusted")
	}
	p.Heard(2, 7)
	if p.Heard(2, 0) || !p.Trust(2, 7) {
		t.Error("a beat of no incarnation counts")
	}
	if !p.Heard(2, 8) || p.Trust(2, 7) || !p.Trust(2, 8) {
		t.Error("another incarnation was not noticed")
	}
	for range 3 * election {
		if len(p.Tick()) != 0 {
			t.Fatal("lost although it was trusted a period ago")
		}
		p.Trust(2, 8)
	}
}

func TestRenew(t *testing.T) {
	p := NewPulse(^Incarnation(0), period, election)
	for range 3 {
		old := p.Own()
		if p.Renew(); p.Own() == old || p.Own() == 0 {
			t.Errorf("incarnation %d follows %d", p.Own(), old)
		}
	}
	if NewPulse(0, period, election).Own() == 0 {
		t.Error("incarnation 0")
	}
}

// TestRun: one beat to each neighbour in each period, however many copysets they share.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPulse(5, period, election)
		p.Heard(3, 9)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		beats := map[layout.ChunkserverID]int{}
		var lost []layout.ChunkserverID
		p.Run(ctx, sched.NewClock(nil), time.Second,
			func() []layout.ChunkserverID { return []layout.ChunkserverID{2, 3} },
			func(cs layout.ChunkserverID, in Incarnation) {
				if in != 5 {
					t.Errorf("a beat of incarnation %d", in)
				}
				beats[cs]++
			},
			func(cs layout.ChunkserverID) { lost = append(lost, cs) })
		if beats[2] != 10 || beats[3] != 10 || !slices.Equal(lost, []layout.ChunkserverID{3}) {
			t.Errorf("%v in ten periods, lost %v", beats, lost)
		}
	})
}

// TestDelay states the bound of the storm: of n groups about n/ElectionTicks campaign in one tick, and those of one group never in
// the same.
func TestDelay(t *testing.T) {
	for _, n := range []int{1000, 10000} {
		count := map[int]int{}
		for id := range n {
			first, second := Delay(layout.CopysetID(id+1), 0, election), Delay(layout.CopysetID(id+1), 1, election)
			if first < 1 || first > election || second-first != election/2 {
				t.Fatalf("copyset %d: after %d and %d ticks", id+1, first, second)
			}
			count[first]++
		}
		for at, k := range count {
			if k > n/election*3/2 {
				t.Errorf("%d of %d groups campaign %d ticks after", k, n, at)
			}
		}
	}
}

func TestFits(t *testing.T) {
	ask := Ask{From: 1, Incarnation: 7, Term: 5, Index: 40}
	good := Standing{Term: 5, Leader: 1, Last: 40, Commit: 40, Applied: 40}
	for _, c := range []struct {
		what   string
		change func(*Ask, *Standing)
		want   bool
	}{
		{"the same everywhere", func(*Ask, *Standing) {}, true},
		{"nobody asked", func(a *Ask, _ *Standing) { *a = Ask{} }, false},
		{"another term", func(_ *Ask, s *Standing) { s.Term = 6 }, false},
		{"another leader", func(_ *Ask, s *Standing) { s.Leader = 2 }, false},
		{"no leader", func(_ *Ask, s *Standing) { s.Leader = 0 }, false},
		{"entries of old", func(_ *Ask, s *Standing) { s.Last = 41 }, false},
		{"entries missing", func(_ *Ask, s *Standing) { s.Last, s.Commit, s.Applied = 39, 39, 39 }, false},
		{"not committed", func(_ *Ask, s *Standing) { s.Commit = 39 }, false},
		{"not applied", func(_ *Ask, s *Standing) { s.Applied = 39 }, false},
		{"busy", func(_ *Ask, s *Standing) { s.Busy = true }, false},
		{"a late question", func(a *Ask, _ *Standing) { a.Index = 39 }, false},
	} {
		a, s := ask, good
		c.change(&a, &s)
		if got := a.Fits(&s); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

var members = map[layout.PeerID]layout.ChunkserverID{1: 1, 2: 2, 3: 3}

func TestAsking(t *testing.T) {
	s := Standing{Term: 5, Leader: 1, Last: 40, Commit: 40, Applied: 40}
	begun := func() *Asking {
		a := &Asking{}
		for i := range 3 {
			if due := a.Tick(3, 4); due != (i == 2) {
				t.Fatalf("due after %d ticks: %v", i+1, due)
			}
		}
		if !a.Begin(&s, true, 100) {
			t.Fatal("it does not ask")
		}
		return a
	}
	a := begun()
	if index, ok := a.Asks(); !ok || index != 40 {
		t.Errorf("it asks for %d: %v", index, ok)
	}
	a.Agree(2, 99) // an answer to an earlier question
	a.Agree(3, 100)
	if a.All(&s, 1, members) {
		t.Error("quiet without having heard all")
	}
	a.Agree(2, 101)
	if !a.All(&s, 1, members) {
		t.Error("all agreed, and it is not quiet")
	}
	busy, more := s, s
	busy.Busy = true
	more.Last, more.Commit, more.Applied = 41, 41, 41
	if a.All(&busy, 1, members) || a.All(&more, 1, members) || a.All(&s, 1, map[layout.PeerID]layout.ChunkserverID{1: 1, 2: 2, 4: 4}) {
		t.Error("quiet although something has changed")
	}
	a.Touch()
	if _, ok := a.Asks(); ok || a.All(&s, 1, members) {
		t.Error("it asks although something was done")
	}
	a.Agree(2, 102) // nobody asked
	a = begun()
	for range 4 {
		if a.Tick(3, 4) {
			t.Error("due while it asks")
		}
	}
	if _, ok := a.Asks(); ok {
		t.Error("it asks for ever")
	}
	a = &Asking{}
	if a.Begin(&busy, true, 1) || a.Begin(&s, false, 1) {
		t.Error("it asks although something is under way")
	}
	if !a.Begin(&s, true, 1) || !a.All(&s, 1, map[layout.PeerID]layout.ChunkserverID{1: 1}) {
		t.Error("a leader alone needs nobody")
	}
}

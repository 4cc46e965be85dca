package reclaim

import (
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
)

// owner has readers that began up to an epoch.
type owner struct{ reading uint64 }

func (o *owner) Drained(epoch uint64) bool { return o.reading == 0 || epoch < o.reading }

// TestQueue: blocks wait for the readers and the holds of their own owner that may have them, and for no others.
func TestQueue(t *testing.T) {
	var q Queue
	a, b := &owner{}, &owner{}
	var got []extent.Addr
	check := func(when string, want ...extent.Addr) {
		t.Helper()
		got = nil
		q.Run(func(f *Freed) {
			for _, r := range append(f.Overwritten, f.Discarded...) {
				got = append(got, r.Start)
			}
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s: released %v, want %v", when, got, want)
		}
	}
	free := func(o Owner, seq, epoch uint64, at extent.Addr) {
		q.Add(Freed{Owner: o, Seq: seq, Epoch: epoch, Overwritten: []extent.Run{{Start: at, N: 1}}})
	}
	q.Add(Freed{Owner: a}) // nothing
	check("nothing was freed")
	h := q.Hold(a, 5, func() {})
	free(a, 4, 1, 10)
	free(a, 5, 1, 11)
	free(b, 9, 1, 12)
	check("a hold has what its own and later checkpoints free", 10, 12)
	a.reading = 2
	free(a, 6, 2, 13)
	if !q.LetGo(h) || q.LetGo(h) {
		t.Error("a hold ends once")
	}
	check("a reader has what was freed when it had begun", 11)
	a.reading = 0
	q.Add(Freed{Owner: a, Discarded: []extent.Run{{Start: 20, N: 3}}})
	check("in the end", 13, 20)
	check("once only")
	ended := 0
	var h2 *Hold
	h2 = q.Hold(b, 1, func() { ended++; q.LetGo(h2) })
	q.EndAll()
	q.EndAll()
	if ended != 1 {
		t.Errorf("ended %d times", ended)
	}
}

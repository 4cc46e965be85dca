package headroom

import (
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
)

// TestLook plays what is seen of a disk with a reserve of 100 and a margin of 50.
func TestLook(t *testing.T) {
	var g Gate
	if g.Verdict() != Open {
		t.Error("a disk that nobody has looked at is not open")
	}
	const second = time.Second
	for i, step := range []struct {
		now           time.Duration
		free, pending int64
		verdict       Verdict
		reclaim       bool
	}{
		{0 * second, 1000, 500, Open, false},
		{1 * second, 150, 0, Open, false},
		{2 * second, 149, 0, Wait, true}, // it may be for a moment
		{3 * second, 149, 0, Wait, false},
		{4 * second, 149, 0, Full, false},
		{5 * second, 100, 49, Full, false}, // not enough to be of use
		{6 * second, 100, 50, Wait, true},
		{6*second + 200*time.Millisecond, 100, 50, Wait, false},
		{6*second + 500*time.Millisecond, 120, 30, Wait, true},
		{7 * second, 150, 0, Open, false},
		{8 * second, 100, 80, Wait, true},
		{9 * second, 100, 80, Wait, true},
		{10 * second, 100, 80, Full, false}, // something keeps it
		{11 * second, 100, 80, Full, false},
		{19 * second, 100, 80, Full, true},
		{20 * second, 100, 90, Wait, true}, // more was deleted
		{22 * second, 100, 90, Full, false},
		{23 * second, 190, 0, Open, false},
	} {
		got := g.Look(step.now, blockstore.Usage{Free: step.free, PendingFree: step.pending, Reserve: 100}, 50)
		if got != step.reclaim || g.Verdict() != step.verdict {
			t.Errorf("step %d, at %v: verdict %d, reclaim %t, want %d, %t", i, step.now, g.Verdict(), got, step.verdict, step.reclaim)
		}
	}
}

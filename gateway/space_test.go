package gateway

import (
	"slices"
	"testing"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// TestSpace: what is said of a volume is what its media say, a threshold is crossed once each time, and what is not spoken of
// stays while the volume is exported.
func TestSpace(t *testing.T) {
	ms := testMediums(t, newFakeStore())
	defer ms.erasures.stop()
	m := ms.Open(testVolume, "iqn.a")
	if used, available := m.Space(t.Context()); used >= 0 || available >= 0 {
		t.Fatal(used, available)
	}
	for i, step := range []struct{ low, crossed bool }{{false, false}, {true, true}, {true, false}, {false, false}, {true, true}} {
		got := ms.setSpace([]*metav1.VolumeSpace{
			{Volume: uint64(testVolume), Used: 5, Available: 6, Low: step.low}, {Volume: 9, Used: 1},
		})
		if slices.Contains(got, testVolume) != step.crossed || len(got) > 1 {
			t.Errorf("step %d: %v", i, got)
		}
	}
	if used, available := m.Space(t.Context()); used != 5 || available != 6 {
		t.Fatal(used, available)
	}
	if crossed := ms.setSpace(nil); len(crossed) != 0 {
		t.Error(crossed)
	}
	if used, _ := m.Space(t.Context()); used != 5 {
		t.Error("forgotten")
	}
	if all := *ms.space.Load(); len(all) != 1 {
		t.Errorf("%v: a volume that is not exported is kept", all)
	}
}

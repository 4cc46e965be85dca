package portal

import (
	"testing"
	"time"
)

func TestFailedLog(t *testing.T) {
	var f failedLog
	now := time.Unix(1_800_000_000, 0)
	for i := range 3 * failedLogMax {
		if hidden, ok := f.pass(now); ok != (i < failedLogMax) || hidden != 0 {
			t.Fatalf("failure %d: %v, %d hidden", i, ok, hidden)
		}
	}
	now = now.Add(time.Second)
	if hidden, ok := f.pass(now); !ok || hidden != 2*failedLogMax {
		t.Errorf("in the next second: %v, %d hidden", ok, hidden)
	}
	if hidden, ok := f.pass(now); !ok || hidden != 0 {
		t.Errorf("after it: %v, %d hidden", ok, hidden)
	}
}

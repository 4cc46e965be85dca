package topology

import (
	"testing"
	"time"
)

func TestSkew(t *testing.T) {
	now := time.Unix(1000, 0)
	var s skew
	for i, c := range []struct {
		told time.Duration
		want time.Duration
	}{
		{-4 * time.Second, 0}, // late on its way
		{2 * time.Millisecond, 0},
		{time.Millisecond, time.Millisecond},
		{time.Hour, time.Millisecond},
		{time.Hour, time.Millisecond},
		{time.Hour + time.Second, time.Hour},
	} {
		s.add(now.Add(c.told), now)
		if got := s.value(); got != c.want {
			t.Errorf("after %d heartbeats: %v, want %v", i+1, got, c.want)
		}
	}
	s.add(time.Time{}, now)
	if got := s.value(); got != 0 {
		t.Errorf("a heartbeat without a time: %v", got)
	}
}

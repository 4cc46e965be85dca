package election

import (
	"testing"
	"time"
)

// TestDeadline: a term is valid from the sending of a renewal for less than the lease, however the process was stopped.
func TestDeadline(t *testing.T) {
	term := &Term{ttl: time.Second, lost: make(chan struct{})}
	for _, c := range []struct {
		name string
		sent time.Duration // ago
		want bool
	}{
		{"just sent", 0, true},
		{"well within", 700 * time.Millisecond, true},
		{"within the margin", 850 * time.Millisecond, false},
		{"the answer was read long after the request was sent", 5 * time.Second, false},
	} {
		term.renewed(time.Now().Add(-c.sent))
		if got := term.Valid(); got != c.want {
			t.Errorf("%s: valid %v, want %v", c.name, got, c.want)
		}
	}
	term.renewed(time.Now())
	term.End()
	term.End()
	if term.Valid() {
		t.Error("valid after its end")
	}
}

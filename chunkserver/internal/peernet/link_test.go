package peernet

import (
	"testing"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
)

// TestQueueArrays: what was taken and what waits never share an array, however often the stream broke in between.
func TestQueueArrays(t *testing.T) {
	l := &link{wake: make(chan struct{}, 1)}
	next := uint64(0)
	push := func() {
		next++
		l.push([]multiraft.Message{heartbeat(next)}, false)
	}
	for round := range 8 {
		push()
		a := l.take()
		push()
		b := l.take() // a was not given back: its stream broke
		push()        // while b is sent
		if b[0].Raft == nil || b[0].Stamp != next-1 {
			t.Fatalf("round %d: what was taken is message %d, not %d", round, b[0].Stamp, next-1)
		}
		l.reuse(a)
		l.reuse(b)
		if m := l.mu.queue[0]; m.Raft == nil || m.Stamp != next {
			t.Fatalf("round %d: a message that waits was overwritten", round)
		}
		l.reuse(l.take())
	}
}

package peernet

import (
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	raftv1 "github.com/ashlar-storage/ashlar/api/raft/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
)

// stamps returns the stamps of a link's next batch.
func stamps(t *testing.T, l *link) (out []uint64) {
	t.Helper()
	f := l.Next()
	if f == nil {
		return nil
	}
	b := &raftv1.Batch{}
	if err := proto.Unmarshal(f.Payload(nil), b); err != nil {
		t.Fatal(err)
	}
	for _, m := range b.GetMessages() {
		out = append(out, m.GetStamp())
	}
	return out
}

// TestQueueArrays: what was taken and what waits never share an array, however often the stream broke in between.
func TestQueueArrays(t *testing.T) {
	l := &link{}
	next := uint64(0)
	push := func() {
		next++
		l.push([]multiraft.Message{heartbeat(next)}, false)
	}
	for round := range 8 {
		push()
		if round%2 == 0 {
			l.drop() // the stream broke
			push()
		}
		if got := stamps(t, l); len(got) != 1 || got[0] != next {
			t.Fatalf("round %d: sent %d, not %d", round, got, next)
		}
		push() // while that is sent
		push()
		if got := l.taken[0]; got.Raft == nil || got.Stamp != next-2 {
			t.Fatalf("round %d: what was taken is message %d, not %d", round, got.Stamp, next-2)
		}
		if got := stamps(t, l); len(got) != 2 || got[0] != next-1 || got[1] != next {
			t.Fatalf("round %d: sent %d, not %d and %d", round, got, next-1, next)
		}
		if got := stamps(t, l); got != nil {
			t.Fatalf("round %d: sent %d once more", round, got)
		}
	}
}

// TestWaitingHoldsLittle: a small message that waits for a slow chunkserver holds little memory.
func TestWaitingHoldsLittle(t *testing.T) {
	const n = 20000
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	l := &link{}
	before := inUse()
	for i := range uint64(n) {
		l.push([]multiraft.Message{heartbeat(i)}, false)
	}
	if held := int64(inUse()) - int64(before); held > 1<<10*n {
		t.Errorf("%d messages hold %d bytes", n, held)
	}
	if len(stamps(t, l)) == 0 {
		t.Error("nothing waits")
	}
}

// TestPace: what comes alone is sent at once, what comes in crowds waits for its like, from the second crowd on the first
// of them too.
func TestPace(t *testing.T) {
	var p pace
	now := time.Now()
	for i, step := range []struct {
		gap   time.Duration
		crowd bool
	}{
		{time.Hour, false}, {crowdGap, false}, {5 * crowdGap, false}, // one by one
		{0, true}, {crowdGap / 2, true}, {crowdGap - 1, true}, // a crowd behind one that was sent at once
		{5 * crowdGap, true}, {1, true}, {1, true}, // the next one
		{crowdGap, true}, {crowdGap, false}, {crowdGap, false}, // one by one again
	} {
		now = now.Add(step.gap)
		if got := p.crowd(now); got != step.crowd {
			t.Errorf("message %d, %v after the last: %v", i, step.gap, got)
		}
	}
}

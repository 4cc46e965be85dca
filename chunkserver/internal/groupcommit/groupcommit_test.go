package groupcommit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLog takes updates as told.
type fakeLog struct {
	mu       sync.Mutex
	appends  [][]raftlog.Update
	answer   func(updates []raftlog.Update) error
	segments int
	compact  raftlog.Compaction
}

func (l *fakeLog) Append(u []raftlog.Update) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answer != nil {
		if err := l.answer(u); err != nil {
			return err
		}
	}
	l.appends = append(l.appends, append([]raftlog.Update(nil), u...))
	return nil
}

func (l *fakeLog) Compact() (raftlog.Compaction, error) { return l.compact, nil }
func (l *fakeLog) Length() int                          { return l.segments }

type hooked struct {
	failed  chan error
	space   chan struct{}
	pinning chan []layout.CopysetID
	damaged chan *raftlog.CorruptError
}

func run(t *testing.T, l *fakeLog) (*Writer, *hooked) {
	h := &hooked{make(chan error, 9), make(chan struct{}, 99), make(chan []layout.CopysetID, 99), make(chan *raftlog.CorruptError, 99)}
	w := New(sched.NewClock(nil), l, 4, Hooks{
		Failed:  func(err error) { h.failed <- err },
		NoSpace: func() { h.space <- struct{}{} },
		Pinning: func(ids []layout.CopysetID) { h.pinning <- ids },
		Damaged: func(e *raftlog.CorruptError) { h.damaged <- e },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w, h
}

func TestGathers(t *testing.T) {
	gate := make(chan struct{})
	l := &fakeLog{}
	first := true
	l.answer = func([]raftlog.Update) error {
		if first {
			first = false
			<-gate
		}
		return nil
	}
	w, _ := run(t, l)
	results := make(result, 100)
	for i := range 100 {
		w.Post(raftlog.Update{Copyset: layout.CopysetID(i + 1)}, results)
		if i == 0 {
			for { // until it is being written
				w.mu.Lock()
				n := len(w.mu.queue)
				w.mu.Unlock()
				if n == 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
	close(gate)
	for range 100 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.appends) != 2 {
		t.Errorf("%d appends, want 2", len(l.appends))
	}
	next := layout.CopysetID(1)
	for _, a := range l.appends {
		for _, u := range a {
			if u.Copyset != next {
				t.Fatalf("copyset %d where %d was posted", u.Copyset, next)
			}
			next++
		}
	}
}

func TestBytesBound(t *testing.T) {
	l := &fakeLog{}
	w, _ := run(t, l)
	results := make(result, 8)
	data := make([]byte, appendBytesMax/2)
	for range 4 {
		w.Post(raftlog.Update{Copyset: 1, Entries: []*raftpb.Entry{{Data: data}}}, results)
	}
	for range 4 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range l.appends {
		if len(a) > 1 {
			t.Errorf("%d large updates in one append", len(a))
		}
	}
}

func TestBugIsAlone(t *testing.T) {
	l := &fakeLog{answer: func(us []raftlog.Update) error {
		for _, u := range us {
			if u.Copyset == 2 {
				return &raftlog.UpdateError{Copyset: 2}
			}
		}
		return nil
	}}
	w, h := run(t, l)
	var out [4]result
	for i := range out {
		out[i] = make(result, 1)
		w.Post(raftlog.Update{Copyset: layout.CopysetID(i)}, out[i])
	}
	for i := range out {
		if err := <-out[i]; (err != nil) != (i == 2) {
			t.Errorf("update %d: %v", i, err)
		}
	}
	if len(h.failed) != 0 {
		t.Error("the log was given up")
	}
}

func TestNoSpaceWaits(t *testing.T) {
	n := 0
	l := &fakeLog{answer: func([]raftlog.Update) error {
		if n++; n < 3 {
			return &raftlog.NoSpaceError{Err: errors.New("full")}
		}
		return nil
	}}
	w, h := run(t, l)
	if err := w.Do(context.Background(), raftlog.Update{Copyset: 1}); err != nil {
		t.Fatal(err)
	}
	if len(h.space) != 2 {
		t.Errorf("told %d times, want 2", len(h.space))
	}
}

func TestFailureIsFinal(t *testing.T) {
	n := 0
	l := &fakeLog{answer: func([]raftlog.Update) error {
		n++
		return &raftlog.FailedError{Op: "sync", Err: errors.New("EIO")}
	}}
	w, h := run(t, l)
	for range 3 {
		if err := w.Do(context.Background(), raftlog.Update{Copyset: 1}); !errors.As(err, new(*raftlog.FailedError)) {
			t.Fatal(err)
		}
	}
	if n != 1 || len(h.failed) != 1 {
		t.Errorf("%d tries, told %d times; want one of each", n, len(h.failed))
	}
}

func TestPinning(t *testing.T) {
	l := &fakeLog{segments: 9, compact: raftlog.Compaction{Pinning: []layout.CopysetID{5}}}
	_, h := run(t, l)
	select {
	case ids := <-h.pinning:
		if len(ids) != 1 || ids[0] != 5 {
			t.Errorf("pinning %v", ids)
		}
	case <-time.After(5 * time.Second):
		t.Error("not told")
	}
}

// TestDamaged: an entry that can not be moved is told once, its copyset is asked for a checkpoint until it is gone, however short
// the log is, and the log has not failed.
func TestDamaged(t *testing.T) {
	l := &fakeLog{segments: 3, compact: raftlog.Compaction{
		Pinning: []layout.CopysetID{5}, Damaged: &raftlog.CorruptError{Segment: "x", Copyset: 5},
	}}
	w, h := run(t, l)
	for range 2 {
		select {
		case ids := <-h.pinning:
			if len(ids) != 1 || ids[0] != 5 {
				t.Errorf("pinning %v", ids)
			}
		case err := <-h.failed:
			t.Fatal(err)
		case <-time.After(10 * time.Second):
			t.Fatal("not told")
		}
	}
	if len(h.damaged) != 1 {
		t.Errorf("told %d times", len(h.damaged))
	}
	done := make(result, 1)
	w.Post(raftlog.Update{Copyset: 5, TruncateTo: 1}, done)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the log does not go on")
	}
}

func TestStopped(t *testing.T) {
	w := New(sched.NewClock(nil), &fakeLog{}, 4, Hooks{})
	ctx, cancel := context.WithCancel(context.Background())
	r := make(result, 1)
	w.Post(raftlog.Update{Copyset: 1}, r)
	cancel()
	w.Run(ctx)
	if err := <-r; err != nil {
		t.Errorf("what was posted before: %v", err)
	}
	if err := w.Do(context.Background(), raftlog.Update{Copyset: 1}); !errors.Is(err, sched.ErrStopped) {
		t.Errorf("after it: %v", err)
	}
}

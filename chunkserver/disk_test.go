package chunkserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/diskwatch"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// TestDiskReport: the capacity told is what hosts can use, so that a disk that refuses writes is told as full.
func TestDiskReport(t *testing.T) {
	u := blockstore.Usage{Capacity: 1000, Used: 500, PendingFree: 100, Free: 400, Reserve: 150}
	d := newDisk(zap.NewNop(), diskwatch.New(), func() blockstore.Usage { return u }, 50, nil)
	if r := d.report(nil); r.Capacity != 800 || r.Used != 600 || r.Err != nil || r.Stalled != 0 {
		t.Errorf("%+v", r)
	}
	u = blockstore.Usage{Capacity: 1000, Used: 780, PendingFree: 30, Free: 190, Reserve: 150}
	d.sample()
	if r := d.report(errors.New("gone")); r.Capacity != 800 || r.Used != 800 || r.Err == nil {
		t.Errorf("a full disk: %+v", r)
	}
}

// TestGuard: while the log does not come back what others have committed is handed over, again and again; while reads do
// not come back everything is. The space told is the last one known, and its age grows.
func TestGuard(t *testing.T) {
	for name, c := range map[string]struct {
		kind vfs.OpKind
		all  bool
		wait time.Duration
	}{"log": {vfs.OpSync, false, patience}, "read": {vfs.OpReadAt, true, readPatience}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			held, seen := make(chan struct{}), make(chan struct{})
			fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
				if op.Kind == c.kind {
					close(seen)
					<-held
				}
				return vfs.Fault{}
			})
			w := diskwatch.New()
			yields := make(chan bool, 100)
			d := newDisk(zap.NewNop(), w, func() blockstore.Usage { return blockstore.Usage{} }, 0,
				func(_ context.Context, all bool) { yields <- all })
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); d.Run(ctx) }()
			watched := w.LogFS(fs)
			if c.kind == vfs.OpReadAt {
				watched = w.DataFS(fs)
			}
			f, err := watched.Open("1.log", vfs.CreateMissing)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if c.kind == vfs.OpSync {
					_ = f.Sync() // it does not fail
				} else {
					_, _ = f.ReadAt(make([]byte, 1), 0) // io.EOF
				}
			}()
			<-seen
			began := time.Now()
			for range 2 {
				if all := <-yields; all != c.all {
					t.Errorf("everything: %v", all)
				}
			}
			if took := time.Since(began); took < c.wait || took > c.wait+10*yieldEvery {
				t.Errorf("asked twice within %v", took)
			}
			if r := d.report(nil); r.Stalled < c.wait {
				t.Errorf("stalled for %v", r.Stalled)
			}
			close(held)
			<-done
			if r := d.report(nil); r.Stalled != 0 {
				t.Errorf("stalled for %v after it came back", r.Stalled)
			}
			cancel()
			<-ended
		})
	}
}

package chunkserver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/diskwatch"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/heartbeat"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// TestDiskReport: the capacity told is what hosts can use, so that a disk that refuses writes is told as full.
func TestDiskReport(t *testing.T) {
	u := blockstore.Usage{Capacity: 1000, Used: 500, PendingFree: 100, Free: 400, Reserve: 150}
	d := newDisk(zap.NewNop(), diskwatch.New(), func() (blockstore.Usage, heartbeat.Space) { return u, heartbeat.Space{Content: u.Used, Spare: 3} }, 50, nil)
	if r := d.report(nil); r.Capacity != 800 || r.Used != 600 || r.Err != nil || r.Stalled != 0 ||
		r.Space != (heartbeat.Space{Content: 500, Spare: 3, Reserved: 200}) {
		t.Errorf("%+v", r)
	}
	u = blockstore.Usage{Capacity: 1000, Used: 780, PendingFree: 30, Free: 190, Reserve: 150}
	d.sample()
	if r := d.report(errors.New("gone")); r.Capacity != 800 || r.Used != 800 || r.Err == nil {
		t.Errorf("a full disk: %+v", r)
	}
}

// TestGuard: while a write does not come back what others have committed is handed over, again and again; while reads do
// not come back everything is. The metaserver is told when that is late for such an operation, and that the disk has failed when
// it is much too late.
func TestGuard(t *testing.T) {
	for name, c := range map[string]struct {
		class       diskwatch.Class
		all         bool
		yield, told time.Duration
	}{
		"log":  {diskwatch.Log, false, patience, patience},
		"read": {diskwatch.Read, true, readPatience, readPatience},
		"data": {diskwatch.Background, false, patience, backgroundPatience},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { guard(t, c.class, c.all, c.yield, c.told) }) })
	}
}

// guard has an operation of a class not come back: everything, or not, is to be handed over after the time yield, and the
// metaserver told after the time told.
func guard(t *testing.T, class diskwatch.Class, all bool, yield, told time.Duration) {
	held := make(chan struct{})
	fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSync || op.Kind == vfs.OpReadAt {
			<-held
		}
		return vfs.Fault{}
	})
	w := diskwatch.New()
	var yields []time.Time
	d := newDisk(zap.NewNop(), w, func() (blockstore.Usage, heartbeat.Space) { return blockstore.Usage{}, heartbeat.Space{} }, 0, func(_ context.Context, everything bool) {
		if yields = append(yields, time.Now()); everything != all {
			t.Errorf("everything: %v", everything)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { d.Run(ctx) })
	watched := w.DataFS(fs)
	if class == diskwatch.Log {
		watched = w.LogFS(fs)
	}
	f, err := watched.Open("1.log", vfs.CreateMissing)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	wg.Go(func() {
		if class == diskwatch.Read {
			_, _ = f.ReadAt(make([]byte, 1), 0) // io.EOF
		} else {
			_ = f.Sync() // it does not fail
		}
	})
	time.Sleep(told - time.Millisecond)
	if r := d.report(nil); r.Stalled != 0 {
		t.Errorf("told %v before it is late", r.Stalled)
	}
	time.Sleep(2 * time.Millisecond)
	if r := d.report(nil); r.Stalled < told {
		t.Errorf("late, and told %v", r.Stalled)
	}
	time.Sleep(stalledMax - told - 2*time.Millisecond)
	if err := d.Err(); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Millisecond)
	if d.Err() == nil || d.report(nil).Err == nil {
		t.Error("it has not failed")
	}
	close(held)
	synctest.Wait()
	if r := d.report(nil); r.Stalled != 0 || r.Err != nil {
		t.Errorf("after it came back: stalled for %v, %v", r.Stalled, r.Err)
	}
	cancel()
	wg.Wait()
	if n := len(yields); n < 10 || n > int(stalledMax/yieldEvery) {
		t.Fatalf("asked %d times", n)
	}
	if first := yields[0].Sub(began); first < yield || first > yield+2*guardEvery {
		t.Errorf("asked after %v", first)
	}
}

package diskwatch

import (
	"path"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate lets an operation through when it is told to.
type gate struct {
	mu   sync.Mutex
	base string
	kind vfs.OpKind
	open chan struct{}
	seen chan struct{}
}

func (g *gate) inject(op vfs.Op) vfs.Fault {
	g.mu.Lock()
	hold := g.open != nil && op.Kind == g.kind && op.Base() == g.base
	open, seen := g.open, g.seen
	g.mu.Unlock()
	if hold {
		close(seen)
		<-open
	}
	return vfs.Fault{}
}

// hold lets the next such operation wait, and returns what is closed when it does, and what lets it go on.
func (g *gate) hold(base string, kind vfs.OpKind) (seen chan struct{}, release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.base, g.kind, g.open, g.seen = base, kind, make(chan struct{}), make(chan struct{})
	return g.seen, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		close(g.open)
		g.open = nil
	}
}

// TestStalled: what does not come back is seen in its class, for as long as it lasts, and nobody else waits for it.
func TestStalled(t *testing.T) {
	g := &gate{}
	w := New()
	below := vfs.NewFault(vfs.NewMem(), g.inject)
	for _, c := range []struct {
		fs    vfs.FS
		name  string
		flags vfs.OpenFlags
		kind  vfs.OpKind
		do    func(vfs.File) error
		class Class
	}{
		{w.LogFS(below), "1.log", vfs.ReadWrite, vfs.OpSync, vfs.File.Sync, Log},
		{w.LogFS(below), "1.log", vfs.ReadWrite, vfs.OpWriteAt, writeBlock, Log},
		{w.LogFS(below), "1.log", vfs.ReadWrite | vfs.Direct, vfs.OpWriteAt, writeBlock, Log},
		{w.LogFS(below), "1.spare", vfs.ReadWrite, vfs.OpSync, vfs.File.Sync, Log},
		{w.LogFS(below), "1.spare", vfs.ReadWrite | vfs.Direct, vfs.OpWriteAt, writeBlock, Background},
		{w.LogFS(below), "1.log", vfs.ReadWrite, vfs.OpReadAt, readBlock, Background},
		{w.DataFS(below), "blocks", vfs.ReadWrite, vfs.OpReadAt, readBlock, Read},
		{w.DataFS(below), "blocks", vfs.ReadWrite | vfs.Direct, vfs.OpReadAt, readBlock, Background},
		{w.DataFS(below), "blocks", vfs.ReadWrite, vfs.OpSync, vfs.File.Sync, Background},
		{w.DataFS(below), "blocks", vfs.ReadWrite, vfs.OpPunchHole, func(f vfs.File) error { return f.PunchHole(0, 4096) }, Background},
	} {
		if f, err := below.Open(c.name, vfs.CreateMissing); err != nil {
			t.Fatal(err)
		} else if err := writeBlock(f); err != nil {
			t.Fatal(err)
		}
		f, err := c.fs.Open(c.name, c.flags)
		if err != nil {
			t.Fatal(err)
		}
		seen, release := g.hold(path.Base(c.name), c.kind)
		done := make(chan error)
		go func() { done <- c.do(f) }()
		<-seen
		time.Sleep(2 * time.Millisecond)
		for class := Log; class < classes; class++ {
			d := w.Stalled(class)
			if (d >= 2*time.Millisecond) != (class == c.class) {
				t.Errorf("%s, %v under way: stalled as %v for %v, it is a %v", c.name, c.kind, class, d, c.class)
			}
		}
		release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if d := w.Stalled(c.class); d != 0 {
			t.Errorf("%s, %v came back: stalled for %v", c.name, c.kind, d)
		}
	}
}

func writeBlock(f vfs.File) error {
	_, err := f.WriteAt(vfs.Aligned(4096), 0)
	return err
}

func readBlock(f vfs.File) error {
	_, err := f.ReadAt(vfs.Aligned(4096), 0)
	return err
}

// TestStopped: the time in which the process was stopped is no time in which the disk did not answer, whoever looks first.
func TestStopped(t *testing.T) {
	w := New()
	goOn := func(d time.Duration) { w.start = w.start.Add(-d) }
	op := w.enter(Log)
	goOn(time.Minute) // it was stopped, and nobody has looked at the clock since
	if d := w.Stalled(Log); d > stepMax {
		t.Errorf("stopped for a minute: the disk has not answered for %v", d)
	}
	w.tick()
	if d := w.Stalled(Log); d < stepMax || d > stepMax+pace {
		t.Errorf("after the next tick: it has not answered for %v", d)
	}
	for range 60 {
		goOn(pace)
		w.tick()
	}
	if d, want := w.Stalled(Log), stepMax+60*pace; d < want || d > want+time.Second {
		t.Errorf("in the half minute after that: it has not answered for %v", d)
	}
	w.leave(op, &w.syncs)
	next := w.enter(Log)
	goOn(pace)
	if d := w.Stalled(Log); d < pace || d > 2*pace {
		t.Errorf("one that began after that is stalled for %v", d)
	}
	w.leave(next, nil)
}

// TestSlots: more operations than there are slots lose nothing but their place.
func TestSlots(t *testing.T) {
	w := New()
	var ops []operation
	for range slotsMax + 10 {
		ops = append(ops, w.enter(Log))
	}
	time.Sleep(time.Millisecond)
	if w.Stalled(Log) < time.Millisecond || w.Stalled(Read) != 0 {
		t.Errorf("stalled %v, reads %v", w.Stalled(Log), w.Stalled(Read))
	}
	for _, op := range ops {
		w.leave(op, &w.syncs)
	}
	w.tick()
	if n := w.Health().Syncs.Count; n != slotsMax+10 || w.Stalled(Log) != 0 {
		t.Errorf("%d counted, stalled %v", n, w.Stalled(Log))
	}
}

// TestHealth: the last seconds follow the disk at once, what is usual slowly.
func TestHealth(t *testing.T) {
	w := New()
	span := func(n int, d time.Duration) {
		for range n {
			w.syncs.add(d)
		}
		w.tick()
	}
	near := func(what string, got, want time.Duration) {
		t.Helper()
		if got < want || got > want*5/4+time.Microsecond {
			t.Errorf("%s is %v, want %v to a quarter more", what, got, want)
		}
	}
	for range 1000 {
		span(200, 700*time.Microsecond)
	}
	h := w.Health()
	near("the median", h.Syncs.P50, 700*time.Microsecond)
	near("what is usual", h.UsualSync, 700*time.Microsecond)
	if h.Syncs.Count != spans*200 {
		t.Errorf("%d syncs", h.Syncs.Count)
	}
	for range spans {
		span(5, 100*time.Millisecond)
	}
	h = w.Health()
	near("the median of a slow disk", h.Syncs.P50, 100*time.Millisecond)
	near("what is usual", h.UsualSync, 700*time.Microsecond)
	for range spans {
		span(98, time.Millisecond)
		w.syncs.add(time.Second)
		w.syncs.add(time.Second)
	}
	span(0, 0)
	near("the p99", w.Health().Syncs.P99, time.Second)
	for range spans {
		span(0, 0)
	}
	if h := w.Health(); h.Syncs != (Latency{}) || h.UsualSync == 0 {
		t.Errorf("idle: %+v", h)
	}
}

// TestBuckets: each time is in the bucket that ends behind it.
func TestBuckets(t *testing.T) {
	for us := time.Duration(1); us < 1<<31; us += us/7 + 1 {
		i := bucket(us * time.Microsecond)
		if end := upper(i); end <= us*time.Microsecond-time.Microsecond || i > 0 && upper(i-1) > us*time.Microsecond {
			t.Fatalf("%d µs is in bucket %d, from %v to %v", us, i, upper(i-1), end)
		}
	}
	if bucket(0) != 0 || bucket(1<<62) != buckets-1 {
		t.Error("what is out of range has no bucket")
	}
}

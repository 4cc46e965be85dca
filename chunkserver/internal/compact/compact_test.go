package compact

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mib         = 1 << 20
	chunkBlocks = 2 * blocksPerMiB
)

// testDisk is a store whose owner is the test.
type testDisk struct {
	t     *testing.T
	store *blockstore.Store

	mu        sync.Mutex // held by the owner
	requests  uint64
	full      bool
	exchanged []layout.ChunkID
	times     []time.Time
	meanwhile func() // what the owner does before it exchanges
}

func newTestDisk(t *testing.T) *testDisk {
	t.Helper()
	s, err := blockstore.Open(vfs.NewMem(), "/disk/store", blockstore.Identity{Cluster: [16]byte{1}, Chunkserver: 7}, blockstore.Options{
		GrowStep: mib, FlushWriters: 1, IndexFS: pebblevfs.NewMem(), IndexCacheSize: mib,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &testDisk{t: t, store: s}
}

func (d *testDisk) Copysets() []layout.CopysetID { return d.store.Copysets() }

func (d *testDisk) Copyset(id layout.CopysetID) (Content, error) {
	c, err := d.store.Copyset(id)
	if err != nil {
		return nil, err
	}
	return observed{c, d}, nil
}

// observed notes which chunks are gathered.
type observed struct {
	*blockstore.Copyset
	d *testDisk
}

func (o observed) Gather(ch layout.ChunkID, first uint32) (*blockstore.Gathered, uint32, error) {
	g, next, err := o.Copyset.Gather(ch, first)
	if g != nil {
		o.d.exchanged, o.d.times = append(o.d.exchanged, ch), append(o.d.times, time.Now())
	}
	return g, next, err
}

func (d *testDisk) Exchange(_ context.Context, id layout.CopysetID, g *blockstore.Gathered) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.meanwhile != nil {
		d.meanwhile()
	}
	c, err := d.store.Copyset(id)
	if err != nil {
		return 0, err
	}
	return c.Exchange(g)
}

func (d *testDisk) Roomy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.full
}

func (d *testDisk) Requests() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests
}

func (d *testDisk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *testDisk) commit(c *blockstore.Copyset) {
	d.t.Helper()
	d.must(d.store.Commit([]*blockstore.Frozen{c.Freeze(nil)}))
}

// scatter writes every step-th block of a chunk on its own, in random order, and the rest of the chunk before at once, and returns
// what it holds.
func (d *testDisk) scatter(c *blockstore.Copyset, ch layout.ChunkID, step int) []byte {
	d.t.Helper()
	r := rand.New(rand.NewPCG(uint64(ch.Index), 3))
	want := make([]byte, chunkBlocks*layout.BlockSize)
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	d.must(c.Write(ch, 0, want, nil))
	for _, b := range r.Perm(chunkBlocks / step) {
		p := want[b*step*layout.BlockSize:][:layout.BlockSize]
		p[0]++
		d.must(c.Write(ch, uint32(b*step)*layout.BlockSize, p, nil))
	}
	d.commit(c)
	return want
}

func (d *testDisk) check(c *blockstore.Copyset, ch layout.ChunkID, want []byte) {
	d.t.Helper()
	got := make([]byte, len(want))
	if _, err := c.Read(ch, 0, got, nil); err != nil || !bytes.Equal(got, want) {
		d.t.Errorf("chunk %v: wrong bytes, %v", ch, err)
	}
}

func chunk(i uint32) layout.ChunkID { return layout.ChunkID{Volume: 1, Index: i} }

// run runs a compactor in a bubble while fn looks at it.
func run(t *testing.T, rate int64, fn func(d *testDisk, c *Compactor, cs *blockstore.Copyset)) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDisk(t)
		cs, err := d.store.Create(1)
		d.must(err)
		c := New(Config{RateMax: rate, GiveBack: d.store.GiveBack, Logger: zap.NewNop()}, d)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { c.Run(ctx) })
		fn(d, c, cs)
		cancel()
		wg.Wait()
		d.must(d.store.Close())
	})
}

// TestCompact: the worst chunks come first, all end up in few pieces with what they held, and the rate is kept.
func TestCompact(t *testing.T) {
	const rate = mib / 2
	run(t, rate, func(d *testDisk, c *Compactor, cs *blockstore.Copyset) {
		well, worst, bad := d.scatter(cs, chunk(0), chunkBlocks), d.scatter(cs, chunk(1), 1), d.scatter(cs, chunk(2), 4)
		time.Sleep(settle + time.Second)
		if s := c.Stats(); s.Surveys != 1 || s.Blocks != 3*chunkBlocks || s.Scattered != 2 || s.PiecesPerMiB() < 50 || s.Moved != 0 {
			t.Errorf("after the first survey: %+v", s)
		}
		time.Sleep(4 * settle)
		s := c.Stats()
		if s.Moved != 2*chunkBlocks*layout.BlockSize || s.Surveys < 2 || s.Scattered != 0 || s.PiecesPerMiB() > 3 {
			t.Errorf("after a round: %+v", s)
		}
		if want := []layout.ChunkID{chunk(1), chunk(1), chunk(2), chunk(2)}; len(d.exchanged) != len(want) || d.exchanged[0] != want[0] || d.exchanged[2] != want[2] {
			t.Errorf("gathered %v", d.exchanged)
		}
		for i := range d.times[1:] {
			if gap := d.times[i+1].Sub(d.times[i]); gap < 2*mib/rate*time.Second {
				t.Errorf("%v between two steps", gap)
			}
		}
		d.commit(cs)
		for i, want := range [][]byte{well, worst, bad} {
			d.check(cs, chunk(uint32(i)), want)
		}
	})
}

// TestCompactYields: nothing is moved while there are many requests, or the disk has no room, and afterwards it is.
func TestCompactYields(t *testing.T) {
	run(t, 64*mib, func(d *testDisk, c *Compactor, cs *blockstore.Copyset) {
		d.scatter(cs, chunk(1), 1)
		for range int(5 * settle / (10 * time.Millisecond)) {
			d.mu.Lock()
			d.requests++
			d.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
		if s := c.Stats(); s.Moved != 0 || s.Scattered != 1 {
			t.Errorf("under load: %+v", s)
		}
		d.mu.Lock()
		d.full = true
		d.mu.Unlock()
		time.Sleep(settle)
		if s := c.Stats(); s.Moved != 0 {
			t.Errorf("without room: %+v", s)
		}
		d.mu.Lock()
		d.full = false
		d.mu.Unlock()
		time.Sleep(settle)
		if s := c.Stats(); s.Moved != chunkBlocks*layout.BlockSize {
			t.Errorf("then: %+v", s)
		}
	})
}

// TestCompactAmongWrites: a chunk that is written between survey and round waits for the next one; what is written while a
// stretch is copied is there in the end.
func TestCompactAmongWrites(t *testing.T) {
	run(t, 64*mib, func(d *testDisk, c *Compactor, cs *blockstore.Copyset) {
		want := d.scatter(cs, chunk(1), 1)
		write := func(block int) {
			p := want[block*layout.BlockSize:][:layout.BlockSize]
			p[1]++
			d.must(cs.Write(chunk(1), uint32(block)*layout.BlockSize, p, nil))
		}
		time.Sleep(settle + time.Second)
		write(5)
		d.commit(cs)
		time.Sleep(settle)
		if s := c.Stats(); s.Moved != 0 || s.Surveys != 1 {
			t.Errorf("while it is written: %+v", s)
		}
		d.mu.Lock()
		d.meanwhile = func() { write(9) }
		d.mu.Unlock()
		time.Sleep(surveyEvery + 2*settle)
		if s := c.Stats(); s.Moved != (chunkBlocks-1)*layout.BlockSize {
			t.Errorf("then: %+v", s)
		}
		d.commit(cs)
		d.check(cs, chunk(1), want)
	})
}

// TestCompactOff: with a rate of 0 the disk is looked at and nothing is moved.
func TestCompactOff(t *testing.T) {
	run(t, 0, func(d *testDisk, c *Compactor, cs *blockstore.Copyset) {
		d.scatter(cs, chunk(1), 1)
		time.Sleep(surveyEvery + 3*settle)
		if s := c.Stats(); s.Moved != 0 || s.Surveys < 2 || s.Scattered != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestKeep: of many candidates the worst are kept, the worst of all first.
func TestKeep(t *testing.T) {
	var worst []candidate
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(5 * candidatesMax) {
		worst = keep(worst, candidate{extra: i + 1})
	}
	worst = keep(worst, candidate{})
	if len(worst) != candidatesMax {
		t.Fatalf("%d are kept", len(worst))
	}
	for i, x := range worst {
		if x.extra != 5*candidatesMax-i {
			t.Fatalf("%d. has %d", i, x.extra)
		}
	}
}

// TestPace: rate, share and rest.
func TestPace(t *testing.T) {
	p := pace{max: 10 * mib}
	p.begin(100)
	for i, x := range []struct {
		bytes    int64
		took     time.Duration
		requests uint64
		want     time.Duration
	}{
		{mib, 40 * time.Millisecond, 100, 60 * time.Millisecond},
		{mib, 200 * time.Millisecond, 100, 0},
		{mib, 40 * time.Millisecond, 101, 360 * time.Millisecond},
		{mib, time.Minute, 102, yieldMax},
		{0, time.Millisecond, 102, 0},
		{0, time.Millisecond, 103, 9 * time.Millisecond},
	} {
		if got := p.pause(x.bytes, x.took, x.requests); got != x.want {
			t.Errorf("%d: pause %v, want %v", i, got, x.want)
		}
	}
	at := time.Unix(1000, 0)
	for i, x := range []struct {
		after    time.Duration
		requests uint64
		want     bool
	}{
		{0, 200, true}, // nothing is known of before
		{time.Second, 240, false},
		{100 * time.Millisecond, 400, false}, // too early to tell
		{900 * time.Millisecond, 400, true},
		{time.Second, 450, false},
		{time.Hour, 10000, true},
	} {
		at = at.Add(x.after)
		if got := p.busy(at, x.requests); got != x.want {
			t.Errorf("%d: busy %v", i, got)
		}
	}
}

package scrub

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stepBlocks is what one Verify of a fakeDisk reads.
const stepBlocks = 256

// fakeDisk has copysets of chunks that are all of the same size, in blocks, and takes its time to read them.
type fakeDisk struct {
	copysets map[layout.CopysetID]int // chunks
	blocks   uint32                   // of a chunk
	took     time.Duration            // of a read

	mu       sync.Mutex
	err      error
	requests uint64
	serving  bool // a request comes with each read
	bad      map[Place]bool
	versions []blockstore.VersionLeaf // of copyset 1: what only versions have, 64 blocks each
	help     bool                     // the peers have good copies
	helped   layout.CopysetID         // its peers have, whatever help says
	slow     time.Duration            // that a repair takes
	torn     map[layout.ChunkID]bool  // chunks whose extent map can not be read
	reads    []Place
	compared []layout.CopysetID
}

func (d *fakeDisk) Compare(_ context.Context, id layout.CopysetID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.compared = append(d.compared, id)
	return errors.New("nobody leads") // which hinders nothing
}

func (d *fakeDisk) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *fakeDisk) Copysets() []layout.CopysetID {
	var ids []layout.CopysetID
	for id := range d.copysets {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (d *fakeDisk) Copyset(id layout.CopysetID) (Content, error) {
	if d.copysets[id] == 0 {
		return nil, blockstore.ErrNotFound
	}
	return &fakeContent{d, id}, nil
}

func (d *fakeDisk) Used() (n int64) {
	for _, chunks := range d.copysets {
		n += int64(chunks) * int64(d.blocks) * layout.BlockSize
	}
	return n
}

func (d *fakeDisk) Requests() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests
}

func (d *fakeDisk) Repair(_ context.Context, e *blockstore.ChecksumError) error {
	time.Sleep(d.slow)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.help && d.helped != e.Copyset {
		return errors.New("no peer has it")
	}
	delete(d.bad, placeOf(e))
	return nil
}

type fakeContent struct {
	d  *fakeDisk
	id layout.CopysetID
}

func (c *fakeContent) Chunks() (ids []layout.ChunkID) {
	for i := range c.d.copysets[c.id] {
		ids = append(ids, layout.ChunkID{Volume: 3, Index: uint32(i)})
	}
	return ids
}

func (c *fakeContent) Verify(ch layout.ChunkID, first uint32) (v blockstore.Verified, err error) {
	time.Sleep(c.d.took)
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.d.reads = append(c.d.reads, Place{c.id, ch.Volume, ch.Index, first, 0})
	if c.d.torn[ch] {
		return v, errors.New("the leaf is damaged")
	}
	if c.d.serving {
		c.d.requests++
	}
	end := min(first+stepBlocks, c.d.blocks)
	v.Blocks = int(end - first)
	for b := first; b < end; b++ {
		if c.d.bad[Place{c.id, ch.Volume, ch.Index, b, 0}] {
			v.Damaged = append(v.Damaged, &blockstore.ChecksumError{Copyset: c.id, Chunk: ch, Block: b})
		}
	}
	if end < c.d.blocks {
		v.Next = end
	}
	return v, nil
}

// VerifyVersions reads one leaf at a time.
func (c *fakeContent) VerifyVersions(from blockstore.VersionLeaf) (v blockstore.Verified, next blockstore.VersionLeaf, err error) {
	time.Sleep(c.d.took)
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.id != 1 {
		return v, next, nil
	}
	for i, l := range c.d.versions {
		if l.Compare(from) < 0 && from != (blockstore.VersionLeaf{}) {
			continue
		}
		if v.Blocks > 0 {
			return v, c.d.versions[i], nil
		}
		v.Blocks = 64
		for b := l.Index * 64; b < (l.Index+1)*64; b++ {
			if c.d.bad[Place{c.id, l.Chunk.Volume, l.Chunk.Index, b, l.Version}] {
				v.Damaged = append(v.Damaged, &blockstore.ChecksumError{Copyset: c.id, Chunk: l.Chunk, Block: b, Version: l.Version})
			}
		}
	}
	return v, next, nil
}

// look returns what was read since the last look.
func (d *fakeDisk) look() []Place {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.reads
	d.reads = nil
	return r
}

func (d *fakeDisk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

const (
	mib = 1 << 20
	day = 24 * time.Hour
)

// bench is a scrubber that runs in a bubble of synctest.
type bench struct {
	t    *testing.T
	fs   *vfs.Mem
	disk *fakeDisk
	cfg  Config
	*Scrubber
	stop func()
}

func newBench(t *testing.T, disk *fakeDisk, interval time.Duration, rateMax int64) *bench {
	b := &bench{t: t, fs: vfs.NewMem(), disk: disk}
	b.cfg = Config{FS: b.fs, Dir: "disk", Interval: interval, RateMax: rateMax, Logger: zap.NewNop()}
	if err := b.fs.MkdirAll("disk"); err != nil {
		t.Fatal(err)
	}
	b.start()
	return b
}

func (b *bench) start() {
	b.Scrubber = New(b.cfg, b.disk)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Run(ctx)
	}()
	b.stop = func() {
		cancel()
		<-done
	}
}

// TestWithinTheInterval: passes begin each interval, end a tenth before the next, and read everything once.
func TestWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{copysets: map[layout.CopysetID]int{2: 90, 7: 110}, blocks: 4096, took: 5 * time.Millisecond} // 3200 MiB
		b := newBench(t, d, 1000*time.Second, 64*mib)
		defer func() { b.stop() }()
		time.Sleep(450 * time.Second)
		if n := len(d.look()); n < 1550 || n > 1650 {
			t.Errorf("%d of 3200 MiB in half of the time", n)
		}
		if st := b.Status(); !st.Running || st.Rate < 3*mib || st.Rate > 4*mib || !st.Next.IsZero() {
			t.Errorf("%+v", st)
		}
		time.Sleep(460 * time.Second)
		st := b.Status()
		if st.Running || st.Pass != 1 || st.LastPass != 1 || st.Last.Verified != 200*4096 || time.Until(st.Next) != 90*time.Second {
			t.Errorf("%+v", st)
		}
		d.look()
		time.Sleep(89 * time.Second)
		if r := d.look(); len(r) > 0 {
			t.Errorf("read between two passes: %v", r)
		}
		time.Sleep(2 * time.Second)
		if st := b.Status(); st.Pass != 2 || !st.Running {
			t.Errorf("%+v", st)
		}
	})
}

// TestCompares: each pass has the replicas of each copyset compared once, behind its chunks; that it does not work hinders
// nothing, and a pass that a restart interrupts compares what is left.
func TestCompares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{copysets: map[layout.CopysetID]int{2: 3, 7: 3, 9: 3}, blocks: 4096, took: 5 * time.Millisecond}
		b := newBench(t, d, 1000*time.Second, 64*mib)
		defer func() { b.stop() }()
		compared := func(want ...layout.CopysetID) {
			t.Helper()
			d.mu.Lock()
			defer d.mu.Unlock()
			if !slices.Equal(d.compared, want) {
				t.Errorf("compared %v, want %v", d.compared, want)
			}
		}
		time.Sleep(10 * time.Second)
		compared()
		time.Sleep(50 * time.Second)
		compared(2)
		b.stop()
		b.start()
		time.Sleep(840 * time.Second)
		compared(2, 7, 9)
		time.Sleep(1000 * time.Second)
		compared(2, 7, 9, 2, 7, 9)
	})
}

// TestPace: the floor, the ceiling, and that it yields to requests but not when it is late.
func TestPace(t *testing.T) {
	count := func(t *testing.T, d *fakeDisk, interval time.Duration, rateMax int64, from, took time.Duration, asked bool) (n int) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, d, interval, rateMax)
			defer func() { b.stop() }()
			if asked {
				time.Sleep(time.Millisecond)
				if _, err := b.Start(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(from)
			d.look()
			time.Sleep(took)
			n = len(d.look())
		})
		return n
	}
	disk := func(chunks int, serving bool) *fakeDisk {
		return &fakeDisk{copysets: map[layout.CopysetID]int{1: chunks}, blocks: 4096, took: 20 * time.Millisecond, serving: serving}
	}
	for _, c := range []struct {
		name       string
		d          *fakeDisk
		interval   time.Duration
		rateMax    int64
		from, took time.Duration
		asked      bool
		want       int // MiB
	}{
		{"little data: the floor", disk(100, false), 7 * day, 64 * mib, 0, 100 * time.Second, false, 100},
		{"a ceiling below the floor", disk(100, false), 7 * day, mib / 4, 0, 100 * time.Second, false, 25},
		{"too much data: the ceiling", disk(10000, false), time.Hour, 8 * mib, 0, 100 * time.Second, false, 800},
		{"asked for: the ceiling", disk(10000, false), 7 * day, 8 * mib, 0, 100 * time.Second, true, 800},
		{"yields", disk(10000, true), 1000 * time.Hour, 40 * mib, 0, 100 * time.Second, true, 1000},
		{"late, and does not yield", disk(10000, true), 1000 * time.Second, 40 * mib, 901 * time.Second, 50 * time.Second, false, 2000},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n := count(t, c.d, c.interval, c.rateMax, c.from, c.took, c.asked); n < c.want*97/100-1 || n > c.want*103/100+1 {
				t.Errorf("%d MiB, want about %d", n, c.want)
			}
		})
	}
}

// TestRestart: a pass goes on where it was, and what was found is known.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{copysets: map[layout.CopysetID]int{1: 10, 2: 10}, blocks: 1000, bad: map[Place]bool{}}
		bad := Place{Copyset: 1, Volume: 3, Chunk: 2, Block: 300}
		d.bad[bad] = true
		b := newBench(t, d, 7*day, 64*mib)
		defer func() { b.stop() }()
		time.Sleep(50 * time.Second)
		before := b.Status()
		if len(before.Bad) != 1 || before.Bad[0].Place != bad || before.Bad[0].Error == "" {
			t.Fatalf("unrepairable: %+v", before.Bad)
		}
		b.stop()
		before = b.Status()
		d.look()
		time.Sleep(time.Hour)
		b.start()
		time.Sleep(time.Millisecond)
		if r := d.look(); len(r) != 1 || r[0] != before.At || before.At == (Place{}) {
			t.Errorf("went on with %v, it had been at %v", r, before.At)
		}
		st := b.Status()
		if !st.Began.Equal(before.Began) || len(st.Findings) != 1 || len(st.Bad) != 1 || st.Pass != 1 {
			t.Errorf("%+v", st)
		}
		time.Sleep(time.Minute)
		if st := b.Status(); st.Running || st.LastPass != 1 || st.Last != (Tally{Verified: 20000, Damaged: 1, Unrepairable: 1}) {
			t.Errorf("%+v", st)
		}
		// A state that can not be read is no reason not to scrub.
		b.stop()
		f, err := b.fs.Open("disk/"+Name, vfs.ReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{'x'}, 20); err != nil {
			t.Fatal(err)
		}
		b.start()
		time.Sleep(time.Second)
		if st := b.Status(); !st.Running || st.Pass != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// TestRepair: what a peer has is repaired at once, the rest when a peer has it, or is told as damaged until then.
func TestRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := Place{1, 3, 0, 7, 0}, Place{1, 3, 1, 600, 0}
		d := &fakeDisk{copysets: map[layout.CopysetID]int{1: 2}, blocks: 1000, bad: map[Place]bool{first: true}, help: true}
		b := newBench(t, d, 7*day, 64*mib)
		defer func() { b.stop() }()
		time.Sleep(time.Minute)
		st := b.Status()
		if st.Last != (Tally{Verified: 2000, Damaged: 1, Repaired: 1}) || len(st.Bad) != 0 || len(st.Findings) != 1 || !st.Findings[0].Repaired {
			t.Fatalf("%+v", st)
		}
		d.set(func() { d.bad[second], d.help = true, false })
		pass, err := b.Start()
		if err != nil || pass != 2 {
			t.Fatal(pass, err)
		}
		time.Sleep(time.Minute)
		st = b.Status()
		if st.LastPass != 2 || st.Last.Unrepairable != 1 || len(st.Bad) != 1 || st.Bad[0].Place != second {
			t.Fatalf("%+v", st)
		}
		d.set(func() { d.help = true })
		time.Sleep(retryEvery + time.Minute)
		if st = b.Status(); len(st.Bad) != 0 || !st.Findings[1].Repaired || st.Pass != 2 {
			t.Fatalf("%+v", st)
		}
		if c := b.Counters(); c.Damaged.Load() != 2 || c.Repaired.Load() != 2 || c.Verified.Load() != 4000 {
			t.Error("counters")
		}
	})
}

// TestAsk: a pass that is asked for begins anew when a planned one runs, is joined when it runs already, and runs when none
// is planned at all. A failed disk is not scrubbed.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{copysets: map[layout.CopysetID]int{1: 100}, blocks: 4096}
		b := newBench(t, d, 7*day, 64*mib)
		defer func() { b.stop() }()
		time.Sleep(10 * time.Second)
		synctest.Wait() // what is to be done at this moment is done
		d.look()
		pass, err := b.Start()
		if err != nil || pass != 2 {
			t.Fatal(pass, err)
		}
		time.Sleep(time.Second)
		if r := d.look(); len(r) == 0 || r[0] != (Place{1, 3, 0, 0, 0}) {
			t.Fatalf("%v", r)
		}
		if pass, err = b.Start(); err != nil || pass != 2 {
			t.Fatal(pass, err)
		}
		time.Sleep(time.Minute)
		if st := b.Status(); st.LastPass != 2 || st.Running || st.Last.Verified != 100*4096 {
			t.Fatalf("%+v", st)
		}
		b.stop()
		b.cfg.Interval = 0
		b.start()
		d.look()
		time.Sleep(30 * day)
		if st := b.Status(); len(d.look()) != 0 || !st.Next.IsZero() {
			t.Fatalf("%+v", st)
		}
		if pass, err = b.Start(); err != nil || pass != 3 {
			t.Fatal(pass, err)
		}
		time.Sleep(time.Minute)
		if st := b.Status(); st.LastPass != 3 {
			t.Fatalf("%+v", st)
		}
		d.set(func() { d.err = errors.New("sync failed") })
		if _, err := b.Start(); !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
	})
}

// TestMuchDamage: a region that nobody can repair, of peers that do not answer, keeps neither a pass that is asked for nor the
// end of Run waiting, and is tried again for a bounded time.
func TestMuchDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{copysets: map[layout.CopysetID]int{1: 4}, blocks: 1024, bad: map[Place]bool{}, slow: repairTimeout}
		for i := range uint32(1000) {
			d.bad[Place{1, 3, 0, i, 0}] = true
		}
		b := newBench(t, d, 0, 64*mib)
		defer func() { b.stop() }()
		ask := func(what string, pass uint64) {
			if p, err := b.Start(); err != nil || p != pass {
				t.Fatal(what, p, err)
			}
			time.Sleep(repairTries*(repairTimeout+repairPause) + time.Second)
			if st := b.Status(); st.Pass != pass || !st.Running {
				t.Fatalf("%s: pass %d has not begun: %+v", what, pass, st.Tally)
			}
		}
		ask("at first", 1)
		b.change(func(st *State) { st.Asked = false }) // or it is joined
		ask("while damage is being repaired", 2)
		time.Sleep(24 * time.Hour)
		if st := b.Status(); st.LastPass != 2 || len(st.Bad) != 1000 {
			t.Fatalf("pass %d ended, %d blocks are damaged", st.LastPass, len(st.Bad))
		}
		time.Sleep(retryEvery) // some try is under way, or over
		ask("while repair is tried again", 3)
		began := time.Now()
		b.stop()
		if took := time.Since(began); took > repairTries*repairTimeout {
			t.Errorf("Run ended after %v", took)
		}
	})
}

// TestRetryReachesAll: damage behind more than one try can go through, which stays, is repaired when its peers are back.
func TestRetryReachesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{copysets: map[layout.CopysetID]int{1: 1, 2: 1}, blocks: 1024, bad: map[Place]bool{}, slow: repairTimeout}
		const many = int(2*retryMax/repairTimeout) + 10
		for i := range uint32(many) {
			d.bad[Place{1, 3, 0, i, 0}] = true
		}
		d.bad[Place{2, 3, 0, 7, 0}] = true
		b := newBench(t, d, 0, 64*mib)
		defer func() { b.stop() }()
		if _, err := b.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if st := b.Status(); st.LastPass != 1 || len(st.Bad) != many+1 {
			t.Fatalf("pass %d ended, %d blocks are damaged", st.LastPass, len(st.Bad))
		}
		d.set(func() { d.helped = 2 })
		time.Sleep(4 * (retryEvery + retryMax + repairTimeout))
		if st := b.Status(); len(st.Bad) != many || d.bad[Place{2, 3, 0, 7, 0}] {
			t.Errorf("%d blocks are damaged", len(st.Bad))
		}
	})
}

// TestTornChunk: a chunk that could not be read is told of, and what is known to be damaged in it is not forgotten.
func TestTornChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := Place{1, 3, 1, 5, 0}
		d := &fakeDisk{copysets: map[layout.CopysetID]int{1: 3}, blocks: 1000, bad: map[Place]bool{bad: true}}
		b := newBench(t, d, 7*day, 64*mib)
		defer func() { b.stop() }()
		time.Sleep(time.Minute)
		d.set(func() { d.torn = map[layout.ChunkID]bool{bad.chunk(): true} })
		if _, err := b.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st := b.Status(); st.LastPass != 2 || st.Last.Skipped != 1 || st.Last.Verified != 2000 || len(st.Bad) != 1 {
			t.Fatalf("%+v", st)
		}
	})
}

// TestBounds: the state does not grow with the number of findings.
func TestBounds(t *testing.T) {
	var st State
	for i := range 3 * badMax {
		st.note(Finding{Place: Place{Copyset: 1, Block: uint32(i)}})
	}
	if len(st.Findings) != findingsMax || len(st.Bad) != badMax || st.Findings[findingsMax-1].Block != 3*badMax-1 {
		t.Fatalf("%d findings, %d damaged", len(st.Findings), len(st.Bad))
	}
	got, err := parse(st.encode())
	if err != nil || len(got.Bad) != badMax || !slices.Equal(got.Findings, st.Findings) {
		t.Fatal(err)
	}
	st.Pass = 1
	if st.end(time.Time{}); len(st.Bad) != 0 {
		t.Errorf("%d blocks are damaged that the pass did not meet", len(st.Bad))
	}
}

// TestVersions: what only versions have is read too, behind the chunks, and damage there is repaired, or remembered until it is.
func TestVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaf := func(chunk, index uint32, version uint64) blockstore.VersionLeaf {
			return blockstore.VersionLeaf{Chunk: layout.ChunkID{Volume: 3, Index: chunk}, Index: index, Version: version}
		}
		known, unknown := Place{1, 3, 0, 5, 7}, Place{1, 3, 9, 130, 4}
		d := &fakeDisk{
			copysets: map[layout.CopysetID]int{1: 3, 2: 1}, blocks: 1000, bad: map[Place]bool{known: true}, help: true,
			versions: []blockstore.VersionLeaf{leaf(0, 0, 4), leaf(0, 0, 7), leaf(9, 2, 4)},
		}
		b := newBench(t, d, day, 64*mib)
		defer func() { b.stop() }()
		time.Sleep(day)
		used := d.Used()/layout.BlockSize + 3*64
		st := b.Status()
		if st.LastPass == 0 || st.Last.Verified != used || st.Last.Damaged != 1 || st.Last.Repaired != 1 || len(st.Findings) != 1 || st.Findings[0].Place != known {
			t.Errorf("%+v", st)
		}
		d.set(func() { d.bad[unknown], d.help = true, false })
		time.Sleep(day)
		if st := b.Status(); len(st.Bad) != 1 || st.Bad[0].Place != unknown {
			t.Errorf("what nobody could help with: %+v", st.Bad)
		}
		d.set(func() { d.help = true })
		time.Sleep(2 * retryEvery)
		if st := b.Status(); len(st.Bad) != 0 || len(d.bad) != 0 {
			t.Errorf("at last: %+v", st.Bad)
		}
	})
}

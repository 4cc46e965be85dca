package blockstore

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// scatterInto writes the chunk's first n blocks one by one, in random order, with others' between them, and makes that durable.
func scatterInto(t testing.TB, c *Copyset, ch layout.ChunkID, n int, seed uint64) []byte {
	t.Helper()
	want := pattern(seed, n*layout.BlockSize)
	other := layout.ChunkID{Volume: 99, Index: ch.Index}
	for _, b := range rand.New(rand.NewPCG(seed, 5)).Perm(n) {
		mustWrite(t, c, ch, uint32(b)*layout.BlockSize, want[b*layout.BlockSize:(b+1)*layout.BlockSize])
		mustWrite(t, c, other, uint32(b)*layout.BlockSize, want[:layout.BlockSize])
	}
	mustCommit(t, c.s, c.Freeze(nil))
	return want
}

func scatterOf(t testing.TB, c *Copyset, ch layout.ChunkID) Scatter {
	t.Helper()
	x, err := c.Scatter(ch)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// gatherAll gathers a whole chunk and returns how many blocks moved.
func gatherAll(t testing.TB, c *Copyset, ch layout.ChunkID) (moved int) {
	t.Helper()
	for first := uint32(0); ; {
		g, next, err := c.Gather(ch, first)
		if err != nil {
			t.Fatal(err)
		}
		if g != nil {
			n, err := c.Exchange(g)
			if err != nil {
				t.Fatal(err)
			}
			moved += n
		}
		if first = next; next == 0 {
			return moved
		}
	}
}

func mustGather(t testing.TB, c *Copyset, ch layout.ChunkID) *Gathered {
	t.Helper()
	g, _, err := c.Gather(ch, 0)
	if err != nil || g == nil {
		t.Fatalf("gather: %v, %v", g, err)
	}
	return g
}

// settled is the space of the store without what waits.
func settled(t testing.TB, s *Store, cs ...*Copyset) Space {
	t.Helper()
	for _, c := range cs {
		mustCommit(t, s, c.Freeze(nil))
	}
	s.Usage()
	u := s.Space()
	sum := layout.BlockSize + u.Incoming + u.Logged + u.Reclaimable + u.Spare + u.Holes
	for _, v := range u.Volumes {
		sum += v.Content + v.Versions
	}
	if sum != u.File || u.Reclaimable != 0 || u.Incoming != 0 {
		t.Fatalf("the space does not balance: %+v is %d", u, sum)
	}
	return u
}

// TestGather: what was written in random order lies together afterwards, holds the same, also after a reopen, and takes the same
// space.
func TestGather(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	const blocks = 2*stretchBlocks + 100
	want := scatterInto(t, c, chunk0, blocks, 1)
	before, used := scatterOf(t, c, chunk0), settled(t, s, c)
	if before.Blocks != blocks || before.Pieces < blocks/2 || before.Least != 1 {
		t.Fatalf("not scattered: %+v", before)
	}
	if moved := gatherAll(t, c, chunk0); moved != blocks {
		t.Errorf("%d of %d blocks moved", moved, blocks)
	}
	if !c.Changed() {
		t.Error("nobody would make it durable")
	}
	mustRead(t, c, chunk0, 0, want)
	after := scatterOf(t, c, chunk0)
	if after.Pieces > 6 || after.Changes == before.Changes {
		t.Errorf("%+v became %+v", before, after)
	}
	if moved := gatherAll(t, c, chunk0); moved != 0 {
		t.Errorf("%d blocks moved again", moved)
	}
	now := settled(t, s, c)
	if c.Changed() {
		t.Error("changed after a checkpoint")
	}
	if now.Volumes[chunk0.Volume] != used.Volumes[chunk0.Volume] {
		t.Errorf("space %+v became %+v", used, now)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t)
	if c, _ = s.Copyset(1); c == nil {
		t.Fatal("no copyset")
	}
	mustRead(t, c, chunk0, 0, want)
	if again := scatterOf(t, c, chunk0); again.Pieces != after.Pieces || again.Blocks != after.Blocks {
		t.Errorf("%+v after a reopen, was %+v", again, after)
	}
}

// TestExchangeAmongChanges: blocks that were overwritten, discarded or deleted since they were copied stay as they are, and the
// copies are given back.
func TestExchangeAmongChanges(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	want := scatterInto(t, c, chunk0, stretchBlocks, 2)
	g := mustGather(t, c, chunk0)
	newer := pattern(3, 3*layout.BlockSize)
	mustWrite(t, c, chunk0, 10*layout.BlockSize, newer)
	mustWrite(t, c, chunk0, 100*layout.BlockSize+512, newer[:512])
	if err := c.Discard(chunk0, 50*layout.BlockSize, layout.BlockSize); err != nil {
		t.Fatal(err)
	}
	copy(want[10*layout.BlockSize:], newer)
	copy(want[100*layout.BlockSize+512:], newer[:512])
	clear(want[50*layout.BlockSize : 51*layout.BlockSize])
	moved, err := c.Exchange(g)
	if err != nil || moved != stretchBlocks-5 {
		t.Errorf("moved %d, %v", moved, err)
	}
	mustRead(t, c, chunk0, 0, want)
	settled(t, s, c)

	scatterInto(t, c, chunk0, stretchBlocks, 4)
	g = mustGather(t, c, chunk0)
	if err := c.DeleteVolume(chunk0.Volume); err != nil {
		t.Fatal(err)
	}
	if moved, err := c.Exchange(g); moved != 0 || err != nil {
		t.Errorf("of a deleted volume moved %d, %v", moved, err)
	}
	g.Drop() // it has ended
	settled(t, s, c)

	scatterInto(t, c, chunk0, stretchBlocks, 5)
	g = mustGather(t, c, chunk0)
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if moved, err := c.Exchange(g); moved != 0 || err != nil {
		t.Errorf("of a removed copyset moved %d, %v", moved, err)
	}
	settled(t, s)
}

// TestGatheredHolds: while a stretch is gathered its blocks are not used again, whatever becomes of them: else an address could come
// to mean other bytes before the exchange compares it.
func TestGatheredHolds(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	scatterInto(t, c, chunk0, stretchBlocks, 1)
	for _, end := range []func(g *Gathered){
		func(g *Gathered) { g.Drop() },
		func(g *Gathered) {
			if n, err := c.Exchange(g); n != 0 || err != nil {
				t.Errorf("exchanged %d, %v", n, err)
			}
		},
	} {
		g := mustGather(t, c, chunk0)
		scatterInto(t, c, chunk0, stretchBlocks, 2)
		s.Usage()
		if u := s.Space(); u.Reclaimable < stretchBlocks*layout.BlockSize || u.Incoming != g.Bytes() || g.Bytes() != stretchBlocks*layout.BlockSize {
			t.Errorf("while it is gathered: %+v", u)
		}
		end(g)
		settled(t, s, c)
	}
}

// TestGatherLeaves: what others have too, what waits for a checkpoint, and what is damaged stays where it is.
func TestGatherLeaves(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	want := scatterInto(t, c, chunk0, stretchBlocks, 1)
	nothing := func(why string) {
		t.Helper()
		if moved := gatherAll(t, c, chunk0); moved != 0 {
			t.Errorf("%s: %d blocks moved", why, moved)
		}
	}
	g := mustGather(t, c, chunk0)
	if err := c.TakeVersion(chunk0.Volume, 1); err != nil {
		t.Fatal(err)
	}
	if moved, err := c.Exchange(g); moved != 0 || err != nil {
		t.Errorf("a version was taken meanwhile, %d blocks moved, %v", moved, err)
	}
	mustCommit(t, s, c.Freeze(nil))
	nothing("a version has the blocks")
	mustWrite(t, c, chunk0, 0, want[:layout.BlockSize])
	mustCommit(t, s, c.Freeze(nil))
	nothing("a version shares the blocks")
	if err := c.DeleteVersion(chunk0.Volume, 1); err != nil {
		t.Fatal(err)
	}
	if x := scatterOf(t, c, chunk0); x.Pieces < 200 {
		t.Errorf("%+v", x)
	}
	if moved := gatherAll(t, c, chunk0); moved != 3*extent.LeafBlocks {
		t.Errorf("one leaf waits for a checkpoint, %d blocks moved", moved)
	}
	mustCommit(t, s, c.Freeze(nil))
	mustRead(t, c, chunk0, 0, want)

	bad := addrOf(t, c, chunk0, 7)
	d.flip(t, bad)
	var damaged *ChecksumError
	if _, _, err := c.Gather(chunk0, 0); !errors.As(err, &damaged) || damaged.Block != 7 || damaged.Chunk != chunk0 {
		t.Errorf("a damaged block: %v", err)
	}
	d.flip(t, bad)
	settled(t, s, c)
	if moved := gatherAll(t, c, chunk0); moved != stretchBlocks {
		t.Errorf("at last %d blocks moved", moved)
	}
	mustRead(t, c, chunk0, 0, want)
	settled(t, s, c)
}

// TestGatherLogged: blocks that the raft log holds stay, until it lets them go.
func TestGatherLogged(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	var held [][]Blocks
	want := pattern(1, stretchBlocks*layout.BlockSize)
	for _, b := range rand.New(rand.NewPCG(1, 1)).Perm(stretchBlocks) {
		p := want[b*layout.BlockSize : (b+1)*layout.BlockSize]
		runs, err := s.StoreBlocks(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Adopt(chunk0, uint32(b)*layout.BlockSize, p, nil, runs); err != nil {
			t.Fatal(err)
		}
		held = append(held, runs)
	}
	mustCommit(t, s, c.Freeze(nil))
	if moved := gatherAll(t, c, chunk0); moved != 0 {
		t.Errorf("%d blocks moved that the log has", moved)
	}
	for _, runs := range held {
		s.ReleaseBlocks(runs)
	}
	if moved := gatherAll(t, c, chunk0); moved != stretchBlocks {
		t.Errorf("%d blocks moved", moved)
	}
	mustRead(t, c, chunk0, 0, want)
	settled(t, s, c)
}

// TestGatherFull: without free space that is any better nothing moves and nothing is lost.
func TestGatherFull(t *testing.T) {
	d := newDisk(t)
	d.opts.Capacity = (3*stretchBlocks + 1) * layout.BlockSize
	s := d.open(t)
	c := create(t, s, 1)
	want := scatterInto(t, c, chunk0, stretchBlocks, 1)
	mustWrite(t, c, layout.ChunkID{Volume: 98}, 0, pattern(2, (stretchBlocks-10)*layout.BlockSize))
	mustCommit(t, s, c.Freeze(nil))
	if g, _, err := c.Gather(chunk0, 0); g != nil || err != nil {
		t.Errorf("in a full store: %v, %v", g, err)
	}
	mustRead(t, c, chunk0, 0, want)
	settled(t, s, c)
}

// TestGatherCrash: whatever file operation of a compaction is the last before a crash, the content is there after it.
func TestGatherCrash(t *testing.T) {
	for at := 1; ; at++ {
		h := newHarness(t, uint64(1000*4+at)*4) // small writes are deferred
		id := layout.CopysetID(1)
		h.now[id] = newModel()
		m := h.now[id]
		h.transition(map[layout.CopysetID]*model{id: m.clone()}, func() error { _, err := h.s.Create(id); return err })
		for i := range 6 { // pieces of two stretches
			for b := i; b < modelBlocks; b += 6 {
				p := h.randData(layout.BlockSize)
				for i := range uint32(2) {
					ch := layout.ChunkID{Index: i}
					h.fail(h.copyset(id).Write(ch, uint32(b)*layout.BlockSize, p, nil))
					m.write(ch, b*layout.BlockSize, p)
				}
			}
			h.freeze(id, m)
		}
		h.commitAll()
		h.arm(at)
		moved := 0
		for i := range uint32(2) {
			moved += gatherAll(t, h.copyset(id), layout.ChunkID{Index: i})
		}
		h.freeze(id, m)
		h.commitAll()
		crashed := h.hasCrashed()
		h.reopen()
		h.fail(h.s.Close())
		if moved == 0 {
			t.Fatal("nothing moved")
		}
		if !crashed {
			if at < 4 {
				t.Fatalf("a compaction had %d file operations", at-1)
			}
			return
		}
	}
}

// uncache has the system forget what it keeps of a file in memory.
func uncache(b *testing.B, name string) {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		b.Fatal(err)
	}
}

var gatherGiB = flag.Float64("gather-gib", 0.125, "size of the volume of BenchmarkGather, in GiB")

// BenchmarkGather measures what random overwrites of 4 KiB do to sequential reads, and what gathering gives back.
func BenchmarkGather(b *testing.B) {
	dir := *amplifyDir
	if dir == "" {
		dir = b.TempDir()
	}
	dir = path.Join(dir, "gather")
	defer os.RemoveAll(dir) //nolint:errcheck // a benchmark's
	for b.Loop() {
		opts := DefaultOptions()
		opts.Reserve = 0
		s, err := Open(vfs.OS(), dir, testID, opts)
		if err != nil {
			b.Fatal(err)
		}
		c := create(b, s, 1)
		size := int64(*gatherGiB*(1<<30)/(16<<20)) * (16 << 20)
		p := pattern(1, 1<<20)
		place := func(at int64) (layout.ChunkID, uint32) {
			return layout.ChunkID{Volume: 1, Index: uint32(at / layout.DefaultChunkSize)}, uint32(at % layout.DefaultChunkSize)
		}
		for at := int64(0); at < size; at += 1 << 20 {
			ch, off := place(at)
			mustWrite(b, c, ch, off, p)
		}
		mustCommit(b, s, c.Freeze(nil))
		report := func(when string) {
			var x Scatter
			survey := time.Now()
			for _, ch := range c.Chunks() {
				y := scatterOf(b, c, ch)
				x.Blocks, x.Pieces = x.Blocks+y.Blocks, x.Pieces+y.Pieces
			}
			b.ReportMetric(float64(time.Since(survey).Milliseconds())*(1<<30)/float64(size), when+"-survey-ms/GiB")
			uncache(b, path.Join(dir, disk.BlocksName))
			dst := make([]byte, 1<<20)
			began := time.Now()
			for at := int64(0); at < size; at += 1 << 20 {
				ch, off := place(at)
				if _, err := c.Read(ch, off, dst, nil); err != nil {
					b.Fatal(err)
				}
			}
			u := s.Space()
			b.ReportMetric(float64(size)/1e6/time.Since(began).Seconds(), when+"-MB/s")
			b.ReportMetric(float64(x.Pieces)*256/float64(x.Blocks), when+"-pieces/MiB")
			b.ReportMetric(float64(u.File-u.Holes)/float64(size), when+"-file/B")
			b.ReportMetric(float64(s.index.DB.Metrics().DiskSpaceUsage())*4096/float64(size), when+"-index/block")
		}
		report("filled")
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range size / layout.BlockSize {
			ch, off := place(rng.Int64N(size/layout.BlockSize) * layout.BlockSize)
			mustWrite(b, c, ch, off, p[:layout.BlockSize])
			if i%4096 == 4095 {
				mustCommit(b, s, c.Freeze(nil))
			}
		}
		mustCommit(b, s, c.Freeze(nil))
		report("overwritten")
		began, moved := time.Now(), 0
		for i, ch := range c.Chunks() {
			moved += gatherAll(b, c, ch)
			if i%16 == 15 {
				mustCommit(b, s, c.Freeze(nil))
			}
		}
		mustCommit(b, s, c.Freeze(nil))
		b.ReportMetric(float64(moved)*layout.BlockSize/1e6/time.Since(began).Seconds(), "gather-MB/s")
		report("gathered")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
}

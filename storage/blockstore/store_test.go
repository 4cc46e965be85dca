package blockstore

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const testDir = "/disk/store"

var testID = Identity{Cluster: [16]byte{1, 2, 3}, Chunkserver: 7}

// testDisk is what a store of a test lies on.
type testDisk struct {
	fs    *vfs.Mem
	index *pebblevfs.MemFS
	opts  Options
}

func newDisk(t testing.TB) *testDisk {
	t.Helper()
	d := &testDisk{fs: vfs.NewMem(), index: pebblevfs.NewCrashableMem()}
	d.opts = Options{GrowStep: GrowStepMin, CacheSize: 1, IndexCacheSize: 1 << 20}
	return d
}

// open opens the store on the disk.
func (d *testDisk) open(t testing.TB) *Store {
	t.Helper()
	s, err := d.tryOpen(d.fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func (d *testDisk) tryOpen(fs vfs.FS) (*Store, error) {
	opts := d.opts
	opts.IndexFS = d.index
	return Open(fs, testDir, testID, opts)
}

func create(t testing.TB, s *Store, id layout.CopysetID) *Copyset {
	t.Helper()
	c, err := s.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func blockCRCs(b []byte) []uint32 {
	var crcs []uint32
	for i := 0; i+layout.BlockSize <= len(b); i += layout.BlockSize {
		crcs = append(crcs, extent.Checksum(b[i:i+layout.BlockSize]))
	}
	return crcs
}

func mustWrite(t testing.TB, c *Copyset, ch layout.ChunkID, off uint32, data []byte) {
	t.Helper()
	if err := c.Write(ch, off, data, nil); err != nil {
		t.Fatalf("write %d at %d: %v", len(data), off, err)
	}
}

func mustRead(t testing.TB, c *Copyset, ch layout.ChunkID, off uint32, want []byte) {
	t.Helper()
	got := bytes.Repeat([]byte{0xee}, len(want))
	crcs, err := c.Read(ch, off, got, nil)
	if err != nil {
		t.Fatalf("read %d at %d: %v", len(want), off, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("read %d at %d of chunk %v: wrong bytes", len(want), off, ch)
	}
	skip := int(-off % layout.BlockSize)
	var wantCRCs []uint32
	if skip < len(want) {
		wantCRCs = blockCRCs(want[skip:])
	}
	if len(crcs) != len(wantCRCs) {
		t.Fatalf("read %d at %d: %d checksums, want %d", len(want), off, len(crcs), len(wantCRCs))
	}
	for i := range crcs {
		if crcs[i] != wantCRCs[i] {
			t.Fatalf("read %d at %d: checksum %d is wrong", len(want), off, i)
		}
	}
}

func mustCommit(t testing.TB, s *Store, frozen ...*Frozen) {
	t.Helper()
	if err := s.Commit(frozen); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func TestWriteReadReopen(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 5)
	ch := layout.ChunkID{Volume: 1, Index: 3}
	big := pattern(1, 1<<20)
	mustWrite(t, c, ch, 64<<10, big)
	mustRead(t, c, ch, 64<<10, big)
	mustRead(t, c, ch, 0, make([]byte, 64<<10))
	mustWrite(t, c, ch, 512, big[:512])
	mustRead(t, c, ch, 512, big[:512])
	mustRead(t, c, ch, 1024, make([]byte, 3072))
	c.SetApplied(9, 2)
	mustCommit(t, s, c.Freeze([]byte("state")))
	mustWrite(t, c, ch, 0, big[:4096]) // not in the checkpoint
	c.SetApplied(10, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = d.open(t)
	c, err := s.Copyset(5)
	if err != nil {
		t.Fatal(err)
	}
	if i, term := c.Applied(); i != 9 || term != 2 || string(c.State()) != "state" {
		t.Fatalf("applied %d.%d state %q", i, term, c.State())
	}
	mustRead(t, c, ch, 64<<10, big)
	first := make([]byte, 4096)
	copy(first[512:], big[:512])
	mustRead(t, c, ch, 0, first)
	if u := c.Usage()[1]; u != 1<<20+4096 {
		t.Fatalf("usage %d", u)
	}
	if u := s.Usage(); u.Used != 1<<20+2*4096 { // and the header
		t.Fatalf("used %d", u.Used)
	}
}

func TestRangesAreChecked(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	ch := layout.ChunkID{Volume: 1}
	for _, x := range []struct {
		off  uint32
		n    int
		crcs []uint32
	}{
		{1, 512, nil},
		{0, 511, nil},
		{0, 0, nil},
		{1<<32 - 512, 1024, nil},
		{0, 4096, []uint32{1, 2}},
		{0, 4096, []uint32{}},
		{512, 512, []uint32{1}},
	} {
		if err := c.Write(ch, x.off, make([]byte, x.n), x.crcs); !errors.Is(err, ErrRange) {
			t.Errorf("write %d at %d: %v", x.n, x.off, err)
		}
		if x.crcs != nil {
			continue
		}
		if _, err := c.Read(ch, x.off, make([]byte, x.n), nil); !errors.Is(err, ErrRange) {
			t.Errorf("read %d at %d: %v", x.n, x.off, err)
		}
		if err := c.Discard(ch, x.off, uint32(x.n)); !errors.Is(err, ErrRange) {
			t.Errorf("discard %d at %d: %v", x.n, x.off, err)
		}
		if err := c.WriteZeroes(ch, x.off, uint32(x.n)); !errors.Is(err, ErrRange) {
			t.Errorf("write zeroes %d at %d: %v", x.n, x.off, err)
		}
		if _, err := c.Allocated(ch, x.off, uint32(x.n), nil); !errors.Is(err, ErrRange) {
			t.Errorf("allocated %d at %d: %v", x.n, x.off, err)
		}
	}
	if _, err := s.Create(0); !errors.Is(err, ErrRange) {
		t.Error(err)
	}
}

func TestAllocated(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	ch := layout.ChunkID{Volume: 1}
	mustWrite(t, c, ch, 8192, pattern(1, 3*4096))
	mustWrite(t, c, ch, 1<<20, pattern(1, 512))
	got, err := c.Allocated(ch, 512, 2<<20, []Run{{Offset: 1}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Run{
		{Offset: 1},
		{512, 8192 - 512, false},
		{8192, 3 * 4096, true},
		{5 * 4096, 1<<20 - 5*4096, false},
		{1 << 20, 4096, true},
		{1<<20 + 4096, 1<<20 - 4096 + 512, false},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestDiscardAndZeroes(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	ch := layout.ChunkID{Volume: 1}
	want := pattern(1, 1<<20)
	mustWrite(t, c, ch, 0, want)
	if err := c.Discard(ch, 512, 3*4096); err != nil { // blocks 1 and 2
		t.Fatal(err)
	}
	clear(want[4096:12288])
	if err := c.WriteZeroes(ch, 64<<10+1024, 8192); err != nil {
		t.Fatal(err)
	}
	clear(want[64<<10+1024 : 64<<10+1024+8192])
	mustRead(t, c, ch, 0, want)
	if err := c.WriteZeroes(ch, 4096+512, 512); err != nil { // in a block that is not allocated
		t.Fatal(err)
	}
	if u := c.Usage()[1]; u != 1<<20-3*4096 {
		t.Fatalf("usage %d", u)
	}
	if err := c.DeleteVolume(1); err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, ch, 0, make([]byte, 1<<20))
	if u := c.Usage(); len(u) != 0 {
		t.Fatalf("usage %v", u)
	}
	mustCommit(t, s, c.Freeze(nil))
	if u := s.Usage(); u.Used != 4096 || u.PendingFree != 0 || u.Overlay != 0 {
		t.Fatalf("usage %+v", u)
	}
}

func TestBitFlipIsFoundAndRepaired(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	ch := layout.ChunkID{Volume: 1}
	want := pattern(1, 8*4096)
	mustWrite(t, c, ch, 0, want)
	mustCommit(t, s, c.Freeze(nil)) // it is in the file
	var ent [1]extent.Entry
	slot, err := c.lookup(ch, 5, ent[:])
	if err != nil {
		t.Fatal(err)
	}
	c.unpin(slot)
	f, err := d.fs.Open(path.Join(testDir, disk.BlocksName), vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	at := int64(ent[0].Addr)*layout.BlockSize + 77
	if _, err := f.WriteAt([]byte{want[5*4096+77] ^ 4}, at); err != nil {
		t.Fatal(err)
	}
	var bad *ChecksumError
	if _, err := c.Read(ch, 0, make([]byte, len(want)), nil); !errors.As(err, &bad) || bad.Block != 5 || bad.Chunk != ch {
		t.Fatalf("read: %v", err)
	}
	mustRead(t, c, ch, 0, want[:5*4096])
	if err := c.Write(ch, 5*4096+512, want[:512], nil); !errors.As(err, &bad) {
		t.Fatalf("a write of a part of a bad block: %v", err)
	}
	im, err := c.Snapshot(nil)
	if err != nil {
		t.Fatal(err)
	}
	var blocks, badBlocks int
	for {
		r, err := im.NextRun()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.As(err, &bad) {
			badBlocks++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		blocks += len(r.CRCs)
		if !bytes.Equal(r.Data, want[r.First*4096:][:len(r.Data)]) {
			t.Fatal("image has wrong bytes")
		}
	}
	im.Close()
	if blocks != 7 || badBlocks != 1 {
		t.Fatalf("image: %d blocks, %d bad", blocks, badBlocks)
	}
	if err := c.Repair(ch, 5*4096, want[:4096]); !errors.As(err, &bad) {
		t.Fatalf("repair with the wrong block: %v", err)
	}
	if err := c.Repair(ch, 5*4096, want[5*4096:6*4096]); err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, ch, 0, want)
}

// TestStaleLeaf: a leaf that a reader got from the index is not used when the chunk was changed meanwhile, even when the
// changed leaf has left the memory again.
func TestStaleLeaf(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 4096))
	mustCommit(t, s, c.Freeze(nil))
	forget(c)
	ch := c.mu.Chunks[chunk0]
	changes := ch.Changes
	stale, err := s.index.Leaf(c.incarnation(), extent.LeafID{Chunk: chunk0})
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, chunk0, 0, pattern(2, 4096))
	mustCommit(t, s, c.Freeze(nil))
	forget(c)
	if ch.Leaf(0) != nil {
		t.Fatal("the leaf is still in memory")
	}
	c.insert(ch, changes, 0, stale)
	mustRead(t, c, chunk0, 0, pattern(2, 4096))
}

// forget takes all clean leaves of a copyset out of memory.
func forget(c *Copyset) {
	for range 2 {
		for at := 0; at >= 0; {
			at = c.sweep(at)
		}
	}
}

// TestLookupSlow: a reader whose leaves are not in memory can load them under the lock.
func TestLookupSlow(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	want := pattern(1, 1<<20)
	mustWrite(t, c, chunk0, 0, want)
	mustCommit(t, s, c.Freeze(nil))
	forget(c)
	ents := make([]extent.Entry, 256)
	slot, err := c.lookupSlow(chunk0, 0, ents)
	if err != nil {
		t.Fatal(err)
	}
	defer c.unpin(slot)
	sp, err := extent.NewSpan(0, len(want))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := s.file.ReadSpan(c.id, chunk0, sp, ents, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("wrong bytes or %v", err)
	}
}

// TestCommitTakesEarlier: committing a Frozen commits those before it.
func TestCommitTakesEarlier(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 4096))
	first := c.Freeze([]byte("first"))
	mustWrite(t, c, chunk0, 1<<20, pattern(2, 4096))
	c.SetApplied(2, 1)
	second := c.Freeze([]byte("second"))
	mustCommit(t, s, second)
	mustCommit(t, s, first, second) // both are durable
	if string(c.State()) != "second" {
		t.Fatalf("state %q", c.State())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := d.open(t).Copyset(1)
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, chunk0, 0, pattern(1, 4096))
	mustRead(t, c, chunk0, 1<<20, pattern(2, 4096))
}

func TestCreateRemove(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	if _, err := s.Create(1); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	mustWrite(t, c, chunk0, 0, pattern(1, 4096))
	mustCommit(t, s, c.Freeze(nil))
	f := c.Freeze(nil)
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	err := s.index.EachLeaf([]byte{extent.KeyLeaf}, []byte{extent.KeyLeaf + 1}, func(uint64, extent.LeafID, *extent.Leaf) error {
		return errors.New("a leaf is left")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(1); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	mustCommit(t, s, f, c.Freeze(nil)) // of a removed copyset: nothing
	if len(s.Copysets()) != 0 {
		t.Fatal("it came back")
	}
	c = create(t, s, 1)
	if err := s.Commit([]*Frozen{c.Freeze(make([]byte, StateMax+1))}); !errors.Is(err, ErrRange) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(chunk0, 0, make([]byte, 512), nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

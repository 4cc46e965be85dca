package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	dir    = "disk/store"
	blocks = 600 // of each copyset
)

var (
	owner = blockstore.Identity{Cluster: [16]byte{5}, Chunkserver: 6}
	chunk = layout.ChunkID{Volume: 3, Index: 8}
)

// sample is a closed store with the copysets 1 and 2, of blocks blocks each.
type sample struct {
	t     *testing.T
	fs    *vfs.Mem
	index pebblevfs.FS
}

func newSample(t *testing.T) *sample {
	t.Helper()
	s := &sample{t: t, fs: vfs.NewMem(), index: pebblevfs.NewMem()}
	st, err := blockstore.Open(s.fs, dir, owner, blockstore.Options{GrowStep: blockstore.GrowStepMin, IndexFS: s.index})
	if err != nil {
		t.Fatal(err)
	}
	var frozen []*blockstore.Frozen
	for id := range layout.CopysetID(2) {
		c, err := st.Create(id + 1)
		if err != nil {
			t.Fatal(err)
		}
		for b := range uint32(blocks) { // with a seam every 100 blocks, to have several runs
			p := bytes.Repeat([]byte(fmt.Sprintf("%8d", 1000*(id+1)+layout.CopysetID(b))), layout.BlockSize/8)
			if err := c.Write(chunk, (b+b/100)*layout.BlockSize, p, nil); err != nil {
				t.Fatal(err)
			}
		}
		c.SetApplied(uint64(10+id), 4)
		frozen = append(frozen, c.Freeze([]byte("state")))
	}
	if err := errors.Join(st.Commit(frozen), st.Close()); err != nil {
		t.Fatal(err)
	}
	return s
}

// check inspects the store and returns the findings as text, and the store's numbers.
func (s *sample) check(held map[uint64]layout.CopysetID) (out []string, read int) {
	s.t.Helper()
	st, err := Open(s.fs, dir, s.index)
	if err != nil {
		s.t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // only read
	note := func(f Finding) {
		text := fmt.Sprintf("copyset %d: ", f.Copyset)
		if f.Located {
			text += fmt.Sprintf("%v block %d at %d", f.Chunk, f.Block, f.Addr)
			if f.Version != 0 {
				text += fmt.Sprintf(" of version %d", f.Version)
			}
			text += ": "
		}
		out = append(out, text+f.Text)
	}
	if err := errors.Join(st.Walk(s.t.Context(), held, note), st.Verify(s.t.Context(), func(n int) { read += n }, note)); err != nil {
		s.t.Fatal(err)
	}
	return out, read
}

// leaf changes the leaf of the copyset in the index that holds a block, and returns that of before.
func (s *sample) leaf(id layout.CopysetID, block uint32, change func(l *extent.Leaf)) (before *extent.Leaf) {
	s.t.Helper()
	return s.change(id, extent.LeafID{Chunk: chunk, Index: block / extent.LeafBlocks}, change)
}

// change is leaf by name.
func (s *sample) change(id layout.CopysetID, leaf extent.LeafID, change func(l *extent.Leaf)) (before *extent.Leaf) {
	s.t.Helper()
	db, err := pebble.Open(dir+"/index", &pebble.Options{FS: s.index, DisableWAL: true})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(db.Flush(), db.Close()); err != nil {
			s.t.Fatal(err)
		}
	}()
	key := extent.AppendLeafKey(nil, uint64(id), leaf)
	v, closer, err := db.Get(key)
	if err != nil {
		s.t.Fatal(err)
	}
	l := extent.NewLeaf(0, 0)
	before = extent.NewLeaf(0, 0)
	if err := errors.Join(l.Parse(v), before.Parse(v), closer.Close()); err != nil {
		s.t.Fatal(err)
	}
	if change != nil {
		change(l)
		if err := db.Set(key, l.AppendTo(nil), pebble.NoSync); err != nil {
			s.t.Fatal(err)
		}
	}
	return before
}

func (s *sample) expect(got []string, want ...string) {
	s.t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Errorf("found\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestClean(t *testing.T) {
	s := newSample(t)
	out, read := s.check(nil)
	s.expect(out)
	if read != 2*blocks {
		t.Errorf("%d blocks were read", read)
	}
	st, err := Open(s.fs, dir, s.index)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // only read
	if err := st.Walk(t.Context(), nil, func(f Finding) { t.Error(f) }); err != nil {
		t.Fatal(err)
	}
	cluster, cs := st.Owner()
	all := st.Copysets()
	if cluster != owner.Cluster || cs != 6 || len(all) != 2 || st.Blocks() != 2*blocks {
		t.Errorf("%x %d %d %d", cluster, cs, len(all), st.Blocks())
	}
	for _, c := range all {
		if c.Index != 9+uint64(c.ID) || c.Term != 4 || string(c.State) != "state" {
			t.Errorf("%+v", c)
		}
	}
}

// TestData flips a bit of a block in the data file.
func TestData(t *testing.T) {
	s := newSample(t)
	l := s.leaf(2, 300, nil)
	at := l.Addr[300%extent.LeafBlocks]
	f, err := s.fs.Open(dir+"/blocks", vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	if _, err := f.WriteAt([]byte{'x'}, int64(at)*layout.BlockSize+4000); err != nil {
		t.Fatal(err)
	}
	out, _ := s.check(nil)
	s.expect(out, fmt.Sprintf("copyset 2: 3/8 block 300 at %d: checksum mismatch", at))
}

// TestIndex tampers with extent maps.
func TestIndex(t *testing.T) {
	t.Run("checksum", func(t *testing.T) {
		s := newSample(t)
		l := s.leaf(1, 70, func(l *extent.Leaf) { l.CRC[6] ^= 1 })
		out, _ := s.check(nil)
		s.expect(out, fmt.Sprintf("copyset 1: 3/8 block 70 at %d: checksum mismatch", l.Addr[6]))
	})
	t.Run("twice", func(t *testing.T) {
		s := newSample(t)
		first := s.leaf(1, 0, nil)
		s.leaf(2, 64, func(l *extent.Leaf) { l.Addr[3], l.CRC[3] = first.Addr[9], first.CRC[9] })
		out, _ := s.check(nil)
		s.expect(out, fmt.Sprintf("copyset 1: 3/8 block 9 at %d: in use more than once", first.Addr[9]),
			fmt.Sprintf("copyset 2: 3/8 block 67 at %d: in use more than once", first.Addr[9]))
	})
	t.Run("outside", func(t *testing.T) {
		s := newSample(t)
		s.leaf(1, 0, func(l *extent.Leaf) { l.Addr[9] = 1 << 40 })
		info, err := s.fs.Stat(dir + "/blocks")
		if err != nil {
			t.Fatal(err)
		}
		out, read := s.check(nil)
		s.expect(out, fmt.Sprintf("copyset 1: 3/8 block 9 at %d: outside the data file, which has %d blocks", 1<<40, info.Size/layout.BlockSize))
		if read != 2*blocks-1 {
			t.Errorf("%d blocks were read", read)
		}
	})
	t.Run("of an entry", func(t *testing.T) {
		s := newSample(t)
		l := s.leaf(1, 0, nil)
		held := map[uint64]layout.CopysetID{uint64(l.Addr[1]): 1, uint64(l.Addr[2]): 2}
		out, _ := s.check(held)
		s.expect(out, fmt.Sprintf("copyset 1: 3/8 block 2 at %d: an entry of copyset 2 in the raft log has this block", l.Addr[2]))
	})
}

// TestIndexFiles flips bits all over the files of the index: each is found, or changes nothing that is read.
func TestIndexFiles(t *testing.T) {
	s := newSample(t)
	names, err := s.index.List(dir + "/index")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		whole := readAll(t, s.index, dir+"/index/"+name)
		for off := 0; off < len(whole); off += 97 {
			b := bytes.Clone(whole)
			b[off] ^= 0x10
			writeAll(t, s.index, dir+"/index/"+name, b)
			st, err := Open(s.fs, dir, s.index)
			if err != nil {
				found++
				continue
			}
			n := 0
			if err := st.Walk(t.Context(), nil, func(Finding) { n++ }); err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				found++
			} else if st.Blocks() != 2*blocks {
				t.Errorf("%s, byte %d: %d blocks and nothing is wrong", name, off, st.Blocks())
			}
			_ = st.Close()
		}
		writeAll(t, s.index, dir+"/index/"+name, whole)
	}
	if found < 20 {
		t.Errorf("%d flips were found", found)
	}
	out, _ := s.check(nil)
	s.expect(out)
}

func readAll(t *testing.T, fs pebblevfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func writeAll(t *testing.T, fs pebblevfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name, pebblevfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestNoStore: what is not a store can not be opened.
func TestNoStore(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(fs, dir, pebblevfs.NewMem()); !errors.As(err, new(*extent.CorruptError)) {
		t.Error(err)
	}
	s := newSample(t)
	if _, err := Open(s.fs, dir, pebblevfs.NewMem()); err == nil {
		t.Error("a store without an index was opened")
	}
}

// unwritable is a file system that was mounted to be read only.
type unwritable struct{ pebblevfs.FS }

func (u unwritable) Lock(name string) (io.Closer, error) {
	return u.Create(name, pebblevfs.WriteCategoryUnspecified)
}

func (unwritable) Create(string, pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	return nil, syscall.EROFS
}

// TestReadOnlyMount: a store that can not be written can be looked at all the same.
func TestReadOnlyMount(t *testing.T) {
	s := newSample(t)
	s.index = unwritable{s.index}
	out, read := s.check(nil)
	s.expect(out)
	if read != 2*blocks {
		t.Errorf("%d blocks were read", read)
	}
}

// unopened is a file system where tables can not be opened.
type unopened struct {
	pebblevfs.FS
	err error
}

func (u *unopened) Open(name string, o ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	if u.err != nil && strings.HasSuffix(name, ".sst") {
		return nil, &os.PathError{Op: "open", Path: name, Err: u.err}
	}
	return u.FS.Open(name, o...)
}

// walked is the error of looking at the store, and how many findings there were.
func (s *sample) walked() (findings int, err error) {
	st, err := Open(s.fs, dir, s.index)
	if err != nil {
		return 0, err
	}
	defer st.Close() //nolint:errcheck // only read
	err = st.Walk(s.t.Context(), nil, func(Finding) { findings++ })
	return findings, err
}

// TestPrevents: what is wrong with this process, and what a newer release wrote, is no damage.
func TestPrevents(t *testing.T) {
	for errno, prevents := range map[syscall.Errno]bool{syscall.EMFILE: true, syscall.ENFILE: true, syscall.EACCES: true, syscall.EIO: false} {
		s := newSample(t)
		s.index = &unopened{s.index, errno}
		n, err := s.walked()
		if Prevents(err) != prevents || prevents != (n == 0) && err == nil {
			t.Errorf("%v: %d findings, %v", errno, n, err)
		}
	}
	for name, key := range map[string][]byte{
		"the store record": extent.StoreKey(),
		"a copyset record": extent.AppendCopysetKey(nil, 1),
		"versions":         extent.AppendVersionsKey(nil, 1, chunk.Volume),
		"a leaf":           extent.AppendLeafKey(nil, 1, extent.LeafID{Chunk: chunk, Index: 2}),
		"nothing":          nil,
	} {
		s := newSample(t)
		db, err := pebble.Open(dir+"/index", &pebble.Options{FS: s.index, DisableWAL: true})
		if err != nil {
			t.Fatal(err)
		}
		if key != nil {
			err = db.Set(key, append([]byte{200}, make([]byte, 57)...), pebble.NoSync)
		}
		if err := errors.Join(err, db.Flush(), db.Close()); err != nil {
			t.Fatal(err)
		}
		n, err := s.walked()
		if errors.As(err, new(*extent.VersionError)) != (key != nil) || n != 0 {
			t.Errorf("%s of a newer release: %d findings, %v", name, n, err)
		}
	}
}

// TestVersions: blocks that only a version has are checked as those of the content are.
func TestVersions(t *testing.T) {
	fs, index := vfs.NewMem(), pebblevfs.NewMem()
	st, err := blockstore.Open(fs, dir, owner, blockstore.Options{GrowStep: blockstore.GrowStepMin, IndexFS: index})
	if err != nil {
		t.Fatal(err)
	}
	c, err := st.Create(1)
	if err != nil {
		t.Fatal(err)
	}
	p := bytes.Repeat([]byte("8 bytes "), 20*layout.BlockSize/8)
	err = errors.Join(c.Write(chunk, 0, p, nil), c.TakeVersion(chunk.Volume, 4), c.Write(chunk, 0, p[:5*layout.BlockSize], nil))
	if err = errors.Join(err, st.Commit([]*blockstore.Frozen{c.Freeze(nil)}), st.Close()); err != nil {
		t.Fatal(err)
	}
	s := &sample{t: t, fs: fs, index: index}
	out, read := s.check(nil)
	s.expect(out)
	if read != 25 {
		t.Errorf("%d blocks were read", read)
	}
	old := s.change(1, extent.LeafID{Chunk: chunk, Version: 4}, nil)
	f, err := fs.Open(dir+"/blocks", vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	if _, err := f.WriteAt([]byte{'x'}, int64(old.Addr[2])*layout.BlockSize); err != nil {
		t.Fatal(err)
	}
	out, _ = s.check(nil)
	s.expect(out, fmt.Sprintf("copyset 1: 3/8 block 2 at %d of version 4: checksum mismatch", old.Addr[2]))
	// A leaf that shares a block which the older one has not, and one of a version that is not there.
	head := s.change(1, extent.LeafID{Chunk: chunk}, func(l *extent.Leaf) { l.Shared |= 2 })
	out, _ = s.check(nil)
	s.expect(out, fmt.Sprintf("copyset 1: 3/8 block 2 at %d of version 4: checksum mismatch", old.Addr[2]),
		"copyset 1: chunk 3/8: blockstore: damaged: leaf: no older one has its block 1")
	s.change(1, extent.LeafID{Chunk: chunk}, func(l *extent.Leaf) { l.Shared, l.Born = head.Shared, 5 })
	out, _ = s.check(nil)
	s.expect(out, fmt.Sprintf("copyset 1: 3/8 block 2 at %d of version 4: checksum mismatch", old.Addr[2]),
		"copyset 1: chunk 3/8: blockstore: damaged: leaf 0 of version 0, born after 5, but the volume has [4]")
}

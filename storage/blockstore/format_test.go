package blockstore

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"path"
	"slices"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// files returns the content of all files of a directory.
func files(t *testing.T, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, n := range names {
		all[n] = string(readFile(t, fs, path.Join(dir, n)))
	}
	return all
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name, vfs.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	n, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && n > 0 {
		t.Fatal(err)
	}
	return b
}

func writeFile(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Open(name, vfs.CreateMissing)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

// TestRefusals opens directories that are not this store's; nothing in them may change.
func TestRefusals(t *testing.T) {
	is := func(want error) func(error) bool {
		return func(err error) bool {
			switch want.(type) {
			case *ForeignError:
				var e *ForeignError
				return errors.As(err, &e) && e.Want == testID
			case *VersionError:
				var e *VersionError
				return errors.As(err, &e) && e.Have != e.Knows
			default:
				var e *CorruptError
				return errors.As(err, &e)
			}
		}
	}
	sum := func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[56:], crc32.Checksum(b[:56], crc32.MakeTable(crc32.Castagnoli)))
		return b
	}
	identity := path.Join(testDir, "IDENTITY")
	for name, x := range map[string]struct {
		damage func(t *testing.T, fs *vfs.Mem)
		want   error
	}{
		"other cluster": {func(t *testing.T, fs *vfs.Mem) {
			b := readFile(t, fs, identity)
			b[16]++
			writeFile(t, fs, identity, sum(b))
		}, &ForeignError{}},
		"other chunkserver": {func(t *testing.T, fs *vfs.Mem) {
			b := readFile(t, fs, identity)
			b[32]++
			writeFile(t, fs, identity, sum(b))
		}, &ForeignError{}},
		"newer": {func(t *testing.T, fs *vfs.Mem) {
			b := readFile(t, fs, identity)
			b[8]++
			writeFile(t, fs, identity, append(b, 1, 2, 3))
		}, &VersionError{}},
		"earlier": {func(t *testing.T, fs *vfs.Mem) {
			b := readFile(t, fs, identity)
			b[8] = 1
			writeFile(t, fs, identity, sum(b))
		}, &VersionError{}},
		"flipped": {func(t *testing.T, fs *vfs.Mem) {
			b := readFile(t, fs, identity)
			b[45] ^= 16
			writeFile(t, fs, identity, b)
		}, &CorruptError{}},
		"no identity": {func(t *testing.T, fs *vfs.Mem) {
			if err := fs.Remove(identity); err != nil {
				t.Fatal(err)
			}
		}, &CorruptError{}},
		"empty identity": {func(t *testing.T, fs *vfs.Mem) { writeFile(t, fs, identity, nil) }, &CorruptError{}},
		"no blocks": {func(t *testing.T, fs *vfs.Mem) {
			if err := fs.Remove(path.Join(testDir, "blocks")); err != nil {
				t.Fatal(err)
			}
		}, &CorruptError{}},
		"newer blocks": {func(t *testing.T, fs *vfs.Mem) {
			b := readFile(t, fs, path.Join(testDir, "blocks"))
			b[8]++
			writeFile(t, fs, path.Join(testDir, "blocks"), b)
		}, &VersionError{}},
		"blocks of another store": {func(t *testing.T, fs *vfs.Mem) {
			b := readFile(t, fs, path.Join(testDir, "blocks"))
			b[20]++
			binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], crc32.MakeTable(crc32.Castagnoli)))
			writeFile(t, fs, path.Join(testDir, "blocks"), b)
		}, &CorruptError{}},
		"blocks cut": {func(t *testing.T, fs *vfs.Mem) {
			b := readFile(t, fs, path.Join(testDir, "blocks"))
			writeFile(t, fs, path.Join(testDir, "blocks"), b[:8192])
		}, &CorruptError{}},
	} {
		t.Run(name, func(t *testing.T) {
			d := madeDisk(t)
			x.damage(t, d.fs)
			before := files(t, d.fs, testDir)
			_, err := d.tryOpen(d.fs)
			if !is(x.want)(err) {
				t.Fatalf("open: %v", err)
			}
			if after := files(t, d.fs, testDir); !maps.Equal(before, after) {
				t.Fatal("the directory was changed")
			}
		})
	}
}

// madeDisk returns a disk with a store that holds two chunks.
func madeDisk(t *testing.T) *testDisk {
	t.Helper()
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 64<<10))
	mustCommit(t, s, c.Freeze(nil))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestIndexGone(t *testing.T) {
	d := madeDisk(t)
	d.index = pebblevfs.NewCrashableMem()
	var bad *CorruptError
	if _, err := d.tryOpen(d.fs); !errors.As(err, &bad) {
		t.Fatalf("open without the index: %v", err)
	}
}

func TestIndexOfAnotherStore(t *testing.T) {
	d, other := madeDisk(t), madeDisk(t)
	d.index = other.index
	var bad *CorruptError
	if _, err := d.tryOpen(d.fs); !errors.As(err, &bad) {
		t.Fatalf("open with the index of another store: %v", err)
	}
}

func TestLocked(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	var locked *LockedError
	if _, err := d.tryOpen(d.fs); !errors.As(err, &locked) {
		t.Fatalf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d.open(t)
}

// TestCrashWhileFormatting crashes at every operation of the first open; the next one must succeed.
func TestCrashWhileFormatting(t *testing.T) {
	for n := 1; ; n++ {
		h := &harness{t: t, d: newDisk(t), crashRNG: newRNG(uint64(n))}
		h.arm(n)
		h.open()
		if err := h.s.Close(); err != nil {
			t.Fatal(err)
		}
		if !h.hasCrashed() {
			if n < 20 {
				t.Fatalf("only %d operations", n)
			}
			return
		}
		s := h.crashed.open(t)
		create(t, s, 1)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(h.crashed.open(t).Copysets(), s.Copysets()) {
			t.Fatal("the copyset is gone")
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{Capacity: -1},
		{Capacity: 4096},
		{Reserve: -1},
		{Capacity: 1 << 20, Reserve: 1 << 20},
		{GrowStep: 1},
		{GrowStep: GrowStepMax + 1},
		{CacheSize: -1},
		{IndexCacheSize: -1},
	} {
		if err := o.Validate(); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	d := DefaultOptions()
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
}

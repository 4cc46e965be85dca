package smallfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestReplace(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	f := File{FS: fs, Dir: "d", Name: "X", Magic: "magic678", Version: 2}
	if b, err := f.Read(); b != nil || err != nil {
		t.Fatalf("no file: %v %v", b, err)
	}
	for _, want := range [][]byte{[]byte("one"), {}, []byte("a longer one")} {
		if err := f.Replace(want); err != nil {
			t.Fatal(err)
		}
		if b, err := f.Read(); err != nil || b == nil || !bytes.Equal(b, want) {
			t.Fatalf("%q: %q %v", want, b, err)
		}
	}
	newer, other := f, f
	newer.Version, other.Magic = 1, "another8"
	if _, err := newer.Read(); !errors.As(err, new(*VersionError)) {
		t.Errorf("a newer version: %v", err)
	}
	if _, err := other.Read(); !errors.As(err, new(*DamagedError)) {
		t.Errorf("another magic: %v", err)
	}
}

func TestDamage(t *testing.T) {
	fs := vfs.NewMem()
	f := File{FS: fs, Dir: ".", Name: "X", Magic: "magic678", Version: 1}
	if err := f.Replace([]byte("the record")); err != nil {
		t.Fatal(err)
	}
	file, err := fs.Open("X", vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	size, _ := file.Size()
	for at := range size {
		var b [1]byte
		if _, err := file.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		_, _ = file.WriteAt([]byte{b[0] ^ 4}, at)
		if _, err := f.Read(); err == nil {
			t.Errorf("a flipped bit in byte %d was not seen", at)
		}
		_, _ = file.WriteAt(b[:], at)
	}
	for n := size - 1; n >= 0; n-- {
		if err := file.Truncate(n); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Read(); err == nil {
			t.Errorf("a file cut at %d was taken", n)
		}
	}
}

func TestCrash(t *testing.T) {
	for seed := range uint64(50) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("d"); err != nil {
			t.Fatal(err)
		}
		if err := vfs.SyncDir(fs, "."); err != nil {
			t.Fatal(err)
		}
		f := File{FS: fs, Dir: "d", Name: "X", Magic: "magic678", Version: 1}
		for _, v := range []string{"old", "new"} {
			if err := f.Replace([]byte(v)); err != nil {
				t.Fatal(err)
			}
			f.FS = fs.Crash(rand.New(rand.NewPCG(seed, 1)))
			if b, err := f.Read(); err != nil || string(b) != v {
				t.Fatalf("seed %d: %q %v after %q was written", seed, b, err, v)
			}
			f.FS = fs
		}
	}
}

package liar

import (
	"bytes"
	"io"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func write(t *testing.T, fs vfs.FS, name, text string, off int64) {
	t.Helper()
	f, err := fs.Open(name, vfs.CreateMissing)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.WriteAt([]byte(text), off); n != len(text) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := vfs.SyncDir(fs, "/"); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, fs vfs.FS, name string) string {
	t.Helper()
	f, err := fs.Open(name, 0)
	if err != nil {
		return "none"
	}
	p := make([]byte, 64)
	n, err := f.ReadAt(p, 0)
	if err != nil && err != io.EOF { //nolint:errorlint // vfs returns it as it is
		t.Fatal(err)
	}
	return string(p[:n])
}

// TestFS: what was said to be synced is lost by a crash, and writes land where they are sent; other files are as they should be.
func TestFS(t *testing.T) {
	mem := vfs.NewMem()
	fs := &FS{FS: mem, Unsynced: func(name string) bool { return name == "a" }, Write: func(name string, off int64) int64 {
		switch name {
		case "b":
			return -1
		case "c":
			return off + 1
		}
		return off
	}}
	for _, name := range []string{"a", "b", "c", "d"} {
		write(t, fs, name, "x", 0)
	}
	after := mem.Crash(nil)
	for name, want := range map[string]string{"a": "", "b": "", "c": "\x00x", "d": "x"} {
		if got := read(t, after, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	fs.UnsyncedDirs = true
	write(t, fs, "e", "x", 0)
	if got := read(t, mem.Crash(nil), "e"); got != "none" {
		t.Errorf("a file whose name was not synced is %q", got)
	}
}

func TestInvert(t *testing.T) {
	fs := pebblevfs.NewMem()
	names := []string{"a.sst", "b.sst", "c", "empty.sst"}
	for _, name := range names {
		f, err := fs.Create(name, pebblevfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if name != "empty.sst" {
			_, err = f.Write(make([]byte, 100))
		}
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	if err := Invert(fs, "", func(name string) bool { return len(name) > 1 }, 0.5); err != nil {
		t.Fatal(err)
	}
	for _, name := range names[:3] {
		f, err := fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 100)
		if _, err := f.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		changed := !bytes.Equal(p, make([]byte, 100))
		if changed != (name != "c") || changed && p[50] == 0 {
			t.Errorf("%s: changed %v", name, changed)
		}
	}
}

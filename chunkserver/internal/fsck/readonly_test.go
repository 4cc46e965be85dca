package fsck

import (
	"errors"
	"syscall"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// TestReadOnly: nothing can be changed through it, and what is opened can be read.
func TestReadOnly(t *testing.T) {
	m := vfs.NewMem()
	f, err := m.Create("file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("content"), 0); err != nil {
		t.Fatal(err)
	}
	if err := m.MkdirAll("dir"); err != nil {
		t.Fatal(err)
	}
	r := readOnly{m}
	_, created := r.Create("new")
	_, synced := r.OpenDir("dir")
	for what, err := range map[string]error{
		"create": created, "sync": synced, "remove": r.Remove("file"), "rename": r.Rename("file", "other"), "make": r.MkdirAll("other"),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := r.MkdirAll("dir"); err != nil {
		t.Error(err)
	}
	if _, err := r.Open("new", vfs.CreateMissing); err == nil {
		t.Error("a file was made")
	}
	g, err := r.Open("file", vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a file was written")
	}
	b := make([]byte, 7)
	if _, err := g.ReadAt(b, 0); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
}

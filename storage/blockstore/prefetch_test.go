package blockstore

import (
	"path"
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// hintFS notes what is prefetched from the data file.
type hintFS struct {
	vfs.FS
	hints []extent.Run
}

type hintFile struct {
	vfs.File
	fs *hintFS
}

func (h *hintFS) Open(name string, flags vfs.OpenFlags) (vfs.File, error) {
	f, err := h.FS.Open(name, flags)
	if err != nil || path.Base(name) != disk.BlocksName {
		return f, err
	}
	return &hintFile{f, h}, nil
}

func (f *hintFile) Prefetch(off, length int64) {
	f.fs.hints = append(f.fs.hints, extent.Run{Start: extent.Addr(off / layout.BlockSize), N: uint32(length / layout.BlockSize)})
}

// TestPrefetch: the disk is told of all the runs of a long read that lies in several, and of no other read; and not of blocks that
// are in memory only.
func TestPrefetch(t *testing.T) {
	d := newDisk(t)
	fs := &hintFS{FS: d.fs}
	s, err := d.tryOpen(fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c := create(t, s, 1)
	const blocks = 32
	want := pattern(1, blocks*layout.BlockSize)
	mustWrite(t, c, chunk0, 0, want)
	mustCommit(t, s, c.Freeze(nil))
	mustRead(t, c, chunk0, 0, want)
	if len(fs.hints) > 0 {
		t.Fatalf("one run, but %v", fs.hints)
	}
	for _, i := range []int{5, 20} {
		p := want[i*layout.BlockSize : (i+1)*layout.BlockSize]
		copy(p, pattern(uint64(i), layout.BlockSize))
		mustWrite(t, c, chunk0, uint32(i*layout.BlockSize), p)
	}
	for _, expect := range [][]uint32{{5, 14, 11}, {5, 1, 14, 1, 11}} {
		fs.hints = nil
		mustRead(t, c, chunk0, 0, want)
		var n []uint32
		for _, h := range fs.hints {
			n = append(n, h.N)
		}
		if !slices.Equal(n, expect) {
			t.Errorf("prefetched %v, want %v blocks", fs.hints, expect)
		}
		mustCommit(t, s, c.Freeze(nil))
	}
	fs.hints = nil
	mustRead(t, c, chunk0, 4*layout.BlockSize, want[4*layout.BlockSize:8*layout.BlockSize])
	if len(fs.hints) > 0 {
		t.Errorf("a short read prefetched %v", fs.hints)
	}
}

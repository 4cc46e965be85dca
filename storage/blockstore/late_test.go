package blockstore

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// written opens a store that counts the writes to its data file, and their bytes.
func written(t *testing.T, d *testDisk) (s *Store, writes, size *atomic.Int64) {
	t.Helper()
	writes, size = new(atomic.Int64), new(atomic.Int64)
	s, err := d.tryOpen(vfs.NewFault(d.fs, func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpWriteAt && op.Base() == disk.BlocksName {
			writes.Add(1)
			size.Add(op.Length)
		}
		return vfs.Fault{}
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	writes.Store(0)
	size.Store(0)
	return s, writes, size
}

// TestDeferredWritesCoalesce writes the same blocks again and again: they go to the file once, in one write.
func TestDeferredWritesCoalesce(t *testing.T) {
	d := newDisk(t)
	s, writes, size := written(t, d)
	c := create(t, s, 1)
	want := make([]byte, 64*layout.BlockSize)
	for round := range 5 {
		for i := range 64 {
			p := pattern(uint64(round*100+i), layout.BlockSize)
			at := i * 37 % 64 * layout.BlockSize
			copy(want[at:], p)
			mustWrite(t, c, chunk0, uint32(at), p)
		}
		part := pattern(uint64(round), 512) // merged with a deferred block
		copy(want[7*4096+512:], part)
		mustWrite(t, c, chunk0, 7*4096+512, part)
		mustRead(t, c, chunk0, 0, want)
	}
	if writes.Load() != 0 {
		t.Fatalf("%d writes before the checkpoint", writes.Load())
	}
	if u := s.Usage(); u.Deferred != 5*65*layout.BlockSize || u.Used != 65*layout.BlockSize {
		t.Fatalf("usage %+v", u)
	}
	mustCommit(t, s, c.Freeze(nil))
	if size.Load() != 64*layout.BlockSize || writes.Load() > 3 {
		t.Fatalf("%d writes of %d bytes", writes.Load(), size.Load())
	}
	if u := s.Usage(); u.Deferred != 0 || u.PendingFree != 0 {
		t.Fatalf("usage %+v", u)
	}
	mustRead(t, c, chunk0, 0, want)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := d.open(t).Copyset(1)
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, chunk0, 0, want)
}

// TestDeferredBlocksOfImages overwrites deferred blocks that an image holds, and that a frozen checkpoint will need.
func TestDeferredBlocksOfImages(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	first, second := pattern(1, 8*4096), pattern(2, 8*4096)
	mustWrite(t, c, chunk0, 0, first)
	im, err := c.Snapshot(nil)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, chunk0, 0, second)
	f := c.Freeze(nil)
	mustWrite(t, c, chunk0, 0, pattern(3, 8*4096))
	mustCommit(t, s, f)
	mustCommit(t, s, c.Freeze(nil))
	r, err := im.NextRun()
	if err != nil || !bytes.Equal(r.Data, first) {
		t.Fatalf("image: %v", err)
	}
	if _, err := im.NextRun(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if u := s.Usage(); u.Deferred != 0 || u.PendingFree == 0 {
		t.Fatalf("usage %+v: an image must not keep blocks in memory", u)
	}
	im.Close()
	if u := s.Usage(); u.PendingFree != 0 {
		t.Fatalf("usage %+v", u)
	}
}

// TestDeferredBound asks for a checkpoint when the bound is reached, and writes through at twice the bound.
func TestDeferredBound(t *testing.T) {
	d := newDisk(t)
	d.opts.DeferredBytes = 16 * layout.BlockSize
	s, writes, _ := written(t, d)
	c := create(t, s, 1)
	put := func(from, to int) {
		for i := from; i < to; i++ {
			mustWrite(t, c, chunk0, uint32(i*layout.BlockSize), pattern(uint64(i), layout.BlockSize))
		}
	}
	put(0, 16)
	select {
	case <-s.Pressure():
		t.Fatal("pressure below the bound")
	default:
	}
	put(16, 33)
	select {
	case <-s.Pressure():
	default:
		t.Fatal("no pressure at the bound")
	}
	if writes.Load() != 1 || s.Usage().Deferred != 32*layout.BlockSize {
		t.Fatalf("%d writes, usage %+v", writes.Load(), s.Usage())
	}
	mustCommit(t, s, c.Freeze(nil))
	for i := range 33 {
		mustRead(t, c, chunk0, uint32(i*layout.BlockSize), pattern(uint64(i), layout.BlockSize))
	}
}

// TestFlushError: a checkpoint that finds no space for its data can be tried again, another error poisons.
func TestFlushError(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		s, on := faulty(t, newDisk(t), vfs.OpWriteAt, cause)
		c := create(t, s, 1)
		want := pattern(1, 32<<10)
		mustWrite(t, c, chunk0, 0, want)
		f := c.Freeze(nil)
		on.Store(true)
		err := s.Commit([]*Frozen{f})
		on.Store(false)
		mustRead(t, c, chunk0, 0, want)
		if cause == syscall.EIO {
			if !errors.As(err, new(*PoisonedError)) || s.Err() == nil {
				t.Fatalf("commit: %v", err)
			}
			continue
		}
		if !errors.Is(err, ErrNoSpace) || s.Err() != nil {
			t.Fatalf("commit: %v", err)
		}
		mustCommit(t, s, f)
		mustRead(t, c, chunk0, 0, want)
	}
}

// TestNoDirectIO runs on file systems that refuse direct I/O, at open or at the first write.
func TestNoDirectIO(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpOpen, vfs.OpWriteAt} {
		d := newDisk(t)
		if err := d.open(t).Close(); err != nil {
			t.Fatal(err)
		}
		var once atomic.Int64
		s, err := d.tryOpen(vfs.NewFault(d.fs, func(op vfs.Op) vfs.Fault {
			if op.Base() != disk.BlocksName || op.Kind != kind {
				return vfs.Fault{}
			}
			if n := once.Add(1); kind == vfs.OpWriteAt && n == 1 || kind == vfs.OpOpen && n == 2 {
				return vfs.Fault{Err: syscall.EINVAL}
			}
			return vfs.Fault{}
		}))
		if err != nil {
			t.Fatal(err)
		}
		c := create(t, s, 1)
		want := pattern(1, 256<<10)
		mustWrite(t, c, chunk0, 0, want)
		mustWrite(t, c, chunk0, 512, want[512:1024])
		mustCommit(t, s, c.Freeze(nil))
		mustRead(t, c, chunk0, 0, want)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLargeWritesStayTogether: where only scattered blocks are free, the file grows for a large write.
func TestLargeWritesStayTogether(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	const size = 8 << 20
	mustWrite(t, c, chunk0, 0, pattern(1, size))
	for round := range 8 {
		for off := uint32(0); off < size; off += 2 * layout.BlockSize { // every second block moves
			mustWrite(t, c, chunk0, off+uint32(round%2)*layout.BlockSize, pattern(uint64(off), layout.BlockSize))
		}
		mustCommit(t, s, c.Freeze(nil))
		runs, err := s.allocate(256, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.file.TakeBack(runs)
		if u := s.Usage(); round == 0 && len(runs) > 16 {
			t.Errorf("a large write has %d pieces, usage %+v", len(runs), u)
		}
	}
	st, err := s.file.Size()
	if err != nil || st > 3*size {
		t.Fatalf("the file has %d bytes for %d, %v", st, size, err)
	}
}

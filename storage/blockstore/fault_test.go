package blockstore

import (
	"bytes"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// faulty opens a store whose file operations of one kind fail while the switch is on.
func faulty(t *testing.T, d *testDisk, kind vfs.OpKind, err error) (*Store, *atomic.Bool) {
	t.Helper()
	on := new(atomic.Bool)
	s, openErr := d.tryOpen(vfs.NewFault(d.fs, func(op vfs.Op) vfs.Fault {
		if op.Kind == kind && on.Load() {
			return vfs.Fault{Err: err}
		}
		return vfs.Fault{}
	}))
	if openErr != nil {
		t.Fatal(openErr)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, on
}

func TestWriteError(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		d := newDisk(t)
		d.opts.DeferBelow = -1
		s, on := faulty(t, d, vfs.OpWriteAt, cause)
		c := create(t, s, 1)
		want := pattern(1, 64<<10)
		mustWrite(t, c, chunk0, 0, want)
		before := s.Usage()
		on.Store(true)
		var ioErr *IOError
		for _, err := range []error{
			c.Write(chunk0, 0, pattern(2, 32<<10), nil),
			c.Write(chunk0, 512, pattern(2, 512), nil),
			c.Write(chunk0, 512, pattern(2, 8192), nil),
		} {
			if cause == syscall.ENOSPC && !errors.Is(err, ErrNoSpace) || cause != syscall.ENOSPC && !errors.As(err, &ioErr) {
				t.Fatalf("write: %v", err)
			}
			if !errors.Is(err, cause) {
				t.Fatalf("write: %v is not %v", err, cause)
			}
		}
		on.Store(false)
		mustRead(t, c, chunk0, 0, want)
		if after := s.Usage(); after != before {
			t.Fatalf("usage %+v, was %+v", after, before)
		}
		mustWrite(t, c, chunk0, 0, pattern(2, 512))
	}
}

func TestReadError(t *testing.T) {
	d := newDisk(t)
	var bad atomic.Int64 // offset in the file
	s, err := d.tryOpen(vfs.NewFault(d.fs, func(op vfs.Op) vfs.Fault {
		if b := bad.Load(); op.Kind == vfs.OpReadAt && b > 0 && op.Offset <= b && b < op.Offset+op.Length {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // a test's
	c := create(t, s, 1)
	want := pattern(1, 64<<10)
	mustWrite(t, c, chunk0, 0, want)
	bad.Store(5*layout.BlockSize + 100)
	var sum *ChecksumError
	if _, err := c.Read(chunk0, 0, make([]byte, 64<<10), nil); !errors.As(err, &sum) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("read: %v", err)
	}
	block := sum.Block * layout.BlockSize
	if err := c.Repair(chunk0, block, want[block:block+layout.BlockSize]); err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, chunk0, 0, want)
}

func TestSyncErrorPoisons(t *testing.T) {
	d := newDisk(t)
	s, on := faulty(t, d, vfs.OpSync, syscall.EIO)
	c := create(t, s, 1)
	want := pattern(1, 64<<10)
	mustWrite(t, c, chunk0, 0, want)
	f := c.Freeze(nil)
	on.Store(true)
	var poisoned *PoisonedError
	if err := s.Commit([]*Frozen{f}); !errors.As(err, &poisoned) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit: %v", err)
	}
	on.Store(false)
	<-s.Poisoned()
	in, err := s.NewInstaller(1)
	if err == nil {
		in.Abort()
	}
	_, createErr := s.Create(2)
	for i, err := range []error{
		s.Err(), s.Commit([]*Frozen{f}), createErr, s.Remove(1), err,
		c.Write(chunk0, 0, want, nil), c.Discard(chunk0, 0, 4096), c.WriteZeroes(chunk0, 0, 512), c.DeleteVolume(1),
	} {
		if !errors.As(err, &poisoned) {
			t.Errorf("call %d in a poisoned store: %v", i, err)
		}
	}
	mustRead(t, c, chunk0, 0, want)
}

func TestIndexErrorPoisons(t *testing.T) {
	d := newDisk(t)
	var on atomic.Bool
	opts := d.opts
	opts.IndexFS = errorfs.Wrap(d.index, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			return syscall.EIO
		}
		return nil
	}))
	s, err := Open(d.fs, testDir, testID, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // a poisoned store's
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 4096))
	on.Store(true)
	var poisoned *PoisonedError
	if err := s.Commit([]*Frozen{c.Freeze(nil)}); !errors.As(err, &poisoned) {
		t.Fatalf("commit: %v", err)
	}
	mustRead(t, c, chunk0, 0, pattern(1, 4096))
}

// TestIndexFull: a checkpoint that finds the file system full can be tried again.
func TestIndexFull(t *testing.T) {
	d := newDisk(t)
	var on atomic.Bool
	opts := d.opts
	opts.IndexFS = errorfs.Wrap(d.index, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && op.Kind == errorfs.OpFileWrite {
			return syscall.ENOSPC
		}
		return nil
	}))
	s, err := Open(d.fs, testDir, testID, opts)
	if err != nil {
		t.Fatal(err)
	}
	c := create(t, s, 1)
	want := pattern(1, 64<<10)
	mustWrite(t, c, chunk0, 0, want)
	mustWrite(t, c, chunk0, 0, want[:4096])
	c.SetApplied(3, 1)
	f := c.Freeze([]byte("s"))
	on.Store(true)
	for range 2 {
		if err := s.Commit([]*Frozen{f}); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("commit: %v", err)
		}
	}
	if u := s.Usage(); u.PendingFree != 4096 || s.Err() != nil {
		t.Fatalf("usage %+v, %v", u, s.Err())
	}
	on.Store(false)
	mustWrite(t, c, chunk0, 4096, want[:4096])
	mustCommit(t, s, f)
	if i, _ := c.Durable(); i != 3 {
		t.Fatalf("durable %d", i)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t)
	if c, err = s.Copyset(1); err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, chunk0, 0, want)
}

func TestNoSpaceAtCapacity(t *testing.T) {
	d := newDisk(t)
	d.opts.Capacity, d.opts.Reserve = 4<<20, 1<<20
	s := d.open(t)
	c := create(t, s, 1)
	want := pattern(1, 3<<20-2*layout.BlockSize) // the header and one block are left
	mustWrite(t, c, chunk0, 0, want)
	for _, n := range []int{8192, 1 << 20} {
		if err := c.Write(chunk0, 0, make([]byte, n), nil); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("write of %d: %v", n, err)
		}
	}
	mustRead(t, c, chunk0, 0, want)
	mustWrite(t, c, chunk0, 0, want[:4096])
	if err := c.Write(chunk0, 512, want[:512], nil); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("write of a part: %v", err)
	}
	if err := c.Discard(chunk0, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	clear(want[:1<<20])
	if err := c.Write(chunk0, 0, want[:4096], nil); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("before the checkpoint: %v", err)
	}
	mustCommit(t, s, c.Freeze(nil))
	if u := s.Usage(); u.Capacity != 4<<20 || u.Free != 2<<20+layout.BlockSize || u.PendingFree != 0 {
		t.Fatalf("usage %+v", u)
	}
	mustWrite(t, c, chunk0, 0, pattern(3, 1<<20))
	mustRead(t, c, chunk0, 1<<20, want[1<<20:])
}

func TestNoSpaceOfFileSystem(t *testing.T) {
	d := newDisk(t)
	d.fs.SetCapacity(8 << 20)
	d.opts.Reserve = 1 << 20
	s := d.open(t)
	c := create(t, s, 1)
	n := uint32(0)
	var err error
	for ; err == nil; n += 256 << 10 {
		err = c.Write(chunk0, n, pattern(uint64(n), 256<<10), nil)
	}
	n -= 256 << 10
	if !errors.Is(err, ErrNoSpace) || n < 6<<20 {
		t.Fatalf("after %d: %v", n, err)
	}
	space, err := d.fs.Space("/")
	if err != nil || space.Free < 1<<20 {
		t.Fatalf("the reserve was used: %+v %v", space, err)
	}
	mustCommit(t, s, c.Freeze(nil))
	// What is discarded goes back to the file system, and can be written again.
	if err := c.Discard(chunk0, 0, 2<<20); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, c.Freeze(nil))
	after, err := d.fs.Space("/")
	if err != nil || after.Free < space.Free+2<<20 {
		t.Fatalf("free %d, was %d: %v", after.Free, space.Free, err)
	}
	for i := uint32(0); i < 2<<20; i += 256 << 10 {
		mustWrite(t, c, chunk0, i, pattern(uint64(i), 256<<10))
	}
	for i := uint32(0); i < n; i += 256 << 10 {
		mustRead(t, c, chunk0, i, pattern(uint64(i), 256<<10))
	}
}

// TestPunchAfterReopen: free runs of which it is not known whether they have disk space are usable after a reopen.
func TestPunchAfterReopen(t *testing.T) {
	d := newDisk(t)
	d.opts.Capacity = 5 << 20
	s := d.open(t)
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 4<<20))
	mustCommit(t, s, c.Freeze(nil))
	if err := c.Discard(chunk0, 0, 3<<20); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, c.Freeze(nil))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t)
	c, err := s.Copyset(1)
	if err != nil {
		t.Fatal(err)
	}
	if u := s.Usage(); u.Free != 4<<20-layout.BlockSize {
		t.Fatalf("usage %+v", u)
	}
	want := pattern(5, 3<<20)
	mustWrite(t, c, chunk0, 0, want)
	mustRead(t, c, chunk0, 0, want)
}

// TestReadersHoldBlocks: a block that a reader has looked up is not reused before it is done.
func TestReadersHoldBlocks(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 4096))
	ents := make([]entryOf, 1)
	slot, err := c.lookup(chunk0, 0, ents)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, chunk0, 0, pattern(2, 4096))
	mustCommit(t, s, c.Freeze(nil))
	for range 3 { // later readers come and go
		mustRead(t, c, chunk0, 0, pattern(2, 4096))
		if u := s.Usage(); u.PendingFree != 4096 {
			t.Fatalf("usage %+v", u)
		}
	}
	var b [layout.BlockSize]byte
	if err := s.file.ReadVerified(c.id, chunk0, 0, ents, b[:]); err != nil || !bytes.Equal(b[:], pattern(1, 4096)) {
		t.Fatalf("the reader's block: %v", err)
	}
	c.unpin(slot)
	if u := s.Usage(); u.PendingFree != 0 {
		t.Fatalf("usage %+v", u)
	}
}

// TestGrowSmaller: when the file system has no room for a whole step, a smaller one will do.
func TestGrowSmaller(t *testing.T) {
	d := newDisk(t)
	d.opts.GrowStep = 64 << 20
	s, err := d.tryOpen(vfs.NewFault(d.fs, func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpPreallocate && op.Length > 1<<20 {
			return vfs.Fault{Err: syscall.ENOSPC}
		}
		return vfs.Fault{}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // a test's
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 512<<10))
	if err := c.Write(chunk0, 0, make([]byte, 4<<20), nil); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
}

package vfs

import (
	"bytes"
	"errors"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func passAll(Op) Fault { return Fault{} }

// systems are the implementations that keep one contract, each with a directory to work in.
func systems(t *testing.T) map[string]func(t *testing.T) (FS, string) {
	return map[string]func(t *testing.T) (FS, string){
		"os":    func(t *testing.T) (FS, string) { return OS(), t.TempDir() },
		"mem":   func(*testing.T) (FS, string) { return NewMem(), "/" },
		"fault": func(*testing.T) (FS, string) { return NewFault(NewMem(), passAll), "/" },
	}
}

func each(t *testing.T, run func(t *testing.T, fs FS, dir string)) {
	for name, make := range systems(t) {
		t.Run(name, func(t *testing.T) {
			fs, dir := make(t)
			run(t, fs, dir)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, fs FS, name, content string) File {
	t.Helper()
	f, err := fs.Create(name)
	must(t, err)
	write(t, f, 0, content)
	return f
}

func write(t testing.TB, f File, off int64, content string) {
	t.Helper()
	if n, err := f.WriteAt([]byte(content), off); err != nil || n != len(content) {
		t.Fatalf("write: %d, %v", n, err)
	}
}

// content returns what a file holds, "-" if there is none.
func content(t testing.TB, fs FS, name string) string {
	t.Helper()
	f, err := fs.Open(name, ReadOnly)
	if errors.Is(err, iofs.ErrNotExist) {
		return "-"
	}
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil || n != len(b) {
		t.Fatalf("read: %d of %d, %v", n, len(b), err)
	}
	return string(b)
}

func want(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%v, want %v", err, target)
	}
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		name := path.Join(dir, "f")
		f := create(t, fs, name, "hello")
		_, err := fs.Create(name)
		want(t, err, iofs.ErrExist)
		write(t, f, 10000, "far")
		b := make([]byte, 8)
		if n, err := f.ReadAt(b, 9998); n != 5 || !errors.Is(err, io.EOF) || !bytes.Equal(b[:5], []byte("\x00\x00far")) {
			t.Errorf("read over the end: %d, %v, %q", n, err, b)
		}
		if n, err := f.ReadAt(b, 20000); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("read behind the end: %d, %v", n, err)
		}
		must(t, f.Truncate(3))
		must(t, f.Truncate(6))
		must(t, f.Sync())
		if got := content(t, fs, name); got != "hel\x00\x00\x00" {
			t.Errorf("content %q", got)
		}
		must(t, f.Close())
		want(t, f.Sync(), iofs.ErrClosed)
		ro, err := fs.Open(name, ReadOnly)
		must(t, err)
		_, err = ro.WriteAt([]byte("x"), 0)
		want(t, err, syscall.EBADF)
		must(t, ro.Close())
		_, err = fs.Open(path.Join(dir, "none"), ReadWrite)
		want(t, err, iofs.ErrNotExist)
		g, err := fs.Open(path.Join(dir, "g"), CreateMissing)
		must(t, err)
		write(t, g, 0, "g")
		must(t, g.Close())
	})
}

func TestSpaceOfFiles(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		name := path.Join(dir, "f")
		f := create(t, fs, name, "hello")
		defer f.Close()
		must(t, f.Preallocate(0, 1<<20, true))
		if size, _ := f.Size(); size != 5 {
			t.Errorf("size %d after a preallocation that keeps it", size)
		}
		must(t, f.Preallocate(0, 1<<20, false))
		info, err := fs.Stat(name)
		must(t, err)
		if info.Size != 1<<20 || info.Allocated < 1<<20 || info.IsDir {
			t.Errorf("%+v", info)
		}
		write(t, f, 8192, "tail")
		must(t, f.PunchHole(0, 8192))
		must(t, f.PunchHole(8194, 100))
		after, err := fs.Stat(name)
		must(t, err)
		if after.Size != 1<<20 || after.Allocated > info.Allocated-8192 {
			t.Errorf("%+v, before the hole %+v", after, info)
		}
		if got := content(t, fs, name); got[:5] != "\x00\x00\x00\x00\x00" || got[8192:8198] != "ta\x00\x00\x00\x00" {
			t.Errorf("content %q, %q", got[:5], got[8192:8198])
		}
		sp, err := fs.Space(dir)
		must(t, err)
		if sp.Total <= 0 || sp.Free <= 0 || sp.Free > sp.Total {
			t.Errorf("%+v", sp)
		}
	})
}

func TestDirectories(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		sub := path.Join(dir, "a/b")
		must(t, fs.MkdirAll(sub))
		must(t, fs.MkdirAll(sub))
		for _, name := range []string{"z", "x", "y"} {
			must(t, create(t, fs, path.Join(sub, name), name).Close())
		}
		must(t, fs.Rename(path.Join(sub, "z"), path.Join(sub, "x")))
		must(t, SyncDir(fs, sub))
		names, err := fs.List(sub)
		must(t, err)
		if !slices.Equal(names, []string{"x", "y"}) || content(t, fs, path.Join(sub, "x")) != "z" {
			t.Errorf("names %v", names)
		}
		want(t, fs.Remove(sub), syscall.ENOTEMPTY)
		want(t, fs.Remove(path.Join(sub, "z")), iofs.ErrNotExist)
		want(t, fs.Rename(path.Join(sub, "z"), path.Join(sub, "w")), iofs.ErrNotExist)
		want(t, SyncDir(fs, path.Join(dir, "none")), iofs.ErrNotExist)
		_, err = fs.List(path.Join(dir, "none"))
		want(t, err, iofs.ErrNotExist)
		_, err = fs.Stat(path.Join(sub, "x/y"))
		want(t, err, syscall.ENOTDIR)
		open, err := fs.Open(path.Join(sub, "x"), ReadOnly)
		must(t, err)
		for _, name := range []string{"x", "y"} {
			must(t, fs.Remove(path.Join(sub, name)))
		}
		b := make([]byte, 1)
		if _, err := open.ReadAt(b, 0); err != nil || b[0] != 'z' {
			t.Errorf("read of a removed file: %q, %v", b, err)
		}
		must(t, open.Close())
		must(t, fs.Remove(sub))
		if info, err := fs.Stat(path.Join(dir, "a")); err != nil || !info.IsDir {
			t.Errorf("%+v, %v", info, err)
		}
	})
}

func TestLock(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		name := path.Join(dir, "LOCK")
		held, err := fs.Lock(name)
		must(t, err)
		_, err = fs.Lock(name)
		want(t, err, ErrLocked)
		must(t, held.Close())
		again, err := fs.Lock(name)
		must(t, err)
		must(t, again.Close())
	})
}

func TestMemCapacity(t *testing.T) {
	fs := NewMem()
	fs.SetCapacity(4 * memPage)
	f := create(t, fs, "f", "1")
	must(t, f.Preallocate(0, 3*memPage, false))
	_, err := f.WriteAt(make([]byte, 2*memPage), 3*memPage)
	want(t, err, syscall.ENOSPC)
	want(t, f.Preallocate(0, 5*memPage, false), syscall.ENOSPC)
	if size, _ := f.Size(); size != 3*memPage {
		t.Errorf("size %d after ENOSPC", size)
	}
	write(t, f, 3*memPage, "4")
	if sp, _ := fs.Space("/"); sp.Free != 0 {
		t.Errorf("%+v", sp)
	}
	must(t, f.PunchHole(0, memPage))
	must(t, create(t, fs, "g", "1").Close())
	must(t, fs.Remove("f"))
	must(t, fs.Rename("g", "h"))
	if sp, _ := fs.Crash(rand.New(rand.NewPCG(1, 1))).Space("/"); sp.Total != 4*memPage {
		t.Errorf("%+v after a crash", sp)
	}
	if sp, _ := fs.Space("/"); sp.Free != 3*memPage {
		t.Errorf("%+v with one page in use", sp)
	}
}

func TestFault(t *testing.T) {
	var next Fault
	var seen []Op
	fs := NewFault(NewMem(), func(op Op) Fault {
		seen = append(seen, op)
		ft := next
		next = Fault{}
		return ft
	})
	f := create(t, fs, "f", "0123456789")
	next = Fault{Err: syscall.EIO, Short: 3}
	n, err := f.WriteAt([]byte("abcdef"), 0)
	want(t, err, syscall.EIO)
	if got := content(t, fs, "f"); n != 3 || got != "abc3456789" {
		t.Errorf("short write: %d, %q", n, got)
	}
	next = Fault{Err: syscall.ENOSPC, After: true}
	_, err = f.WriteAt([]byte("ABCDEF"), 0)
	want(t, err, syscall.ENOSPC)
	next = Fault{Flip: []int64{0, 13, 1000}}
	write(t, f, 6, "6789")
	b := make([]byte, 10)
	next = Fault{Flip: []int64{8 * 9}}
	_, err = f.ReadAt(b, 0)
	must(t, err)
	if string(b) != "ABCDEF7\x178"+"8" {
		t.Errorf("flipped: %q", b)
	}
	next = Fault{Err: syscall.EIO}
	want(t, f.Sync(), syscall.EIO)
	next = Fault{Err: syscall.EIO}
	_, err = fs.Open("f", ReadOnly)
	want(t, err, syscall.EIO)
	next = Fault{Err: syscall.EIO, After: true}
	want(t, fs.Rename("f", "g"), syscall.EIO)
	if content(t, fs, "g") == "-" {
		t.Error("the rename was not done")
	}
	next = Fault{Err: syscall.EIO}
	want(t, fs.Remove("g"), syscall.EIO)
	next = Fault{Err: syscall.EIO, After: true}
	_, err = fs.Lock("L")
	want(t, err, syscall.EIO)
	held, err := fs.Lock("L")
	must(t, err)
	must(t, held.Close())
	next = Fault{Err: syscall.EIO}
	want(t, f.Close(), syscall.EIO)
	want(t, f.Sync(), iofs.ErrClosed)
	for _, kind := range []OpKind{OpCreate, OpWriteAt, OpReadAt, OpSync, OpRename, OpRemove, OpLock, OpClose, OpSize, OpOpen} {
		if !slices.ContainsFunc(seen, func(op Op) bool { return op.Kind == kind }) {
			t.Errorf("%v was not seen", kind)
		}
	}
	if op := seen[1]; op.Kind != OpWriteAt || op.Base() != "f" || op.Length != 10 || op.Kind.String() != "writeat" {
		t.Errorf("%+v", op)
	}
}

// TestFaultEverywhere fails every operation once.
func TestFaultEverywhere(t *testing.T) {
	for kind := OpCreate; kind <= OpDirSync; kind++ {
		hit := false
		fs := NewFault(NewMem(), func(op Op) Fault {
			if op.Kind == kind && !hit {
				hit = true
				return Fault{Err: syscall.EIO}
			}
			return Fault{}
		})
		if err := exercise(fs); !errors.Is(err, syscall.EIO) || !hit {
			t.Errorf("%v: %v", kind, err)
		}
	}
	must(t, exercise(NewFault(NewMem(), passAll)))
}

// exercise does each operation once.
func exercise(fs FS) error {
	f, err := fs.Create("f")
	if err != nil {
		return err
	}
	b := make([]byte, 4)
	_, writeErr := f.WriteAt(b, 0)
	_, sizeErr := f.Size()
	errs := []error{
		writeErr, sizeErr, f.Truncate(100), f.Preallocate(0, 10, false), f.PunchHole(0, 2), f.Sync(),
	}
	_, readErr := f.ReadAt(b, 0)
	_, statErr := fs.Stat("f")
	_, listErr := fs.List("/")
	_, spaceErr := fs.Space("/")
	errs = append(errs, readErr, statErr, listErr, spaceErr, f.Close(), fs.MkdirAll("d"), SyncDir(fs, "/"), fs.Rename("f", "g"))
	if g, err := fs.Open("g", ReadWrite); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, g.Close())
	}
	if l, err := fs.Lock("l"); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, fs.Remove("l"))...)
}

// TestDirect writes past the page cache where the file system can, and reads it through another open file.
func TestDirect(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		name := path.Join(dir, "direct")
		f, err := fs.Create(name)
		must(t, err)
		defer f.Close() //nolint:errcheck // a test's
		must(t, f.Preallocate(0, 64<<10, false))
		d, err := fs.Open(name, ReadWrite|Direct|Random)
		if errors.Is(err, syscall.EINVAL) {
			t.Skip("the file system refuses O_DIRECT")
		}
		must(t, err)
		defer d.Close() //nolint:errcheck // a test's
		old := make([]byte, 64<<10)
		_, err = f.ReadAt(old, 0) // now it is cached
		must(t, err)
		want := Aligned(8192)
		for i := range want {
			want[i] = byte(i / 7)
		}
		_, err = d.WriteAt(want, 4096)
		if errors.Is(err, syscall.EINVAL) {
			t.Skip("the file system refuses direct writes")
		}
		must(t, err)
		got := make([]byte, 8192)
		_, err = f.ReadAt(got, 4096)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Fatal("a read through the page cache does not see a direct write")
		}
		must(t, d.Sync())
		if IsAligned(want[512:], 0) || IsAligned(want, 512) || IsAligned(want[:100], 0) || !IsAligned(want, 4096) {
			t.Fatal("IsAligned")
		}
		if _, ok := fs.(*Mem); ok {
			if _, err := d.WriteAt(want[512:1024], 0); !errors.Is(err, syscall.EINVAL) {
				t.Fatalf("a write that is not aligned: %v", err)
			}
		}
	})
}

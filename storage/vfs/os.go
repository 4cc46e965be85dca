//go:build linux

package vfs

import (
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// filePerm and dirPerm are the modes of new files and directories: the owner's only, since they hold users' data.
const (
	filePerm = 0o600
	dirPerm  = 0o700
)

// OS returns the file system of the machine.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) Create(name string) (File, error) {
	f, err := openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFS) Open(name string, flags OpenFlags) (File, error) {
	mode := os.O_RDONLY
	if flags&(ReadWrite|CreateMissing) != 0 {
		mode = os.O_RDWR
	}
	if flags&CreateMissing != 0 {
		mode |= os.O_CREATE
	}
	if flags&Direct != 0 {
		mode |= unix.O_DIRECT
	}
	f, err := openOS(name, mode)
	if err == nil && flags&Random != 0 {
		// It is advice: without it reads are as right.
		_ = f.control("fadvise", func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM) })
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func openOS(name string, mode int) (*osFile, error) {
	f, err := os.OpenFile(name, mode|unix.O_CLOEXEC, filePerm)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close() // the first error wins
		return nil, err
	}
	return &osFile{f: f, raw: raw}, nil
}

func (osFS) OpenDir(name string) (Dir, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

func (osFS) List(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	sort.Strings(names)
	return names, err
}

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, dirPerm) }

func (osFS) Stat(name string) (Info, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return Info{}, err
	}
	if fi.IsDir() {
		return Info{IsDir: true}, nil
	}
	info := Info{Size: fi.Size()}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return Info{}, pathError("stat", name, err)
	}
	info.Allocated = st.Blocks * 512 // st_blocks counts 512-byte units, whatever the block size
	return info, nil
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, filePerm)
	if err != nil {
		return nil, err
	}
	err = retryEINTR(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	_ = f.Close() // nothing was written
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, pathError("flock", name, err)
}

func (osFS) Space(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return Space{}, pathError("statfs", dir, err)
	}
	unit := st.Bsize
	return Space{Total: int64(st.Blocks) * unit, Free: int64(st.Bavail) * unit}, nil
}

type osFile struct {
	f   *os.File
	raw rawConn
}

// rawConn is the part of syscall.RawConn that osFile uses: it keeps the descriptor from being closed, and so from
// being given to another file, during the call.
type rawConn interface {
	Control(f func(fd uintptr)) error
}

// control runs call on the descriptor and retries it when a signal interrupted it.
func (o *osFile) control(op string, call func(fd int) error) error {
	var err error
	if cerr := o.raw.Control(func(fd uintptr) {
		err = retryEINTR(func() error { return call(int(fd)) })
	}); cerr != nil {
		err = iofs.ErrClosed // the one error that Control itself has
	}
	return pathError(op, o.f.Name(), err)
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error)  { return o.f.ReadAt(p, off) }
func (o *osFile) WriteAt(p []byte, off int64) (int, error) { return o.f.WriteAt(p, off) }
func (o *osFile) Truncate(size int64) error                { return o.f.Truncate(size) }
func (o *osFile) Close() error                             { return o.f.Close() }

// Sync calls fdatasync exactly once: an error, even EINTR, is the caller's.
func (o *osFile) Sync() error {
	var err error
	if cerr := o.raw.Control(func(fd uintptr) { err = unix.Fdatasync(int(fd)) }); cerr != nil {
		err = iofs.ErrClosed // as in control
	}
	return pathError("fdatasync", o.f.Name(), err)
}

func (o *osFile) Size() (int64, error) {
	fi, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (o *osFile) Preallocate(off, length int64, keepSize bool) error {
	var mode uint32
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	return o.control("fallocate", func(fd int) error { return unix.Fallocate(fd, mode, off, length) })
}

func (o *osFile) PunchHole(off, length int64) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	return o.control("fallocate", func(fd int) error { return unix.Fallocate(fd, mode, off, length) })
}

// Prefetch implements Prefetcher.
func (o *osFile) Prefetch(off, length int64) {
	_ = o.control("fadvise", func(fd int) error { return unix.Fadvise(fd, off, length, unix.FADV_WILLNEED) }) // only a hint
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &iofs.PathError{Op: op, Path: name, Err: err}
}

// maxInterrupts bounds the retries of a system call that signals keep interrupting.
const maxInterrupts = 1000

func retryEINTR(call func() error) error {
	var err error
	for range maxInterrupts {
		if err = call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return err
}

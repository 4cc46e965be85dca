package fsck

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// readOnly is a file system on which nothing can be changed. Locks can be taken.
type readOnly struct{ vfs.FS }

func refused(op, name string) error { return fmt.Errorf("fsck: %s %s: %w", op, name, syscall.EROFS) }

func (readOnly) Create(name string) (vfs.File, error) { return nil, refused("create", name) }
func (readOnly) Remove(name string) error             { return refused("remove", name) }
func (readOnly) Rename(oldname, _ string) error       { return refused("rename", oldname) }
func (readOnly) OpenDir(name string) (vfs.Dir, error) { return nil, refused("sync", name) }

// Open opens for reading whatever is asked for.
func (r readOnly) Open(name string, flags vfs.OpenFlags) (vfs.File, error) {
	return r.FS.Open(name, flags&^(vfs.ReadWrite|vfs.CreateMissing))
}

// MkdirAll does nothing when the directory is there.
func (r readOnly) MkdirAll(dir string) error {
	if i, err := r.FS.Stat(dir); err == nil && i.IsDir {
		return nil
	}
	return refused("make", dir)
}

// lock takes those of the locks of a data directory that are there. Where nobody can write no lock is needed.
func lock(fsys vfs.FS, dir string) (unlock func(), err error) {
	var held []io.Closer
	unlock = func() {
		for _, l := range held {
			_ = l.Close() // nothing depends on it any more
		}
	}
	for _, name := range []string{dir + "/LOCK", dir + "/log/LOCK", dir + "/store/LOCK"} {
		if _, err := fsys.Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		l, err := fsys.Lock(name)
		switch {
		case errors.Is(err, vfs.ErrLocked):
			unlock()
			return nil, fmt.Errorf("%s is in use: stop its chunkserver first: %w", dir, err)
		case errors.Is(err, syscall.EROFS):
			continue
		case err != nil:
			unlock()
			return nil, err
		}
		held = append(held, l)
	}
	return unlock, nil
}

package diskwatch

import (
	"io"
	"strings"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// logSuffix ends the names of the raft log's segments; a spare that becomes one is opened anew, without vfs.Direct.
const logSuffix = ".log"

// LogFS watches the file system as the raft log uses it.
func (w *Watch) LogFS(below vfs.FS) vfs.FS { return &watchedFS{FS: below, w: w, log: true} }

// DataFS watches the file system as the data and everything else uses it.
func (w *Watch) DataFS(below vfs.FS) vfs.FS { return &watchedFS{FS: below, w: w} }

// watchedFS follows what its files and directories do. What changes names is in the background.
type watchedFS struct {
	vfs.FS
	w   *Watch
	log bool
}

func (f *watchedFS) do(run func() error) error {
	op := f.w.enter(Background)
	defer f.w.leave(op, nil)
	return run()
}

// Create makes a file; of the log it is a spare.
func (f *watchedFS) Create(name string) (file vfs.File, err error) {
	err = f.do(func() error { file, err = f.FS.Create(name); return err })
	return f.watch(file, err, Background, Background)
}

// Open opens a file. Past the page cache only spares are filled and scrubs read, but for the segments of the log.
func (f *watchedFS) Open(name string, flags vfs.OpenFlags) (file vfs.File, err error) {
	read, write := Read, Background
	switch direct := flags&vfs.Direct != 0; {
	case f.log && (!direct || strings.HasSuffix(name, logSuffix)):
		read, write = Background, Log // entries are read for followers that lag
	case direct:
		read = Background
	}
	err = f.do(func() error { file, err = f.FS.Open(name, flags); return err })
	return f.watch(file, err, read, write)
}

func (f *watchedFS) watch(file vfs.File, err error, read, write Class) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: file, w: f.w, read: read, write: write}, nil
}

// OpenDir opens a directory.
func (f *watchedFS) OpenDir(name string) (dir vfs.Dir, err error) {
	err = f.do(func() error { dir, err = f.FS.OpenDir(name); return err })
	if err != nil {
		return nil, err
	}
	return &watchedDir{Dir: dir, f: f}, nil
}

// Lock takes a lock; it is held, not done, so it is not followed.
func (f *watchedFS) Lock(name string) (io.Closer, error) { return f.FS.Lock(name) }

func (f *watchedFS) Remove(name string) error {
	return f.do(func() error { return f.FS.Remove(name) })
}

func (f *watchedFS) Rename(oldname, newname string) error {
	return f.do(func() error { return f.FS.Rename(oldname, newname) })
}

// watchedFile is a file whose reads and writes have classes.
type watchedFile struct {
	vfs.File
	w           *Watch
	read, write Class
}

func (f *watchedFile) ReadAt(p []byte, off int64) (int, error) {
	op := f.w.enter(f.read)
	var h *histogram
	if f.read == Read {
		h = &f.w.reads
	}
	defer f.w.leave(op, h)
	return f.File.ReadAt(p, off)
}

func (f *watchedFile) WriteAt(p []byte, off int64) (int, error) {
	op := f.w.enter(f.write)
	defer f.w.leave(op, nil)
	return f.File.WriteAt(p, off)
}

// Sync counts those of the log only: they are what all writes have in common.
func (f *watchedFile) Sync() error {
	op := f.w.enter(f.write)
	var h *histogram
	if f.write == Log {
		h = &f.w.syncs
	}
	defer f.w.leave(op, h)
	return f.File.Sync()
}

func (f *watchedFile) Truncate(size int64) error {
	op := f.w.enter(Background)
	defer f.w.leave(op, nil)
	return f.File.Truncate(size)
}

func (f *watchedFile) Preallocate(off, length int64, keepSize bool) error {
	op := f.w.enter(Background)
	defer f.w.leave(op, nil)
	return f.File.Preallocate(off, length, keepSize)
}

func (f *watchedFile) PunchHole(off, length int64) error {
	op := f.w.enter(Background)
	defer f.w.leave(op, nil)
	return f.File.PunchHole(off, length)
}

// Prefetch passes the hint on.
func (f *watchedFile) Prefetch(off, length int64) {
	if p, ok := f.File.(vfs.Prefetcher); ok {
		p.Prefetch(off, length)
	}
}

type watchedDir struct {
	vfs.Dir
	f *watchedFS
}

func (d *watchedDir) Sync() error { return d.f.do(d.Dir.Sync) }

package vfs

import (
	"io"
	"io/fs"
	"path"
)

// OpKind names a method of FS, File or Dir.
type OpKind uint8

// The operations that an Injector sees.
const (
	OpCreate OpKind = iota + 1
	OpOpen
	OpOpenDir
	OpRemove
	OpRename
	OpList
	OpMkdirAll
	OpStat
	OpLock
	OpSpace
	OpReadAt
	OpWriteAt
	OpSync
	OpTruncate
	OpSize
	OpPreallocate
	OpPunchHole
	OpClose
	OpDirSync
)

var opNames = [...]string{
	"none", "create", "open", "opendir", "remove", "rename", "list", "mkdirall", "stat", "lock", "space",
	"readat", "writeat", "sync", "truncate", "size", "preallocate", "punchhole", "close", "dirsync",
}

func (k OpKind) String() string {
	if int(k) < len(opNames) {
		return opNames[k]
	}
	return "unknown"
}

// Op is one operation that is about to be done.
type Op struct {
	Kind OpKind
	// Path is the file's or directory's path; of a rename the old one.
	Path string
	// NewPath is the new path of a rename.
	NewPath string
	// Offset and Length are the byte range of a read, write, preallocation or hole; Offset is the new size of a
	// truncation.
	Offset, Length int64
}

// Base returns the last element of the path.
func (o Op) Base() string { return path.Base(o.Path) }

// Fault is what happens to an operation. The zero Fault lets it pass.
type Fault struct {
	// Err makes the operation fail with this error, wrapped in an fs.PathError.
	Err error
	// Short is how many bytes of a failing WriteAt reach the file before the error.
	Short int
	// After does the operation in full and only then returns Err: the answer is lost, not the work.
	After bool
	// Flip lists bits that are inverted in the data of a ReadAt or WriteAt, counted from the first bit of the
	// operation's range; those beyond its end are ignored.
	Flip []int64
}

// Injector decides over each operation. It is called before the operation, on the caller's goroutine, possibly
// concurrently. It may block, which makes the disk slow or stuck, and may look at or crash the file system below.
type Injector func(Op) Fault

// NewFault returns a file system that asks inject before every operation on below.
func NewFault(below FS, inject Injector) FS { return &faultFS{below: below, inject: inject} }

type faultFS struct {
	below  FS
	inject Injector
}

// do runs one operation that has no data.
func (f *faultFS) do(op Op, run func() error) error {
	ft := f.inject(op)
	if ft.Err == nil {
		return run()
	}
	if ft.After {
		if err := run(); err != nil {
			return err
		}
	}
	return opError(op, ft.Err)
}

func opError(op Op, err error) error {
	return &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: err}
}

func (f *faultFS) Create(name string) (File, error) {
	var file File
	err := f.do(Op{Kind: OpCreate, Path: name}, func() (err error) {
		file, err = f.below.Create(name)
		return err
	})
	return f.wrap(name, file, err)
}

func (f *faultFS) Open(name string, flags OpenFlags) (File, error) {
	var file File
	err := f.do(Op{Kind: OpOpen, Path: name}, func() (err error) {
		file, err = f.below.Open(name, flags)
		return err
	})
	return f.wrap(name, file, err)
}

func (f *faultFS) wrap(name string, file File, err error) (File, error) {
	if err != nil {
		if file != nil {
			_ = file.Close() // the injected error wins
		}
		return nil, err
	}
	return &faultFile{fs: f, name: name, below: file}, nil
}

func (f *faultFS) OpenDir(name string) (Dir, error) {
	var dir Dir
	err := f.do(Op{Kind: OpOpenDir, Path: name}, func() (err error) {
		dir, err = f.below.OpenDir(name)
		return err
	})
	if err != nil {
		if dir != nil {
			_ = dir.Close() // the injected error wins
		}
		return nil, err
	}
	return &faultDir{fs: f, name: name, below: dir}, nil
}

func (f *faultFS) Remove(name string) error {
	return f.do(Op{Kind: OpRemove, Path: name}, func() error { return f.below.Remove(name) })
}

func (f *faultFS) Rename(oldname, newname string) error {
	return f.do(Op{Kind: OpRename, Path: oldname, NewPath: newname}, func() error {
		return f.below.Rename(oldname, newname)
	})
}

func (f *faultFS) List(dir string) (names []string, err error) {
	err = f.do(Op{Kind: OpList, Path: dir}, func() (err error) {
		names, err = f.below.List(dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	return names, nil
}

func (f *faultFS) MkdirAll(dir string) error {
	return f.do(Op{Kind: OpMkdirAll, Path: dir}, func() error { return f.below.MkdirAll(dir) })
}

func (f *faultFS) Stat(name string) (info Info, err error) {
	err = f.do(Op{Kind: OpStat, Path: name}, func() (err error) {
		info, err = f.below.Stat(name)
		return err
	})
	return info, err
}

func (f *faultFS) Lock(name string) (io.Closer, error) {
	var c io.Closer
	err := f.do(Op{Kind: OpLock, Path: name}, func() (err error) {
		c, err = f.below.Lock(name)
		return err
	})
	if err != nil {
		if c != nil {
			_ = c.Close() // the injected error wins
		}
		return nil, err
	}
	return c, nil
}

func (f *faultFS) Space(dir string) (s Space, err error) {
	err = f.do(Op{Kind: OpSpace, Path: dir}, func() (err error) {
		s, err = f.below.Space(dir)
		return err
	})
	return s, err
}

type faultFile struct {
	fs    *faultFS
	name  string
	below File
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	op := Op{Kind: OpReadAt, Path: f.name, Offset: off, Length: int64(len(p))}
	ft := f.fs.inject(op)
	if ft.Err != nil {
		return 0, opError(op, ft.Err)
	}
	n, err := f.below.ReadAt(p, off)
	flip(p[:n], ft.Flip)
	return n, err
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	op := Op{Kind: OpWriteAt, Path: f.name, Offset: off, Length: int64(len(p))}
	ft := f.fs.inject(op)
	if len(ft.Flip) > 0 {
		p = append([]byte(nil), p...)
		flip(p, ft.Flip)
	}
	if ft.Err == nil {
		return f.below.WriteAt(p, off)
	}
	n := min(max(ft.Short, 0), len(p))
	if ft.After {
		n = len(p)
	}
	if n > 0 {
		if m, err := f.below.WriteAt(p[:n], off); err != nil {
			return m, err
		}
	}
	return n, opError(op, ft.Err)
}

func flip(p []byte, bits []int64) {
	for _, b := range bits {
		if b >= 0 && b/8 < int64(len(p)) {
			p[b/8] ^= 1 << (b % 8)
		}
	}
}

func (f *faultFile) Sync() error {
	return f.fs.do(Op{Kind: OpSync, Path: f.name}, f.below.Sync)
}

func (f *faultFile) Truncate(size int64) error {
	return f.fs.do(Op{Kind: OpTruncate, Path: f.name, Offset: size}, func() error { return f.below.Truncate(size) })
}

func (f *faultFile) Size() (size int64, err error) {
	err = f.fs.do(Op{Kind: OpSize, Path: f.name}, func() (err error) {
		size, err = f.below.Size()
		return err
	})
	return size, err
}

func (f *faultFile) Preallocate(off, length int64, keepSize bool) error {
	return f.fs.do(Op{Kind: OpPreallocate, Path: f.name, Offset: off, Length: length}, func() error {
		return f.below.Preallocate(off, length, keepSize)
	})
}

func (f *faultFile) PunchHole(off, length int64) error {
	return f.fs.do(Op{Kind: OpPunchHole, Path: f.name, Offset: off, Length: length}, func() error {
		return f.below.PunchHole(off, length)
	})
}

// Close always closes the file below: an injected error changes the answer only.
func (f *faultFile) Close() error {
	op := Op{Kind: OpClose, Path: f.name}
	ft := f.fs.inject(op)
	err := f.below.Close()
	if ft.Err != nil {
		return opError(op, ft.Err)
	}
	return err
}

type faultDir struct {
	fs    *faultFS
	name  string
	below Dir
}

func (d *faultDir) Sync() error {
	return d.fs.do(Op{Kind: OpDirSync, Path: d.name}, d.below.Sync)
}

func (d *faultDir) Close() error { return d.below.Close() }

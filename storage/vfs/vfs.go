// Package vfs is the seam between ashlar's storage and the files below it. Everything that the raft log and the
// block store do to a disk goes through FS and File, so that tests can crash, fill and break the disk at any
// operation:
//
//	raftlog, blockstore
//	        |
//	   FS / File
//	        |
//	  +-----+------+----------------------------+
//	 OS()        NewMem()                  NewFault(FS, Injector)
//	 the real    memory; Crash loses       any of the others, with errors,
//	 thing       what was not synced       short writes and flipped bits
//
// # Durability
//
// The contract is the weakest that a POSIX file system keeps, and NewMem keeps no more:
//
//   - what WriteAt, Truncate, Preallocate and PunchHole did is durable when a later File.Sync returned nil;
//   - until then each 512-byte sector holds, after a crash, any of the contents that it had since the last Sync,
//     independently of every other sector, and the size is any of the sizes since then;
//   - Create, Remove, Rename and MkdirAll change the parent directory only; they are durable when a Dir.Sync of
//     that directory returned nil. File.Sync does not sync the name of a new file;
//   - a Rename is atomic: after a crash it happened or it did not.
//
// After Sync has returned an error nothing is known about the bytes written since the last good one; calling Sync
// again proves nothing and must not be done.
package vfs

import (
	"errors"
	"io"
	"unsafe"
)

// SectorSize is the unit, in bytes, that a disk writes atomically; Mem tears writes at its multiples.
const SectorSize = 512

// ErrLocked is returned by FS.Lock when somebody else holds the lock.
var ErrLocked = errors.New("vfs: locked by another process")

// OpenFlags say how FS.Open opens a file.
type OpenFlags uint32

const (
	// ReadOnly opens for reading; every write fails. It is the zero value.
	ReadOnly OpenFlags = 0
	// ReadWrite opens for reading and writing.
	ReadWrite OpenFlags = 1 << iota
	// CreateMissing creates the file, empty, if there is none. It implies ReadWrite.
	CreateMissing
	// Direct lets reads and writes pass by the system's page cache (O_DIRECT). Offset, length and the address of the
	// bytes must be multiples of DirectAlign, else the call is syscall.EINVAL. A file system that has no such thing
	// refuses with syscall.EINVAL, at Open or at the first write: then the file is to be opened without. Other open
	// files of the same name see what was written.
	Direct
	// Random tells that reads will have no order, so that none is made larger than it is.
	Random
)

// DirectAlign is the alignment, in bytes, that a file opened with Direct wants.
const DirectAlign = 4096

// Aligned returns n zero bytes whose address is a multiple of DirectAlign.
func Aligned(n int) []byte {
	b := make([]byte, n+DirectAlign-1)
	at := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % DirectAlign)
	return b[at : at+n : at+n]
}

// IsAligned reports whether Direct takes b at the offset.
func IsAligned(b []byte, off int64) bool {
	return off%DirectAlign == 0 && len(b)%DirectAlign == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(b)))%DirectAlign == 0
}

// FS is a file system. Paths are slash separated; a name is a path of a file or directory. All methods may be
// called concurrently. Errors wrap the cause: errors.Is finds fs.ErrNotExist, fs.ErrExist, syscall.ENOSPC and
// syscall.EIO in them.
type FS interface {
	// Create makes a new, empty file open for reading and writing. An existing one is fs.ErrExist.
	Create(name string) (File, error)
	// Open opens an existing file, or a new one if flags say so.
	Open(name string, flags OpenFlags) (File, error)
	// OpenDir opens a directory in order to sync it.
	OpenDir(name string) (Dir, error)
	// Remove deletes a file or an empty directory. A file that is open stays readable until it is closed.
	Remove(name string) error
	// Rename gives a file another name, replacing a file that has it already.
	Rename(oldname, newname string) error
	// List returns the sorted base names in a directory.
	List(dir string) ([]string, error)
	// MkdirAll makes a directory and its missing parents. It does not sync them.
	MkdirAll(dir string) error
	// Stat describes a file or directory.
	Stat(name string) (Info, error)
	// Lock takes the exclusive lock of the file name, creating it if missing, until the closer is closed or the
	// process ends. It returns ErrLocked at once when the lock is held.
	Lock(name string) (io.Closer, error)
	// Space tells how much room the file system that holds dir has.
	Space(dir string) (Space, error)
}

// File is an open file. All methods but Close may be called concurrently.
type File interface {
	// ReadAt reads len(p) bytes at off, or returns io.EOF with the bytes before the end of the file. It borrows p.
	io.ReaderAt
	// WriteAt writes all of p at off, growing the file as needed, or returns an error with the count that may have
	// been written. It borrows p until it returns.
	io.WriterAt
	// Sync makes the file's data and size durable (fdatasync). See the package comment for what an error means.
	Sync() error
	// Truncate sets the size in bytes; bytes beyond the old size read as zero.
	Truncate(size int64) error
	// Size returns the size in bytes.
	Size() (int64, error)
	// Preallocate reserves disk space for [off, off+length), whose unwritten bytes read as zero. The file grows to
	// off+length if it is shorter, unless keepSize is set. ENOSPC leaves the size as it was.
	Preallocate(off, length int64, keepSize bool) error
	// PunchHole gives the disk space of [off, off+length) back; the range reads as zero. The size stays.
	PunchHole(off, length int64) error
	// Close releases the file. It does not sync.
	Close() error
}

// Prefetcher is a File, of those that OS opens, that can begin to read before ReadAt asks for it.
type Prefetcher interface {
	// Prefetch begins to read length bytes at off into the system's page cache. It does not wait for them.
	Prefetch(off, length int64)
}

// Dir is an open directory.
type Dir interface {
	// Sync makes the directory's entries durable.
	Sync() error
	// Close releases the directory.
	Close() error
}

// Info describes a file.
type Info struct {
	// Size is the length of a file in bytes, 0 for a directory.
	Size int64
	// Allocated is the disk space that the file uses, in bytes.
	Allocated int64
	// IsDir tells a directory.
	IsDir bool
}

// Space is the room of a file system, in bytes.
type Space struct {
	// Total is the size of the file system.
	Total int64
	// Free is what an unprivileged writer may still allocate.
	Free int64
}

// SyncDir opens the directory name, syncs it and closes it.
func SyncDir(fs FS, name string) error {
	d, err := fs.OpenDir(name)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		_ = d.Close() // the sync error is the one that matters
		return err
	}
	return d.Close()
}

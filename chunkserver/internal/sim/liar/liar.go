// Package liar has disks that do not do what they say: syncs that do nothing, writes that are not made or land elsewhere, and bits
// that change by themselves.
//
//	store, log ──► FS ──► vfs.FS below
//	               └─ Unsynced, UnsyncedDirs: a Sync returns at once
//	                  Write: is asked before each write of a file, and says where it goes
package liar

import (
	"path"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// FS is a file system that lies. A nil function tells the truth.
type FS struct {
	vfs.FS
	// Unsynced tells of which files a sync does nothing.
	Unsynced func(name string) bool
	// UnsyncedDirs: a sync of a directory does nothing.
	UnsyncedDirs bool
	// Write returns where a write goes, negative: nowhere.
	Write func(name string, off int64) int64
}

// Create implements vfs.FS.
func (l *FS) Create(name string) (vfs.File, error) {
	f, err := l.FS.Create(name)
	return l.wrap(name, f, err)
}

// Open implements vfs.FS.
func (l *FS) Open(name string, flags vfs.OpenFlags) (vfs.File, error) {
	f, err := l.FS.Open(name, flags)
	return l.wrap(name, f, err)
}

func (l *FS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return f, err
	}
	return &file{File: f, fs: l, name: name}, nil
}

// OpenDir implements vfs.FS.
func (l *FS) OpenDir(name string) (vfs.Dir, error) {
	d, err := l.FS.OpenDir(name)
	if err == nil && l.UnsyncedDirs {
		return dir{d}, nil
	}
	return d, err
}

type file struct {
	vfs.File
	fs   *FS
	name string
}

// Sync implements vfs.File.
func (f *file) Sync() error {
	if f.fs.Unsynced != nil && f.fs.Unsynced(f.name) {
		return nil
	}
	return f.File.Sync()
}

// WriteAt implements vfs.File.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.Write != nil {
		if off = f.fs.Write(f.name, off); off < 0 {
			return len(p), nil
		}
	}
	return f.File.WriteAt(p, off)
}

type dir struct{ vfs.Dir }

// Sync implements vfs.Dir.
func (dir) Sync() error { return nil }

// Invert inverts a bit of each file of a directory that chosen names, at that share of its length. Files that have no bytes stay.
func Invert(fs pebblevfs.FS, dir string, chosen func(name string) bool, at float64) error {
	names, err := fs.List(dir)
	for _, name := range names {
		if chosen(name) && err == nil {
			err = invert(fs, path.Join(dir, name), at)
		}
	}
	return err
}

func invert(fs pebblevfs.FS, name string, at float64) error {
	f, err := fs.OpenReadWrite(name, pebblevfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // what was written is synced
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	var b [1]byte
	off := int64(at * float64(info.Size()))
	if _, err = f.ReadAt(b[:], off); err != nil {
		return err
	}
	b[0] ^= 1 << (off % 8)
	if _, err = f.WriteAt(b[:], off); err != nil {
		return err
	}
	return f.Sync()
}

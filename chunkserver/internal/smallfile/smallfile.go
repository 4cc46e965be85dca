// Package smallfile keeps a small record in a file of its own that is replaced as a whole: after a crash it is the old
// one or the new one. The format (little endian):
//
//	 0  8  magic, which tells what the record is
//	 8  4  version of the record
//	12  4  zero
//	16     the record
//	 …  4  CRC32C of all before
//
// The new file is written beside the old one, as NAME.tmp, synced and renamed, and the directory is synced.
package smallfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	header  = 16
	trailer = 4
	// sizeMax bounds a file, in bytes.
	sizeMax = 64 << 20
)

// File names a record.
type File struct {
	FS   vfs.FS
	Dir  string
	Name string
	// Magic has 8 bytes.
	Magic   string
	Version uint32
}

// DamagedError means that the file is not what Replace wrote.
type DamagedError struct{ Path string }

func (e *DamagedError) Error() string { return e.Path + " is damaged" }

// VersionError means that a newer release wrote the file.
type VersionError struct {
	Path        string
	Have, Knows uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has version %d, this release knows %d", e.Path, e.Have, e.Knows)
}

// Read returns the record, or nil when there is no file. *DamagedError, *VersionError, or what reading returned.
func (f *File) Read() ([]byte, error) {
	name := path.Join(f.Dir, f.Name)
	file, err := f.FS.Open(name, vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	if size < header+trailer || size > sizeMax {
		return nil, &DamagedError{name}
	}
	b := make([]byte, size)
	if _, err := file.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return f.parse(b)
}

func (f *File) parse(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	body := b[:len(b)-trailer]
	if string(b[:8]) != f.Magic || layout.CRC(body) != le.Uint32(b[len(body):]) {
		return nil, &DamagedError{path.Join(f.Dir, f.Name)}
	}
	if v := le.Uint32(b[8:]); v != f.Version {
		return nil, &VersionError{path.Join(f.Dir, f.Name), v, f.Version}
	}
	return body[header:], nil
}

// Replace writes the record, durably. After an error the file may be the old one or the new one.
func (f *File) Replace(record []byte) error {
	name := path.Join(f.Dir, f.Name)
	b := make([]byte, header, header+len(record)+trailer)
	copy(b, f.Magic)
	binary.LittleEndian.PutUint32(b[8:], f.Version)
	b = append(b, record...)
	b = binary.LittleEndian.AppendUint32(b, layout.CRC(b))
	if err := f.write(name+".tmp", b); err != nil {
		return err
	}
	if err := f.FS.Rename(name+".tmp", name); err != nil {
		return err
	}
	return vfs.SyncDir(f.FS, f.Dir)
}

func (f *File) write(name string, b []byte) error {
	file, err := f.FS.Open(name, vfs.CreateMissing)
	if err != nil {
		return err
	}
	err = file.Truncate(0)
	if err == nil {
		_, err = file.WriteAt(b, 0)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

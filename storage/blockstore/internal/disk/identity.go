package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// The names and values of a disk's own files.
const (
	// LockName is the name of the file that keeps others out.
	LockName = "LOCK"
	// IdentityName is the name of the file that says whose disk it is.
	IdentityName = "IDENTITY"
	identityTemp = "IDENTITY.tmp"
	lostFound    = "lost+found" // in the root of an empty ext4 file system

	identityMagic   = "ashlarbs"
	identityVersion = 2
	identityLen     = 60

	StateFormatting = 1
	StateFormatted  = 2
)

// Identity says whose disk a directory is.
type Identity struct {
	// Cluster names the cluster for ever.
	Cluster [16]byte
	// Chunkserver is the chunkserver whose disk this is.
	Chunkserver layout.ChunkserverID
}

// Header is the content of the file IDENTITY; see the package comment.
type Header struct {
	Owner Identity
	State uint8
	Store [16]byte
}

// appendTo appends the encoding to b.
func (i *Header) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, identityMagic...)
	b = binary.LittleEndian.AppendUint16(b, identityVersion)
	b = append(b, i.State, 0, 0, 0, 0, 0)
	b = append(b, i.Owner.Cluster[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(i.Owner.Chunkserver))
	b = append(b, i.Store[:]...)
	return binary.LittleEndian.AppendUint32(b, extent.Checksum(b[start:]))
}

// parseIdentity decodes IDENTITY.
func parseIdentity(b []byte) (Header, error) {
	if len(b) < 10 || string(b[:8]) != identityMagic {
		return Header{}, &extent.CorruptError{What: "IDENTITY: not a block store"}
	}
	// A newer format may be longer and checked otherwise: say so before its checksum is looked at.
	if v := binary.LittleEndian.Uint16(b[8:]); v != identityVersion {
		return Header{}, &extent.VersionError{What: "IDENTITY", Have: uint32(v), Knows: identityVersion}
	}
	if len(b) != identityLen || binary.LittleEndian.Uint32(b[56:]) != extent.Checksum(b[:56]) {
		return Header{}, &extent.CorruptError{What: "IDENTITY: checksum"}
	}
	i := Header{State: b[10], Store: [16]byte(b[40:56])}
	i.Owner.Cluster = [16]byte(b[16:32])
	i.Owner.Chunkserver = layout.ChunkserverID(binary.LittleEndian.Uint64(b[32:]))
	if i.State != StateFormatting && i.State != StateFormatted {
		return Header{}, &extent.CorruptError{What: fmt.Sprintf("IDENTITY: state %d", i.State)}
	}
	return i, nil
}

// ReadHeader reads IDENTITY and checks that it is want's. ok is false when there is none in a directory that is
// missing or empty. It changes nothing.
func ReadHeader(fsys vfs.FS, dir string, want Identity) (i Header, ok bool, err error) {
	f, err := fsys.Open(path.Join(dir, IdentityName), vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return Header{}, false, checkEmpty(fsys, dir)
	}
	if err != nil {
		return Header{}, false, &IOError{Op: "identity", Err: err}
	}
	defer f.Close() //nolint:errcheck // it was only read
	size, err := f.Size()
	if err != nil {
		return Header{}, false, &IOError{Op: "identity", Err: err}
	}
	b := make([]byte, min(size, layout.BlockSize))
	if _, err := f.ReadAt(b, 0); err != nil {
		return Header{}, false, &IOError{Op: "identity", Err: err}
	}
	i, err = parseIdentity(b)
	if err != nil {
		return Header{}, false, err
	}
	if i.Owner != want {
		return Header{}, false, &ForeignError{Dir: dir, Have: i.Owner, Want: want}
	}
	return i, true, nil
}

// checkEmpty reports what is in a directory without IDENTITY, other than what a crash before IDENTITY leaves.
func checkEmpty(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &IOError{Op: "identity", Err: err}
	}
	for _, n := range names {
		if n != LockName && n != identityTemp && n != lostFound {
			return &extent.CorruptError{What: fmt.Sprintf("%s holds %s but no IDENTITY", dir, n)}
		}
	}
	return nil
}

// WriteHeader replaces IDENTITY, durably.
func WriteHeader(fsys vfs.FS, dir string, i Header) error {
	temp := path.Join(dir, identityTemp)
	f, err := fsys.Open(temp, vfs.CreateMissing)
	if err != nil {
		return &IOError{Op: "identity", Err: err}
	}
	write := func() error {
		if err := f.Truncate(0); err != nil {
			return err
		}
		if _, err := f.WriteAt(i.appendTo(nil), 0); err != nil {
			return err
		}
		return f.Sync()
	}
	if err := errors.Join(write(), f.Close()); err != nil {
		return WrapIO("identity", err)
	}
	if err := fsys.Rename(temp, path.Join(dir, IdentityName)); err != nil {
		return WrapIO("identity", err)
	}
	if err := vfs.SyncDir(fsys, dir); err != nil {
		return WrapIO("identity", err)
	}
	return nil
}

// MakeDir makes a directory and its parents, durably.
func MakeDir(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil {
		return nil
	}
	parent := path.Dir(dir)
	if parent != dir {
		if err := MakeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return WrapIO("open", err)
	}
	if err := vfs.SyncDir(fsys, parent); err != nil {
		return WrapIO("open", err)
	}
	return nil
}

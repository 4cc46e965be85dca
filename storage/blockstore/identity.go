package blockstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	lockName     = "LOCK"
	identityName = "IDENTITY"
	identityTemp = "IDENTITY.tmp"
	lostFound    = "lost+found" // in the root of an empty ext4 file system

	identityMagic   = "ashlarbs"
	identityVersion = 1
	identityLen     = 60

	stateFormatting = 1
	stateFormatted  = 2
)

// identity is the content of the file IDENTITY; see the package comment.
type identity struct {
	id    Identity
	state uint8
	store [16]byte
}

// appendTo appends the encoding to b.
func (i *identity) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, identityMagic...)
	b = binary.LittleEndian.AppendUint16(b, identityVersion)
	b = append(b, i.state, 0, 0, 0, 0, 0)
	b = append(b, i.id.Cluster[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(i.id.Chunkserver))
	b = append(b, i.store[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// parseIdentity decodes IDENTITY.
func parseIdentity(b []byte) (identity, error) {
	if len(b) < 10 || string(b[:8]) != identityMagic {
		return identity{}, &CorruptError{What: "IDENTITY: not a block store"}
	}
	// A newer format may be longer and checked otherwise: say so before its checksum is looked at.
	if v := binary.LittleEndian.Uint16(b[8:]); v != identityVersion {
		return identity{}, &VersionError{What: "IDENTITY", Have: uint32(v), Knows: identityVersion}
	}
	if len(b) != identityLen || binary.LittleEndian.Uint32(b[56:]) != crc32.Checksum(b[:56], castagnoli) {
		return identity{}, &CorruptError{What: "IDENTITY: checksum"}
	}
	i := identity{state: b[10], store: [16]byte(b[40:56])}
	i.id.Cluster = [16]byte(b[16:32])
	i.id.Chunkserver = layout.ChunkserverID(binary.LittleEndian.Uint64(b[32:]))
	if i.state != stateFormatting && i.state != stateFormatted {
		return identity{}, &CorruptError{What: fmt.Sprintf("IDENTITY: state %d", i.state)}
	}
	return i, nil
}

// readIdentity reads IDENTITY and checks that it is want's. ok is false when there is none in a directory that is
// missing or empty. It changes nothing.
func readIdentity(fsys vfs.FS, dir string, want Identity) (i identity, ok bool, err error) {
	f, err := fsys.Open(path.Join(dir, identityName), vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, false, checkEmpty(fsys, dir)
	}
	if err != nil {
		return identity{}, false, &IOError{Op: "identity", Err: err}
	}
	defer f.Close() //nolint:errcheck // it was only read
	size, err := f.Size()
	if err != nil {
		return identity{}, false, &IOError{Op: "identity", Err: err}
	}
	b := make([]byte, min(size, layout.BlockSize))
	if _, err := f.ReadAt(b, 0); err != nil {
		return identity{}, false, &IOError{Op: "identity", Err: err}
	}
	i, err = parseIdentity(b)
	if err != nil {
		return identity{}, false, err
	}
	if i.id != want {
		return identity{}, false, &ForeignError{Dir: dir, Have: i.id, Want: want}
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
		if n != lockName && n != identityTemp && n != lostFound {
			return &CorruptError{What: fmt.Sprintf("%s holds %s but no IDENTITY", dir, n)}
		}
	}
	return nil
}

// writeIdentity replaces IDENTITY, durably.
func writeIdentity(fsys vfs.FS, dir string, i identity) error {
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
		return ioError("identity", err)
	}
	if err := fsys.Rename(temp, path.Join(dir, identityName)); err != nil {
		return ioError("identity", err)
	}
	if err := vfs.SyncDir(fsys, dir); err != nil {
		return ioError("identity", err)
	}
	return nil
}

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// LoadHeader reads IDENTITY, whosever it is. *extent.CorruptError when there is none.
func LoadHeader(fsys vfs.FS, dir string) (Header, error) {
	i, ok, err := ReadHeader(fsys, dir, Identity{})
	var foreign *ForeignError
	if errors.As(err, &foreign) {
		i, ok, err = ReadHeader(fsys, dir, foreign.Have)
	}
	if err == nil && !ok {
		err = &extent.CorruptError{What: "IDENTITY: there is none"}
	}
	return i, err
}

// readOnlyIndex is the file system of an index that is only read, which Pebble by itself locks all the same. The lock does
// nothing: that of the whole directory keeps others out, or nobody can write there.
type readOnlyIndex struct{ pebblevfs.FS }

func (readOnlyIndex) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func refused(op, name string) error { return fmt.Errorf("index: %s %s: %w", op, name, syscall.EROFS) }

func (readOnlyIndex) Create(name string, _ pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	return nil, refused("create", name)
}

func (readOnlyIndex) OpenReadWrite(name string, _ pebblevfs.DiskWriteCategory, _ ...pebblevfs.OpenOption) (pebblevfs.File, error) {
	return nil, refused("write", name)
}

func (readOnlyIndex) ReuseForWrite(_, name string, _ pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	return nil, refused("write", name)
}

func (readOnlyIndex) Link(_, name string) error                 { return refused("link", name) }
func (readOnlyIndex) Remove(name string) error                  { return refused("remove", name) }
func (readOnlyIndex) RemoveAll(name string) error               { return refused("remove", name) }
func (readOnlyIndex) Rename(_, name string) error               { return refused("rename", name) }
func (readOnlyIndex) MkdirAll(name string, _ os.FileMode) error { return refused("make", name) }

// ReadIndex opens the Pebble store below dir to be read only. Nothing is changed there, and no lock is taken.
func ReadIndex(dir string, fs pebblevfs.FS, cacheSize int64) (*Index, error) {
	x := &Index{poison: NewPoison(zap.NewNop())}
	cache := pebble.NewCache(cacheSize)
	defer cache.Unref()
	db, err := pebble.Open(dir+"/"+indexName, &pebble.Options{
		FS: readOnlyIndex{fs}, Cache: cache, DisableWAL: true, ErrorIfNotExists: true, ReadOnly: true, Logger: indexLogger{x.poison},
		// Who reads is told by an error; without a listener pebble would end the process.
		EventListener: &pebble.EventListener{
			BackgroundError: func(error) {},
			DataCorruption:  func(pebble.DataCorruptionInfo) {},
		},
	})
	switch {
	case err == nil:
		x.DB = db
		return x, nil
	case errors.Is(err, pebble.ErrDBDoesNotExist), pebble.IsCorruptionError(err):
		return nil, &extent.CorruptError{What: "index", Err: err}
	}
	return nil, &IOError{Op: "index", Err: err}
}

package disk

import (
	"errors"

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

// ReadIndex opens the Pebble store below dir to be read only.
func ReadIndex(dir string, fs pebblevfs.FS, cacheSize int64) (*Index, error) {
	x := &Index{poison: NewPoison(zap.NewNop())}
	cache := pebble.NewCache(cacheSize)
	defer cache.Unref()
	db, err := pebble.Open(dir+"/"+indexName, &pebble.Options{
		FS: fs, Cache: cache, DisableWAL: true, ErrorIfNotExists: true, ReadOnly: true, Logger: indexLogger{x.poison},
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

package disk

import (
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	indexName = "index"
	// indexFormat is the format of Pebble's files. A higher one is a migration that an older program can not undo.
	indexFormat = pebble.FormatTableFormatV6
	// indexMemtable is the size of Pebble's memory table, in bytes; a larger batch is flushed on its own.
	indexMemtable = 16 << 20
	// indexFlushes is how many flushes wait in level 0 before they are merged into the levels below, all of them at once: a leaf
	// that checkpoint after checkpoint changed is then written once. indexFlushesMax stops checkpoints that are too fast for it.
	indexFlushes    = 24
	indexFlushesMax = 3 * indexFlushes
	// indexBase is up to which size the index has only one level below level 0, in bytes: that of 100 GiB in small pieces. To
	// merge level 0 takes as much again for a while, and a full disk has only the reserve for that (Options.Reserve).
	indexBase = 256 << 20
	// indexFilterBits is the bits per key of the filters of level 0, so that a leaf is looked for only where it is.
	indexFilterBits = 10
	// indexCompactions is how many compactions go on at a time: the budget of the index is one core and one stream of the disk.
	indexCompactions = 1
	// poisonedPause slows down Pebble, which repeats a failed flush for ever, in a store that does not use it any more.
	poisonedPause = 20 * time.Millisecond
)

// errFound ends a search.
var errFound = errors.New("disk: found")

// Index is the Pebble store.
type Index struct {
	DB *pebble.DB
	// mu is held shared while the index is read by a method that may run into Close.
	mu     sync.RWMutex
	closed bool // guarded by mu
	poison *Poison
	// full gets the error of a flush that found the file system full.
	full chan error
}

// indexLogger takes Pebble's messages.
type indexLogger struct{ p *Poison }

func (l indexLogger) Infof(string, ...any)  {}
func (l indexLogger) Errorf(string, ...any) {}

// Fatalf is called for an I/O error after which Pebble does not know its manifest, and for broken invariants. The first
// poisons the store: Pebble goes on, but nothing that it does is called durable any more. The second panics.
func (l indexLogger) Fatalf(format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			_ = l.p.Set(fmt.Errorf("index: %w", err))
			return
		}
	}
	panic("blockstore: index: " + fmt.Sprintf(format, args...))
}

// OpenIndex opens the Pebble store below dir. create makes a new one, in place of what a crash may have left half made.
func OpenIndex(dir string, fs pebblevfs.FS, cacheSize int64, create bool, p *Poison) (*Index, error) {
	x := &Index{poison: p, full: make(chan error, 1)}
	dir = path.Join(dir, indexName)
	if create {
		if err := fs.RemoveAll(dir); err != nil {
			return nil, &IOError{Op: "index", Err: err}
		}
	}
	cache := pebble.NewCache(cacheSize)
	defer cache.Unref()
	po := &pebble.Options{
		FS:                          fs,
		Cache:                       cache,
		DisableWAL:                  true,
		ErrorIfNotExists:            !create,
		FormatMajorVersion:          indexFormat,
		MemTableSize:                indexMemtable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       indexFlushes,
		L0StopWritesThreshold:       indexFlushesMax,
		LBaseMaxBytes:               indexBase,
		CompactionConcurrencyRange:  func() (lower, upper int) { return indexCompactions, indexCompactions },
		Logger:                      indexLogger{p},
		EventListener: &pebble.EventListener{
			BackgroundError: x.backgroundError,
			DataCorruption:  func(i pebble.DataCorruptionInfo) { _ = p.Set(fmt.Errorf("index: %w", i.Details)) },
			FlushEnd: func(i pebble.FlushInfo) {
				if i.Err != nil && isFull(i.Err) {
					select {
					case x.full <- i.Err:
					default:
					}
				}
			},
		},
	}
	po.Levels[0].FilterPolicy = bloom.FilterPolicy(indexFilterBits)
	for i := range po.Levels[1:] {
		po.Levels[1+i].FilterPolicy = pebble.NoFilterPolicy // a level has one file to look at
	}
	db, err := pebble.Open(dir, po)
	switch {
	case err == nil:
	case errors.Is(err, pebble.ErrDBDoesNotExist), pebble.IsCorruptionError(err):
		return nil, &extent.CorruptError{What: "index", Err: err}
	default:
		return nil, &IOError{Op: "index", Err: err}
	}
	x.DB = db
	return x, nil
}

// backgroundError hears of failed flushes and compactions. A full file system is waited for; anything else means that
// the disk lost a write or a file of the index.
func (x *Index) backgroundError(err error) {
	if !isFull(err) {
		_ = x.poison.Set(fmt.Errorf("index: %w", err))
	}
	time.Sleep(poisonedPause)
}

// Commit applies a batch. It is durable after flush.
func (x *Index) Commit(b *pebble.Batch) error {
	if err := x.DB.Apply(b, pebble.NoSync); err != nil {
		return x.poison.Set(fmt.Errorf("index: %w", err))
	}
	return nil
}

// Flush makes all batches durable. ErrNoSpace: they are not yet, and may become so at any time.
func (x *Index) Flush() error {
	select {
	case <-x.full: //nolint:errcheck // left by an earlier flush, which answered it
	default:
	}
	done, err := x.DB.AsyncFlush()
	if err != nil {
		return x.poison.Set(fmt.Errorf("index: %w", err))
	}
	select {
	case <-done:
		// A manifest that could not be synced looks like a flush that succeeded, but has poisoned the store before.
		return x.poison.Err()
	case <-x.poison.Done():
		return x.poison.Err()
	case err := <-x.full:
		return fmt.Errorf("%w: index: %w", ErrNoSpace, err)
	}
}

// Size returns the length of the index's files, in bytes; 0 when it is closed.
func (x *Index) Size() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed {
		return 0
	}
	return int64(x.DB.Metrics().DiskSpaceUsage())
}

// Close closes the index.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	return x.DB.Close()
}

// Leaf reads a leaf; nil when there is none.
func (x *Index) Leaf(incarnation uint64, id extent.LeafID) (*extent.Leaf, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed {
		return nil, ErrClosed
	}
	var key [extent.LeafKeyLen]byte
	v, closer, err := x.DB.Get(extent.AppendLeafKey(key[:0], incarnation, id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, &IOError{Op: "index", Err: err}
	}
	defer closer.Close() //nolint:errcheck // it has no error to tell
	l := new(extent.Leaf)
	if err := l.Parse(v); err != nil {
		return nil, err
	}
	return l, nil
}

// FirstLeaf reads the first leaf from id on of the same place, but those that skip tells; nil when there is none.
func (x *Index) FirstLeaf(incarnation uint64, id extent.LeafID, skip func(extent.LeafID) bool) (at extent.LeafID, l *extent.Leaf, err error) {
	from, last := extent.AppendLeafKey(nil, incarnation, id), extent.AppendLeafKey(nil, incarnation, id.Head())
	err = x.EachLeaf(from, append(last, 0), func(_ uint64, i extent.LeafID, found *extent.Leaf) error {
		if skip(i) {
			return nil
		}
		at, l = i, found // it is not used again, this was the last
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return at, l, err
}

// Snapshot returns a snapshot of the index as it is now.
func (x *Index) Snapshot() (*pebble.Snapshot, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed {
		return nil, ErrClosed
	}
	return x.DB.NewSnapshot(), nil
}

// Value returns a copy of a key's value; nil when there is none.
func (x *Index) Value(key []byte) ([]byte, error) {
	v, closer, err := x.DB.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, &IOError{Op: "index", Err: err}
	}
	defer closer.Close() //nolint:errcheck // it has no error to tell
	return append([]byte{}, v...), nil
}

// EachLeaf is eachLeaf of the index, for methods that may run into Close.
func (x *Index) EachLeaf(from, to []byte, fn func(incarnation uint64, id extent.LeafID, l *extent.Leaf) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed {
		return ErrClosed
	}
	return EachLeaf(x.DB, from, to, fn)
}

// leafReader is what leaves can be read from: the Pebble store or a snapshot of it.
type leafReader interface {
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// EachLeaf calls fn for the leaves with keys in [from, to), in order. The leaf is reused.
func EachLeaf(r leafReader, from, to []byte, fn func(incarnation uint64, id extent.LeafID, l *extent.Leaf) error) (err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return &IOError{Op: "index", Err: err}
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var l extent.Leaf
	for ok := it.First(); ok; ok = it.Next() {
		incarnation, id, err := extent.ParseLeafKey(it.Key())
		if err != nil {
			return err
		}
		if err := l.Parse(it.Value()); err != nil {
			return err
		}
		if err := fn(incarnation, id, &l); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	return nil
}

// EachRecord calls fn for the copyset records, in order.
func (x *Index) EachRecord(fn func(id layout.CopysetID, r extent.Record) error) (err error) {
	it, err := x.DB.NewIter(&pebble.IterOptions{LowerBound: []byte{extent.KeyCopyset}, UpperBound: []byte{extent.KeyCopyset + 1}})
	if err != nil {
		return &IOError{Op: "index", Err: err}
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) != extent.CopysetKeyLen {
			return &extent.CorruptError{What: fmt.Sprintf("index: key %x", k)}
		}
		r, err := extent.ParseRecord(it.Value())
		if err != nil {
			return err
		}
		if err := fn(extent.ParseCopysetKey(k), r); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	return nil
}

// EachIncarnation calls fn for the incarnations that have keys of a kind, in order.
func (x *Index) EachIncarnation(kind byte, fn func(incarnation uint64) error) (err error) {
	it, err := x.DB.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
	if err != nil {
		return &IOError{Op: "index", Err: err}
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; {
		incarnation, err := extent.KeyIncarnation(it.Key())
		if err != nil {
			return err
		}
		if err := fn(incarnation); err != nil {
			return err
		}
		ok = it.SeekGE(extent.AppendIncarnationKey(nil, kind, incarnation+1))
	}
	if err := it.Error(); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	return nil
}

// EachVersions calls fn for the versions of the volumes of all incarnations, in order.
func (x *Index) EachVersions(fn func(incarnation uint64, v layout.VolumeID, n extent.Versions) error) (err error) {
	it, err := x.DB.NewIter(&pebble.IterOptions{LowerBound: []byte{extent.KeyVolume}, UpperBound: []byte{extent.KeyVolume + 1}})
	if err != nil {
		return &IOError{Op: "index", Err: err}
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		incarnation, v, err := extent.ParseVersionsKey(it.Key())
		if err != nil {
			return err
		}
		n, err := extent.ParseVersions(it.Value())
		if err != nil {
			return err
		}
		if err := fn(incarnation, v, n); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	return nil
}

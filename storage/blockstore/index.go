package blockstore

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	indexName = "index"
	// indexFormat is the format of Pebble's files. A higher one is a migration that an older program can not undo.
	indexFormat = pebble.FormatTableFormatV6
	// indexMemtable is the size of Pebble's memory table, in bytes; a larger batch is flushed on its own.
	indexMemtable = 16 << 20
	// poisonedPause slows down Pebble, which repeats a failed flush for ever, in a store that does not use it any more.
	poisonedPause = 20 * time.Millisecond
)

// index is the Pebble store.
type index struct {
	db *pebble.DB
	// mu is held shared while the index is read by a method that may run into Close.
	mu     sync.RWMutex
	closed bool // guarded by mu
	poison *poison
	// full gets the error of a flush that found the file system full.
	full chan error
}

// poison remembers the first failure after which the disk is not trusted.
type poison struct {
	once sync.Once
	ch   chan struct{}
	err  *PoisonedError // set before ch is closed
	log  *zap.Logger
}

// set poisons the store and returns its error.
func (p *poison) set(err error) error {
	p.once.Do(func() {
		p.err = &PoisonedError{Err: err}
		p.log.Error("block store poisoned", zap.Error(err))
		close(p.ch)
	})
	return p.get()
}

// get returns nil or a *PoisonedError.
func (p *poison) get() error {
	select {
	case <-p.ch:
		return p.err
	default:
		return nil
	}
}

// indexLogger takes Pebble's messages.
type indexLogger struct{ p *poison }

func (l indexLogger) Infof(string, ...any)  {}
func (l indexLogger) Errorf(string, ...any) {}

// Fatalf is called for an I/O error after which Pebble does not know its manifest, and for broken invariants. The first
// poisons the store: Pebble goes on, but nothing that it does is called durable any more. The second panics.
func (l indexLogger) Fatalf(format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			_ = l.p.set(fmt.Errorf("index: %w", err))
			return
		}
	}
	panic("blockstore: index: " + fmt.Sprintf(format, args...))
}

// openIndex opens the Pebble store in dir. create says that it may be missing.
func openIndex(dir string, opts *Options, create bool, p *poison) (*index, error) {
	x := &index{poison: p, full: make(chan error, 1)}
	cache := pebble.NewCache(opts.IndexCacheSize)
	defer cache.Unref()
	po := &pebble.Options{
		FS:                          opts.IndexFS,
		Cache:                       cache,
		DisableWAL:                  true,
		ErrorIfNotExists:            !create,
		FormatMajorVersion:          indexFormat,
		MemTableSize:                indexMemtable,
		MemTableStopWritesThreshold: 4,
		Logger:                      indexLogger{p},
		EventListener: &pebble.EventListener{
			BackgroundError: x.backgroundError,
			DataCorruption:  func(i pebble.DataCorruptionInfo) { _ = p.set(fmt.Errorf("index: %w", i.Details)) },
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
	db, err := pebble.Open(dir, po)
	switch {
	case err == nil:
	case errors.Is(err, pebble.ErrDBDoesNotExist), pebble.IsCorruptionError(err):
		return nil, &CorruptError{What: "index", Err: err}
	default:
		return nil, &IOError{Op: "index", Err: err}
	}
	x.db = db
	return x, nil
}

// backgroundError hears of failed flushes and compactions. A full file system is waited for; anything else means that
// the disk lost a write or a file of the index.
func (x *index) backgroundError(err error) {
	if !isFull(err) {
		_ = x.poison.set(fmt.Errorf("index: %w", err))
	}
	time.Sleep(poisonedPause)
}

// commit applies a batch. It is durable after flush.
func (x *index) commit(b *pebble.Batch) error {
	if err := x.db.Apply(b, pebble.NoSync); err != nil {
		return x.poison.set(fmt.Errorf("index: %w", err))
	}
	return nil
}

// flush makes all batches durable. ErrNoSpace: they are not yet, and may become so at any time.
func (x *index) flush() error {
	select {
	case <-x.full:
	default:
	}
	done, err := x.db.AsyncFlush()
	if err != nil {
		return x.poison.set(fmt.Errorf("index: %w", err))
	}
	select {
	case <-done:
		// A manifest that could not be synced looks like a flush that succeeded, but has poisoned the store before.
		return x.poison.get()
	case <-x.poison.ch:
		return x.poison.get()
	case err := <-x.full:
		return fmt.Errorf("%w: index: %w", ErrNoSpace, err)
	}
}

// close closes the index.
func (x *index) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	return x.db.Close()
}

// leaf reads a leaf; nil when there is none.
func (x *index) leaf(incarnation uint64, id leafID) (*leaf, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed {
		return nil, ErrClosed
	}
	var key [leafKeyLen]byte
	v, closer, err := x.db.Get(appendLeafKey(key[:0], incarnation, id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, &IOError{Op: "index", Err: err}
	}
	defer closer.Close() //nolint:errcheck // it has no error to tell
	l := new(leaf)
	if err := l.parse(v); err != nil {
		return nil, err
	}
	return l, nil
}

// value returns a copy of a key's value; nil when there is none.
func (x *index) value(key []byte) ([]byte, error) {
	v, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, &IOError{Op: "index", Err: err}
	}
	defer closer.Close() //nolint:errcheck // it has no error to tell
	return append([]byte{}, v...), nil
}

// eachLeaf is eachLeaf of the index, for methods that may run into Close.
func (x *index) eachLeaf(from, to []byte, fn func(incarnation uint64, id leafID, l *leaf) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed {
		return ErrClosed
	}
	return eachLeaf(x.db, from, to, fn)
}

// leafReader is what leaves can be read from: the Pebble store or a snapshot of it.
type leafReader interface {
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// eachLeaf calls fn for the leaves with keys in [from, to), in order. The leaf is reused.
func eachLeaf(r leafReader, from, to []byte, fn func(incarnation uint64, id leafID, l *leaf) error) (err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return &IOError{Op: "index", Err: err}
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var l leaf
	for ok := it.First(); ok; ok = it.Next() {
		incarnation, id, err := parseLeafKey(it.Key())
		if err != nil {
			return err
		}
		if err := l.parse(it.Value()); err != nil {
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

// eachRecord calls fn for the copyset records, in order.
func (x *index) eachRecord(fn func(id layout.CopysetID, r record) error) (err error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyCopyset}, UpperBound: []byte{keyCopyset + 1}})
	if err != nil {
		return &IOError{Op: "index", Err: err}
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) != copysetKeyLen {
			return &CorruptError{What: fmt.Sprintf("index: key %x", k)}
		}
		r, err := parseRecord(it.Value())
		if err != nil {
			return err
		}
		if err := fn(parseCopysetKey(k), r); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	return nil
}

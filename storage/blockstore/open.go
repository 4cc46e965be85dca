package blockstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/cockroachdb/pebble/v2"
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const storeRecordVersion = 1

// Open opens the store in dir, and makes one there when dir does not exist or is empty. It refuses, without touching
// anything, a directory of another cluster or chunkserver (*ForeignError), of a newer format (*VersionError), one that
// is in use (*LockedError) and one that is damaged (*CorruptError). It reads the whole index once. fs holds all files
// but the index, which is in Options.IndexFS under dir/index.
func Open(fs vfs.FS, dir string, id Identity, opts Options) (*Store, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	setDefaults(&opts)
	if _, _, err := readIdentity(fs, dir, id); err != nil {
		return nil, err
	}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, &IOError{Op: "open", Err: err}
	}
	lock, err := fs.Lock(path.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, &LockedError{Dir: dir, Err: err}
	}
	if err != nil {
		return nil, &IOError{Op: "lock", Err: err}
	}
	s := newStore(fs, dir, opts, lock)
	if err := s.open(fs, dir, id); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

// setDefaults fills the fields whose zero value has a meaning.
func setDefaults(o *Options) {
	d := DefaultOptions()
	if o.GrowStep == 0 {
		o.GrowStep = d.GrowStep
	}
	if o.CacheSize == 0 {
		o.CacheSize = d.CacheSize
	}
	if o.IndexCacheSize == 0 {
		o.IndexCacheSize = d.IndexCacheSize
	}
	if o.IndexFS == nil {
		o.IndexFS = pebblevfs.Default
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
}

func newStore(fs vfs.FS, dir string, opts Options, lock io.Closer) *Store {
	s := &Store{opts: opts, lock: lock}
	s.file = blockFile{
		fs: fs, dir: dir, capacity: uint64(opts.Capacity / layout.BlockSize), reserve: opts.Reserve, growStep: opts.GrowStep,
	}
	s.poison.ch = make(chan struct{})
	s.poison.log = opts.Logger
	s.cache.budget = max(opts.CacheSize/leafMemory, cacheMin)
	s.buffers.New = func() any { return new([layout.BlockSize]byte) }
	s.entries.New = func() any { return new([]entry) }
	s.mu.copysets = make(map[layout.CopysetID]*Copyset)
	return s
}

// open makes or opens the files; the lock is held.
func (s *Store) open(fs vfs.FS, dir string, id Identity) error {
	// Whoever held the lock before may have changed what was read without it.
	i, ok, err := readIdentity(fs, dir, id)
	if err != nil {
		return err
	}
	if !ok || i.state == stateFormatting {
		if i, err = s.format(fs, dir, id); err != nil {
			return err
		}
	} else if err := s.openFiles(dir, i.store); err != nil {
		return err
	}
	return s.load()
}

// format makes the files of an empty store. After a crash within, it starts over.
func (s *Store) format(fs vfs.FS, dir string, id Identity) (identity, error) {
	i := identity{id: id, state: stateFormatting}
	if _, err := io.ReadFull(s.opts.Random, i.store[:]); err != nil {
		return i, &IOError{Op: "random", Err: err}
	}
	if err := vfs.SyncDir(fs, path.Dir(dir)); err != nil {
		return i, ioError("format", err)
	}
	if err := writeIdentity(fs, dir, i); err != nil {
		return i, err
	}
	if err := s.file.format(i.store); err != nil {
		return i, ioError("format", err)
	}
	x, err := openIndex(path.Join(dir, indexName), &s.opts, true, &s.poison)
	if err != nil {
		return i, err
	}
	s.index = x
	b := x.db.NewBatch()
	defer b.Close() //nolint:errcheck // it has no error to tell
	err = errors.Join(
		b.DeleteRange([]byte{keyStore}, []byte{keyLeaf + 1}, nil),
		b.Set(storeKey(), append([]byte{storeRecordVersion}, i.store[:]...), nil),
	)
	if err != nil {
		return i, &IOError{Op: "index", Err: err}
	}
	if err := s.commitOrPoison(b); err != nil {
		return i, err
	}
	if err := vfs.SyncDir(fs, dir); err != nil {
		return i, ioError("format", err)
	}
	i.state = stateFormatted
	if err := writeIdentity(fs, dir, i); err != nil {
		return i, err
	}
	return i, s.file.open(i.store)
}

// openFiles opens the files of a store and checks that they belong together.
func (s *Store) openFiles(dir string, store [16]byte) error {
	if err := s.file.open(store); err != nil {
		return err
	}
	x, err := openIndex(path.Join(dir, indexName), &s.opts, false, &s.poison)
	if err != nil {
		return err
	}
	s.index = x
	v, err := x.value(storeKey())
	switch {
	case err != nil:
		return err
	case len(v) == 0:
		return &CorruptError{What: "index: no store record"}
	case v[0] != storeRecordVersion:
		return &VersionError{What: "index", Have: uint32(v[0]), Knows: storeRecordVersion}
	case len(v) != storeRecordLen || [16]byte(v[1:]) != store:
		return &CorruptError{What: "index: it is of another store"}
	}
	return nil
}

// load reads the index: the copysets, which of their leaves exist, and which blocks are in use.
func (s *Store) load() error {
	live := make(map[uint64]*Copyset)
	err := s.index.eachRecord(func(id layout.CopysetID, r record) error {
		c := newCopyset(s, id, r)
		if live[r.incarnation] != nil {
			return &CorruptError{What: fmt.Sprintf("index: copysets %d and %d share incarnation %d",
				live[r.incarnation].id, id, r.incarnation)}
		}
		live[r.incarnation] = c
		s.mu.copysets[id] = c
		s.mu.incarnation = max(s.mu.incarnation, r.incarnation)
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.dropOrphans(live); err != nil {
		return err
	}
	var runs []run
	err = eachLeaf(s.index.db, []byte{keyLeaf}, []byte{keyLeaf + 1}, func(inc uint64, id leafID, l *leaf) error {
		c := live[inc]
		runs = l.appendRuns(runs[:0])
		for _, r := range runs {
			if !s.file.alloc.reserve(r.start, r.n) {
				return &CorruptError{What: fmt.Sprintf("index: copyset %d chunk %v leaf %d: blocks %d+%d are in use twice or beyond the file",
					c.id, id.chunk, id.index, r.start, r.n)}
			}
		}
		c.noteLeaf(id, l.allocated)
		return nil
	})
	if err != nil {
		return err
	}
	s.file.alloc.digHoles(punchMin)
	return nil
}

// dropOrphans deletes the leaves of incarnations that no copyset record names.
func (s *Store) dropOrphans(live map[uint64]*Copyset) (err error) {
	b := s.index.db.NewBatch()
	defer b.Close() //nolint:errcheck // it has no error to tell
	it, err := s.index.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyLeaf}, UpperBound: []byte{keyLeaf + 1}})
	if err != nil {
		return &IOError{Op: "index", Err: err}
	}
	defer func() {
		if err == nil && !b.Empty() {
			err = s.commitOrPoison(b)
		}
	}()
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; {
		incarnation, _, err := parseLeafKey(it.Key())
		if err != nil {
			return err
		}
		if live[incarnation] == nil {
			if err := deleteIncarnation(b, incarnation); err != nil {
				return &IOError{Op: "index", Err: err}
			}
		}
		s.mu.incarnation = max(s.mu.incarnation, incarnation)
		ok = it.SeekGE(appendIncarnationKey(nil, incarnation+1))
	}
	if err := it.Error(); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	return nil
}

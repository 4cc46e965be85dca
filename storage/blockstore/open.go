package blockstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// Open opens the store in dir, and makes one there when dir does not exist or is empty. It refuses, without touching
// anything, a directory of another cluster or chunkserver (*ForeignError), of a newer format (*VersionError), one that
// is in use (*LockedError) and one that is damaged (*CorruptError). It reads the whole index once. fs holds all files
// but the index, which is in Options.IndexFS under dir/index.
func Open(fs vfs.FS, dir string, id Identity, opts Options) (*Store, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	setDefaults(&opts)
	if _, _, err := disk.ReadHeader(fs, dir, id); err != nil {
		return nil, err
	}
	if err := disk.MakeDir(fs, dir); err != nil {
		return nil, err
	}
	lock, err := fs.Lock(path.Join(dir, disk.LockName))
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
	if o.DeferBelow == 0 {
		o.DeferBelow = d.DeferBelow
	}
	if o.DeferredBytes == 0 {
		o.DeferredBytes = d.DeferredBytes
	}
	if o.FlushWriters == 0 {
		o.FlushWriters = disk.FlushWriters
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
	s := &Store{opts: opts, lock: lock, pressure: make(chan struct{}, 1)}
	s.file = disk.NewFile(fs, dir, opts.Capacity, opts.Reserve, opts.GrowStep, opts.FlushWriters)
	s.poison = disk.NewPoison(opts.Logger)
	s.cache.budget = max(opts.CacheSize/extent.LeafMemory, cacheMin)
	s.buffers.New = func() any { return new([layout.BlockSize]byte) }
	s.entries.New = func() any { return new([]extent.Entry) }
	s.mu.copysets = make(map[layout.CopysetID]*Copyset)
	return s
}

// open makes or opens the files; the lock is held.
func (s *Store) open(fs vfs.FS, dir string, id Identity) error {
	// Whoever held the lock before may have changed what was read without it.
	i, ok, err := disk.ReadHeader(fs, dir, id)
	if err != nil {
		return err
	}
	if !ok || i.State == disk.StateFormatting {
		if _, err = s.format(fs, dir, id); err != nil {
			return err
		}
	} else if err := s.openFiles(dir, i.Store); err != nil {
		return err
	}
	return s.load()
}

// format makes the files of an empty store. After a crash within, it starts over.
func (s *Store) format(fs vfs.FS, dir string, id Identity) (disk.Header, error) {
	i := disk.Header{Owner: id, State: disk.StateFormatting}
	if _, err := io.ReadFull(s.opts.Random, i.Store[:]); err != nil {
		return i, &IOError{Op: "random", Err: err}
	}
	if err := vfs.SyncDir(fs, path.Dir(dir)); err != nil {
		return i, disk.WrapIO("format", err)
	}
	if err := disk.WriteHeader(fs, dir, i); err != nil {
		return i, err
	}
	if err := s.file.Format(i.Store); err != nil {
		return i, disk.WrapIO("format", err)
	}
	x, err := disk.OpenIndex(dir, s.opts.IndexFS, s.opts.IndexCacheSize, true, s.poison)
	if err != nil {
		return i, err
	}
	s.index = x
	b := x.DB.NewBatch()
	defer b.Close() //nolint:errcheck // it has no error to tell
	if err := b.Set(extent.StoreKey(), append([]byte{extent.StoreRecordVersion}, i.Store[:]...), nil); err != nil {
		return i, &IOError{Op: "index", Err: err}
	}
	if err := s.commitOrPoison(b); err != nil {
		return i, err
	}
	if err := vfs.SyncDir(fs, dir); err != nil {
		return i, disk.WrapIO("format", err)
	}
	i.State = disk.StateFormatted
	if err := disk.WriteHeader(fs, dir, i); err != nil {
		return i, err
	}
	return i, s.file.Open(i.Store)
}

// openFiles opens the files of a store and checks that they belong together.
func (s *Store) openFiles(dir string, store [16]byte) error {
	if err := s.file.Open(store); err != nil {
		return err
	}
	x, err := disk.OpenIndex(dir, s.opts.IndexFS, s.opts.IndexCacheSize, false, s.poison)
	if err != nil {
		return err
	}
	s.index = x
	v, err := x.Value(extent.StoreKey())
	switch {
	case err != nil:
		return err
	case len(v) == 0:
		return &CorruptError{What: "index: no store record"}
	case v[0] != extent.StoreRecordVersion:
		return &VersionError{What: "index", Have: uint32(v[0]), Knows: extent.StoreRecordVersion}
	case len(v) != extent.StoreRecordLen || [16]byte(v[1:]) != store:
		return &CorruptError{What: "index: it is of another store"}
	}
	return nil
}

// load reads the index: the copysets, which of their leaves exist, and which blocks are in use.
func (s *Store) load() error {
	live := make(map[uint64]*Copyset)
	err := s.index.EachRecord(func(id layout.CopysetID, r extent.Record) error {
		c := newCopyset(s, id, r)
		if live[r.Incarnation] != nil {
			return &CorruptError{What: fmt.Sprintf("index: copysets %d and %d share incarnation %d",
				live[r.Incarnation].id, id, r.Incarnation)}
		}
		live[r.Incarnation] = c
		s.mu.copysets[id] = c
		s.mu.incarnation = max(s.mu.incarnation, r.Incarnation)
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.dropOrphans(live); err != nil {
		return err
	}
	if err := s.loadVersions(live); err != nil {
		return err
	}
	var runs []extent.Run
	var places extent.Lineage
	return disk.EachLeaf(s.index.DB, []byte{extent.KeyLeaf}, []byte{extent.KeyLeaf + 1}, func(inc uint64, id extent.LeafID, l *extent.Leaf) error {
		c := live[inc]
		if err := places.Next(inc, id, l); err != nil {
			return fmt.Errorf("copyset %d chunk %v: %w", c.id, id.Chunk, err)
		}
		runs = l.AppendRuns(runs[:0], l.Own())
		for _, r := range runs {
			if !s.file.ReserveRun(r) {
				return &CorruptError{What: fmt.Sprintf("index: copyset %d chunk %v leaf %d: blocks %d+%d are in use twice or beyond the file",
					c.id, id.Chunk, id.Index, r.Start, r.N)}
			}
		}
		c.mu.Note(id, l)
		return nil
	})
}

// loadVersions reads the versions of all volumes.
func (s *Store) loadVersions(live map[uint64]*Copyset) error {
	return s.index.EachVersions(func(inc uint64, v layout.VolumeID, n extent.Versions) error {
		live[inc].mu.Versions[v] = n
		return nil
	})
}

// dropOrphans deletes the leaves and versions of incarnations that no copyset record names.
func (s *Store) dropOrphans(live map[uint64]*Copyset) error {
	b := s.index.DB.NewBatch()
	defer b.Close() //nolint:errcheck // it has no error to tell
	for _, kind := range []byte{extent.KeyLeaf, extent.KeyVolume} {
		err := s.index.EachIncarnation(kind, func(incarnation uint64) error {
			s.mu.incarnation = max(s.mu.incarnation, incarnation)
			if live[incarnation] != nil {
				return nil
			}
			return deleteIncarnation(b, incarnation)
		})
		if err != nil {
			return err
		}
	}
	if b.Empty() {
		return nil
	}
	return s.commitOrPoison(b)
}

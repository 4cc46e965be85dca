package blockstore

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/reclaim"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Store is the data of one disk. Its methods may be called from any goroutine.
type Store struct {
	opts   Options
	lock   io.Closer
	file   *disk.File
	index  *disk.Index
	poison *disk.Poison
	freed  reclaim.Queue // what waits for readers and images
	cache  cache
	leaves extentmap.Counters
	// incoming counts the blocks of installers and of what was gathered.
	incoming atomic.Int64
	// pressure has a token when deferred writes want a checkpoint.
	pressure chan struct{}
	buffers  sync.Pool // of *[BlockSize]byte
	entries  sync.Pool // of *[]entry

	// commitMu lets one checkpoint, creation, removal or end of an installation at a time change the index.
	commitMu sync.Mutex

	mu struct {
		sync.RWMutex
		copysets map[layout.CopysetID]*Copyset
		// incarnation is the last one that was given out.
		incarnation uint64
	}
	closed atomic.Bool
}

// Usage is the space of a disk, in bytes.
type Usage struct {
	// Capacity is what the store can hold at most; with Options.Capacity 0 it follows the file system's free space.
	Capacity int64
	// Used is the space of the blocks that the copysets' content and its versions occupy, or that images bring, and of the header.
	Used int64
	// Free is what can still be allocated, the reserve included: Capacity less Used and PendingFree.
	Free int64
	// PendingFree is the space of freed blocks that wait for a checkpoint, a reader, an image or the raft log, and of those
	// that the log holds for entries that were not applied.
	PendingFree int64
	// Reserve is the part of Free that writes leave alone.
	Reserve int64
	// Overlay is the memory of the changes that are not durable yet; a checkpoint releases it.
	Overlay int64
	// Deferred is the memory of the writes that the next checkpoints bring to the data file.
	Deferred int64
	// Cache is the memory of the extent maps that are at hand, the overlay's included.
	Cache int64
}

// Err returns why the store is poisoned (*PoisonedError), or nil. A poisoned store only reads.
func (s *Store) Err() error { return s.poison.Err() }

// Poisoned is closed when the store is poisoned.
func (s *Store) Poisoned() <-chan struct{} { return s.poison.Done() }

// Pressure receives a value when the writes that are only in memory have reached Options.DeferredBytes: a checkpoint is
// wanted soon. It never blocks the store.
func (s *Store) Pressure() <-chan struct{} { return s.pressure }

// Copysets returns the copysets in the store, by number.
func (s *Store) Copysets() []layout.CopysetID {
	s.mu.RLock()
	ids := make([]layout.CopysetID, 0, len(s.mu.copysets))
	for id := range s.mu.copysets {
		ids = append(ids, id)
	}
	s.mu.RUnlock()
	slices.Sort(ids)
	return ids
}

// Copyset returns the copyset, or ErrNotFound.
func (s *Store) Copyset(id layout.CopysetID) (*Copyset, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c, ok := s.mu.copysets[id]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("%w: %d", ErrNotFound, id)
}

// all returns the copysets in no order.
func (s *Store) all() []*Copyset {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*Copyset, 0, len(s.mu.copysets))
	for _, c := range s.mu.copysets {
		all = append(all, c)
	}
	return all
}

// ready returns why the store can not be changed, or nil.
func (s *Store) ready() error {
	if s.closed.Load() {
		return ErrClosed
	}
	return s.poison.Err()
}

// newIncarnation gives out the number of a new life of a copyset's content.
func (s *Store) newIncarnation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.incarnation++
	return s.mu.incarnation
}

// Create makes an empty copyset, durably: when it returns, it is there after a crash. ErrExists when it is there. A
// failure, of a full file system too, poisons the store.
func (s *Store) Create(id layout.CopysetID) (*Copyset, error) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	if _, err := s.Copyset(id); err == nil {
		return nil, fmt.Errorf("%w: %d", ErrExists, id)
	}
	if id == 0 {
		return nil, fmt.Errorf("%w: copyset 0", ErrRange)
	}
	r := extent.Record{Incarnation: s.newIncarnation()}
	b := s.index.DB.NewBatch()
	defer b.Close() //nolint:errcheck // it has no error to tell
	if err := b.Set(extent.AppendCopysetKey(nil, id), r.AppendTo(nil), nil); err != nil {
		return nil, &IOError{Op: "index", Err: err}
	}
	if err := s.commitOrPoison(b); err != nil {
		return nil, err
	}
	c := newCopyset(s, id, r)
	s.mu.Lock()
	s.mu.copysets[id] = c
	s.mu.Unlock()
	return c, nil
}

// Remove removes a copyset with all its data, durably. The owner must have stopped; readers get ErrRemoved. Images stay
// readable, and keep the blocks, until they are closed. A failure, of a full file system too, poisons the store.
func (s *Store) Remove(id layout.CopysetID) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.ready(); err != nil {
		return err
	}
	c, err := s.Copyset(id)
	if err != nil {
		return err
	}
	runs, _, err := c.collect(nil)
	if err != nil {
		return err
	}
	b := s.index.DB.NewBatch()
	defer b.Close() //nolint:errcheck // it has no error to tell
	if err := b.Delete(extent.AppendCopysetKey(nil, id), nil); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	if err := s.commitOrPoison(b); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.mu.copysets, id)
	s.mu.Unlock()
	c.replace(nil, runs)
	s.forgetLeaves(c.incarnation())
	s.reclaim()
	return nil
}

// forgetLeaves deletes the leaves and versions of an incarnation that no copyset has, in memory neither: a reader would take
// leaves that it does not find for holes. It returns false when they are not deleted; the store is poisoned then. They are not
// durably: Open drops what a crash leaves.
func (s *Store) forgetLeaves(incarnation uint64) bool {
	b := s.index.DB.NewBatch()
	defer b.Close() //nolint:errcheck // it has no error to tell
	if err := deleteIncarnation(b, incarnation); err != nil {
		_ = s.poison.Set(err)
		return false
	}
	return s.index.Commit(b) == nil
}

// deleteIncarnation adds the deletion of all leaves and versions of an incarnation to a batch.
func deleteIncarnation(b *pebble.Batch, incarnation uint64) error {
	for _, kind := range []byte{extent.KeyLeaf, extent.KeyVolume} {
		from, to := extent.AppendIncarnationKey(nil, kind, incarnation), extent.AppendIncarnationKey(nil, kind, incarnation+1)
		if err := b.DeleteRange(from, to, nil); err != nil {
			return err
		}
	}
	return nil
}

// commitOrPoison makes a batch durable. A batch that may become durable later although it was reported as failed can not
// be undone, so any failure poisons the store.
func (s *Store) commitOrPoison(b *pebble.Batch) error {
	if err := s.index.Commit(b); err != nil {
		return err
	}
	if err := s.index.Flush(); err != nil {
		return s.poison.Set(err)
	}
	return nil
}

// Usage returns the space of the disk.
func (s *Store) Usage() Usage {
	s.reclaim()
	n, room := s.file.Usage()
	u := Usage{
		Used: n.Used * layout.BlockSize, PendingFree: n.Pending * layout.BlockSize, Free: room, Reserve: s.opts.Reserve,
	}
	u.Capacity = u.Used + u.PendingFree + u.Free
	u.Overlay = s.leaves.Overlay.Load() * extent.LeafMemory
	u.Deferred = s.file.Deferred()
	u.Cache = s.leaves.Resident.Load() * extent.LeafMemory
	return u
}

// Close ends all use of the store. What no checkpoint has made durable is lost, as in a crash. Open images are closed.
// No other call may be in progress.
func (s *Store) Close() error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	s.freed.EndAll()
	return s.closeFiles()
}

// closeFiles closes what Open has opened so far.
func (s *Store) closeFiles() error {
	var err error
	if s.index != nil {
		err = s.index.Close()
	}
	return errors.Join(err, s.file.Close(), s.lock.Close())
}

// fullBlock returns a buffer of one block, to be given back with putBlock.
func (s *Store) fullBlock() *[layout.BlockSize]byte { return s.buffers.Get().(*[layout.BlockSize]byte) }

func (s *Store) putBlock(b *[layout.BlockSize]byte) { s.buffers.Put(b) }

package blockstore

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/reclaim"
)

// Frozen is the part of a copyset's changes that one checkpoint makes durable.
type Frozen struct {
	c                *Copyset
	overlay          extentmap.Overlay
	seq, index, term uint64
	state            []byte
}

// Copyset returns the copyset that was frozen.
func (f *Frozen) Copyset() *Copyset { return f.c }

// Applied returns the raft index and term that the checkpoint makes durable.
func (f *Frozen) Applied() (index, term uint64) { return f.index, f.term }

// Freeze takes the changes since the last Freeze, with the applied index and state, for Commit. It costs no I/O and no
// time that grows with the content. The Frozen owns state from now on. An unchanged copyset may be frozen too. For the
// owner.
func (c *Copyset) Freeze(state []byte) *Frozen {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := &Frozen{c: c, seq: c.mu.Seq, index: c.mu.index, term: c.mu.term, state: state}
	f.overlay = c.mu.Freeze()
	c.mu.frozen = append(c.mu.frozen, f)
	return f
}

// Commit makes the frozen changes durable, in one batch: it writes the deferred blocks, syncs the data file, writes and syncs the index, and gives
// the blocks that the changes freed back as soon as no reader or image holds them. After nil the raft log of each may
// be cut up to Frozen.Applied. What was frozen of the same copyset before is committed with it. A Frozen that is durable
// already, or that the end of an installation has overtaken, is skipped. After ErrNoSpace (the file system is full) the
// same call can be tried again; any other failure poisons the store.
func (s *Store) Commit(frozen []*Frozen) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.ready(); err != nil {
		return err
	}
	parts, err := s.pending(frozen)
	if err != nil || len(parts) == 0 {
		return err
	}
	var late []extent.Run
	for _, f := range parts {
		late = append(late, f.overlay.Late...)
	}
	// What is flushed can not become free meanwhile: that takes a checkpoint, a removal or an installation.
	if err := s.file.Flush(late); errors.Is(err, ErrNoSpace) {
		return err
	} else if err != nil {
		return s.poison.Set(err)
	}
	if err := s.file.Sync(); err != nil {
		return s.poison.Set(err)
	}
	b := s.index.DB.NewBatch()
	defer b.Close() //nolint:errcheck // it has no error to tell
	for _, f := range parts {
		if err := f.addTo(b); err != nil {
			return &IOError{Op: "index", Err: err}
		}
	}
	if err := s.index.Commit(b); err != nil {
		return err
	}
	if err := s.index.Flush(); err != nil {
		return err
	}
	for _, f := range parts {
		f.done()
	}
	s.reclaim()
	s.trim()
	return nil
}

// pending returns frozen with what was frozen of the same copysets before, in that order, without what is durable.
func (s *Store) pending(frozen []*Frozen) ([]*Frozen, error) {
	var parts []*Frozen
	last := make(map[*Copyset]uint64, len(frozen))
	for _, f := range frozen {
		if f.c.s != s {
			return nil, fmt.Errorf("%w: frozen in another store", ErrRange)
		}
		if len(f.state) > StateMax {
			return nil, fmt.Errorf("%w: state of %d bytes", ErrRange, len(f.state))
		}
		f.c.mu.RLock()
		if f.c.mu.removed {
			f.c.mu.RUnlock()
			continue
		}
		for _, p := range f.c.mu.frozen {
			if p.seq <= f.seq && p.seq > last[f.c] {
				parts = append(parts, p)
			}
		}
		f.c.mu.RUnlock()
		last[f.c] = max(last[f.c], f.seq)
	}
	return parts, nil
}

// addTo adds the changes to a batch. The copyset's record can not change meanwhile: commitMu is held.
func (f *Frozen) addTo(b *pebble.Batch) error {
	inc := f.c.incarnation()
	var key, value []byte
	for id, l := range f.overlay.Leaves {
		key = extent.AppendLeafKey(key[:0], inc, id)
		if l.Allocated == 0 {
			if err := b.Delete(key, nil); err != nil {
				return err
			}
			continue
		}
		value = l.AppendTo(value[:0])
		if err := b.Set(key, value, nil); err != nil {
			return err
		}
	}
	for v, n := range f.overlay.Versions {
		key = extent.AppendVersionsKey(key[:0], inc, v)
		if n.Last == 0 {
			if err := b.Delete(key, nil); err != nil {
				return err
			}
			continue
		}
		value = n.AppendTo(value[:0])
		if err := b.Set(key, value, nil); err != nil {
			return err
		}
	}
	r := extent.Record{Incarnation: inc, Index: f.index, Term: f.term, State: f.state}
	return b.Set(extent.AppendCopysetKey(key[:0], f.c.id), r.AppendTo(value[:0]), nil)
}

// done makes known that the changes are durable.
func (f *Frozen) done() {
	c := f.c
	c.mu.Lock()
	c.mu.durable = f.seq
	c.mu.record.Index, c.mu.record.Term, c.mu.record.State = f.index, f.term, f.state
	c.mu.frozen = append([]*Frozen(nil), c.mu.frozen[1:]...)
	b := reclaim.Freed{Owner: owner{c}, Seq: f.seq, Epoch: c.mu.epoch, Overwritten: f.overlay.Overwritten, Discarded: f.overlay.Discarded}
	c.mu.Forget(&f.overlay)
	c.mu.Unlock()
	c.s.freed.Add(b)
}

package blockstore

import (
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/reclaim"
)

// owner is a copyset whose blocks were freed.
type owner struct{ c *Copyset }

// Drained implements reclaim.Owner.
func (o owner) Drained(epoch uint64) bool { return o.c.drained(epoch) }

// reclaim makes the blocks free that wait for nothing any more.
func (s *Store) reclaim() {
	s.freed.Run(func(f *reclaim.Freed) {
		s.file.Release(f.Overwritten, false)
		s.file.Release(extent.JoinRuns(f.Discarded), true)
	})
}

// drained reports whether all readers have ended that began in epoch or before. It begins new epochs to find out: the
// epoch may advance when no reader is left of the one before, whose counter the next one uses.
func (c *Copyset) drained(epoch uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.mu.epoch < epoch+2 && c.readers[(c.mu.epoch+1)&1].Load() == 0 {
		c.mu.epoch++
	}
	return c.mu.epoch >= epoch+2 || c.mu.epoch == epoch+1 && c.readers[epoch&1].Load() == 0
}

// replace puts the content of n in place of c's, or removes c (nil). old are the blocks of c's content. The index knows of
// it already. commitMu is held.
func (c *Copyset) replace(n *Copyset, old []extent.Run) {
	c.mu.Lock()
	b := reclaim.Freed{Owner: owner{c}, Seq: c.mu.Seq, Epoch: c.mu.epoch, Discarded: old}
	for _, o := range c.overlaysLocked() {
		b.Overwritten = append(b.Overwritten, o.Overwritten...)
		b.Discarded = append(b.Discarded, o.Discarded...)
		c.mu.Forget(o)
	}
	c.mu.frozen = nil
	c.mu.durable = c.mu.Seq
	if n == nil {
		c.mu.removed = true
		c.mu.Replace(nil)
	} else {
		c.mu.record, c.mu.index, c.mu.term = n.mu.record, n.mu.index, n.mu.term
		c.mu.Replace(&n.mu.Map)
	}
	c.mu.Unlock()
	c.s.file.Retire(countBlocks(old))
	c.s.freed.Add(b)
}

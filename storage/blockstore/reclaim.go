package blockstore

import (
	"sync"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
)

// freed is what one checkpoint freed of a copyset; the checkpoint is durable.
type freed struct {
	c *Copyset
	// seq is the checkpoint: images that were taken before it or within hold the blocks.
	seq uint64
	// epoch is the last in which a reader may have begun that holds them.
	epoch                  uint64
	overwritten, discarded []extent.Run
}

// reclaimer holds freed blocks until no reader and no image can come across them.
type reclaimer struct {
	// runMu lets one goroutine at a time reclaim; held while holes are punched.
	runMu sync.Mutex
	mu    struct {
		sync.Mutex
		waiting []freed
		images  map[*Image]struct{}
	}
}

// add takes freed blocks.
func (r *reclaimer) add(f freed) {
	if len(f.overwritten) == 0 && len(f.discarded) == 0 {
		return
	}
	r.mu.Lock()
	r.mu.waiting = append(r.mu.waiting, f)
	r.mu.Unlock()
}

// hold registers an image.
func (r *reclaimer) hold(im *Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.images == nil {
		r.mu.images = make(map[*Image]struct{})
	}
	r.mu.images[im] = struct{}{}
}

// letGo forgets an image. It returns false when it was forgotten before.
func (r *reclaimer) letGo(im *Image) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.mu.images[im]
	delete(r.mu.images, im)
	return ok
}

// closeImages closes the images that are open.
func (r *reclaimer) closeImages() {
	r.mu.Lock()
	var open []*Image
	for im := range r.mu.images {
		open = append(open, im)
	}
	r.mu.Unlock()
	for _, im := range open {
		im.Close()
	}
}

// held reports whether an image holds the blocks.
func (r *reclaimer) held(f *freed) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for im := range r.mu.images {
		if im.c == f.c && im.seq <= f.seq {
			return true
		}
	}
	return false
}

// reclaim makes the blocks free that wait for nothing any more.
func (s *Store) reclaim() {
	r := &s.reclaimer
	r.runMu.Lock()
	defer r.runMu.Unlock()
	r.mu.Lock()
	waiting := r.mu.waiting
	r.mu.waiting = nil
	r.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	var still []freed
	for i := range waiting {
		f := &waiting[i]
		if !f.c.drained(f.epoch) || r.held(f) {
			still = append(still, *f)
			continue
		}
		s.file.Release(f.overwritten, false)
		s.file.Release(extent.JoinRuns(f.discarded), true)
	}
	r.mu.Lock()
	r.mu.waiting = append(still, r.mu.waiting...)
	r.mu.Unlock()
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
	b := freed{c: c, seq: c.mu.Seq, epoch: c.mu.epoch, discarded: old}
	for _, o := range c.overlaysLocked() {
		b.overwritten = append(b.overwritten, o.Overwritten...)
		b.discarded = append(b.discarded, o.Discarded...)
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
	c.s.reclaimer.add(b)
}

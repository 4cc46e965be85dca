package blockstore

import (
	"maps"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/frame"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/image"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/reclaim"
)

// BlockRun is a run of consecutive blocks of a chunk in an image. Its slices are valid until the next call.
type BlockRun = frame.Run

// FrameMax is the most that one frame of an image stream can be long, in bytes.
const FrameMax = frame.Max

// Image is a consistent copy of a copyset's content at its applied index.
type Image struct {
	*image.Reader
	c *Copyset
	// hold has what the checkpoint that the copyset was about to make, and later ones, free.
	hold *reclaim.Hold
}

// Snapshot returns a consistent image of the content, with the applied index and state. No block is copied; blocks of
// the image are not reused until Close, so an image is not to be kept longer than the transfer that it serves. The
// image owns state from now on. For the owner; the image is used by one goroutine at a time, whichever.
func (c *Copyset) Snapshot(state []byte) (*Image, error) {
	im := &Image{c: c}
	src := image.Source{
		Copyset: c.id, State: state, Changed: make(map[extent.LeafID]*extent.Leaf), File: c.s.file, Maps: c.s.index,
	}
	c.mu.Lock()
	if c.mu.removed {
		c.mu.Unlock()
		return nil, ErrRemoved
	}
	for _, o := range c.overlaysLocked() {
		maps.Copy(src.Changed, o.Leaves)
	}
	c.mu.Gen++
	c.mu.imaged = c.mu.Seq
	src.Index, src.Term = c.mu.index, c.mu.term
	src.Versions, src.Incarnation = maps.Clone(c.mu.Versions), c.mu.record.Incarnation
	im.hold = c.s.freed.Hold(owner{c}, c.mu.Seq, im.Close)
	c.mu.Unlock()
	var err error
	if im.Reader, err = image.New(src); err != nil {
		im.letGo()
		return nil, err
	}
	return im, nil
}

// Close lets the image's blocks go. It may be called more than once.
func (im *Image) Close() {
	im.Reader.Close()
	im.letGo()
}

// letGo gives the blocks back that waited for the image.
func (im *Image) letGo() {
	if im.c.s.freed.LetGo(im.hold) {
		im.c.s.reclaim()
	}
}

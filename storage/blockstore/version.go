package blockstore

import (
	"fmt"
	"slices"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/version"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// VersionsMax is the most versions that a volume may have in a copyset.
const VersionsMax = extent.VersionsMax

// TakeVersion makes the content that the volume has now in this copyset its version n, which is above all that were taken before,
// deleted ones too (ErrRange). It costs the same whatever the volume holds: the version has the blocks that the content has, and
// what is written from now on goes elsewhere anyway. It is durable with the next checkpoint. For the owner.
func (c *Copyset) TakeVersion(v layout.VolumeID, n uint64) error {
	if err := c.s.ready(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.removed {
		return ErrRemoved
	}
	if have := c.mu.Versions[v]; n <= have.Last || n == ^uint64(0) || len(have.Numbers) >= VersionsMax {
		return fmt.Errorf("%w: version %d of volume %d, which has %d up to %d", ErrRange, n, v, len(have.Numbers), have.Last)
	}
	c.mu.TakeVersion(v, n)
	return nil
}

// Versions returns the versions of the volume, ascending.
func (c *Copyset) Versions(v layout.VolumeID) []uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.mu.Versions[v].Numbers)
}

// DeleteVersion forgets a version of the volume, and gives back the blocks that neither the content nor another version has.
// ErrNoVersion when it is not there. It reads the volume's part of the index, has in memory the leaves that were set aside for the
// version and the next younger of each, 2 KiB for 256 KiB, and changes them while readers wait. For the owner.
func (c *Copyset) DeleteVersion(v layout.VolumeID, n uint64) error {
	if err := c.s.ready(); err != nil {
		return err
	}
	c.mu.RLock()
	has, inc := c.mu.Versions[v].Has(n), c.mu.record.Incarnation
	c.mu.RUnlock()
	if !has {
		return fmt.Errorf("%w: %d of volume %d", ErrNoVersion, n, v)
	}
	ids, err := c.oldLeaves(inc, v, n)
	if err != nil {
		return err
	}
	leaves := make([]extentmap.Old, len(ids))
	for i, id := range ids {
		w, err := c.view(n, id.Chunk, id.Index*extent.LeafBlocks, 1)
		if err != nil {
			return err
		}
		c.unpin(w.slot)
		o := extentmap.Old{ID: id}
		if _, o.Leaf, err = w.Leaf(id); err != nil {
			return err
		}
		id.Version++
		if o.NextID, o.Next, err = w.Leaf(id); err != nil {
			return err
		}
		leaves[i] = o
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.removed {
		return ErrRemoved
	}
	c.s.file.Retire(c.mu.DropVersion(v, n, leaves))
	return nil
}

// oldLeaves returns the leaves that were set aside for version n of the volume. For the owner.
func (c *Copyset) oldLeaves(inc uint64, v layout.VolumeID, n uint64) ([]extent.LeafID, error) {
	there := make(map[extent.LeafID]bool)
	c.mu.RLock()
	for _, o := range c.overlaysLocked() {
		for id, l := range o.Leaves {
			if id.Version == n && id.Chunk.Volume == v {
				there[id] = l.Allocated != 0
			}
		}
	}
	c.mu.RUnlock()
	from, to := extent.VolumeRange(inc, v)
	err := c.s.index.EachLeaf(from, to, func(_ uint64, id extent.LeafID, _ *extent.Leaf) error {
		if _, known := there[id]; id.Version == n && !known {
			there[id] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var ids []extent.LeafID
	for id, is := range there {
		if is {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// ReadVersion is Read of a version of the chunk's volume; ErrNoVersion when it is not there, or was deleted meanwhile.
func (c *Copyset) ReadVersion(n uint64, ch layout.ChunkID, off uint32, dst []byte, crcs []uint32) ([]uint32, error) {
	sp, err := extent.NewSpan(off, len(dst))
	if err != nil {
		return crcs, err
	}
	ents := make([]extent.Entry, sp.N)
	slot, err := c.lookupVersion(n, ch, sp.First, ents)
	if err != nil {
		return crcs, err
	}
	defer c.unpin(slot)
	if err := c.s.file.ReadSpan(c.id, ch, sp, ents, dst); err != nil {
		return crcs, err
	}
	from, whole := sp.WholeBlocks()
	return appendCRCs(crcs, ents[from:from+whole]), nil
}

// lookupVersion is lookup in a version.
func (c *Copyset) lookupVersion(n uint64, ch layout.ChunkID, first uint32, ents []extent.Entry) (slot int, err error) {
	for range loadAttemptsMax {
		w, err := c.view(n, ch, first, uint32(len(ents)))
		if err != nil {
			return 0, err
		}
		if err = w.Fill(first, ents); err == nil && c.still(ch.Volume, w) {
			return w.slot, nil
		}
		c.unpin(w.slot)
		if err != nil {
			return 0, err
		}
	}
	c.mu.RLock() // so that nothing changes
	defer c.mu.RUnlock()
	w, err := c.viewLocked(n, ch, first, uint32(len(ents)))
	if err != nil {
		return 0, err
	}
	if err := w.Fill(first, ents); err != nil {
		c.unpin(w.slot)
		return 0, err
	}
	return w.slot, nil
}

// pinnedView is a view of a version whose blocks are pinned.
type pinnedView struct {
	*version.View
	slot int
}

// view returns a view of blocks of version n; ErrNoVersion when there is no such version. The caller must give the slot to unpin.
func (c *Copyset) view(n uint64, ch layout.ChunkID, first, blocks uint32) (pinnedView, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.viewLocked(n, ch, first, blocks)
}

func (c *Copyset) viewLocked(n uint64, ch layout.ChunkID, first, blocks uint32) (pinnedView, error) {
	if c.mu.removed {
		return pinnedView{}, ErrRemoved
	}
	if !c.mu.Versions[ch.Volume].Has(n) {
		return pinnedView{}, fmt.Errorf("%w: %d of volume %d", ErrNoVersion, n, ch.Volume)
	}
	w := pinnedView{version.New(c.sourceLocked(ch.Volume), n, ch, first, blocks), int(c.mu.epoch & 1)}
	c.readers[w.slot].Add(1)
	return w, nil
}

func (c *Copyset) sourceLocked(v layout.VolumeID) *version.Source {
	return &version.Source{
		Maps: c.s.index, Incarnation: c.mu.record.Incarnation, Versions: c.mu.Versions[v], Overlays: c.overlaysLocked(),
	}
}

// still tells whether what was found in a view is right.
func (c *Copyset) still(v layout.VolumeID, w pinnedView) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return w.Still(c.sourceLocked(v))
}

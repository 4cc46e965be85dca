package blockstore

import (
	"fmt"
	"slices"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
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
// ErrNoVersion when it is not there. It reads the volume's part of the index. For the owner.
func (c *Copyset) DeleteVersion(v layout.VolumeID, n uint64) error {
	if err := c.s.ready(); err != nil {
		return err
	}
	c.mu.RLock()
	versions, inc := c.mu.Versions[v], c.mu.record.Incarnation
	c.mu.RUnlock()
	if !versions.Has(n) {
		return fmt.Errorf("%w: %d of volume %d", ErrNoVersion, n, v)
	}
	ids, err := c.oldLeaves(inc, v, n)
	if err != nil {
		return err
	}
	leaves := make([]extentmap.Old, len(ids))
	for i, id := range ids {
		o := extentmap.Old{ID: id}
		if _, o.Leaf, err = c.olderLeaf(id, []uint64{n}); err != nil {
			return err
		}
		if o.NextID, o.Next, err = c.olderLeaf(id, versions.From(n+1)); o.Next == nil && err == nil {
			o.NextID = id.Head()
			o.Next, err = c.headLeaf(inc, o.NextID)
		}
		if err != nil {
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

// olderLeaf returns the leaf at the place of id of the first of the versions that has one of its own; nil when none has.
func (c *Copyset) olderLeaf(id extent.LeafID, versions []uint64) (extent.LeafID, *extent.Leaf, error) {
	for _, id.Version = range versions {
		l, inc, known := c.pendingLeaf(id)
		if !known {
			var err error
			if l, err = c.s.index.Leaf(inc, id); err != nil {
				return id, nil, err
			}
		}
		if l != nil && l.Allocated != 0 {
			return id, l, nil
		}
	}
	return id, nil, nil
}

// pendingLeaf returns the leaf as it was changed since the last checkpoint. When it was not, what the index has is right, which
// a checkpoint may change until it is read, but only to what it was in a checkpoint's overlay before.
func (c *Copyset) pendingLeaf(id extent.LeafID) (l *extent.Leaf, inc uint64, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, o := range c.overlaysLocked() {
		if newer, ok := o.Leaves[id]; ok {
			l, known = newer, true
		}
	}
	return l, c.mu.record.Incarnation, known
}

// headLeaf returns the head's leaf; nil when it has no blocks. For the owner.
func (c *Copyset) headLeaf(inc uint64, id extent.LeafID) (*extent.Leaf, error) {
	c.mu.RLock()
	ch := c.mu.Chunks[id.Chunk]
	has, l := ch.Has(id.Index), ch.Leaf(id.Index)
	c.mu.RUnlock()
	if !has || l != nil {
		return l, nil
	}
	return c.s.index.Leaf(inc, id)
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
		versions, inc, slot, err := c.pinVersion(ch.Volume, n)
		if err != nil {
			return 0, err
		}
		err = c.fillVersion(n, versions, ch, first, ents)
		// To delete a version renames leaves of others, and an image has others. If there was no such change meanwhile, what was
		// found is right.
		if now, nowInc, again, gone := c.pinVersion(ch.Volume, n); gone != nil {
			err = gone
		} else if c.unpin(again); err == nil && inc == nowInc && slices.Equal(versions, now[:min(len(versions), len(now))]) {
			return slot, nil
		}
		c.unpin(slot)
		if err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: %d of volume %d, others were deleted again and again while it was read", ErrNoVersion, n, ch.Volume)
}

// fillVersion fills ents with what version n has.
func (c *Copyset) fillVersion(n uint64, versions []uint64, ch layout.ChunkID, first uint32, ents []extent.Entry) error {
	clear(ents)
	for k := 0; k < len(ents); {
		i, b := (first+uint32(k))/extent.LeafBlocks, (first+uint32(k))%extent.LeafBlocks
		l, err := c.versionLeaf(extent.LeafID{Chunk: ch, Index: i}, n, versions)
		if err != nil {
			return err
		}
		for ; b < extent.LeafBlocks && k < len(ents); b, k = b+1, k+1 {
			if l != nil {
				ents[k] = extent.Entry{Addr: l.Addr[b], CRC: l.CRC[b]}
			}
		}
	}
	return nil
}

// pinVersion returns the versions of the volume from n on, and of which incarnation they are, and pins their blocks.
func (c *Copyset) pinVersion(v layout.VolumeID, n uint64) (versions []uint64, inc uint64, slot int, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.mu.removed {
		return nil, 0, 0, ErrRemoved
	}
	have := c.mu.Versions[v]
	if !have.Has(n) {
		return nil, 0, 0, fmt.Errorf("%w: %d of volume %d", ErrNoVersion, n, v)
	}
	slot = int(c.mu.epoch & 1)
	c.readers[slot].Add(1)
	return have.From(n), c.mu.record.Incarnation, slot, nil
}

// versionLeaf returns the leaf of version n at the place of the head's leaf id; nil when it has no blocks there. versions are those
// from n on. The head is looked at first: if it is younger than the version, then what the version has was set aside before.
func (c *Copyset) versionLeaf(id extent.LeafID, n uint64, versions []uint64) (*extent.Leaf, error) {
	l, at, slot, err := c.peek(id.Chunk, id.Index)
	if err != nil {
		return nil, err
	}
	if l != nil {
		c.unpin(slot)
		if at == id.Index && l.Born < n {
			return l, nil
		}
	}
	if _, l, err = c.olderLeaf(id, versions); l != nil && l.Born >= n {
		l = nil
	}
	return l, err
}

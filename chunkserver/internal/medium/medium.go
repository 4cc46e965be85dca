// Package medium is a copyset's data as its state machine sees it while entries are applied.
//
//	copyset.State ──Write, Read, Discard …──► Medium ──► blockstore.Copyset
//	                                            │
//	                   large payloads are where they stay: their blocks are adopted, not written
//	                   blocks that another peer gave are ahead of the entries, until those are applied too
//
// A block that another peer gave in place of a damaged one may hold entries that are not applied here yet. Applying them again gives
// the same, sector by sector, because each sets what it writes; so the block is right again when the last of them is applied. Until
// then the replica is Ahead: it serves no reads and makes no checkpoint and no image, and a compare and write of the block, whose
// outcome would depend on the future, fails with ErrAhead.
package medium

import (
	"errors"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sideload"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// ErrAhead means that an entry's outcome depends on a block that is newer than the entry.
var ErrAhead = errors.New("medium: a compare and write of a block that was damaged: the peer has to be rebuilt")

// ErrOldCopy means that entries were applied since another peer was asked for its copy of a damaged block: the block could be
// read after all. They may not be in the copy, and are not applied again.
var ErrOldCopy = errors.New("medium: the copy of a damaged block is older than what is applied")

// Medium is used by one goroutine.
type Medium struct {
	cs    *blockstore.Copyset
	crcs  []uint32
	index uint64 // of the entry that is applied
	// blocks are where the payload of that entry is already; nil for one that lies in the log.
	blocks []blockstore.Blocks
	// ahead are blocks that were replaced, with the index behind which no entry is in them. nil when there is none.
	ahead map[place]uint64
	floor uint64 // the highest of those indexes
}

// place names a block.
type place struct {
	chunk layout.ChunkID
	block uint32
}

// New returns the medium over cs.
func New(cs *blockstore.Copyset) *Medium { return &Medium{cs: cs} }

// Content returns what it is over.
func (m *Medium) Content() *blockstore.Copyset { return m.cs }

// Ahead tells whether some block is newer than what is applied.
func (m *Medium) Ahead() bool { return m.ahead != nil }

// Begin says which entry is applied next, and where its payload is already.
func (m *Medium) Begin(index uint64, blocks []blockstore.Blocks) { m.index, m.blocks = index, blocks }

// End notes that the entry is applied.
func (m *Medium) End(index, term uint64) {
	m.cs.SetApplied(index, term)
	if m.ahead != nil && index >= m.floor {
		m.ahead = nil
	}
}

// Replace puts another peer's copy in place of a damaged block, with which no entry can be merged. Every entry up to upTo is in
// data, none behind through. bar is called before the block changes, if the copy is not refused: nobody may read until through is
// applied.
func (m *Medium) Replace(ch layout.ChunkID, off uint32, data []byte, upTo, through uint64, bar func()) error {
	if at, _ := m.cs.Applied(); at > upTo {
		return ErrOldCopy
	}
	bar()
	m.floor = max(m.floor, through)
	if err := m.cs.Write(ch, off, data, nil); err != nil {
		return err
	}
	if m.ahead == nil {
		m.ahead = map[place]uint64{}
	}
	m.ahead[place{ch, off / layout.BlockSize}] = through
	return nil
}

// Write implements copyset.Medium.
func (m *Medium) Write(ch layout.ChunkID, off uint32, data []byte, crcs []uint32) error {
	if m.blocks != nil && len(data) >= sideload.Min {
		return m.cs.Adopt(ch, off, data, crcs, m.blocks)
	}
	return m.cs.Write(ch, off, data, crcs)
}

// Read is what a compare and write compares with.
func (m *Medium) Read(ch layout.ChunkID, off uint32, dst []byte) error {
	if m.ahead != nil {
		for b := off / layout.BlockSize; b*layout.BlockSize < off+uint32(len(dst)); b++ {
			if m.index <= m.ahead[place{ch, b}] {
				return ErrAhead
			}
		}
	}
	crcs, err := m.cs.Read(ch, off, dst, m.crcs[:0])
	m.crcs = crcs[:0]
	return err
}

// Discard implements copyset.Medium.
func (m *Medium) Discard(ch layout.ChunkID, off, n uint32) error { return m.cs.Discard(ch, off, n) }

// WriteZeroes implements copyset.Medium.
func (m *Medium) WriteZeroes(ch layout.ChunkID, off, n uint32) error {
	return m.cs.WriteZeroes(ch, off, n)
}

// DeleteVolume implements copyset.Medium.
func (m *Medium) DeleteVolume(v layout.VolumeID) error { return m.cs.DeleteVolume(v) }

// Probe reads the first and the last block of the range if a mutation changes only a part of them, or with both in any
// case, so that damage is found, and repaired, before the mutation is proposed: at apply it would hold up the whole
// copyset. *blockstore.ChecksumError names the block. cs may be nil, of a peer that could not be opened: nothing is found, and
// who proposes hears why.
func Probe(cs *blockstore.Copyset, ch layout.ChunkID, off, length uint32, both bool) error {
	if cs == nil {
		return nil
	}
	var buf [layout.BlockSize]byte
	end := off + length
	first, last := off/layout.BlockSize, (end-1)/layout.BlockSize
	cut := end%layout.BlockSize != 0
	if off%layout.BlockSize != 0 || both || first == last && cut {
		if _, err := cs.Read(ch, first*layout.BlockSize, buf[:], nil); err != nil {
			return err
		}
	}
	if last != first && (cut || both) {
		if _, err := cs.Read(ch, last*layout.BlockSize, buf[:], nil); err != nil {
			return err
		}
	}
	return nil
}

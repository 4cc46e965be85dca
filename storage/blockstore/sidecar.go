package blockstore

import (
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The names of places in the data file, for those who keep them: the raft log.
type (
	// Addr is the number of a block in the data file.
	Addr = extent.Addr
	// Blocks is a run of blocks of the data file.
	Blocks = extent.Run
)

// StoreBlocks writes data, whole blocks, to freshly allocated ones, which belong to an entry of the raft log until
// ReleaseBlocks; SyncBlocks makes them durable. On an error (ErrNoSpace, *IOError, *PoisonedError, ErrRange) nothing is
// changed. data is borrowed.
func (s *Store) StoreBlocks(data []byte) ([]Blocks, error) {
	if len(data) == 0 || len(data)%layout.BlockSize != 0 || int64(len(data)) > extent.ChunkMax {
		return nil, fmt.Errorf("%w: %d bytes", ErrRange, len(data))
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	runs, err := s.allocate(uint32(len(data)/layout.BlockSize), nil)
	if err != nil {
		return nil, err
	}
	rest := data
	for _, r := range runs {
		n := int(r.N) * layout.BlockSize
		if err := s.file.Write(r.Start, rest[:n]); err != nil {
			s.file.TakeBack(runs)
			return nil, err
		}
		rest = rest[n:]
	}
	s.file.Log(runs)
	return runs, nil
}

// SyncBlocks makes durable what StoreBlocks wrote. A failure poisons the store.
func (s *Store) SyncBlocks() error {
	if err := s.ready(); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return s.poison.Set(err)
	}
	return nil
}

// LoadBlocks reads blocks of an entry of the raft log back. They are not verified: the log has the checksum.
func (s *Store) LoadBlocks(runs []Blocks, data []byte) error {
	for _, r := range runs {
		n := int(r.N) * layout.BlockSize
		if n > len(data) {
			return fmt.Errorf("%w: %d bytes", ErrRange, len(data))
		}
		if err := s.file.Read(r.Start, data[:n]); err != nil {
			return &IOError{Op: "read", Err: err}
		}
		data = data[n:]
	}
	return nil
}

// HoldBlocks tells, after Open and before anything else, which blocks an entry that the raft log has kept holds.
// *CorruptError when they can not be its: log and store do not belong together.
func (s *Store) HoldBlocks(runs []Blocks) error {
	if !s.file.Hold(runs) {
		return &CorruptError{What: "blocks of a log entry are not in the file, or another's"}
	}
	return nil
}

// ReleaseBlocks tells that the entry of the raft log that held the blocks is gone, durably. Blocks that the content does
// not have, and no checkpoint, reader or image holds, are free then.
func (s *Store) ReleaseBlocks(runs []Blocks) { s.file.Unlog(runs) }

// Adopt is Write of whole blocks whose data is in the file already: StoreBlocks wrote it to runs, in order, and the log
// entry still is there. Nothing is copied. When the blocks are not the log's alone, it is just Write. For the owner.
func (c *Copyset) Adopt(ch layout.ChunkID, off uint32, data []byte, crcs []uint32, runs []Blocks) error {
	sp, err := extent.NewSpan(off, len(data))
	if err != nil {
		return err
	}
	if _, whole := sp.WholeBlocks(); whole != sp.N || countBlocks(runs) != uint64(sp.N) || crcs != nil && len(crcs) != int(sp.N) {
		return fmt.Errorf("%w: %d bytes at %d in %d blocks with %d checksums", ErrRange, len(data), off, countBlocks(runs), len(crcs))
	}
	if err := c.s.ready(); err != nil {
		return err
	}
	if !c.s.file.Adopt(runs) {
		return c.Write(ch, off, data, crcs)
	}
	ents := make([]extent.Entry, 0, sp.N)
	var none extent.Edges
	for _, r := range runs {
		for k := range r.N {
			i := uint32(len(ents))
			ents = append(ents, extent.Entry{Addr: r.Start + extent.Addr(k), CRC: sp.CRC(i, data, crcs, &none)})
		}
	}
	if err := c.remap(ch, sp.First, sp.N, ents, false); err != nil {
		c.s.file.Disown(runs)
		return err
	}
	return nil
}

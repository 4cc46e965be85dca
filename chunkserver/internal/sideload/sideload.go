// Package sideload keeps the payloads of large writes in the store, where they will stay, instead of in the raft log:
// each replica writes them once.
package sideload

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

// Min is the length of a write, in bytes, from which on its payload is written once: to the blocks where it will
// stay, instead of the log. A shorter one waits in memory for the checkpoint (blockstore.Options.DeferBelow).
const Min = 64 << 10

// Sidecar keeps the payloads of large writes in the store. The log writer calls it; Load is for all.
type Sidecar struct {
	store *blockstore.Store
	crcs  []uint32
}

// New returns the sidecar of a store.
func New(store *blockstore.Store) *Sidecar { return &Sidecar{store: store} }

// Tail returns the length of the payload of a large write of whole blocks, and its CRC32C by those of its blocks.
func (s *Sidecar) Tail(e *raftpb.Entry) (n int, crc uint32) {
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) < Min {
		return 0, 0
	}
	var c copyset.Command
	err := c.Decode(e.GetData(), s.crcs[:0])
	if cap(c.CRCs) > cap(s.crcs) {
		s.crcs = c.CRCs
	}
	if err != nil || c.Op != copyset.OpWrite || c.Length < Min || (c.Offset|c.Length)%layout.BlockSize != 0 {
		return 0, 0
	}
	if len(c.CRCs) == 0 { // they are computed when it is applied
		return int(c.Length), layout.CRC(c.Payload)
	}
	return int(c.Length), layout.JoinCRCs(c.CRCs)
}

// Store writes a payload to blocks of its own.
func (s *Sidecar) Store(tail []byte) ([]raftlog.Extent, error) {
	runs, err := s.store.StoreBlocks(tail)
	if err != nil {
		return nil, err
	}
	xs := make([]raftlog.Extent, len(runs))
	for i, r := range runs {
		xs[i] = raftlog.Extent{Start: uint64(r.Start), Blocks: r.N}
	}
	return xs, nil
}

// Sync makes what was stored durable.
func (s *Sidecar) Sync() error { return s.store.SyncBlocks() }

// Load reads a payload back.
func (s *Sidecar) Load(xs []raftlog.Extent, tail []byte) error {
	return s.store.LoadBlocks(BlocksOf(xs), tail)
}

// Release gives the blocks of an entry back that the log does not need any more.
func (s *Sidecar) Release(xs []raftlog.Extent) { s.store.ReleaseBlocks(BlocksOf(xs)) }

// Hold keeps the blocks of an entry that was found in the log.
func (s *Sidecar) Hold(xs []raftlog.Extent) error { return s.store.HoldBlocks(BlocksOf(xs)) }

// BlocksOf returns the extents as the store names them.
func BlocksOf(xs []raftlog.Extent) []blockstore.Blocks {
	if len(xs) == 0 {
		return nil
	}
	runs := make([]blockstore.Blocks, len(xs))
	for i, x := range xs {
		runs[i] = blockstore.Blocks{Start: blockstore.Addr(x.Start), N: x.Blocks}
	}
	return runs
}

package multiraft

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

// sideloadMin is the length of a write, in bytes, from which on its payload is written once: to the blocks where it will
// stay, instead of the log. A shorter one waits in memory for the checkpoint (blockstore.Options.DeferBelow).
const sideloadMin = 64 << 10

// sidecar keeps the payloads of large writes in the store. The log writer calls it; Load is for all.
type sidecar struct {
	store *blockstore.Store
	crcs  []uint32
}

// Tail returns the length of the payload of a large write of whole blocks.
func (s *sidecar) Tail(e *raftpb.Entry) int {
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) < sideloadMin {
		return 0
	}
	var c copyset.Command
	err := c.Decode(e.GetData(), s.crcs[:0])
	if cap(c.CRCs) > cap(s.crcs) {
		s.crcs = c.CRCs
	}
	if err != nil || c.Op != copyset.OpWrite || c.Length < sideloadMin || (c.Offset|c.Length)%layout.BlockSize != 0 {
		return 0
	}
	return int(c.Length)
}

func (s *sidecar) Store(tail []byte) ([]raftlog.Extent, error) {
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

func (s *sidecar) Sync() error { return s.store.SyncBlocks() }

func (s *sidecar) Load(xs []raftlog.Extent, tail []byte) error {
	return s.store.LoadBlocks(blocksOf(xs), tail)
}

func (s *sidecar) Release(xs []raftlog.Extent) { s.store.ReleaseBlocks(blocksOf(xs)) }

// hold keeps the blocks of an entry that was found in the log.
func (s *sidecar) hold(xs []raftlog.Extent) error { return s.store.HoldBlocks(blocksOf(xs)) }

// blocksOf returns the extents as the store names them.
func blocksOf(xs []raftlog.Extent) []blockstore.Blocks {
	if len(xs) == 0 {
		return nil
	}
	runs := make([]blockstore.Blocks, len(xs))
	for i, x := range xs {
		runs[i] = blockstore.Blocks{Start: blockstore.Addr(x.Start), N: x.Blocks}
	}
	return runs
}

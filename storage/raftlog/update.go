package raftlog

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// SnapshotMeta is the position that a snapshot stands for.
type SnapshotMeta struct {
	// Index and Term are those of the last entry that the snapshot covers.
	Index, Term uint64
}

// Update is what one Append changes in one copyset. Its parts take effect in the order Remove, Reset, Entries,
// HardState, TruncateTo. The first Update that names a copyset creates it, with an empty log that starts at index 1.
type Update struct {
	// Copyset is the raft group. Not 0.
	Copyset layout.CopysetID
	// HardState replaces the group's; nil leaves it unchanged. Borrowed during Append.
	HardState *raftpb.HardState
	// Entries are appended; their indexes rise by one, the first is at most LastIndex+1 and above the truncation
	// point. Entries that the log has from that index on are replaced, they and all behind them. The entries and
	// their Data stay referenced by the cache: nobody may change or reuse them afterwards.
	Entries []*raftpb.Entry
	// Reset, if set, drops all entries and lets the log start behind an installed snapshot.
	Reset *SnapshotMeta
	// TruncateTo drops the entries up to and with this index, which must be in the log already (an earlier Append
	// wrote it) and must be covered by a durable checkpoint. At or below the truncation point it changes nothing.
	TruncateTo uint64
	// Remove forgets the copyset. The other fields must be empty, and no later Update of the same Append may name
	// the copyset. Removing an unknown copyset changes nothing.
	Remove bool
	// MustSync makes the Append durable before it returns. Append syncs by itself for entries, a term, a vote, a
	// Reset, a Remove and a new copyset; what may wait for the next sync is a commit index alone and a truncation.
	MustSync bool
}

// Package raftlog is the write-ahead log of one disk, shared by all copysets (raft groups) that live on it.
package raftlog

import (
	"errors"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

const headerBlock = 4096

// Log is the log of one disk. Append and Compact are called by one goroutine, the log writer, or under one lock;
// all other methods, and those of Group, may be called at any time by anyone.
type Log struct{}

var errAPI = errors.New("raftlog: under construction")

// Open recovers the log in dir, or makes a new one, and takes the directory's lock. It returns *CorruptError,
// *ForeignError or *VersionError, and changes no file, if the log is not one that it can continue.
func Open(fs vfs.FS, dir string, opts Options) (*Log, error) { return nil, errAPI }

// Append writes all updates as one batch: one write and one sync. When it returns nil, and any of the updates needed
// it (see Update.MustSync), all of them are durable; after a crash a batch that was not answered is there as a whole
// or not at all. *UpdateError and *NoSpaceError mean that nothing happened; any other error is a *FailedError.
func (l *Log) Append(updates []Update) error { return errAPI }

// Compaction is what one Compact did.
type Compaction struct {
	// Freed is the number of segments given back.
	Freed int
	// Moved is how many bytes of live records were written again.
	Moved int64
	// Pinning are the copysets whose entries keep the oldest segment, if it was not freed: a checkpoint of them
	// and the Update.TruncateTo behind it will free it.
	Pinning []layout.CopysetID
	// More tells that another call would free more at once.
	More bool
}

// Compact frees the oldest segment if nothing, or little, in it is still needed; what is needed it writes again at
// the end of the log. See the package comment. The owner calls it from the log writer's goroutine when
// Usage.Segments is above what it wants; it is cheap when there is nothing to do.
func (l *Log) Compact() (Compaction, error) { return Compaction{}, errAPI }

// PrepareSpare makes one zero-filled spare segment if there are fewer than Options.Spares and reports whether it did.
// Any goroutine may call it; it keeps the cost of a new file out of Append.
func (l *Log) PrepareSpare() (bool, error) { return false, errAPI }

// Group returns the log of one copyset.
func (l *Log) Group(id layout.CopysetID) (*Group, bool) { return nil, false }

// Copysets returns the copysets in the log, ascending.
func (l *Log) Copysets() []layout.CopysetID { return nil }

// Usage is the state of a log.
type Usage struct {
	// Bytes is the disk space of all segments, spares among them.
	Bytes int64
	// LiveBytes is how much of that is records still needed.
	LiveBytes int64
	// Segments is the number of segments in use, Spares that of the unused files.
	Segments, Spares int
	// Oldest is the number of the oldest segment, Newest that of the one being written.
	Oldest, Newest uint64
	// Pinning are the copysets with entries in the oldest segment, ascending; empty if there is just one segment.
	Pinning []layout.CopysetID
	// Entries is the number of entries in all logs; CachedEntries and CachedBytes are those held in memory.
	Entries, CachedEntries int
	CachedBytes            int64
	// Failed is the *FailedError that poisoned the log, or nil.
	Failed error
}

// Usage reports the state of the log.
func (l *Log) Usage() Usage { return Usage{} }

// Close syncs what Append left unsynced and closes the files.
func (l *Log) Close() error { return errAPI }

// Group is the log of one copyset. Its methods have the meaning and the errors of those of raft.Storage; what a
// Storage needs more, the configuration and the snapshot, the caller adds. All methods may be called concurrently
// with each other and with Append.
type Group struct{}

// Copyset returns the group's copyset.
func (g *Group) Copyset() layout.CopysetID { return 0 }

// HardState returns a copy of the last durable hard state, nil if none was ever set.
func (g *Group) HardState() *raftpb.HardState { return nil }

// FirstIndex returns the index of the first entry, one above the truncation point.
func (g *Group) FirstIndex() (uint64, error) { return 0, errAPI }

// LastIndex returns the index of the last entry, or the truncation point if there is none.
func (g *Group) LastIndex() (uint64, error) { return 0, errAPI }

// Term returns the term of entry i, from FirstIndex()-1 on: raft.ErrCompacted below, raft.ErrUnavailable above.
func (g *Group) Term(i uint64) (uint64, error) { return 0, errAPI }

// Entries returns the entries [lo, hi), as many as fit in maxSize bytes of their protobuf encoding but at least one.
// The caller owns the slice; the entries are shared and must not be changed. Errors: raft.ErrCompacted,
// raft.ErrUnavailable, ErrNoGroup, *CorruptError, or what reading the file returned.
func (g *Group) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) { return nil, errAPI }

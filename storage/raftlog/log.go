package raftlog

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/pages"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/spare"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// Log is the log of one disk. All methods may be called by anyone at any time; Append, Compact and Close wait for
// each other. It has no goroutines of its own.
type Log struct {
	fs   vfs.FS
	dir  string
	opts Options
	lock io.Closer

	// w is held by the log writer: Append, Compact and Close. It guards the fields below it and every Group.stage.
	w       sync.Mutex
	closed  bool
	active  *segment     // the one being written, the last of mu.segments
	off     int64        // where in active the next batch goes
	out     pages.Writer // of active, at off
	seq     uint64       // of the last batch written
	durable uint64       // the last batch that a sync has covered
	nextSeq uint64       // lower bound of the next batch's seq
	floor   uint64       // the lowest segment that recovery needs
	sealed  bool         // the last batch written is that of seal
	buf     []byte       // the batch under construction
	scratch []byte       // the payload of a sideloaded entry's record
	steps   []step       // the updates under way
	fresh   map[layout.CopysetID]*Group
	round   uint64 // counts Appends, to tell whether a Group.stage is of this one
	cache   cache
	side    Sidecar        // nil: none
	tails   []droppedTails // ascending by seq
	// zombies are segments that left the log while they were being read.
	zombies []*segment

	pool *spare.Pool

	// sideLoad is side, for readers.
	sideLoad atomic.Pointer[Sidecar]

	// failed is set once, by the log writer.
	failed atomic.Pointer[FailedError]
	// syncs and written are what Usage tells.
	syncs, written atomic.Uint64
	// done is set by Close.
	done atomic.Bool

	mu struct {
		sync.RWMutex
		groups   map[layout.CopysetID]*Group
		segments []*segment // ascending, without gaps
	}
}

// usable returns the error that the log is in.
func (l *Log) usable() error {
	if f := l.failed.Load(); f != nil {
		return f
	}
	if l.done.Load() {
		return ErrClosed
	}
	return nil
}

// fail poisons the log, leaves a note for the next Open and returns the error.
func (l *Log) fail(op string, err error) error {
	f := &FailedError{Op: op, Err: err}
	l.failed.Store(f)
	l.distrust(f)
	return f
}

// distrust notes on the disk that the log must not be opened again. A disk that fails may refuse this too, so
// whoever keeps state elsewhere should note it there.
func (l *Log) distrust(cause error) {
	f, err := l.fs.Open(l.path(distrustedName), vfs.CreateMissing)
	if err != nil {
		return
	}
	if _, err = f.WriteAt([]byte(cause.Error()+"\n"), 0); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil && cerr == nil {
		_ = vfs.SyncDir(l.fs, l.dir) // best effort, see above
	}
}

// Group returns the log of one copyset.
func (l *Log) Group(id layout.CopysetID) (*Group, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	g, ok := l.mu.groups[id]
	return g, ok
}

// Copysets returns the copysets in the log, ascending.
func (l *Log) Copysets() []layout.CopysetID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	ids := make([]layout.CopysetID, 0, len(l.mu.groups))
	for id := range l.mu.groups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// groups returns all groups, by copyset.
func (l *Log) groups() []*Group {
	l.mu.RLock()
	defer l.mu.RUnlock()
	gs := make([]*Group, 0, len(l.mu.groups))
	for _, g := range l.mu.groups {
		gs = append(gs, g)
	}
	slices.SortFunc(gs, func(a, b *Group) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return gs
}

// segments returns the segments, oldest first.
func (l *Log) segments() []*segment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.mu.segments)
}

// Segments returns the number of segments in use, without the walk over all copysets that Usage makes.
func (l *Log) Segments() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.mu.segments)
}

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
	// Syncs is how often the log was synced since Open, Written how many entries it took.
	Syncs, Written uint64
	// Failed is the *FailedError that poisoned the log, or nil.
	Failed error
}

// Length returns how many segments there are, Syncs how many syncs there were, Bytes the disk space. Unlike Usage they cost
// little, however many groups there are.
func (l *Log) Length() int { return len(l.segments()) }

// Syncs is that of Usage, as Length is.
func (l *Log) Syncs() uint64 { return l.syncs.Load() }

// Bytes is that of Usage, as Length is.
func (l *Log) Bytes() (n int64) {
	for _, s := range l.segments() {
		n += s.size
	}
	_, spare := l.pool.Count()
	return n + spare
}

// Usage reports the state of the log.
func (l *Log) Usage() Usage {
	var u Usage
	segs := l.segments()
	u.Bytes = l.Bytes()
	for _, s := range segs {
		u.LiveBytes += s.bytes.Load()
	}
	u.Segments = len(segs)
	if len(segs) > 0 {
		u.Oldest, u.Newest = segs[0].number, segs[len(segs)-1].number
	}
	u.Spares, _ = l.pool.Count()
	for _, g := range l.groups() {
		n, pins := g.usage(segs[0])
		u.Entries += n
		if pins && len(segs) > 1 {
			u.Pinning = append(u.Pinning, g.id)
		}
	}
	u.CachedEntries, u.CachedBytes = int(l.cache.count.Load()), l.cache.bytes.Load()
	u.Syncs, u.Written = l.syncs.Load(), l.written.Load()
	if f := l.failed.Load(); f != nil {
		u.Failed = f
	}
	return u
}

// usage returns the number of entries and whether one of them lies in the oldest segment.
func (g *Group) usage(oldest *segment) (entries int, pins bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for i := range g.mu.slots {
		s := &g.mu.slots[i]
		if s.seg == oldest {
			return len(g.mu.slots), true
		}
		if !s.moved() {
			break
		}
	}
	return len(g.mu.slots), false
}

// Close syncs what Append left unsynced, closes the files and releases the directory. Reads of entries that are not in
// memory fail afterwards, and no PrepareSpare may be under way. The error of a failed log is returned too.
func (l *Log) Close() error {
	l.w.Lock()
	defer l.w.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.closed = true
	l.done.Store(true)
	err := l.seal()
	return errors.Join(err, l.release())
}

// seal writes an empty batch behind the last one, if there is room: it says that the others were durable, so damage
// to them will not be taken for a torn tail.
func (l *Log) seal() error {
	if f := l.failed.Load(); f != nil {
		return f
	}
	if err := l.sync(); err != nil {
		return err
	}
	if l.sealed || l.off == headerBlock || l.off+batchHeader > l.active.size {
		return nil
	}
	l.begin()
	if err := l.write(); err != nil {
		return err
	}
	return l.sync()
}

// release closes all files.
func (l *Log) release() error {
	errs := []error{l.out.Close()}
	for _, s := range l.segments() {
		errs = append(errs, s.file.Close())
	}
	for _, s := range l.zombies {
		errs = append(errs, s.file.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

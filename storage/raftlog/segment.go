package raftlog

import (
	"errors"
	"path"
	"sync/atomic"
	"syscall"

	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/spare"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	segmentSuffix  = ".log"
	lockName       = "LOCK"
	distrustedName = "DISTRUSTED"
)

// segment is one file of the log. All fields but the counters are set when it is made.
type segment struct {
	number uint64
	size   int64
	seed   uint32
	file   vfs.File

	// records and bytes count what is live in the segment. Only the log writer changes them.
	records, bytes atomic.Int64
	// readers counts the reads under way; it rises only while an entry in the segment is live.
	readers atomic.Int64
}

func (s *segment) name() string { return segmentName(s.number) }

// hold counts one live record in, drop counts it out.
func (s *segment) hold(size int) { s.records.Add(1); s.bytes.Add(int64(size)) }
func (s *segment) drop(size int) { s.records.Add(-1); s.bytes.Add(-int64(size)) }

func segmentName(number uint64) string { return spare.Name(number, segmentSuffix) }

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (l *Log) path(name string) string { return path.Join(l.dir, name) }

// PrepareSpare makes one zero-filled spare segment if there are fewer than Options.Spares and reports whether it did.
// Any goroutine may call it; it keeps the cost of a new file out of Append. Errors: *NoSpaceError, *FailedError of a log
// that failed earlier, ErrClosed, or what the file system returned, which does not harm the log.
func (l *Log) PrepareSpare() (bool, error) {
	if err := l.usable(); err != nil {
		return false, err
	}
	made, err := l.pool.Prepare(l.opts.SegmentSize, l.opts.Spares)
	if isNoSpace(err) {
		return false, &NoSpaceError{Err: err}
	}
	return made, err
}

// obtainSpare returns a file of at least size bytes that can become a segment.
func (l *Log) obtainSpare(size int64, reserve bool) (spare.File, error) {
	if size == l.opts.SegmentSize {
		if sp, ok := l.pool.Take(reserve); ok {
			return sp, nil
		}
	}
	return l.pool.Make(size, false)
}

// startSegment makes the segment that follows and lets the log write to it. Everything written before must be
// durable. *NoSpaceError leaves the log as it was; other errors fail it.
func (l *Log) startSegment(need int64, reserve bool) error {
	size := max(l.opts.SegmentSize, (headerBlock+need+headerBlock-1)&^(headerBlock-1))
	sp, err := l.obtainSpare(size, reserve)
	if err != nil {
		if isNoSpace(err) {
			return &NoSpaceError{Err: err}
		}
		return l.fail("make a segment", err)
	}
	number := l.lastNumber() + 1
	h := segmentHeader{
		version: formatVersion, identity: l.opts.Identity, number: number, prev: l.seq, floor: l.floor, size: uint64(size),
	}
	f, err := l.fs.Open(l.path(sp.Name), vfs.ReadWrite)
	if err != nil {
		return l.fail("open a spare", err)
	}
	s := &segment{number: number, size: size, seed: seedOf(l.opts.Identity, number), file: f}
	if _, err := f.WriteAt(h.appendTo(nil), 0); err != nil {
		_ = f.Close() // the first error wins
		return l.fail("write a segment's header", err)
	}
	if err := f.Sync(); err != nil {
		_ = f.Close() // the first error wins
		return l.fail("sync a segment's header", err)
	}
	if err := l.fs.Rename(l.path(sp.Name), l.path(s.name())); err != nil {
		_ = f.Close() // the first error wins
		if isNoSpace(err) {
			l.pool.Put(sp)
			return &NoSpaceError{Err: err}
		}
		return l.fail("rename a spare", err)
	}
	if err := vfs.SyncDir(l.fs, l.dir); err != nil {
		_ = f.Close() // the first error wins
		return l.fail("sync the directory", err)
	}
	if err := l.out.Open(l.fs, l.path(s.name()), f, headerBlock); err != nil {
		_ = f.Close() // the first error wins
		return l.fail("open a segment", err)
	}
	l.mu.Lock()
	l.mu.segments = append(l.mu.segments, s)
	l.mu.Unlock()
	l.active, l.off = s, headerBlock
	return nil
}

// lastNumber returns the number of the newest segment, 0 if there is none.
func (l *Log) lastNumber() uint64 {
	if l.active == nil {
		return 0
	}
	return l.active.number
}

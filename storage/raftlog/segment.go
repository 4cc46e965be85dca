package raftlog

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	segmentSuffix  = ".log"
	spareSuffix    = ".spare"
	lockName       = "LOCK"
	distrustedName = "DISTRUSTED"
	zeroFill       = 1 << 20 // bytes of one write when a spare is filled
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

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }
func spareName(number uint64) string   { return fmt.Sprintf("%016x%s", number, spareSuffix) }

// parseName reads a name that segmentName or spareName made.
func parseName(name, suffix string) (number uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 16, 64)
	return number, err == nil && strings.ToLower(digits) == digits
}

// spare is a file that waits to become a segment.
type spare struct {
	name string
	size int64
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (l *Log) path(name string) string { return path.Join(l.dir, name) }

func (l *Log) nextSpareName() string {
	l.pool.Lock()
	defer l.pool.Unlock()
	l.pool.next++
	return spareName(l.pool.next)
}

// makeSpare makes a file of size bytes under a spare's name. fill writes and syncs it, which makes the first pass
// over it as fast as the later ones; else its blocks are only reserved. After an error no file is left.
func (l *Log) makeSpare(size int64, fill bool) (spare, error) {
	sp := spare{name: l.nextSpareName(), size: size}
	f, err := l.fs.Create(l.path(sp.name))
	if err != nil {
		return spare{}, err
	}
	err = f.Preallocate(0, size, false)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		fill, err = true, nil
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && fill {
		err = fillZero(l.fs, l.path(sp.name), size)
	}
	if err != nil {
		_ = l.fs.Remove(l.path(sp.name)) // the first error wins; Open removes what stays
		return spare{}, err
	}
	return sp, nil
}

// fillZero writes zeros to all of a file and syncs it: past the page cache where the file system can, for else the zeros
// cost two copies and push out what is wanted.
func fillZero(fs vfs.FS, name string, size int64) error {
	err := fillBy(fs, name, size, vfs.ReadWrite|vfs.Direct)
	if errors.Is(err, syscall.EINVAL) { // no direct I/O here
		err = fillBy(fs, name, size, vfs.ReadWrite)
	}
	return err
}

func fillBy(fs vfs.FS, name string, size int64, flags vfs.OpenFlags) error {
	f, err := fs.Open(name, flags)
	if err != nil {
		return err
	}
	zeros := vfs.Aligned(int(min(size, zeroFill)))
	for off := int64(0); err == nil && off < size; off += zeroFill {
		_, err = f.WriteAt(zeros[:min(size-off, zeroFill)], off)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// PrepareSpare makes one zero-filled spare segment if there are fewer than Options.Spares and reports whether it did.
// Any goroutine may call it; it keeps the cost of a new file out of Append. Errors: *NoSpaceError, *FailedError of a log
// that failed earlier, ErrClosed, or what the file system returned, which does not harm the log.
func (l *Log) PrepareSpare() (bool, error) {
	if err := l.usable(); err != nil {
		return false, err
	}
	if !l.pool.begin(l.opts.Spares) {
		return false, nil
	}
	sp, err := l.makeSpare(l.opts.SegmentSize, true)
	l.pool.end(sp, err == nil)
	if isNoSpace(err) {
		return false, &NoSpaceError{Err: err}
	}
	return err == nil, err
}

// begin claims a place in the pool for a spare about to be made.
func (p *sparePool) begin(limit int) bool {
	p.Lock()
	defer p.Unlock()
	if len(p.files)+p.making >= limit {
		return false
	}
	p.making++
	return true
}

func (p *sparePool) end(sp spare, ok bool) {
	p.Lock()
	defer p.Unlock()
	p.making--
	if ok {
		p.files = append(p.files, sp)
	}
}

func (p *sparePool) put(sp spare) {
	p.Lock()
	defer p.Unlock()
	p.files = append(p.files, sp)
}

// take gives a spare out; the last one only to those who may use the reserve.
func (p *sparePool) take(reserve bool) (spare, bool) {
	p.Lock()
	defer p.Unlock()
	n := len(p.files)
	if n == 0 || n == 1 && !reserve {
		return spare{}, false
	}
	sp := p.files[n-1]
	p.files = p.files[:n-1]
	return sp, true
}

func (p *sparePool) count() (files int, bytes int64) {
	p.Lock()
	defer p.Unlock()
	for _, sp := range p.files {
		bytes += sp.size
	}
	return len(p.files), bytes
}

// obtainSpare returns a file of at least size bytes that can become a segment.
func (l *Log) obtainSpare(size int64, reserve bool) (spare, error) {
	if size == l.opts.SegmentSize {
		if sp, ok := l.pool.take(reserve); ok {
			return sp, nil
		}
	}
	return l.makeSpare(size, false)
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
	f, err := l.fs.Open(l.path(sp.name), vfs.ReadWrite)
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
	if err := l.fs.Rename(l.path(sp.name), l.path(s.name())); err != nil {
		_ = f.Close() // the first error wins
		if isNoSpace(err) {
			l.pool.put(sp)
			return &NoSpaceError{Err: err}
		}
		return l.fail("rename a spare", err)
	}
	if err := vfs.SyncDir(l.fs, l.dir); err != nil {
		_ = f.Close() // the first error wins
		return l.fail("sync the directory", err)
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

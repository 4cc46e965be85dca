package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path"
	"slices"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/spare"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// seqJump is how far every Open lets the sequence of batches jump. No run leaves as many batches unsynced.
const seqJump = 1 << 32

// Open recovers the log in dir, or makes a new one, and takes the directory's lock; vfs.ErrLocked tells that another
// process has it. It returns *CorruptError, *ForeignError, *VersionError or *FailedError (of an earlier run), and
// changes no file, if the log is not one that it can continue.
func Open(fs vfs.FS, dir string, opts Options) (*Log, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	if err := fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	l := &Log{fs: fs, dir: dir, opts: opts, fresh: map[layout.CopysetID]*Group{}, pool: spare.NewPool(fs, dir)}
	l.cache.limit = max(0, opts.CacheBytes)
	l.mu.groups = map[layout.CopysetID]*Group{}
	lock, err := fs.Lock(l.path(lockName))
	if err != nil {
		return nil, err
	}
	l.lock = lock
	if err := l.open(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

// open recovers, and only then changes the directory.
func (l *Log) open() error {
	d, err := l.look()
	if err != nil {
		return err
	}
	if len(d.segments) == 0 && l.opts.MustExist {
		return ErrNoLog
	}
	r := recovery{l: l, groups: map[layout.CopysetID]*builder{}}
	if len(d.segments) > 0 {
		if err := r.run(d.segments); err != nil {
			return err
		}
	}
	if err := l.tidy(d); err != nil {
		return err
	}
	if l.active == nil {
		return l.found()
	}
	// What was read may be in the page cache only.
	if err := l.active.file.Sync(); err != nil {
		return l.fail("sync "+l.active.name(), err)
	}
	if err := vfs.SyncDir(l.fs, l.dir); err != nil {
		return l.fail("sync the directory", err)
	}
	l.durable = l.seq
	if err := l.out.Open(l.fs, l.path(l.active.name()), l.active.file, l.off); err != nil {
		return err
	}
	return l.reserveSpare()
}

// found makes the first segment. The directory itself is made durable too.
func (l *Log) found() error {
	l.floor = 1
	if err := vfs.SyncDir(l.fs, path.Dir(l.dir)); err != nil {
		return err
	}
	for range 2 { // one for the segment, one as the reserve
		if err := l.reserveSpare(); err != nil {
			return err
		}
		if l.active == nil {
			if err := l.startSegment(0, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserveSpare makes a spare if there is none. A full disk is no error.
func (l *Log) reserveSpare() error {
	if n, _ := l.pool.Count(); n > 0 {
		return nil
	}
	_, err := l.PrepareSpare()
	var full *NoSpaceError
	if errors.As(err, &full) {
		return nil
	}
	return err
}

// listing is what lies in the directory.
type listing struct {
	segments []uint64 // ascending
	spares   []string
}

func (l *Log) look() (listing, error) {
	var d listing
	names, err := l.fs.List(l.dir)
	if err != nil {
		return d, err
	}
	for _, name := range names {
		if number, ok := spare.ParseName(name, segmentSuffix); ok {
			d.segments = append(d.segments, number)
		}
		if number, ok := spare.ParseName(name, spare.Suffix); ok {
			d.spares = append(d.spares, name)
			l.pool.Saw(number)
		}
		if name == distrustedName {
			return d, l.readDistrust()
		}
	}
	slices.Sort(d.segments)
	return d, nil
}

// readDistrust returns the *FailedError that an earlier run noted.
func (l *Log) readDistrust() error {
	const longest = 512
	text := make([]byte, longest)
	f, err := l.fs.Open(l.path(distrustedName), vfs.ReadOnly)
	if err != nil {
		return err
	}
	n, err := f.ReadAt(text, 0)
	if cerr := f.Close(); errors.Is(err, io.EOF) || err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return &FailedError{Op: "an earlier run", Err: fmt.Errorf("%q", bytes.TrimSpace(text[:n]))}
}

// tidy removes what recovery does not need: segments below the floor, surplus or incomplete spares.
func (l *Log) tidy(d listing) error {
	for _, number := range d.segments {
		if number < l.floor {
			if err := l.fs.Remove(l.path(segmentName(number))); err != nil {
				return err
			}
		}
	}
	for _, name := range d.spares {
		info, err := l.fs.Stat(l.path(name))
		if err != nil {
			return err
		}
		if n, _ := l.pool.Count(); n < sparesKept*l.opts.Spares && info.Size == l.opts.SegmentSize {
			l.pool.Put(spare.File{Name: name, Size: info.Size})
		} else if err := l.fs.Remove(l.path(name)); err != nil {
			return err
		}
	}
	return nil
}

// loadHeader opens segment number and checks its header. The caller closes the file, which is nil after an error.
func (l *Log) loadHeader(number uint64) (segmentHeader, vfs.File, error) {
	f, err := l.fs.Open(l.path(segmentName(number)), vfs.ReadWrite)
	if err != nil {
		return segmentHeader{}, nil, err
	}
	h, err := l.checkHeader(number, f)
	if err != nil {
		return h, nil, errors.Join(err, f.Close())
	}
	return h, f, nil
}

func (l *Log) checkHeader(number uint64, f vfs.File) (segmentHeader, error) {
	name := segmentName(number)
	corrupt := func(reason string) error { return &CorruptError{Segment: name, Reason: reason} }
	var b [headerBytes]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return segmentHeader{}, err
	}
	h, ok := parseHeader(b[:])
	switch {
	case !ok:
		return h, corrupt("the header is damaged")
	case h.version > formatVersion:
		return h, &VersionError{Segment: name, Got: h.version, Max: formatVersion, What: "segment version"}
	case h.identity != l.opts.Identity:
		return h, &ForeignError{Segment: name, Got: h.identity, Want: l.opts.Identity}
	case h.number != number:
		return h, corrupt(fmt.Sprintf("the header is that of segment %d", h.number))
	case h.version == 0 || h.size < headerBlock || h.size > MaxBatchBytes+2*headerBlock || h.size%headerBlock != 0:
		return h, corrupt(fmt.Sprintf("the header has version %d and size %d", h.version, h.size))
	}
	size, err := f.Size()
	if err != nil {
		return h, err
	}
	if uint64(size) < h.size {
		return h, corrupt(fmt.Sprintf("the file has %d bytes instead of %d", size, h.size))
	}
	return h, nil
}

// checkObsolete refuses a segment below the floor that is not this log's; its content does not matter.
func (l *Log) checkObsolete(number uint64) error {
	_, f, err := l.loadHeader(number)
	var corrupt *CorruptError
	switch {
	case errors.As(err, &corrupt), errors.Is(err, iofs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return f.Close()
}

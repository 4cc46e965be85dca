package raftlog

import (
	"errors"
	"fmt"
)

// The limits of the format and of Options.
const (
	// MaxEntryBytes is the largest payload of one entry.
	MaxEntryBytes = 64 << 20
	// MaxBatchBytes is the most that one Append may write, with headers. A batch above the segment size gets a
	// segment of its own size.
	MaxBatchBytes = 1 << 30
	// MinSegmentSize and MaxSegmentSize bound Options.SegmentSize.
	MinSegmentSize = 16 << 10
	MaxSegmentSize = 1 << 30
	// MaxSpares bounds Options.Spares.
	MaxSpares = 64
)

// Options configures a log.
type Options struct {
	// Identity is the UUID of the log (of the chunkserver whose disk it is). Segments of another identity are
	// refused. Required.
	Identity [16]byte
	// SegmentSize is the size of a segment file in bytes, rounded up to 4096. Zero: 64 MiB.
	SegmentSize int64
	// CacheBytes bounds the entries kept in memory, over all copysets, in bytes. Zero: 64 MiB. Negative: none.
	CacheBytes int64
	// Spares is how many unused segment files are kept ready; writing over a used file is the fastest way to append. Of
	// segments that are freed up to four times as many are kept. Open makes at least one, which is also the reserve that NoSpaceError speaks of. Zero: 4.
	Spares int
	// MustExist makes Open fail with ErrNoLog instead of making a new log: for a chunkserver that has had one.
	MustExist bool
}

// DefaultOptions returns the options with every zero field but Identity set to its default.
func DefaultOptions() Options {
	return Options{SegmentSize: 64 << 20, CacheBytes: 64 << 20, Spares: 4}
}

// withDefaults fills the zero fields.
func (o Options) withDefaults() Options {
	d := DefaultOptions()
	if o.SegmentSize == 0 {
		o.SegmentSize = d.SegmentSize
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = d.CacheBytes
	}
	if o.Spares == 0 {
		o.Spares = d.Spares
	}
	o.SegmentSize = (o.SegmentSize + headerBlock - 1) &^ (headerBlock - 1)
	return o
}

// Validate reports the first option that is out of its limits.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch {
	case o.Identity == [16]byte{}:
		return errors.New("raftlog: Options.Identity is not set")
	case o.SegmentSize < MinSegmentSize || o.SegmentSize > MaxSegmentSize:
		return fmt.Errorf("raftlog: Options.SegmentSize %d is not in [%d, %d]", o.SegmentSize, MinSegmentSize, MaxSegmentSize)
	case o.Spares < 1 || o.Spares > MaxSpares:
		return fmt.Errorf("raftlog: Options.Spares %d is not in [1, %d]", o.Spares, MaxSpares)
	}
	return nil
}

package thirdparty

import (
	"bytes"
	"context"
)

// holeMin is the shortest run of bytes that were never written which is worth being told apart from data, in bytes.
const holeMin = 64 << 10

// sector is what offsets and lengths of a Medium are multiples of, in bytes.
const sector = 512

// move copies from one medium to another. What was never written in the source is not written in the destination either.
type move struct {
	source, destination *Unit
	from, to, length    int64 // bytes
	buffer              []byte
	// moved is called with what was written, in bytes.
	moved func(int64)

	// known is the offset up to which the source is known to have been written.
	known int64
}

// sideError is an error of the source or, when writing, of the destination.
type sideError struct {
	err     error
	writing bool
}

// run copies all of it. Where source and destination overlap, the destination has afterwards what the source had before.
func (m *move) run(ctx context.Context) *sideError {
	if m.source.ID == m.destination.ID && m.from < m.to && m.to < m.from+m.length {
		return m.backward(ctx)
	}
	for at := int64(0); at < m.length; {
		n, failed := m.piece(ctx, at, m.length-at)
		if failed != nil {
			return failed
		}
		at += n
	}
	return nil
}

// backward copies piece by piece from the end, so that nothing is written over before it was read.
func (m *move) backward(ctx context.Context) *sideError {
	for end := m.length; end > 0; {
		n := min(end, int64(len(m.buffer)))
		if failed := allowed(ctx, m.source, m.destination); failed != nil {
			return failed
		}
		if failed := m.data(ctx, end-n, n); failed != nil {
			return failed
		}
		end -= n
	}
	return nil
}

// piece copies some of the length bytes at at, and returns how many.
func (m *move) piece(ctx context.Context, at, length int64) (int64, *sideError) {
	if failed := allowed(ctx, m.source, m.destination); failed != nil {
		return 0, failed
	}
	if at >= m.known {
		written, run, err := m.source.Medium.Allocated(ctx, m.from+at, length)
		if err != nil {
			return 0, &sideError{err, false}
		}
		run = min(max(run, sector)&^(sector-1), length)
		if !written && (run == length || run >= holeMin) {
			if err := m.destination.Medium.Zero(ctx, m.to+at, run); err != nil {
				return 0, &sideError{err, true}
			}
			m.moved(run)
			return run, nil
		}
		m.known = at + min(max(run, holeMin), length)
	}
	n := min(m.known-at, int64(len(m.buffer)))
	return n, m.data(ctx, at, n)
}

// data copies n bytes at at, which fit the buffer.
func (m *move) data(ctx context.Context, at, n int64) *sideError {
	p := m.buffer[:n]
	if err := m.source.Medium.Read(ctx, p, m.from+at); err != nil {
		return &sideError{err, false}
	}
	if err := m.destination.Medium.Write(ctx, p, m.to+at); err != nil {
		return &sideError{err, true}
	}
	m.moved(n)
	return nil
}

// allowed is asked before each piece.
func allowed(ctx context.Context, source, destination *Unit) *sideError {
	switch {
	case ctx.Err() != nil:
		return &sideError{context.Cause(ctx), true}
	case !source.Present():
		return &sideError{errAway, false}
	case destination != source && !destination.Present():
		return &sideError{errAway, true}
	}
	return nil
}

// fetch fills p from off, without asking for data that were never written.
func fetch(ctx context.Context, medium Medium, p []byte, off int64) error {
	written, run, err := medium.Allocated(ctx, off, int64(len(p)))
	switch {
	case err != nil:
		return err
	case !written && run >= int64(len(p)):
		clear(p)
		return nil
	}
	return medium.Read(ctx, p, off)
}

// store writes p at off; zeroes take no space.
func store(ctx context.Context, medium Medium, p []byte, off int64) error {
	if zero(p) {
		return medium.Zero(ctx, off, int64(len(p)))
	}
	return medium.Write(ctx, p, off)
}

// zero tells whether all of p is zero.
func zero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}

// Package ram is a block store in memory. It is what a target is measured over whose own speed is of interest: an
// operation costs one copy and never waits.
//
//	        lockSpan   lockSpan   lockSpan
//	data  ├──────────┼──────────┼──────────┤ ...
//	locks   locks[0]   locks[1]   locks[2]   ... again from locks[0] after lockCount
package ram

import (
	"errors"
	"sync"
)

const (
	// lockSpan is the length of the ranges that have a lock of their own, in bytes.
	lockSpan = 1 << 20
	// lockCount is the number of locks.
	lockCount = 256
)

// ErrRange says that an operation goes beyond the end of the store.
var ErrRange = errors.New("ram: beyond the end")

// Store is a block store in memory. Its methods may be called from any goroutine. An operation is atomic within each
// range of lockSpan bytes.
type Store struct {
	data  []byte
	locks [lockCount]sync.RWMutex
}

// New makes a store of size bytes, all zero.
func New(size int64) *Store { return &Store{data: make([]byte, size)} }

// Size returns the length in bytes.
func (s *Store) Size() int64 { return int64(len(s.data)) }

// ReadAt fills p from off, or returns ErrRange.
func (s *Store) ReadAt(p []byte, off int64) error {
	return s.each(p, off, func(m *sync.RWMutex, p, at []byte) {
		m.RLock()
		copy(p, at)
		m.RUnlock()
	})
}

// WriteAt stores p at off, or returns ErrRange. p is the caller's again afterwards.
func (s *Store) WriteAt(p []byte, off int64) error {
	return s.each(p, off, func(m *sync.RWMutex, p, at []byte) {
		m.Lock()
		copy(at, p)
		m.Unlock()
	})
}

// Update calls f with the bytes from off to off+n, which f may change; nothing else reads or writes them meanwhile. They
// do not cross a multiple of lockSpan, else the error is ErrRange.
func (s *Store) Update(off, n int64, f func(b []byte)) error {
	if off < 0 || n < 0 || off > s.Size()-n || off/lockSpan != (off+max(n, 1)-1)/lockSpan {
		return ErrRange
	}
	m := &s.locks[off/lockSpan%lockCount]
	m.Lock()
	defer m.Unlock()
	f(s.data[off : off+n : off+n])
	return nil
}

// Zero clears length bytes from off, or returns ErrRange.
func (s *Store) Zero(off, length int64) error {
	if off < 0 || length < 0 || off > s.Size()-length {
		return ErrRange
	}
	for length > 0 {
		n := min(length, lockSpan-off%lockSpan)
		if err := s.Update(off, n, func(b []byte) { clear(b) }); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// each calls f for the parts of p that have one lock, with the memory that they belong to.
func (s *Store) each(p []byte, off int64, f func(m *sync.RWMutex, p, at []byte)) error {
	if off < 0 || off > s.Size()-int64(len(p)) {
		return ErrRange
	}
	for len(p) > 0 {
		n := min(int64(len(p)), lockSpan-off%lockSpan)
		f(&s.locks[off/lockSpan%lockCount], p[:n], s.data[off:off+n])
		p, off = p[n:], off+n
	}
	return nil
}

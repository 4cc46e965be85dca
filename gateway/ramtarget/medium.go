package main

import (
	"bytes"
	"context"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/ram"
)

// medium is a store as a scsi.Backend that answers at once.
type medium struct{ store *ram.Store }

// Read implements scsi.Backend.
func (m medium) Read(_ context.Context, p []byte, off int64) error { return m.store.ReadAt(p, off) }

// Write implements scsi.Backend.
func (m medium) Write(_ context.Context, p []byte, off int64) error { return m.store.WriteAt(p, off) }

// TryRead implements scsi.Prompt.
func (m medium) TryRead(p []byte, off int64) (bool, error) { return true, m.store.ReadAt(p, off) }

// TryWrite implements scsi.Prompt.
func (m medium) TryWrite(p []byte, off int64) (bool, error) { return true, m.store.WriteAt(p, off) }

// Unmap implements scsi.Backend.
func (m medium) Unmap(_ context.Context, off, length int64) error { return m.store.Zero(off, length) }

// CompareAndWrite implements scsi.Backend.
func (m medium) CompareAndWrite(_ context.Context, off int64, compare, write []byte) (int, error) {
	mismatch := -1
	err := m.store.Update(off, int64(len(compare)), func(b []byte) {
		if bytes.Equal(b, compare) {
			copy(b, write)
			return
		}
		for mismatch = 0; b[mismatch] == compare[mismatch]; {
			mismatch++
		}
	})
	return mismatch, err
}

// Allocated implements scsi.Backend: everything is.
func (medium) Allocated(_ context.Context, _, length int64) (bool, int64, error) {
	return true, length, nil
}

// slow is a medium whose reads and writes take a while, and which never has an answer at hand.
type slow struct {
	scsi.Backend
	latency time.Duration
}

// Read implements scsi.Backend.
func (s *slow) Read(ctx context.Context, p []byte, off int64) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Backend.Read(ctx, p, off)
}

// Write implements scsi.Backend.
func (s *slow) Write(ctx context.Context, p []byte, off int64) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Backend.Write(ctx, p, off)
}

func (s *slow) wait(ctx context.Context) error {
	if s.latency == 0 {
		return nil
	}
	t := time.NewTimer(s.latency)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

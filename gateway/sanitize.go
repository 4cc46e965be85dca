package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// How a volume is sanitized.
const (
	// overwriteRate bounds an overwrite, in bytes a second: hosts of other volumes use the same disks.
	overwriteRate = 32 << 20
	// overwritePiece and erasePiece are what is done at once, in bytes. Progress is told after each.
	overwritePiece, erasePiece = 1 << 20, 64 << 20
)

// erasure is what the SANITIZEs of one volume on this gateway came to.
type erasure struct {
	status atomic.Pointer[sanitize.Status]
	// one is held by the operation that runs.
	one sync.Mutex
}

func newErasure() *erasure {
	e := &erasure{}
	e.status.Store(&sanitize.Status{})
	return e
}

// erasures runs the SANITIZEs of a gateway: each in a goroutine of its own that ends with its work, or when stop is called.
type erasures struct {
	ctx    context.Context //nolint:containedctx // of the goroutines, which outlive the commands that began them
	cancel context.CancelFunc
	wg     sync.WaitGroup
	rate   int64
	// ended is told of each end, nil when all is done.
	ended func(id layout.VolumeID, err error)
}

func newErasures() *erasures {
	s := &erasures{rate: overwriteRate, ended: func(layout.VolumeID, error) {}}
	s.ctx, s.cancel = context.WithCancel(reservation.Exempt(context.Background()))
	return s
}

// stop ends what runs, as it is, and waits for it. Nothing may be begun any more.
func (s *erasures) stop() {
	s.cancel()
	s.wg.Wait()
}

var _ scsi.Sanitizer = (*medium)(nil)

// Sanitizing implements scsi.Sanitizer.
func (m *medium) Sanitizing() sanitize.Status { return *m.erasure.status.Load() }

// ExitSanitize implements scsi.Sanitizer.
func (m *medium) ExitSanitize() {
	if old := m.erasure.status.Load(); old.State == sanitize.Failed {
		m.erasure.status.CompareAndSwap(old, &sanitize.Status{})
	}
}

// Sanitize implements scsi.Sanitizer. The work is done in the tenancy of its command, so it ends with a failure when the
// initiator's path moves to another gateway or its right to the volume is taken away.
func (m *medium) Sanitize(ctx context.Context, o sanitize.Order, size int64) (<-chan struct{}, error) {
	h, err := m.tenancy(ctx)
	if err != nil {
		return nil, err
	}
	e, s := m.erasure, m.owner.erasures
	if s.ctx.Err() != nil || !e.one.TryLock() {
		return nil, scsi.ErrSanitizing
	}
	if m.owner.Open(m.volume, m.initiator) != m {
		e.one.Unlock()
		return nil, scsi.ErrAccessRevoked
	}
	e.status.Store(&sanitize.Status{State: sanitize.Running, Exit: o.Exit})
	done := make(chan struct{})
	s.wg.Go(func() {
		defer close(done)
		defer m.owner.Release(m)
		err := m.erase(s, h, o, size)
		state := sanitize.Idle
		if err != nil {
			state = sanitize.Failed
		}
		e.status.Store(&sanitize.Status{State: state, Exit: o.Exit})
		e.one.Unlock()
		s.ended(m.volume, err)
	})
	return done, nil
}

// erase does what o asks for on the first size bytes, and tells how far it is.
func (m *medium) erase(s *erasures, h *volume.Handle, o sanitize.Order, size int64) error {
	if o.Passes == 0 {
		return m.unmapAll(s.ctx, h, o, size)
	}
	buf := make([]byte, min(size, overwritePiece))
	total := uint64(o.Passes) * uint64(size)
	begun, done := time.Now(), uint64(0)
	for pass := range o.Passes {
		o.Fill(buf, pass)
		for off := int64(0); off < size; {
			n := min(size-off, int64(len(buf)))
			if err := h.WriteAt(s.ctx, buf[:n], off); err != nil {
				return m.outcome(h, err, off)
			}
			off, done = off+n, done+uint64(n)
			m.progress(o, done, total)
			due := begun.Add(time.Duration(float64(done) / float64(s.rate) * float64(time.Second)))
			if err := sleep(s.ctx, time.Until(due)); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmapAll unmaps the first size bytes. What is not a whole block at the end is written with zeroes.
func (m *medium) unmapAll(ctx context.Context, h *volume.Handle, o sanitize.Order, size int64) error {
	whole := size &^ (scsi.ProvisioningBlock - 1)
	for off := int64(0); off < whole; {
		n := min(whole-off, erasePiece)
		if err := h.Discard(ctx, off, n); err != nil {
			return m.outcome(h, err, off)
		}
		off += n
		m.progress(o, uint64(off), uint64(size))
	}
	if whole == size {
		return nil
	}
	return m.outcome(h, h.WriteAt(ctx, make([]byte, size-whole), whole), whole)
}

func (m *medium) progress(o sanitize.Order, done, total uint64) {
	m.erasure.status.Store(&sanitize.Status{State: sanitize.Running, Progress: sanitize.ProgressOf(done, total), Exit: o.Exit})
}

// sleep waits for d, less if ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

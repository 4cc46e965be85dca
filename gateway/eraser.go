package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// eraser carries out one SANITIZE as long as it has the claim. It is of one goroutine.
type eraser struct {
	s *erasures
	e *erasure
	// z is what is to be done; its Done is how much is.
	z        reservation.Sanitize
	access   uint64
	reported time.Time
	handle   *volume.Handle
}

// run goes on from where it is to the end. Nil: all is done, and that is recorded. Any other error than one that it has recorded
// as the failure leaves the claim to whoever comes.
func (w *eraser) run(ctx context.Context) error {
	defer w.release()
	begun, from := time.Now(), w.z.Done
	var buf []byte
	if w.z.Passes > 0 {
		buf = make([]byte, min(w.z.Size, overwritePiece))
	}
	for pass := int64(-1); w.z.Done < w.z.Total(); {
		if at := w.z.Done / w.z.Size; at != pass && buf != nil {
			pass = at
			sanitize.Order{Block: w.z.Pattern, Invert: w.z.Invert}.Fill(buf, int(pass))
		}
		n, err := w.piece(reservation.WithAccess(ctx, w.access), buf)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, volume.ErrAccessChanged), errors.Is(err, volume.ErrStaleEpoch), errors.Is(err, volume.ErrAccessRevoked):
			w.release() // who has the claim reaches the medium: that is asked below
			if err := sleep(ctx, registerPause); err != nil {
				return err
			}
		case errors.Is(err, errUnexported):
			return err
		case err != nil:
			w.z.Failed = true
			return errors.Join(err, w.report(ctx))
		}
		if w.z.Done += n; w.z.Done >= w.z.Total() {
			break
		}
		w.tell()
		if err != nil || time.Since(w.reported) >= w.s.every {
			if err := w.report(ctx); err != nil {
				return err
			}
		}
		if buf != nil {
			due := begun.Add(time.Duration(float64(w.z.Done-from) / float64(w.s.rate) * float64(time.Second)))
			if err := w.rest(ctx, due); err != nil {
				return err
			}
		}
	}
	return w.report(ctx)
}

// piece does what comes next and returns how many bytes that was, 0 with an error.
func (w *eraser) piece(ctx context.Context, buf []byte) (int64, error) {
	if w.handle == nil {
		if w.handle = w.s.open(w.e.volume, layout.AccessGeneration(w.access)); w.handle == nil {
			return 0, errUnexported
		}
	}
	off := w.z.Done % w.z.Size
	n, whole := w.z.Size-off, w.z.Size&^(scsi.ProvisioningBlock-1)
	var err error
	switch {
	case w.z.Passes > 0:
		n = min(n, int64(len(buf)))
		err = w.handle.WriteAt(ctx, buf[:n], off)
	case off < whole:
		n = min(whole-off, erasePiece)
		err = w.handle.Discard(ctx, off, n)
	default: // what is not a whole block at the end
		err = w.handle.WriteAt(ctx, make([]byte, n), off)
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

// tell has the commands of this gateway see how far it is before that is recorded.
func (w *eraser) tell() {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	if now := w.e.mu.now; now.Runs() && now.ID == w.z.ID && now.Claim == w.z.Claim {
		w.e.status.Store(statusOf(&w.z))
	}
}

// report records how far it is, and learns the access generation. The error says that the claim is another one's, or that of ctx.
func (w *eraser) report(ctx context.Context) error {
	z := w.z
	now, err := w.s.ask(ctx, w.e.volume, w.s.request(reservation.SanitizeReport, &z))
	if err != nil {
		return err
	}
	w.access, w.reported = now.Access, time.Now()
	if w.handle != nil {
		w.handle.SetAccess(layout.AccessGeneration(w.access))
	}
	return nil
}

// rest waits until due, and renews the claim meanwhile.
func (w *eraser) rest(ctx context.Context, due time.Time) error {
	for {
		left := time.Until(due)
		if left <= 0 {
			return ctx.Err()
		}
		if err := sleep(ctx, min(left, max(w.s.every-time.Since(w.reported), 0)+time.Millisecond)); err != nil {
			return err
		}
		if time.Since(w.reported) >= w.s.every {
			if err := w.report(ctx); err != nil {
				return err
			}
		}
	}
}

// release gives the handle up.
func (w *eraser) release() {
	if w.handle != nil {
		w.handle.Revoke(volume.ErrStaleEpoch)
		w.handle = nil
	}
}

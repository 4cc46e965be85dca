package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Attacher asks the metaserver for epochs.
type Attacher interface {
	// Attach returns the initiator's next epoch on a volume. had, if it is not 0, is one of which it is not known whether
	// it is still the last one: it is the answer if it is. Whoever asks like that goes on with it after an error.
	Attach(ctx context.Context, volume layout.VolumeID, initiator string, had layout.Epoch) (Attachment, error)
}

// Attachment is what the metaserver issued.
type Attachment struct {
	Initiator layout.InitiatorID
	Epoch     layout.Epoch
	Access    layout.AccessGeneration
}

// Proof belongs to one epoch. Await waits until the initiator has shown that it wanted the command of ctx at a moment which
// is not before the first call, and so at a time when the epoch had been issued. The error is why ctx ended.
type Proof interface {
	Await(ctx context.Context) error
}

// Move is an event: an initiator's path has come back from another gateway.
type Move struct {
	Volume    layout.VolumeID
	Initiator string
	// Lasted is how long the tenancy before the move was, and Pause how long the path was left where it had gone to.
	Lasted, Pause time.Duration
}

// tenancy counts the tenancies that a handle has had; 0 is before the first.
type tenancy uint64

// errNotProven says that an operation was proven in a tenancy that is over, or in doubt. It stays within the package.
var errNotProven = errors.New("volume: not proven in this tenancy")

// Prove waits until the handle has an epoch, and the initiator has shown that it wants the command of ctx in it. Each
// operation does so by itself; it is for a caller that does something else for the command.
func (h *Handle) Prove(ctx context.Context) error {
	_, err := h.enter(ctx)
	return err
}

// Doubt says that nobody uses the handle any more, so that nobody would notice if another gateway took the path: the next
// operation has the Attacher asked before it is sent. It returns false when the handle has no epoch.
func (h *Handle) Doubt() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.doubts++
	return h.mu.tenancy != 0 && h.mu.dead == nil
}

// usableLocked tells whether anything may be sent in the present tenancy. After a hang that is the next one.
func (h *Handle) usableLocked() bool {
	if n := h.client.hangs.count(); n != h.mu.hangs && h.mu.tenancy != 0 && h.newProof != nil {
		h.mu.hangs, h.mu.proof = n, h.newProof()
		h.mu.tenancy++
	}
	return h.mu.tenancy != 0 && !h.mu.overtaken && h.mu.sure == h.mu.doubts
}

// enter returns the tenancy that the operation of ctx is proven for.
func (h *Handle) enter(ctx context.Context) (tenancy, error) {
	for {
		h.mu.Lock()
		usable := h.usableLocked()
		t, proof, dead := h.mu.tenancy, h.mu.proof, h.mu.dead
		h.mu.Unlock()
		if dead != nil {
			return 0, dead
		}
		if !usable {
			if err := h.attach(ctx); err != nil {
				return 0, err
			}
			continue
		}
		if proof != nil {
			if err := proof.Await(ctx); err != nil { // not before: what is proven has to be later than the epoch
				return 0, err
			}
		}
		return t, nil
	}
}

// attach asks for what the handle lacks: its first epoch, the one after an epoch that was overtaken, or a word on one that is in
// doubt. One operation asks at a time, and what it learns is for all. It may have to be called again.
func (h *Handle) attach(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case h.asking <- struct{}{}:
		defer func() { <-h.asking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.lost:
		return h.Err()
	}
	h.mu.Lock()
	if h.mu.dead != nil || h.usableLocked() {
		defer h.mu.Unlock()
		return h.mu.dead
	}
	volume, id, doubts := h.mu.placement.Volume, h.mu.id, h.mu.doubts
	var had layout.Epoch
	var pause time.Duration
	switch {
	case h.mu.overtaken:
		pause = time.Until(h.mu.pace.until)
	case h.mu.tenancy != 0:
		had = h.mu.fence.Epoch
	}
	h.mu.Unlock()
	if err := h.sleep(ctx, pause); err != nil {
		return err
	}
	a, err := h.client.attacher.Attach(ctx, volume, h.initiator, had)
	if err == nil && had != 0 && a.Epoch == had && a.Initiator != id { // forgotten: this may be an epoch that it had before
		had = 0
		a, err = h.client.attacher.Attach(ctx, volume, h.initiator, 0)
	}
	if err != nil && (had == 0 || ctx.Err() != nil) {
		return fmt.Errorf("volume: attach %d for %s: %w", volume, h.initiator, err)
	}
	if move := h.attached(a, had, doubts, err == nil); move != nil {
		h.client.moved(*move)
	}
	return h.Err()
}

// attached takes over an answer that was asked for with had and after so many doubts. It returns the move that this was, if any.
func (h *Handle) attached(a Attachment, had layout.Epoch, doubts uint64, answered bool) (move *Move) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.mu.dead != nil:
		return nil
	case had != 0 && h.mu.doubts != doubts: // the answer is for those who are gone
		return nil
	case had != 0 && (!answered || a.Epoch == had):
		h.mu.fence.Generation++ // what those have left on its way has no effect after this
		h.mu.sure = doubts
		return nil
	}
	if h.mu.overtaken {
		move = &Move{h.mu.placement.Volume, h.initiator, h.mu.pace.lasted, h.mu.pace.pause}
	}
	h.mu.tenancy++
	h.mu.id, h.mu.fence = a.Initiator, layout.Fence{Epoch: a.Epoch}
	h.mu.overtaken, h.mu.sure, h.mu.hangs = false, doubts, h.client.hangs.count()
	h.mu.pace.next()
	if h.newProof != nil {
		h.mu.proof = h.newProof()
	}
	h.raiseAccessLocked(a.Access)
	return move
}

// sleep waits for d, or until ctx or the handle ends.
func (h *Handle) sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.lost:
		return h.Err()
	}
}

// overtakeLocked takes note that a copyset which refused r has seen another epoch.
func (h *Handle) overtakeLocked(r *chunkclient.Request, seen layout.Epoch) {
	if h.mu.overtaken || r.Initiator != h.mu.id || seen <= h.mu.fence.Epoch {
		return
	}
	h.mu.overtaken = true
	h.mu.pace.end()
	if h.newProof == nil {
		h.dieLocked(ErrStaleEpoch)
	}
}

package gateway

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// medium is a volume as one initiator reaches it: the backend of a logical unit for all sessions of that initiator. It has one
// volume.Handle, which has the initiator's path through tenancies: see package volume.
//
// No command is served under an epoch before its initiator has shown that it still wanted it when that epoch was there
// (session.Proof): one that waited in a socket while this gateway hung, and was given up, does not take the path back.
type medium struct {
	owner *mediums
	mediumKey
	// erasure is the volume's, shared by all its media.
	erasure *erasure

	// uses counts what holds the medium; at 0, place is its element of mediums.unused, unless it is not kept. Both are
	// guarded by owner.mu.
	uses  int
	place *list.Element

	// refreshing is a token: whoever holds it may have the reservations read anew.
	refreshing chan struct{}

	mu struct {
		sync.Mutex
		placement *layout.Map
		access    layout.AccessGeneration
		// known are the reservations that access goes with.
		known *scsi.Reservations
		// refreshes counts how often they were begun to be read anew.
		refreshes uint64
		// handle is nil before the first command and once the medium is not in the table any more.
		handle *volume.Handle
		// over is what every command gets once the medium is not in the table any more, nil before.
		over error
	}
}

var (
	_ scsi.Backend  = (*medium)(nil)
	_ scsi.Fencer   = (*medium)(nil)
	_ scsi.Reserver = (*medium)(nil)
)

// open returns the handle.
func (m *medium) open() (*volume.Handle, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.over != nil {
		return nil, m.mu.over
	}
	if m.mu.handle == nil {
		m.mu.handle = m.owner.client.Open(m.mu.placement, m.initiator, m.mu.access, m.owner.newProof)
	}
	return m.mu.handle, nil
}

// Read implements scsi.Backend.
func (m *medium) Read(ctx context.Context, p []byte, off int64) error {
	h, err := m.open()
	if err != nil {
		return err
	}
	whole := len(p) &^ (sector - 1)
	if err := h.ReadAt(ctx, p[:whole], off); err != nil || whole == len(p) {
		return outcome(err, off)
	}
	// The initiator takes less than a sector of the rest.
	var last [sector]byte
	off += int64(whole)
	if err := h.ReadAt(ctx, last[:], off); err != nil {
		return outcome(err, off)
	}
	copy(p[whole:], last[:])
	return nil
}

// sector is the unit of I/O of a volume.Handle, in bytes.
const sector = 512

// Write implements scsi.Backend.
func (m *medium) Write(ctx context.Context, p []byte, off int64) error {
	h, err := m.open()
	if err != nil {
		return err
	}
	return outcome(h.WriteAt(ctx, p, off), off)
}

// Unmap implements scsi.Backend.
func (m *medium) Unmap(ctx context.Context, off, length int64) error {
	h, err := m.open()
	if err != nil {
		return err
	}
	return outcome(h.Discard(ctx, off, length), off)
}

// CompareAndWrite implements scsi.Backend.
func (m *medium) CompareAndWrite(ctx context.Context, off int64, compare, write []byte) (int, error) {
	h, err := m.open()
	if err != nil {
		return 0, err
	}
	err = h.CompareAndWrite(ctx, compare, write, off)
	var mis *volume.MiscompareError
	if errors.As(err, &mis) {
		return mis.Offset, nil
	}
	return -1, outcome(err, off)
}

// allocationStep is how much Allocated asks for first, in bytes: one chunk of the default size. Each next question is twice
// as long, up to allocationStepMax, so that neither many short runs nor one long run ask many chunks in vain.
const (
	allocationStep    = layout.DefaultChunkSize
	allocationStepMax = 64 * allocationStep
)

// Allocated implements scsi.Backend.
func (m *medium) Allocated(ctx context.Context, off, length int64) (bool, int64, error) {
	h, err := m.open()
	if err != nil {
		return false, 0, err
	}
	var allocated bool
	run := int64(0)
	for step := allocationStep - off%allocationStep; run < length; step = min(2*max(step, allocationStep), allocationStepMax) {
		n := min(step, length-run)
		runs, err := h.Allocation(ctx, off+run, n)
		if err != nil {
			return false, 0, outcome(err, off+run)
		}
		if len(runs) == 0 {
			return false, 0, fmt.Errorf("gateway: no allocation of %d bytes at %d", n, off+run)
		}
		if run == 0 {
			allocated = runs[0].Allocated
		} else if runs[0].Allocated != allocated {
			break
		}
		run += runs[0].Length
		if runs[0].Length < n {
			break
		}
	}
	return allocated, run, nil
}

// outcome turns an error of the store into the one that SCSI has sense data for.
func outcome(err error, off int64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, volume.ErrStaleEpoch):
		return scsi.ErrStaleEpoch
	case errors.Is(err, volume.ErrAccessChanged):
		return scsi.ErrAccessChanged
	case errors.Is(err, volume.ErrAccessRevoked):
		return scsi.ErrAccessRevoked
	case errors.Is(err, volume.ErrNoSpace):
		return scsi.ErrNoSpace
	case errors.Is(err, volume.ErrMedium):
		return &scsi.MediumError{Offset: off, Err: err}
	}
	return err
}

// Fence implements scsi.Fencer.
func (m *medium) Fence() { m.fence() }

// fence makes the commands that were cancelled by now without effect.
func (m *medium) fence() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.handle != nil {
		m.mu.handle.Fence()
	}
}

// update takes over a changed placement, and access generation with the reservations that it came with.
func (m *medium) update(v volumeState) {
	m.mu.Lock()
	m.mu.placement = v.placement
	if m.mu.handle != nil {
		m.mu.handle.SetMap(v.placement)
	}
	m.mu.Unlock()
	m.judged(v.reservations)
}

// rest is called when the last session has ended. It tells whether there is an epoch for the initiator to come back to,
// which is in doubt from now on: nobody here would notice that another gateway took the path.
func (m *medium) rest() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.handle != nil && m.mu.handle.Doubt()
}

// end has all commands fail from now on, those under way too: with cause, as far as the handle tells them, which SCSI
// knows as over.
func (m *medium) end(cause, over error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.over = over
	if m.mu.handle != nil {
		m.mu.handle.Revoke(cause)
		m.mu.handle = nil
	}
}

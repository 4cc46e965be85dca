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

// medium is a volume as one initiator reaches it: the backend of a logical unit for all sessions of that initiator.
// It lives through tenancies. When another gateway took the initiator's path, the present one is over: every command
// fails until the sessions that sent them are closed, because what those sessions still have in their sockets is as old
// as the tenancy. Only then does the next command begin a new one.
//
//	tenancy (volume.Handle) ── stale epoch ──► lost ── sessions closed ──► no tenancy ── command ──► tenancy …
//	   ▲  └── last session ends ──► in doubt ── command: metaserver asked ──► this tenancy, or the next one
//	   └────────────────────────────────────────────────────────────────────────┘
//
// No command is served under an epoch before its initiator has shown that it still wanted it when that epoch was there
// (session.Proof): one that waited in a socket while this gateway hung, and was given up, does not take the path back.
//
// A tenancy that no session uses may be overtaken without anything here that notices. So the first command after that
// has the metaserver asked before it is served.
type medium struct {
	owner *mediums
	mediumKey
	// erasure is the volume's, shared by all its media.
	erasure *erasure

	// uses counts what holds the medium; at 0, place is its element of mediums.unused, unless it is not kept. Both are
	// guarded by owner.mu.
	uses  int
	place *list.Element

	// asking is a token: whoever holds it may have the tenancy confirmed.
	asking chan struct{}
	// refreshing is one for having the reservations read anew.
	refreshing chan struct{}

	mu struct {
		sync.Mutex
		placement *layout.Map
		access    layout.AccessGeneration
		// known are the reservations that access goes with.
		known *scsi.Reservations
		// refreshes counts how often they were begun to be read anew.
		refreshes uint64
		// handle is the present tenancy, nil when there is none, and proof what its commands have to show.
		handle *volume.Handle
		proof  proof
		// lost: the tenancy is over and its sessions are not closed yet.
		lost bool
		// ended counts how often the last session ended, and sure is the count at which handle was known to be the
		// initiator's path. When they differ the tenancy is in doubt: see confirm.
		ended, sure uint64
		// granted is what the metaserver issued last, issued the same while no handle has it yet.
		granted volume.Attachment
		issued  *volume.Attachment
		// over is what every command gets once the medium is not in the table any more, nil before.
		over error
	}
}

var (
	_ scsi.Backend  = (*medium)(nil)
	_ scsi.Fencer   = (*medium)(nil)
	_ scsi.Reserver = (*medium)(nil)
)

// proof lets a command go on once its initiator has shown that it still wants it; see session.Proof.
type proof interface {
	Await(ctx context.Context) error
}

// tenancy returns the handle for a command of ctx, which has an epoch, after it was confirmed if it is in doubt, and after
// the initiator has shown that it wants the command in this tenancy.
func (m *medium) tenancy(ctx context.Context) (*volume.Handle, error) {
	for {
		h, proof, doubt, err := m.present(ctx)
		if err != nil {
			return nil, err
		}
		if doubt {
			if err := m.confirm(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if err := h.Attach(ctx); err != nil {
			return nil, m.outcome(h, err, 0)
		}
		if err := proof.Await(ctx); err != nil { // not before: what is proven has to be later than the epoch
			return nil, err
		}
		return h, nil
	}
}

// present returns the handle of the present tenancy, which it begins if there is none, with its proof, and whether it is in
// doubt. The context is looked at after the handle was taken: a command of a session that was closed for a lost tenancy must
// not run in the next one.
func (m *medium) present(ctx context.Context) (h *volume.Handle, p proof, doubt bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.mu.over != nil:
		return nil, nil, false, m.mu.over
	case m.mu.lost:
		return nil, nil, false, scsi.ErrStaleEpoch
	case ctx.Err() != nil:
		return nil, nil, false, context.Cause(ctx)
	}
	if m.mu.handle == nil {
		m.openLocked()
	}
	return m.mu.handle, m.mu.proof, m.mu.sure != m.mu.ended, nil
}

// openLocked begins a tenancy.
func (m *medium) openLocked() {
	m.mu.handle = m.owner.client.Open(m.mu.placement, m.initiator, m.mu.access)
	m.mu.proof = m.owner.newProof()
	m.mu.sure, m.mu.issued = m.mu.ended, nil
}

// Read implements scsi.Backend.
func (m *medium) Read(ctx context.Context, p []byte, off int64) error {
	h, err := m.tenancy(ctx)
	if err != nil {
		return err
	}
	whole := len(p) &^ (sector - 1)
	if err := h.ReadAt(ctx, p[:whole], off); err != nil || whole == len(p) {
		return m.outcome(h, err, off)
	}
	// The initiator takes less than a sector of the rest.
	var last [sector]byte
	off += int64(whole)
	if err := h.ReadAt(ctx, last[:], off); err != nil {
		return m.outcome(h, err, off)
	}
	copy(p[whole:], last[:])
	return nil
}

// sector is the unit of I/O of a volume.Handle, in bytes.
const sector = 512

// Write implements scsi.Backend.
func (m *medium) Write(ctx context.Context, p []byte, off int64) error {
	h, err := m.tenancy(ctx)
	if err != nil {
		return err
	}
	return m.outcome(h, h.WriteAt(ctx, p, off), off)
}

// Unmap implements scsi.Backend.
func (m *medium) Unmap(ctx context.Context, off, length int64) error {
	h, err := m.tenancy(ctx)
	if err != nil {
		return err
	}
	return m.outcome(h, h.Discard(ctx, off, length), off)
}

// CompareAndWrite implements scsi.Backend.
func (m *medium) CompareAndWrite(ctx context.Context, off int64, compare, write []byte) (int, error) {
	h, err := m.tenancy(ctx)
	if err != nil {
		return 0, err
	}
	err = h.CompareAndWrite(ctx, compare, write, off)
	var mis *volume.MiscompareError
	if errors.As(err, &mis) {
		return mis.Offset, nil
	}
	return -1, m.outcome(h, err, off)
}

// allocationStep is how much Allocated asks for first, in bytes: one chunk of the default size. Each next question is twice
// as long, up to allocationStepMax, so that neither many short runs nor one long run ask many chunks in vain.
const (
	allocationStep    = layout.DefaultChunkSize
	allocationStepMax = 64 * allocationStep
)

// Allocated implements scsi.Backend.
func (m *medium) Allocated(ctx context.Context, off, length int64) (bool, int64, error) {
	h, err := m.tenancy(ctx)
	if err != nil {
		return false, 0, err
	}
	var allocated bool
	run := int64(0)
	for step := allocationStep - off%allocationStep; run < length; step = min(2*max(step, allocationStep), allocationStepMax) {
		n := min(step, length-run)
		runs, err := h.Allocation(ctx, off+run, n)
		if err != nil {
			return false, 0, m.outcome(h, err, off+run)
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
func (m *medium) outcome(h *volume.Handle, err error, off int64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, volume.ErrStaleEpoch):
		m.lose(h)
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

// lose ends the tenancy of h and has the initiator's sessions closed. In a tenancy that is in doubt the command was of a
// session that has ended, and no other one has been served: the next command begins a new tenancy.
func (m *medium) lose(h *volume.Handle) {
	m.mu.Lock()
	first := m.mu.handle == h && !m.mu.lost
	switch {
	case first && m.mu.sure != m.mu.ended:
		m.mu.handle = nil
		first = false
	case first:
		m.mu.lost = true
	}
	m.mu.Unlock()
	if !first {
		return
	}
	m.owner.lost(m.volume, m.initiator, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.mu.handle, m.mu.lost = nil, false
	})
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

// rest is called when the last session has ended. It tells whether there is a tenancy for the initiator to come back to,
// which is in doubt from now on.
func (m *medium) rest() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.ended++
	if m.mu.handle == nil || m.mu.lost || m.mu.handle.Err() != nil {
		return false
	}
	_, attached := m.mu.handle.Attached()
	return attached
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

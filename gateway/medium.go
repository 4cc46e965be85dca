package gateway

import (
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
type medium struct {
	owner     *mediums
	initiator string

	mu struct {
		sync.Mutex
		placement *layout.Map
		access    layout.AccessGeneration
		// handle is the present tenancy, nil when there is none.
		handle *volume.Handle
		// lost: the tenancy is over and its sessions are not closed yet.
		lost bool
		// gone: the initiator may not use the volume any more.
		gone bool
	}
}

var _ scsi.Backend = (*medium)(nil)

// tenancy returns the handle for a command of ctx. The context is looked at after the handle was taken: a command of a
// session that was closed for a lost tenancy must not run in the next one.
func (m *medium) tenancy(ctx context.Context) (*volume.Handle, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.mu.gone:
		return nil, scsi.ErrAccessRevoked
	case m.mu.lost:
		return nil, scsi.ErrStaleEpoch
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	if m.mu.handle == nil {
		m.mu.handle = m.owner.client.Open(m.mu.placement, m.initiator, m.mu.access)
	}
	return m.mu.handle, nil
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

// Allocated implements scsi.Backend.
func (m *medium) Allocated(ctx context.Context, off, length int64) (bool, int64, error) {
	h, err := m.tenancy(ctx)
	if err != nil {
		return false, 0, err
	}
	runs, err := h.Allocation(ctx, off, length)
	if err != nil {
		return false, 0, m.outcome(h, err, off)
	}
	if len(runs) == 0 {
		return false, 0, fmt.Errorf("gateway: no allocation of %d bytes at %d", length, off)
	}
	return runs[0].Allocated, runs[0].Length, nil
}

// outcome turns an error of the store into the one that SCSI has sense data for.
func (m *medium) outcome(h *volume.Handle, err error, off int64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, volume.ErrStaleEpoch):
		m.lose(h)
		return scsi.ErrStaleEpoch
	case errors.Is(err, volume.ErrAccessRevoked):
		return scsi.ErrAccessRevoked
	case errors.Is(err, volume.ErrNoSpace):
		return scsi.ErrNoSpace
	case errors.Is(err, volume.ErrMedium):
		return &scsi.MediumError{Offset: off, Err: err}
	}
	return err
}

// lose ends the tenancy of h and has the initiator's sessions closed.
func (m *medium) lose(h *volume.Handle) {
	m.mu.Lock()
	first := m.mu.handle == h && !m.mu.lost
	if first {
		m.mu.lost = true
	}
	id := m.mu.placement.Volume
	m.mu.Unlock()
	if !first {
		return
	}
	m.owner.lost(id, m.initiator, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.mu.handle, m.mu.lost = nil, false
	})
}

// fence makes the commands that were cancelled by now without effect.
func (m *medium) fence() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.handle != nil {
		m.mu.handle.Fence()
	}
}

// update takes over a changed placement and access generation.
func (m *medium) update(placement *layout.Map, access layout.AccessGeneration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.placement, m.mu.access = placement, max(access, m.mu.access)
	if m.mu.handle != nil {
		m.mu.handle.SetMap(placement)
		m.mu.handle.SetAccess(access)
	}
}

// revoke ends the initiator's use of the volume.
func (m *medium) revoke() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.gone = true
	if m.mu.handle != nil {
		m.mu.handle.Revoke(volume.ErrAccessRevoked)
	}
}

// mediumKey names a medium.
type mediumKey struct {
	volume    layout.VolumeID
	initiator string
}

// mediums keeps the media of all (volume, initiator) that sessions use or used: their epochs stay, so that an initiator
// that logs in again needs no metaserver.
type mediums struct {
	client *volume.Client
	// lost has the sessions closed that an initiator uses a volume by, and calls closed when they are.
	lost func(id layout.VolumeID, initiator string, closed func())

	mu struct {
		sync.Mutex
		volumes map[layout.VolumeID]volumeState
		open    map[mediumKey]*medium
	}
}

type volumeState struct {
	placement *layout.Map
	access    layout.AccessGeneration
}

func newMediums(client *volume.Client) *mediums {
	m := &mediums{client: client}
	m.mu.volumes = map[layout.VolumeID]volumeState{}
	m.mu.open = map[mediumKey]*medium{}
	return m
}

// Open returns the medium of a volume for an initiator; nil when the volume is not exported.
func (ms *mediums) Open(id layout.VolumeID, initiator string) *medium {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	key := mediumKey{id, initiator}
	if m := ms.mu.open[key]; m != nil {
		return m
	}
	v, ok := ms.mu.volumes[id]
	if !ok {
		return nil
	}
	m := &medium{owner: ms, initiator: initiator}
	m.mu.placement, m.mu.access = v.placement, v.access
	ms.mu.open[key] = m
	return m
}

// Abort makes the commands of an initiator on a volume that were cancelled by now without effect.
func (ms *mediums) Abort(id layout.VolumeID, initiator string) {
	ms.mu.Lock()
	m := ms.mu.open[mediumKey{id, initiator}]
	ms.mu.Unlock()
	if m != nil {
		m.fence()
	}
}

// update takes over what is exported now: allowed tells whether an initiator may still use a volume.
func (ms *mediums) update(volumes map[layout.VolumeID]volumeState, allowed func(layout.VolumeID, string) bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.mu.volumes = volumes
	for key, m := range ms.mu.open {
		v, ok := volumes[key.volume]
		if !ok || !allowed(key.volume, key.initiator) {
			m.revoke()
			delete(ms.mu.open, key)
			continue
		}
		m.update(v.placement, v.access)
	}
}

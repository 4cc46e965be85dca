package gateway

import (
	"context"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// confirmTimeout bounds how long commands wait for the metaserver's word on a tenancy that was resumed. Without it the
// epoch that is held is used, as if the metaserver had confirmed it: if the path has moved the copysets refuse it.
const confirmTimeout = time.Second

// confirm ends the doubt about a tenancy: the metaserver is asked whether its epoch is still the last one. If it is, the
// tenancy goes on under a new generation; else the next one begins, under the epoch that the metaserver has issued. No
// command was served since the sessions of the tenancy ended, so none is repeated under another epoch. One command asks
// at a time, and what it learns is for all. The error is that of ctx.
func (m *medium) confirm(ctx context.Context) error {
	select {
	case m.asking <- struct{}{}:
		defer func() { <-m.asking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	m.mu.Lock()
	h, ended, doubt := m.mu.handle, m.mu.ended, m.mu.sure != m.mu.ended
	m.mu.Unlock()
	if h == nil || !doubt {
		return nil
	}
	fence, _ := h.Attached()
	ask, cancel := context.WithTimeout(ctx, m.owner.confirmTimeout)
	a, err := m.owner.attacher.Attach(ask, m.volume, m.initiator, fence.Epoch)
	cancel()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.handle != h || m.mu.ended != ended {
		return nil // the answer is for sessions that have ended meanwhile
	}
	if err != nil || a.Epoch == fence.Epoch && a.Initiator == m.mu.granted.Initiator {
		h.Fence()
		m.mu.sure = ended
		return nil
	}
	h.Revoke(volume.ErrStaleEpoch)
	m.openLocked()
	if a.Epoch != fence.Epoch { // the same number for another initiator ID may be in use already
		m.mu.granted, m.mu.issued = a, &a
	}
	return nil
}

// issuer is the volume.Attacher of the handles.
type issuer struct{ ms *mediums }

// Attach implements volume.Attacher: what was issued when the tenancy before was found overtaken is used up first.
func (i issuer) Attach(ctx context.Context, id layout.VolumeID, initiator string, had layout.Epoch) (volume.Attachment, error) {
	if ctx.Err() != nil { // of a session that has ended: what was issued is not for it
		return volume.Attachment{}, context.Cause(ctx)
	}
	i.ms.mu.Lock()
	m := i.ms.mu.open[mediumKey{id, initiator}]
	i.ms.mu.Unlock()
	if m != nil {
		m.mu.Lock()
		a := m.mu.issued
		m.mu.issued = nil
		m.mu.Unlock()
		if a != nil {
			return *a, nil
		}
	}
	a, err := i.ms.attacher.Attach(ctx, id, initiator, had)
	if err == nil && m != nil {
		m.mu.Lock()
		m.mu.granted = a
		m.mu.Unlock()
	}
	return a, err
}

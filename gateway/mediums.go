package gateway

import (
	"container/list"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// mediumKey names a medium.
type mediumKey struct {
	volume    layout.VolumeID
	initiator string
}

// mediums keeps the media of all (volume, initiator) that sessions use, and of some that sessions used: those with a
// tenancy, so that an initiator that logs in again goes on with the epoch it had.
//
//	Open ──► in use ── last Release ──► unused, at most unusedMax ── one more ──► dropped
//	            ▲                          │          (a medium without an epoch is dropped at once)
//	            └────────── Open ──────────┘
//
// Lock order: mediums.mu, medium.mu, then that of a volume.Handle.
type mediums struct {
	client *volume.Client
	// reserver changes and reads reservations.
	reserver *reserver
	// unusedMax bounds the media that no session uses.
	unusedMax int
	// moves counts how often paths have come back from other gateways.
	moves moves
	// newProof makes the proof of a tenancy.
	newProof func() volume.Proof
	// erasures runs what SANITIZE asks for.
	erasures *erasures
	// space is what the metaserver said last of the volumes; nil before.
	space atomic.Pointer[map[layout.VolumeID]volumeSpace]

	mu struct {
		sync.Mutex
		volumes map[layout.VolumeID]volumeState
		open    map[mediumKey]*medium
		// unused are the *medium of open that no session uses, the one that was used last at the end.
		unused list.List
	}
}

// unusedMax is how many media without a session a gateway keeps, as many as it may have sessions. Each has about 2 KiB.
const unusedMax = sessions

type volumeState struct {
	placement *layout.Map
	// reservations have the access generation with them.
	reservations *scsi.Reservations
}

// newMediums makes an empty table: nothing is exported. inFlight bounds the bytes of data on their way, at least 1.
func newMediums(doer volume.Doer, attacher volume.Attacher, inFlight int64) *mediums {
	m := &mediums{unusedMax: unusedMax, erasures: newErasures()}
	m.moves.log = zap.NewNop()
	m.client = volume.New(doer, attacher, inFlight, m.moves.note)
	m.newProof = func() volume.Proof { return new(session.Proof) }
	m.mu.volumes = map[layout.VolumeID]volumeState{}
	m.erasures.open = m.openForAll
	m.mu.open = map[mediumKey]*medium{}
	return m
}

// Open returns the medium of a volume for an initiator, nil when the volume is not exported. It stays in the table until
// Release was called as often as Open, or the initiator's right to it ends.
func (ms *mediums) Open(id layout.VolumeID, initiator string) *medium {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	key := mediumKey{id, initiator}
	m := ms.mu.open[key]
	if m == nil {
		v, ok := ms.mu.volumes[id]
		if !ok {
			return nil
		}
		m = &medium{owner: ms, mediumKey: key, erasure: ms.erasures.of(id), refreshing: make(chan struct{}, 1)}
		m.mu.placement = v.placement
		m.judged(v.reservations)
		ms.mu.open[key] = m
	}
	if m.place != nil {
		ms.mu.unused.Remove(m.place)
		m.place = nil
	}
	m.uses++
	return m
}

// openForAll returns a volume as the gateways reach it for themselves, nil when it is not exported.
func (ms *mediums) openForAll(id layout.VolumeID, access layout.AccessGeneration) *volume.Handle {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	v, ok := ms.mu.volumes[id]
	if !ok {
		return nil
	}
	return ms.client.Open(v.placement, reservation.SanitizeInitiator, access, nil)
}

// Release gives one use of m back. After the last one the commands of all sessions that used m are cancelled.
func (ms *mediums) Release(m *medium) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m.uses--
	switch {
	case m.uses < 0:
		panic("gateway: a medium was released more often than opened")
	case m.uses > 0 || ms.mu.open[m.mediumKey] != m:
		return
	case !m.rest():
		ms.dropLocked(m, volume.ErrStaleEpoch, scsi.ErrStaleEpoch)
		return
	}
	m.place = ms.mu.unused.PushBack(m)
	for ms.mu.unused.Len() > ms.unusedMax {
		oldest := ms.mu.unused.Front().Value.(*medium)
		ms.dropLocked(oldest, volume.ErrStaleEpoch, scsi.ErrStaleEpoch)
	}
}

// dropLocked takes m out of the table and ends it; see medium.end.
func (ms *mediums) dropLocked(m *medium, cause, over error) {
	delete(ms.mu.open, m.mediumKey)
	if m.place != nil {
		ms.mu.unused.Remove(m.place)
		m.place = nil
	}
	m.end(cause, over)
}

// Abort makes the commands of an initiator on a volume that were cancelled by now without effect.
func (ms *mediums) Abort(id layout.VolumeID, initiator string) {
	ms.mu.Lock()
	m := ms.mu.open[mediumKey{id, initiator}]
	ms.mu.Unlock()
	if m != nil {
		m.Fence()
	}
}

// update takes over what is exported now: allowed tells whether an initiator may still use a volume.
func (ms *mediums) update(volumes map[layout.VolumeID]volumeState, allowed func(layout.VolumeID, string) bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.mu.volumes = volumes
	ms.erasures.keep(func(id layout.VolumeID) bool { _, ok := volumes[id]; return ok })
	for key, m := range ms.mu.open {
		v, ok := volumes[key.volume]
		if !ok || !allowed(key.volume, key.initiator) {
			ms.dropLocked(m, volume.ErrAccessRevoked, scsi.ErrAccessRevoked)
			continue
		}
		m.update(v)
	}
}

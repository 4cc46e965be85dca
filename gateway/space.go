package gateway

import (
	"context"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// spaceEvery is the time between questions about the space of volumes.
const spaceEvery = 10 * time.Second

// volumeSpace is what a volume uses and may still use, in bytes; low: the soft threshold is crossed.
type volumeSpace struct {
	used, available int64
	low             bool
}

var _ scsi.SpaceReporter = (*medium)(nil)

// Space implements scsi.SpaceReporter, from what the metaserver said last.
func (m *medium) Space(context.Context) (used, available int64) {
	if all := m.owner.space.Load(); all != nil {
		if s, ok := (*all)[m.volume]; ok {
			return s.used, s.available
		}
	}
	return -1, -1
}

// tellSpace takes over what the metaserver says of space. The hosts of a volume that has crossed the soft threshold since
// the last time are told by the unit attention 38/07.
func (g *Gateway) tellSpace(reply []*metav1.VolumeSpace) {
	for _, id := range g.mediums.setSpace(reply) {
		if u := g.registry.Unit(uint64(id)); u != nil {
			u.Attention(scsi.AttentionSpaceThreshold, nil)
		}
	}
}

// setSpace takes over what is said of all volumes, and returns those that are low on space and were not before. One that is not
// spoken of keeps what was said before.
func (ms *mediums) setSpace(reply []*metav1.VolumeSpace) (crossed []layout.VolumeID) {
	var before map[layout.VolumeID]volumeSpace
	if p := ms.space.Load(); p != nil {
		before = *p
	}
	next := make(map[layout.VolumeID]volumeSpace, len(reply))
	ms.mu.Lock()
	for id, s := range before {
		if _, exported := ms.mu.volumes[id]; exported {
			next[id] = s
		}
	}
	ms.mu.Unlock()
	for _, s := range reply {
		id := layout.VolumeID(s.GetVolume())
		next[id] = volumeSpace{used: int64(s.GetUsed()), available: int64(s.GetAvailable()), low: s.GetLow()}
		if s.GetLow() && !before[id].low {
			crossed = append(crossed, id)
		}
	}
	ms.space.Store(&next)
	return crossed
}

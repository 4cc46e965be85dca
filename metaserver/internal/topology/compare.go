package topology

import (
	"slices"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/replicas"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// compareLocked judges what the members' digests show, and tells of a new difference.
func (t *Topology) compareLocked(c *copyset) {
	var voters []layout.PeerID
	var digests []replicas.Digest
	for _, p := range c.rec.Peers {
		if p.Role == schedule.Voter {
			voters = append(voters, p.ID)
		}
		if d, ok := c.digests[p.ID]; ok {
			digests = append(digests, d)
		}
	}
	for id := range c.digests {
		if _, member := c.rec.Peer(id); !member {
			delete(c.digests, id)
		}
	}
	old := c.verdict
	v := replicas.Judge(voters, digests)
	c.verdict = v
	if !v.Differ || old.Differ && old.Index == v.Index && slices.Equal(old.Odd, v.Odd) {
		return
	}
	if !old.Differ || old.Index != v.Index {
		t.mu.differences++
	}
	t.o.Log.Error("replicas of a copyset differ", zap.Uint64("copyset", uint64(c.rec.ID)), zap.Uint64("index", v.Index),
		zap.Uint64s("compared", numbers(v.Compared)), zap.Uint64s("odd", numbers(v.Odd)))
}

func numbers(ids []layout.PeerID) []uint64 {
	out := make([]uint64, len(ids))
	for i, id := range ids {
		out[i] = uint64(id)
	}
	return out
}

// distrust adds the order to end the replica that a chunkserver has, if a majority disproves it, it still runs, and the
// copyset goes on without it. If it would not, the alarm stands until others are back: then the replica that is right may be
// the one that is down, and an administrator can still choose.
func distrust(out []schedule.Order, c *copyset, st *schedule.State, on layout.ChunkserverID) []schedule.Order {
	m, ok := c.rec.On(on)
	rep := st.Reports[on]
	if !ok || !slices.Contains(c.verdict.Odd, m.ID) || rep == nil || rep.Peer != m.ID || rep.Error != "" || !st.Spare(m.ID) {
		return out
	}
	d := c.digests[m.ID]
	return append(out, schedule.Order{Copyset: c.rec.ID, Action: schedule.Distrust, Peer: m.ID, Index: d.Index, Format: d.Format, Sum: d.Sum})
}

// Differences counts how often replicas were found to differ in this term.
func (t *Topology) Differences() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.differences
}

package topology

import (
	"maps"
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
		if d, ok := c.digests[p.ID]; ok && c.disproved[p.ID].Index == 0 {
			digests = append(digests, d)
		}
	}
	gone := func(id layout.PeerID, _ replicas.Digest) bool {
		_, ok := c.rec.Peer(id)
		return !ok
	}
	maps.DeleteFunc(c.digests, gone)
	maps.DeleteFunc(c.disproved, gone)
	old, v := c.verdict, replicas.Judge(voters, digests)
	if !v.Differ && len(c.disproved) > 0 {
		return // the others are equal, which is no news
	}
	c.verdict = v
	if !v.Differ || old.Differ && old.Index == v.Index && slices.Equal(old.Odd, v.Odd) {
		return
	}
	for _, id := range v.Odd {
		if c.disproved == nil {
			c.disproved = map[layout.PeerID]replicas.Digest{}
		}
		c.disproved[id] = c.digests[id]
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
	d := c.disproved[m.ID]
	if !ok || d.Index == 0 || rep == nil || rep.Peer != m.ID || rep.Error != "" || !st.Spare(m.ID) {
		return out
	}
	return append(out, schedule.Order{Copyset: c.rec.ID, Action: schedule.Distrust, Peer: m.ID, Index: d.Index, Format: d.Format, Sum: d.Sum})
}

// Differences counts how often replicas were found to differ in this term.
func (t *Topology) Differences() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.differences
}

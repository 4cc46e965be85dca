package topology

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/replicas"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// copyset is a copyset in memory.
type copyset struct {
	rec     *schedule.Record
	reports map[layout.ChunkserverID]*schedule.Report
	// usage is what its last leader reported.
	usage map[layout.VolumeID]uint64
	// failing tells since when a chunkserver has been reporting an error.
	failing map[layout.ChunkserverID]time.Time
	// leader is the chunkserver that leads, 0 while none does; leaderless tells since when.
	leader     layout.ChunkserverID
	leaderless time.Time
	// digests are the last ones of its members.
	digests map[layout.PeerID]replicas.Digest
	// disproved are the members that were found odd, with the digest by which they were: they stay so.
	disproved map[layout.PeerID]replicas.Digest
	verdict   replicas.Verdict
}

// setCopysetLocked puts a record in the place of the one before it.
func (t *Topology) setCopysetLocked(rec *schedule.Record) {
	c := t.mu.copysets[rec.ID]
	if c == nil {
		c = &copyset{
			reports: map[layout.ChunkserverID]*schedule.Report{}, failing: map[layout.ChunkserverID]time.Time{}, leaderless: t.o.Now(),
		}
		t.mu.copysets[rec.ID] = c
	} else {
		for _, id := range involved(c.rec) {
			if s := t.mu.servers[id]; s != nil {
				delete(s.copysets, rec.ID)
			}
		}
	}
	c.rec = rec
	for _, id := range involved(rec) {
		if s := t.mu.servers[id]; s != nil {
			s.copysets[rec.ID] = struct{}{}
		}
	}
	for id := range c.reports {
		if !slices.Contains(involved(rec), id) {
			delete(c.reports, id)
			delete(c.failing, id)
		}
	}
	t.leaderLocked(c)
	t.compareLocked(c)
}

// involved returns the chunkservers that have, get or should give back a replica.
func involved(r *schedule.Record) []layout.ChunkserverID {
	var out []layout.ChunkserverID
	for _, p := range r.Peers {
		out = append(out, p.Chunkserver)
	}
	for _, p := range r.Removed {
		out = append(out, p.Chunkserver)
	}
	if r.Op != nil {
		out = append(out, r.Op.NewChunkserver, r.Op.OldChunkserver)
	}
	return out
}

// reportLocked takes one report in. It returns whether gateways must know.
func (t *Topology) reportLocked(s *server, r *CopysetReport) bool {
	c := t.mu.copysets[r.Copyset]
	if c == nil {
		s.strays++
		return false
	}
	if _, ok := s.copysets[r.Copyset]; !ok {
		s.strays++
		return false
	}
	rep := r.Report
	rep.Error = rep.Error[:min(len(rep.Error), errorMax)]
	if old := c.reports[s.rec.ID]; rep.Error == "" || old != nil && old.Peer != rep.Peer {
		delete(c.failing, s.rec.ID)
	}
	if rep.Error != "" && c.failing[s.rec.ID].IsZero() {
		c.failing[s.rec.ID] = t.o.Now()
	}
	c.reports[s.rec.ID] = &rep
	if rep.Leader && r.Usage != nil {
		c.usage = r.Usage
	}
	t.mu.dirty[r.Copyset] = struct{}{}
	if d := r.Digest; d.Index != 0 && d != c.digests[d.Peer] {
		if c.digests == nil {
			c.digests = map[layout.PeerID]replicas.Digest{}
		}
		c.digests[d.Peer] = d
		t.compareLocked(c)
	}
	return t.leaderLocked(c)
}

// leaderLocked finds out who leads. It returns whether that changed.
func (t *Topology) leaderLocked(c *copyset) bool {
	var leader layout.ChunkserverID
	var term uint64
	for id, r := range c.reports {
		if s := t.mu.servers[id]; r.Leader && s != nil && s.up && (r.Term > term || leader == 0) {
			leader, term = id, r.Term
		}
	}
	if leader == c.leader {
		return false
	}
	if leader == 0 {
		c.leaderless = t.o.Now()
	}
	c.leader = leader
	return true
}

// forGood is for how long a replica counts as failing that will not work again.
const forGood = time.Hour

// stateLocked gives the scheduler's view of a copyset. How long something has been reported ends with the last heartbeat:
// silence says nothing.
func (t *Topology) stateLocked(c *copyset) *schedule.State {
	st := &schedule.State{
		Record:  c.rec,
		Reports: make(map[layout.ChunkserverID]*schedule.Report, len(c.reports)),
		Missing: map[layout.ChunkserverID]time.Duration{},
		Failing: map[layout.ChunkserverID]time.Duration{},
	}
	for id, r := range c.reports {
		if s := t.mu.servers[id]; s != nil && s.up {
			st.Reports[id] = r
			if since := c.failing[id]; !since.IsZero() {
				st.Failing[id] = s.beat.Sub(since)
			}
			if _, odd := c.disproved[r.Peer]; odd && r.Error != "" {
				st.Failing[id] = forGood
			}
		}
	}
	for _, id := range involved(c.rec) {
		if s := t.mu.servers[id]; s != nil && s.up && !s.missing[c.rec.ID].IsZero() {
			st.Missing[id] = s.beat.Sub(s.missing[c.rec.ID])
		}
	}
	if c.leader != 0 {
		st.Leader, st.LeaderOn = st.Reports[c.leader], c.leader
	}
	return st
}

// clusterLocked gives the scheduler's view of everything.
func (t *Topology) clusterLocked() *schedule.Cluster {
	c := &schedule.Cluster{Servers: make(map[layout.ChunkserverID]*schedule.Server, len(t.mu.servers))}
	for id, s := range t.mu.servers {
		c.Servers[id] = t.serverLocked(s)
	}
	c.Copysets = make([]*schedule.State, 0, len(t.mu.copysets))
	for _, cs := range t.mu.copysets {
		c.Copysets = append(c.Copysets, t.stateLocked(cs))
	}
	slices.SortFunc(c.Copysets, func(a, b *schedule.State) int { return cmp.Compare(a.Record.ID, b.Record.ID) })
	return c
}

func (t *Topology) serverLocked(s *server) *schedule.Server {
	out := &schedule.Server{
		ID: s.rec.ID, Pool: s.rec.Pool, Zone: s.rec.Zone, Server: s.rec.Server, Up: s.up,
		Draining: s.rec.Draining, DiskError: s.diskError, Slow: s.slow.Slow(), Disk: s.disk, Capacity: s.capacity, Used: s.used,
	}
	if !s.up {
		last := s.beat
		if last.Before(t.began) {
			last = t.began
		}
		out.Down = t.o.Now().Sub(last)
	}
	return out
}

// ordersLocked returns what a chunkserver is told now. One whose disk has failed is told only what needs no disk: it may still
// lead, if the disk only does not answer.
func (t *Topology) ordersLocked(s *server) []schedule.Order {
	var out []schedule.Order
	ids := make([]layout.CopysetID, 0, len(s.copysets))
	for id := range s.copysets {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		transfer := t.mu.away[id]
		if transfer == 0 && t.mu.move.copyset == id {
			transfer = t.mu.move.to
		}
		c := t.mu.copysets[id]
		st := t.stateLocked(c)
		out = schedule.Orders(distrust(out, c, st, s.rec.ID), st, s.rec.ID, transfer)
		if s.diskError != "" {
			out = slices.DeleteFunc(out, func(o schedule.Order) bool { return o.Action != schedule.Transfer && o.Action != schedule.Change })
		}
		if len(out) >= ordersMax {
			return out
		}
	}
	return out
}

// ordersMax bounds the orders of one reply; the rest comes with the next one.
const ordersMax = 256

// Drain begins or ends moving everything off a chunkserver.
func (t *Topology) Drain(ctx context.Context, id layout.ChunkserverID, cancel bool) error {
	err := t.update(ctx, func(x *tx) error {
		t.mu.RLock()
		s := t.mu.servers[id]
		t.mu.RUnlock()
		if s == nil {
			return refuse.As(refuse.NotFound, "there is no chunkserver %d: see ashlar chunkserver list", id)
		}
		rec := *s.rec
		if rec.Draining == !cancel {
			return nil
		}
		rec.Draining = !cancel
		x.batch.Put(chunkserverTable, key(uint64(id)), &rec)
		x.apply = append(x.apply, func() { s.rec, t.mu.hurry = &rec, true })
		return nil
	})
	t.wake()
	return err
}

// Replace begins to replace a peer of a copyset by one on chunkserver to, 0 for the best one. Asking again while the same
// replacement runs changes nothing.
func (t *Topology) Replace(ctx context.Context, id layout.CopysetID, peer layout.PeerID, to layout.ChunkserverID) error {
	err := t.update(ctx, func(x *tx) error {
		t.mu.RLock()
		c := t.mu.copysets[id]
		var st *schedule.State
		var cl *schedule.Cluster
		if c != nil {
			st, cl = t.stateLocked(c), t.clusterLocked()
		}
		t.mu.RUnlock()
		switch {
		case c == nil:
			return refuse.As(refuse.NotFound, "there is no copyset %d: see ashlar copyset list", id)
		case st.Record.Op != nil && st.Record.Op.OldPeer == peer && (to == 0 || to == st.Record.Op.NewChunkserver):
			return nil
		case st.Record.Op != nil:
			return refuse.As(refuse.State, "copyset %d is replacing peer %d already: wait until that is done (ashlar copyset show %d)",
				id, st.Record.Op.OldPeer, id)
		}
		if _, ok := st.Record.Peer(peer); !ok {
			return refuse.As(refuse.NotFound, "copyset %d has no peer %d: see ashlar copyset show %d", id, peer, id)
		}
		if !st.Quorum(cl) {
			return refuse.As(refuse.State, "copyset %d has no quorum, so its membership can not change: bring a majority of its "+
				"chunkservers back first", id)
		}
		if to == 0 {
			var err error
			if to, err = schedule.Choose(cl, st, peer, true); err != nil {
				return refuse.As(refuse.State, "peer %d of copyset %d can not be replaced: %v", peer, id, err)
			}
		} else if err := schedule.Fits(cl, st, peer, to); err != nil {
			return refuse.As(refuse.State, "peer %d of copyset %d can not be replaced: %v", peer, id, err)
		}
		if old, _ := st.Record.Peer(peer); old.Chunkserver == to && !st.Spare(peer) {
			return refuse.As(refuse.State, "peer %d of copyset %d can only be replaced on its own chunkserver, which removes it first, and "+
				"the others are too few without it: bring them up first, or add a chunkserver in a free zone", peer, id)
		}
		t.begin(x, st.Record, schedule.Decision{Copyset: id, Kind: schedule.KindReplace, OldPeer: peer, NewChunkserver: to})
		return nil
	})
	t.wake()
	return err
}

// begin puts the start of a replacement into x.
func (t *Topology) begin(x *tx, rec *schedule.Record, d schedule.Decision) {
	old, _ := rec.Peer(d.OldPeer)
	next := *rec
	next.Op = &schedule.Operation{
		Kind: d.Kind, OldPeer: d.OldPeer, OldChunkserver: old.Chunkserver,
		NewPeer: x.ids.Peer, NewChunkserver: d.NewChunkserver, StartedUnixMs: t.o.Now().UnixMilli(),
	}
	x.ids.Peer++
	x.put(t, &next)
}

// put puts a copyset's record into x.
func (x *tx) put(t *Topology, rec *schedule.Record) {
	x.batch.Put(copysetTable, key(uint64(rec.ID)), rec)
	x.apply = append(x.apply, func() { t.setCopysetLocked(rec) })
}

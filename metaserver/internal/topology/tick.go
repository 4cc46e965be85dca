package topology

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// recordsMax is how many records one transaction of Tick changes; one more key holds the ids.
const recordsMax = metastore.BatchMax - 1

// leaderMoveMax: a move of a leader that has not happened by then is given up.
const leaderMoveMax = 10 * time.Second

// leaderRest: a copyset's leader is moved for balance once in this time at most.
const leaderRest = 30 * time.Second

// Tick looks for what changed since the last one: who went down, which records are behind the reports, which changes are
// to begin. An error is that of the store.
func (t *Topology) Tick(ctx context.Context) error {
	t.downs()
	t.look()
	if err := t.advance(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	now := t.o.Now()
	due := t.mu.hurry || now.Sub(t.mu.planned) >= planEvery
	if due {
		t.mu.hurry, t.mu.planned = false, now
	}
	t.mu.Unlock()
	if !due {
		return nil
	}
	if err := t.arrange(ctx); err != nil {
		return err
	}
	if err := t.plan(ctx); err != nil {
		return err
	}
	t.leaders()
	return nil
}

// downs marks those whose heartbeats stay away.
func (t *Topology) downs() {
	now := t.o.Now()
	t.mu.Lock()
	changed := !t.mu.grown && !t.youngLocked(now) // gateways that were not heard of are down from now on
	t.mu.grown = t.mu.grown || changed
	for _, s := range t.mu.servers {
		if s.up && now.Sub(s.beat) > t.o.DownAfter {
			s.up, t.mu.hurry, changed = false, true, true
			t.o.Log.Warn("chunkserver down", zap.Uint64("chunkserver", uint64(s.rec.ID)), zap.Duration("silent", now.Sub(s.beat)))
			clear(s.missing)
			for id := range s.copysets {
				t.leaderLocked(t.mu.copysets[id])
			}
		}
	}
	for _, g := range t.mu.gateways {
		if g.up && now.Sub(g.beat) > t.o.DownAfter {
			g.up, changed = false, true
			t.o.Log.Warn("gateway down", zap.String("gateway", g.rec.Name), zap.Duration("silent", now.Sub(g.beat)))
		}
	}
	t.mu.Unlock()
	if changed {
		t.o.Changed()
	}
}

// look looks for slow disks, each planEvery, and for who is to lead in their place.
func (t *Topology) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.o.Now()
	if now.Sub(t.mu.looked) < planEvery {
		return
	}
	t.mu.looked = now
	c := &schedule.Cluster{Servers: make(map[layout.ChunkserverID]*schedule.Server, len(t.mu.servers))}
	for id, s := range t.mu.servers {
		c.Servers[id] = t.serverLocked(s)
	}
	slow := false
	for id, normal := range schedule.Normal(c) {
		s := t.mu.servers[id]
		before := s.slow.Slow()
		s.slow.Look(s.disk, normal)
		switch after := s.slow.Slow(); {
		case after && !before:
			t.o.Log.Warn("slow disk", zap.Uint64("chunkserver", uint64(id)), zap.String("why", s.slow.Why))
		case before && !after:
			t.o.Log.Info("the disk is well again", zap.Uint64("chunkserver", uint64(id)))
		}
		slow = slow || s.slow.Slow()
	}
	t.mu.away = nil
	if slow {
		t.mu.away = schedule.Evacuate(t.clusterLocked())
	}
}

// advance stores what the reports show about copysets.
func (t *Topology) advance(ctx context.Context) error {
	t.mu.Lock()
	dirty := slices.Sorted(maps.Keys(t.mu.dirty))
	clear(t.mu.dirty)
	t.mu.Unlock()
	for part := range slices.Chunk(dirty, recordsMax) {
		changed := false
		err := t.update(ctx, func(x *tx) error {
			t.mu.RLock()
			defer t.mu.RUnlock()
			for _, id := range part {
				st := t.stateLocked(t.mu.copysets[id])
				next, ok := schedule.Advance(st)
				if !ok {
					continue
				}
				changed = true
				t.ended(st, next)
				x.put(t, next)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if changed {
			t.hurry()
			t.o.Changed()
		}
	}
	return nil
}

// ended logs the end of an operation.
func (t *Topology) ended(st *schedule.State, next *schedule.Record) {
	if op := st.Record.Op; op != nil && next.Op == nil {
		t.o.Log.Info("peer replaced", zap.Uint64("copyset", uint64(next.ID)), zap.String("kind", op.Kind),
			zap.Uint64("old", uint64(op.OldPeer)), zap.Uint64("new", uint64(op.NewPeer)), zap.String("given_up", op.Error))
	}
}

func (t *Topology) hurry() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.hurry = true
}

// arrange makes new copysets.
func (t *Topology) arrange(ctx context.Context) error {
	t.mu.RLock()
	wait := t.o.Settle - t.o.Now().Sub(t.mu.registered)
	var cl *schedule.Cluster
	if wait <= 0 {
		cl = t.clusterLocked()
	}
	t.mu.RUnlock()
	if cl == nil {
		return nil
	}
	pools := map[string]struct{}{}
	for _, s := range cl.Servers {
		pools[s.Pool] = struct{}{}
	}
	for _, pool := range slices.Sorted(maps.Keys(pools)) {
		sets := schedule.Arrange(cl, pool, t.o.Arrange, t.o.Rand)
		for part := range slices.Chunk(sets, recordsMax) {
			if err := t.found(ctx, pool, part); err != nil {
				return err
			}
		}
		if len(sets) > 0 {
			t.o.Log.Info("copysets made", zap.String("pool", pool), zap.Int("copysets", len(sets)))
			t.o.Changed()
		}
	}
	return nil
}

// found stores new copysets; their peers are made by orders.
func (t *Topology) found(ctx context.Context, pool string, sets [][]layout.ChunkserverID) error {
	return t.update(ctx, func(x *tx) error {
		for _, set := range sets {
			rec := &schedule.Record{ID: x.ids.Copyset, Pool: pool}
			x.ids.Copyset++
			for _, cs := range set {
				rec.Peers = append(rec.Peers, schedule.Peer{ID: x.ids.Peer, Chunkserver: cs})
				x.ids.Peer++
			}
			x.put(t, rec)
		}
		return nil
	})
}

// plan begins and gives up replacements.
func (t *Topology) plan(ctx context.Context) error {
	t.mu.RLock()
	decisions := schedule.Plan(t.clusterLocked(), t.o.Limits)
	t.mu.RUnlock()
	for part := range slices.Chunk(decisions, recordsMax) {
		err := t.update(ctx, func(x *tx) error {
			for _, d := range part {
				t.decide(x, d)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// decide puts one decision into x, unless the copyset changed since it was made.
func (t *Topology) decide(x *tx, d schedule.Decision) {
	t.mu.RLock()
	rec := t.mu.copysets[d.Copyset].rec
	t.mu.RUnlock()
	_, member := rec.Peer(d.OldPeer)
	switch {
	case d.Abort && rec.Op != nil:
		next, op := *rec, *rec.Op
		op.Abort, op.Error = true, d.Why
		next.Op = &op
		x.put(t, &next)
	case !d.Abort && rec.Op == nil && member:
		t.o.Log.Info("replacing a peer", zap.Uint64("copyset", uint64(d.Copyset)), zap.String("kind", d.Kind),
			zap.Uint64("old", uint64(d.OldPeer)), zap.Uint64("to", uint64(d.NewChunkserver)))
		t.begin(x, rec, d)
	}
}

// leaders moves one leader at a time for balance.
func (t *Topology) leaders() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.o.Now()
	m := &t.mu.move
	if t.o.LeaderMoves <= 0 || now.Sub(m.began) < t.o.LeaderMoves {
		return
	}
	if m.copyset != 0 {
		c := t.mu.copysets[m.copyset]
		leads := c.leader != 0 && c.reports[c.leader] != nil && c.reports[c.leader].Peer == m.to
		if !leads && now.Sub(m.began) < leaderMoveMax {
			return
		}
		m.copyset, m.to = 0, 0
	}
	maps.DeleteFunc(m.recent, func(_ layout.CopysetID, at time.Time) bool { return now.Sub(at) > leaderRest })
	move, ok := schedule.Leaders(t.clusterLocked(), func(id layout.CopysetID) bool { _, r := m.recent[id]; return r })
	if ok {
		m.copyset, m.to, m.began = move.Copyset, move.To, now
		m.recent[move.Copyset] = now
	}
}

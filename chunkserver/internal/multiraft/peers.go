package multiraft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/outset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peerlist"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/proposals"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/raftzap"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

// The log of a founding peer starts behind an entry that nobody has, so a peer that joins always gets an image first.
const (
	foundingIndex = 1
	foundingTerm  = 1
	// foundingVersion is the Members.Version of a founding membership.
	foundingVersion = 1
	// eagerTicks is for how long the founding peer that is meant to lead tries to, each second tick.
	eagerTicks = 20
)

// recover brings back the groups of the list and finishes what a crash interrupted.
func (h *Host) recover() error {
	all := h.peers.All()
	for _, id := range slices.Sorted(maps.Keys(all)) {
		var err error
		r := all[id]
		switch r.State {
		case peerlist.Live:
			g := h.newGroup(id, r.Peer)
			g.node.quarantine = h.now() + time.Duration(h.cfg.ElectionTicks)*h.cfg.Tick
			h.setGroup(id, g)
			if err := g.recover(); err != nil {
				g.broken(fmt.Errorf("multiraft: copyset %d can not be recovered: %w", id, err))
			}
			g.w.post(event{g: g, kind: evAttach})
		case peerlist.Distrusted:
			g := h.newGroup(id, r.Peer)
			h.setGroup(id, g)
			g.broken(ErrDistrusted)
			g.w.post(event{g: g, kind: evAttach})
		case peerlist.Creating, peerlist.Removing:
			// A peer that was being made has promised nothing; it may be made again under its id.
			if err = h.cfg.Log.Append([]raftlog.Update{{Copyset: id, Remove: true}}); err != nil {
				break
			}
			if err = h.cfg.Store.Remove(id); err != nil && !errors.Is(err, blockstore.ErrNotFound) {
				break
			}
			state := peerlist.Removed
			if r.State == peerlist.Creating {
				r.Peer = 0
			}
			err = h.peers.Set(id, peerlist.Record{Peer: r.Peer, State: state})
		}
		switch {
		case err != nil && noRoom(err): // the order for it comes again
			h.event(fmt.Sprintf("a peer of copyset %d is left half made, or half removed", id), nil, err)
		case err != nil:
			return fmt.Errorf("multiraft: copyset %d: %w", id, err)
		}
	}
	return nil
}

// noRoom tells an error of a full disk.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, blockstore.ErrNoSpace) || errors.As(err, new(*raftlog.NoSpaceError))
}

func (h *Host) newGroup(id layout.CopysetID, peer layout.PeerID) *Group {
	g := &Group{id: id, peer: peer, host: h, w: h.workerOf(id), ap: h.applierOf(id)}
	c := &h.cfg
	limits := proposals.Limits{Count: int64(c.ProposalsMax), Bytes: c.ProposalBytesMax, TotalBytes: c.TotalBytesMax}
	g.proposals = proposals.New[Reply](limits, &h.proposed)
	g.node.seen = map[layout.PeerID]layout.ChunkserverID{}
	empty := copyset.New(nil, 0, 0)
	g.members.Store(empty.Members())
	g.view.Store(empty.View())
	g.node.members = empty.Members()
	return g
}

// broken makes the group one that only reports why it does not run.
func (g *Group) broken(err error) {
	g.node.dead, g.app.dead = true, true
	g.failure.Store(&err)
	g.abandon(g.failed(), true)
	g.host.event("copyset stopped", g, err)
}

// recover builds the group's raft node from log and store. The store may be ahead of the log by an image whose
// installation a crash interrupted: then the log starts anew behind it.
func (g *Group) recover() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("raft: %v", r)
		}
	}()
	if err := g.use(g.host.cfg.Store.Copyset(g.id)); err != nil {
		return err
	}
	lg, ok := g.host.cfg.Log.Group(g.id)
	if !ok {
		return errors.New("its log is lost")
	}
	g.log = lg
	index, term := g.app.state.Applied()
	hard, reset, err := outset.Begin(lg, index, term)
	if err != nil {
		return err
	}
	if reset {
		u := raftlog.Update{Copyset: g.id, HardState: hard, Reset: &raftlog.SnapshotMeta{Index: index, Term: term}}
		if err := g.host.cfg.Log.Append([]raftlog.Update{u}); err != nil {
			return err
		}
	}
	return g.start(hard)
}

// start makes the raft node.
func (g *Group) start(hard *raftpb.HardState) error {
	c := &g.host.cfg
	n := &g.node
	n.members = g.members.Load()
	index, term := g.app.state.Applied()
	st := &logStorage{Group: g.log, g: g, hard: hard, conf: n.members.Conf}
	raw, err := raft.NewRawNode(&raft.Config{
		ID: uint64(g.peer), ElectionTick: c.ElectionTicks, HeartbeatTick: c.HeartbeatTicks,
		Storage: st, Applied: index, AsyncStorageWrites: true,
		MaxSizePerMsg: c.MessageBytes, MaxCommittedSizePerReady: c.InflightBytes,
		MaxInflightMsgs: c.InflightMessages, MaxInflightBytes: c.InflightBytes,
		CheckQuorum: true, PreVote: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: raftzap.Logger{L: g.host.log.With(zap.Uint64("copyset", uint64(g.id)))},
	})
	if err != nil {
		return err
	}
	n.raw, n.appliedTerm = raw, term
	n.term, n.commit = hard.GetTerm(), hard.GetCommit()
	n.hard = hard
	return nil
}

// Found makes a founding peer, durably: one of those that the copyset begins with, which are the same in the order to
// each of them. It is done already when that peer is here. ErrExists, ErrRemoved, or an error of the disk.
func (h *Host) Found(ctx context.Context, id layout.CopysetID, peer layout.PeerID, members map[layout.PeerID]layout.ChunkserverID) error {
	if members[peer] != h.cfg.Self || len(members) > copyset.PeersMax {
		return fmt.Errorf("multiraft: peer %d of copyset %d is not one of the founding peers here", peer, id)
	}
	m := &copyset.Members{Version: foundingVersion, Conf: &raftpb.ConfState{AutoLeave: new(false)}, Chunkservers: maps.Clone(members)}
	for _, p := range slices.Sorted(maps.Keys(members)) {
		m.Conf.Voters = append(m.Conf.Voters, uint64(p))
	}
	return h.create(ctx, id, peer, m)
}

// Join makes an empty peer, durably, that the leader of the copyset will fill. It is done already when it is here.
func (h *Host) Join(ctx context.Context, id layout.CopysetID, peer layout.PeerID) error {
	return h.create(ctx, id, peer, nil)
}

func (h *Host) create(ctx context.Context, id layout.CopysetID, peer layout.PeerID, founding *copyset.Members) error {
	h.orders.Lock()
	defer h.orders.Unlock()
	have := h.peers.Peer(id)
	switch {
	case id == 0 || peer == 0:
		return errors.New("multiraft: copyset or peer 0")
	case have.State == peerlist.Removed && peer <= have.Peer:
		return ErrRemoved
	case have.State == peerlist.Live && have.Peer == peer:
		return nil
	case have.State == peerlist.Live || have.State == peerlist.Removing || have.State == peerlist.Distrusted:
		return ErrExists
	case h.failedErr() != nil:
		return h.failedErr()
	case have.State == peerlist.Creating: // an attempt that failed half way
		if err := h.erase(ctx, id); err != nil {
			return err
		}
	}
	if err := h.peers.Set(id, peerlist.Record{Peer: peer, State: peerlist.Creating}); err != nil {
		return err
	}
	g := h.newGroup(id, peer)
	if err := g.format(ctx, founding); err != nil {
		return err
	}
	if err := h.peers.Set(id, peerlist.Record{Peer: peer, State: peerlist.Live}); err != nil {
		return err
	}
	h.setGroup(id, g)
	g.w.post(event{g: g, kind: evAttach})
	h.event("peer created", g, nil)
	return nil
}

// format makes the group's content and log.
func (g *Group) format(ctx context.Context, founding *copyset.Members) error {
	cs, err := g.host.cfg.Store.Create(g.id)
	if err != nil {
		return err
	}
	u := raftlog.Update{Copyset: g.id, MustSync: true}
	hard := &raftpb.HardState{Term: new(uint64(0)), Vote: new(uint64(0)), Commit: new(uint64(0))}
	if founding != nil {
		cs.SetApplied(foundingIndex, foundingTerm)
		f := cs.Freeze(copyset.New(founding, foundingIndex, foundingTerm).Marshal())
		if err := g.host.cfg.Store.Commit([]*blockstore.Frozen{f}); err != nil {
			return err
		}
		hard = &raftpb.HardState{Term: new(uint64(foundingTerm)), Vote: new(uint64(0)), Commit: new(uint64(foundingIndex))}
		u.HardState, u.Reset = hard, &raftlog.SnapshotMeta{Index: foundingIndex, Term: foundingTerm}
		voters := founding.Conf.GetVoters()
		if voters[uint64(g.id)%uint64(len(voters))] == uint64(g.peer) {
			g.node.eager = eagerTicks
		}
	}
	if err := g.host.writer.Do(ctx, u); err != nil {
		return err
	}
	if err := g.use(cs, nil); err != nil {
		return err
	}
	lg, ok := g.host.cfg.Log.Group(g.id)
	if !ok {
		return errors.New("multiraft: log has no such group")
	}
	g.log = lg
	return g.start(hard)
}

// Distrust ends a peer whose content differs from that of the others, durably: it takes part in nothing any more, and its
// report says so until it is removed. It is done already when it was asked for before.
func (h *Host) Distrust(id layout.CopysetID, peer layout.PeerID) error {
	h.orders.Lock()
	defer h.orders.Unlock()
	have, g := h.peers.Peer(id), h.Group(id)
	switch {
	case g == nil || have.Peer != peer:
		return ErrNoGroup
	case have.State == peerlist.Distrusted:
		return nil
	}
	if err := h.peers.Set(id, peerlist.Record{Peer: peer, State: peerlist.Distrusted}); err != nil {
		return err
	}
	g.w.post(event{g: g, kind: evFail, err: ErrDistrusted})
	return nil
}

// Remove removes the peer with its data and log, durably. It is done already when it is not here. The id never comes
// back.
func (h *Host) Remove(ctx context.Context, id layout.CopysetID, peer layout.PeerID) error {
	h.orders.Lock()
	defer h.orders.Unlock()
	have, g := h.peers.Peer(id), h.Group(id)
	if have.Peer != peer || have.State == peerlist.Removed || have.State == 0 {
		return nil
	}
	if err := h.peers.Set(id, peerlist.Record{Peer: peer, State: peerlist.Removing}); err != nil {
		return err
	}
	if g != nil {
		if err := g.order(ctx, event{kind: evDetach, err: ErrRemoved}); err != nil {
			return err
		}
		if err := g.ask(ctx, task{g: g, kind: taskStop}); err != nil {
			return err
		}
		h.setGroup(id, nil) // not before both have let go: an order that timed out begins here again
	}
	if err := h.erase(ctx, id); err != nil {
		return err
	}
	if g != nil {
		h.event("peer removed", g, nil)
	}
	return h.peers.Set(id, peerlist.Record{Peer: peer, State: peerlist.Removed})
}

// erase removes log and data.
func (h *Host) erase(ctx context.Context, id layout.CopysetID) error {
	if err := h.writer.Do(ctx, raftlog.Update{Copyset: id, Remove: true}); err != nil {
		return err
	}
	if err := h.cfg.Store.Remove(id); err != nil && !errors.Is(err, blockstore.ErrNotFound) {
		return err
	}
	return nil
}

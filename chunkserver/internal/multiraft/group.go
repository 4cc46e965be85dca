package multiraft

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/headroom"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/logtail"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/medium"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/offers"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/proposals"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

// Group is this chunkserver's peer of one copyset. Its methods may be called from any goroutine.
type Group struct {
	id   layout.CopysetID
	peer layout.PeerID
	host *Host
	w    *worker
	ap   *applier
	log  *raftlog.Group

	node node // the worker's
	app  app  // the applier's

	// What follows is published by worker and applier, for all.
	store     atomic.Pointer[blockstore.Copyset]
	lease     atomic.Int64  // end of the read lease on the host's clock, 0: none
	leading   atomic.Bool   // raft leads here
	period    atomic.Uint64 // counts the times that its clock was started and stopped; odd: it stands still
	used      atomic.Bool   // it was read from since its last tick
	leader    atomic.Uint64 // chunkserver of the leader, 0: not known
	applied   atomic.Uint64
	floor     atomic.Uint64 // below this applied index some block is newer than it should be (medium.Medium.Ahead)
	view      atomic.Pointer[copyset.View]
	members   atomic.Pointer[copyset.Members]
	report    atomic.Pointer[raftReport]
	failure   atomic.Pointer[error]
	blocked   atomic.Pointer[error] // an entry can not be applied at the moment
	appending atomic.Int32          // appends that the log writer has
	logBytes  atomic.Int64          // bytes of entries appended since the last checkpoint
	sending   atomic.Pointer[Transfer]

	proposals *proposals.Set[Reply]
	offers    offers.Offers
	tail      logtail.Tail
}

// Waiter gets the reply to a proposal, once, on a goroutine that serves other groups too: Done must not block.
type Waiter interface{ Done(Reply) }

type proposal = proposals.Proposal[Reply]

// ID returns the copyset, Peer the peer's id in it.
func (g *Group) ID() layout.CopysetID { return g.id }

// Peer returns the id of this chunkserver's peer.
func (g *Group) Peer() layout.PeerID { return g.peer }

// Propose proposes the command, which it encodes before it returns; the reply goes to w, in any case. NotLeader
// and Busy say that it was not proposed and never takes effect. Leadership lost on the way is NotReady, and the command may still
// take effect: to ask again, with the same seq, is safe.
func (g *Group) Propose(c *copyset.Command, w Waiter) {
	if r, ok := g.admit(c); !ok {
		w.Done(r)
		return
	}
	size := c.Size()
	p, ok := g.proposals.Admit(g.host.nextProposal.Add(1), int64(size), w)
	if !ok {
		g.proposals.Finish(p, Reply{Status: Busy})
		return
	}
	c.Proposer, c.Proposal = g.peer, p.ID
	p.Data = c.AppendTo(make([]byte, 0, size))
	g.w.post(event{g: g, kind: evPropose, prop: p})
}

// admit answers what needs no log: it is a short cut, the log decides.
func (g *Group) admit(c *copyset.Command) (Reply, bool) {
	switch {
	case g.failure.Load() != nil:
		return g.failed(), false
	case !g.leading.Load():
		return g.notLeader(), false
	case c.Op == copyset.OpWrite || c.Op == copyset.OpCompareAndWrite || c.Op == copyset.OpWriteZeroes:
		switch g.host.room.Verdict() {
		case headroom.Wait:
			return Reply{Status: Busy}, false
		case headroom.Full:
			return Reply{Status: NoSpace}, false
		}
	}
	return Reply{}, true
}

func (g *Group) notLeader() Reply {
	return Reply{Status: NotLeader, Leader: layout.ChunkserverID(g.leader.Load())}
}

func (g *Group) failed() Reply {
	e := g.failure.Load()
	if e == nil || errors.Is(*e, ErrStopped) || errors.Is(*e, ErrRemoved) {
		return Reply{Status: NotLeader} // nothing is wrong; others serve
	}
	return Reply{Status: Failed, Err: *e}
}

// abandon answers everything that is expected; forGood: nothing will be expected any more. What was proposed may still be committed
// elsewhere, which NotLeader would deny.
func (g *Group) abandon(r Reply, forGood bool) {
	if r.Status == NotLeader {
		r = Reply{Status: NotReady}
	}
	g.proposals.Abandon(r, forGood)
}

// Access is who reads, by which rights.
type Access struct {
	Initiator layout.InitiatorID
	Fence     layout.Fence
	Access    layout.AccessGeneration
}

// readable checks lease and fences. Done means that the read may go on, or that its data may be used.
func (g *Group) readable(v layout.VolumeID, a *Access) Reply {
	if end := g.lease.Load(); end == 0 || int64(g.host.now()) >= end || g.applied.Load() < g.floor.Load() {
		switch {
		case g.failure.Load() != nil:
			return g.failed()
		case g.leading.Load():
			if g.quiet() {
				g.w.post(event{g: g, kind: evWake})
			}
			return Reply{Status: NotReady}
		}
		return g.notLeader()
	}
	if !g.used.Load() {
		g.used.Store(true)
	}
	verdict, out := g.view.Load().Check(v, a.Initiator, a.Fence, a.Access)
	switch verdict {
	case copyset.Pass:
		return Reply{Status: Done, Outcome: copyset.Outcome{Code: copyset.OK}}
	case copyset.Behind:
		return Reply{Status: Behind}
	}
	return Reply{Status: Done, Outcome: out}
}

func served(r Reply) bool { return r.Status == Done && r.Outcome.Code == copyset.OK }

// Read fills dst from off of the chunk and appends the checksums of the whole blocks to crcs. It runs on the caller's
// goroutine and may wait for the disk. dst is of use only when the reply is Done and OK.
func (g *Group) Read(ch layout.ChunkID, off uint32, dst []byte, crcs []uint32, a *Access) ([]uint32, Reply) {
	if r := g.readable(ch.Volume, a); !served(r) {
		return crcs, r
	}
	crcs, err := g.store.Load().Read(ch, off, dst, crcs)
	if err != nil {
		return crcs, storeReply(err)
	}
	return crcs, g.readable(ch.Volume, a)
}

// Allocated appends which blocks of the range are allocated to runs.
func (g *Group) Allocated(ch layout.ChunkID, off, length uint32, runs []blockstore.Run, a *Access) ([]blockstore.Run, Reply) {
	if r := g.readable(ch.Volume, a); !served(r) {
		return runs, r
	}
	runs, err := g.store.Load().Allocated(ch, off, length, runs)
	if err != nil {
		return runs, storeReply(err)
	}
	return runs, g.readable(ch.Volume, a)
}

// storeReply is what an error of the store means to the one who asked.
func storeReply(err error) Reply {
	switch {
	case errors.As(err, new(*blockstore.ChecksumError)):
		return Reply{Status: Damaged, Err: err}
	case errors.Is(err, blockstore.ErrRange):
		return Reply{Status: Invalid, Err: err}
	case errors.Is(err, blockstore.ErrRemoved):
		return Reply{Status: NotReady, Err: err} // an image took its place
	}
	return Reply{Status: Failed, Err: err}
}

// ReadBlocks reads whole blocks of the replica, whoever leads, once it has applied the index given; it is how another
// peer gets a good copy of a damaged block. No entry behind through is in the data.
func (g *Group) ReadBlocks(ctx context.Context, ch layout.ChunkID, off, length uint32, applied uint64) (data []byte, crcs []uint32, through uint64, err error) {
	for g.applied.Load() < applied {
		if err := g.host.clock.Sleep(ctx, 5*time.Millisecond, g.host.stopped); err != nil {
			return nil, nil, 0, err
		}
	}
	if g.failure.Load() != nil {
		return nil, nil, 0, fmt.Errorf("multiraft: copyset %d does not run here: %w", g.id, *g.failure.Load())
	}
	data = make([]byte, length)
	cs := g.store.Load()
	crcs, err = cs.Read(ch, off, data, nil)
	at, _ := cs.Applied()          // goes with the content: an image is in place before g.applied knows
	return data, crcs, at + 1, err // the next entry may be in it already
}

// ReadVersion reads whole blocks of a version of a volume as the replica here has it, whoever leads.
func (g *Group) ReadVersion(n uint64, ch layout.ChunkID, off, length uint32) (data []byte, crcs []uint32, err error) {
	if err := g.failure.Load(); err != nil {
		return nil, nil, *err
	}
	data = make([]byte, length)
	crcs, err = g.store.Load().ReadVersion(n, ch, off, data, nil)
	return data, crcs, err
}

// Probe looks for damage that a mutation of the range would meet at apply; see medium.Probe.
func (g *Group) Probe(ch layout.ChunkID, off, length uint32, both bool) error {
	return medium.Probe(g.store.Load(), ch, off, length, both)
}

// order asks the worker for something and waits for its answer.
func (g *Group) order(ctx context.Context, ev event) error {
	ev.g, ev.reply = g, make(chan error, 1)
	g.w.post(ev)
	return g.host.await(ctx, ev.reply)
}

// ChangeMembers proposes the change and does not wait until it is made. ErrNotLeader, or why the change does not fit.
func (g *Group) ChangeMembers(ctx context.Context, c *copyset.Change) error {
	return g.order(ctx, event{kind: evChange, change: c})
}

// TransferLeader begins to hand leadership to the peer. The leader serves no reads from then on.
func (g *Group) TransferLeader(ctx context.Context, to layout.PeerID) error {
	return g.order(ctx, event{kind: evTransfer, peer: to})
}

// Campaign lets the peer start an election now.
func (g *Group) Campaign(ctx context.Context) error {
	return g.order(ctx, event{kind: evCampaign})
}

// Members returns the membership as of the applied index.
func (g *Group) Members() *copyset.Members { return g.members.Load() }

// Leading tells whether raft leads here, which is no promise: only Read and Propose know.
func (g *Group) Leading() bool { return g.leading.Load() }

// Applied returns the index of the last applied entry.
func (g *Group) Applied() uint64 { return g.applied.Load() }

// Yield begins to hand leadership to whichever voter has most of the log.
func (g *Group) Yield(ctx context.Context) error {
	return g.order(ctx, event{kind: evYield})
}

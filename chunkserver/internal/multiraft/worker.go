package multiraft

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/lease"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/quiet"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

type eventKind uint8

const (
	evMessage     eventKind = iota // from another chunkserver
	evLocal                        // a response of the log writer or the applier
	evPropose                      // prop
	evConf                         // a configuration change was applied: conf, members
	evUnreachable                  // messages to the chunkserver from were lost
	evWake                         // somebody reads
	evRouse                        // the process of chunkserver from began another incarnation, or is lost
	evSnapStatus                   // the image to peer was sent, or not (err)
	evChange                       // change, reply
	evTransfer                     // peer, reply
	evCampaign                     // reply
	evYield                        // reply
	evAttach                       // the group is new here
	evDetach                       // reply: the worker is done with it
	evImage                        // an image came in: image
	evInstalled                    // the applier installed an image: members
	evFail                         // err: the group stops
	evBlocked                      // err: an entry can not be applied
)

type event struct {
	g       *Group
	kind    eventKind
	msg     *raftpb.Message
	stamp   lease.Stamp
	quiet   quiet.Incarnation
	from    layout.ChunkserverID
	peer    layout.PeerID
	prop    *proposal
	conf    *raftpb.ConfChangeV2
	members *copyset.Members
	change  *copyset.Change
	image   *incoming
	err     error
	reply   chan error
}

// worker drives the raft nodes of its groups.
type worker struct {
	host *Host
	mu   struct {
		sync.Mutex
		queue  []event
		closed bool
	}
	bell *sched.Bell

	// Owned by Run.
	spare    []event
	groups   []*Group // by copyset
	awake    []*Group // by copyset: those that tick
	dirty    []*Group
	out      map[layout.ChunkserverID][]Message
	to       []layout.ChunkserverID // the keys of out, in the order in which they came
	lastTick time.Duration
	now      time.Duration // read once per round
	ticked   bool          // the round has a tick
}

func newWorker(h *Host) *worker {
	return &worker{host: h, bell: h.clock.NewBell(), out: map[layout.ChunkserverID][]Message{}}
}

// post gives the worker an event. It does not block.
func (w *worker) post(ev event) {
	w.mu.Lock()
	if w.mu.closed {
		w.mu.Unlock()
		w.refuse(ev.g, &ev)
		return
	}
	w.mu.queue = append(w.mu.queue, ev)
	first := len(w.mu.queue) == 1
	w.mu.Unlock()
	if first {
		w.bell.Ring()
	}
}

// close refuses what waits and what comes; Run has returned.
func (w *worker) close() {
	w.mu.Lock()
	rest := w.mu.queue
	w.mu.queue, w.mu.closed = nil, true
	w.mu.Unlock()
	for i := range rest {
		w.refuse(rest[i].g, &rest[i])
	}
	for _, g := range w.groups {
		for _, p := range g.node.props {
			g.proposals.Finish(p, g.notLeader())
		}
		if g.node.image != nil {
			g.node.image.finish(ErrStopped)
		}
	}
}

// Run serves until ctx ends.
func (w *worker) Run(ctx context.Context) {
	w.lastTick = w.host.now()
	for ctx.Err() == nil {
		w.mu.Lock()
		events := w.mu.queue
		w.mu.queue = w.spare[:0]
		w.mu.Unlock()
		if len(events) == 0 && w.host.now() < w.nextTick() {
			w.spare = events
			w.bell.Wait(ctx, w.host.clock.Now()+w.nextTick()-w.host.now())
			continue
		}
		w.round(events)
		clear(events)
		w.spare = events
	}
}

// dozeTicks is how long a worker waits when all its groups are quiet.
const dozeTicks = 50

// nextTick is when the next tick is due, at the latest. Ticks that were missed are not made up: between two there is always a
// whole tick, or a follower could forget its leader before the leader's lease ended.
func (w *worker) nextTick() time.Duration {
	ticks := 1
	if len(w.awake) == 0 {
		ticks = dozeTicks
	}
	return w.lastTick + time.Duration(ticks)*w.host.cfg.Tick
}

// round takes events through raft: 1. events and ticks, 2. what each changed group has to write, apply and send, 3. the
// messages, by destination.
func (w *worker) round(events []event) {
	w.now = w.host.now()
	for i := range events {
		w.guard(events[i].g, func(g *Group) { w.handle(g, &events[i]) })
	}
	if w.ticked = w.now-w.lastTick >= w.host.cfg.Tick; w.ticked {
		w.lastTick = w.host.cfg.Mistake.Ticked(w.lastTick, w.now, w.host.cfg.Tick)
		for _, g := range w.awake {
			w.guard(g, w.tick)
		}
	}
	for i := 0; i < len(w.dirty); i++ { // drain may mark: a group that wakes in it comes again
		g := w.dirty[i]
		g.node.dirty = false
		w.dirty[i] = nil
		w.guard(g, w.drain)
	}
	w.dirty = w.dirty[:0]
	for _, to := range w.to {
		if msgs := w.out[to]; len(msgs) > 0 {
			w.host.cfg.Transport.Send(to, msgs)
			clear(msgs)
			w.out[to] = msgs[:0]
		}
	}
}

// queue keeps a message for the end of the round.
func (w *worker) queue(to layout.ChunkserverID, m Message) {
	msgs, ok := w.out[to]
	if !ok {
		w.to = append(w.to, to)
	}
	w.out[to] = append(msgs, m)
}

// guard runs f and stops the group when raft panics: it met something that must not be, such as a leader that believes
// this peer to have what it does not.
func (w *worker) guard(g *Group, f func(*Group)) {
	defer func() {
		if r := recover(); r != nil {
			w.stop(g, fmt.Errorf("multiraft: raft: %v", r))
		}
	}()
	f(g)
}

func (w *worker) mark(g *Group) {
	if !g.node.dirty {
		g.node.dirty = true
		w.dirty = append(w.dirty, g)
	}
}

// handle takes one event.
func (w *worker) handle(g *Group, ev *event) {
	n := &g.node
	if n.dead && ev.kind != evDetach && ev.kind != evAttach {
		w.refuse(g, ev)
		return
	}
	w.mark(g)
	w.stir(g, ev)
	switch ev.kind {
	case evMessage:
		w.host.inbox.Add(-payload(ev.msg))
		w.step(g, ev)
	case evLocal:
		if ev.msg.GetType() == raftpb.MsgStorageApplyResp {
			last := ev.msg.GetEntries()[len(ev.msg.GetEntries())-1]
			n.appliedTerm = last.GetTerm()
		}
		_ = n.raw.Step(ev.msg) // an answer that came too late
	case evPropose:
		n.props = append(n.props, ev.prop)
	case evConf:
		w.tellCommits(g) // before a peer that the change removes is not known any more
		n.raw.ApplyConfChange(ev.conf)
		n.members = ev.members
	case evUnreachable:
		for p, cs := range n.members.Chunkservers {
			if cs == ev.from && n.state == raft.StateLeader {
				n.raw.ReportUnreachable(uint64(p))
			}
		}
	case evSnapStatus:
		status := raft.SnapshotFinish
		if ev.err != nil {
			status = raft.SnapshotFailure
		}
		n.raw.ReportSnapshot(uint64(ev.peer), status)
	case evImage:
		w.receive(g, ev)
	case evInstalled:
		n.members = ev.members
		w.installed(g)
	default:
		w.control(g, ev)
	}
}

// control takes the events that are not part of the steady state.
func (w *worker) control(g *Group, ev *event) {
	n := &g.node
	switch ev.kind {
	case evAttach:
		w.groups, w.awake = insert(w.groups, g), insert(w.awake, g)
	case evRouse:
		w.rouse(g, ev.from)
	case evCampaign:
		ev.reply <- n.raw.Campaign()
	case evChange:
		ev.reply <- w.change(g, ev.change)
	case evTransfer:
		ev.reply <- w.transfer(g, ev.peer)
	case evYield:
		w.yield(g)
		ev.reply <- nil
	case evBlocked:
		if n.state == raft.StateLeader {
			w.yield(g)
		}
	case evFail:
		w.resign(g)
		w.stop(g, ev.err)
	case evDetach:
		w.stop(g, ev.err)
		w.groups, w.awake = without(w.groups, g), without(w.awake, g)
		ev.reply <- nil
	}
}

// refuse answers an event of a group that has stopped.
func (w *worker) refuse(g *Group, ev *event) {
	switch {
	case ev.kind == evMessage:
		w.host.inbox.Add(-payload(ev.msg))
	case ev.prop != nil:
		g.proposals.Finish(ev.prop, g.failed())
	case ev.image != nil:
		ev.image.finish(ErrStopped)
	case ev.reply != nil:
		ev.reply <- ErrStopped
	}
}

// stop ends the group's part in raft. It keeps its data and its log until it is removed.
func (w *worker) stop(g *Group, err error) {
	n := &g.node
	if n.dead {
		return
	}
	n.dead = true
	if n.askTerm != 0 || n.quiet || n.calling {
		w.host.pulse.Renew() // who went quiet under this peer, or with it, has nobody to wait for
	}
	g.failure.CompareAndSwap(nil, &err)
	g.lease.Store(0)
	g.leading.Store(false)
	g.leader.Store(0)
	for _, p := range n.props {
		g.proposals.Finish(p, g.failed())
	}
	n.props = nil
	g.abandon(g.failed(), true)
	if n.image != nil {
		n.image.finish(err)
		n.image = nil
	}
	g.offers.Drop()
	w.host.event("copyset stopped", g, err)
}

// tick advances raft's clock by one.
func (w *worker) tick(g *Group) {
	n := &g.node
	if n.dead {
		return
	}
	w.mark(g)
	w.idle(g)
	n.raw.Tick()
	if n.eager > 0 && n.lead == 0 {
		if n.eager--; n.eager%2 == 0 {
			_ = n.raw.Campaign() // tried again
		}
	}
	if n.campaignIn > 0 && n.lead == 0 { // not before drain has seen that the leader is forgotten
		if n.campaignIn--; n.campaignIn == 0 {
			_ = n.raw.Campaign() // raft's own timeout is the second try
		}
	}
	if n.ticks++; n.ticks%reportTicks == 0 {
		w.publishReport(g)
	}
	if n.transferTicks > 0 {
		if n.transferTicks++; n.transferTicks > w.host.cfg.ElectionTicks+1 {
			w.yield(g)
		}
	}
}

// propose steps the proposals of the round as one message.
func (w *worker) propose(g *Group) {
	n := &g.node
	if len(n.props) == 0 {
		return
	}
	m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(g.peer))}
	m.Entries = make([]*raftpb.Entry, 0, len(n.props))
	expected := n.props[:0]
	for _, p := range n.props {
		if n.transferTicks > 0 || !g.proposals.Expect(p) {
			g.proposals.Finish(p, Reply{Status: Busy}) // soon somebody else leads
			continue
		}
		expected = append(expected, p)
		m.Entries = append(m.Entries, &raftpb.Entry{Data: p.Data})
	}
	if len(m.Entries) > 0 {
		if err := n.raw.Step(m); err != nil {
			for _, p := range expected {
				if q := g.proposals.Take(p.ID); q != nil {
					g.proposals.Finish(q, g.notLeader())
				}
			}
		}
	}
	clear(n.props)
	n.props = n.props[:0]
}

// change proposes a configuration change.
func (w *worker) change(g *Group, c *copyset.Change) error {
	n := &g.node
	if n.state != raft.StateLeader {
		return ErrNotLeader
	}
	if err := c.Check(n.members); err != nil {
		return err
	}
	return n.raw.ProposeConfChange(c.Raft())
}

// transfer hands leadership over. The lease ends before raft hears of it, and stays away for the rest of the term.
func (w *worker) transfer(g *Group, to layout.PeerID) error {
	n := &g.node
	switch {
	case n.state != raft.StateLeader:
		return ErrNotLeader
	case to == g.peer:
		return nil
	case !n.members.Voter(to):
		return fmt.Errorf("multiraft: peer %d of copyset %d can not lead", to, g.id)
	case !w.answers(g, to):
		return fmt.Errorf("multiraft: peer %d of copyset %d has not answered lately: it is not made leader", to, g.id)
	}
	n.transferTicks = 1
	g.lease.Store(0)
	n.raw.TransferLeader(uint64(to))
	return nil
}

// answeredTicks is how many ticks ago a peer may have answered, at most, to be made leader.
const answeredTicks = 4

// answers tells whether a follower is there: a transfer to one that is not costs the term's lease and stops writes. Of one
// that was quiet until now its process tells.
func (w *worker) answers(g *Group, p layout.PeerID) bool {
	n, d := &g.node, answeredTicks*w.host.cfg.Tick
	return n.answers.Within(p, d, w.now) || n.woke != 0 && w.now-n.woke <= d && w.host.pulse.Alive(n.members.Chunkservers[p])
}

// yield hands leadership to the successor. A transfer that came to nothing is tried again until the term ends, because
// without a lease this leader is of no use.
func (w *worker) yield(g *Group) {
	if best := w.successor(g, false); best != 0 {
		_ = w.transfer(g, best) // it is leader and best is a voter
	}
}

// successor returns the voter that has most of the log, and answered last, of those that answer, or, when a leader asks for the last time, have answered
// within an election timeout or are alive. 0 for none or when this peer does not lead.
func (w *worker) successor(g *Group, last bool) (best layout.PeerID) {
	n, election := &g.node, time.Duration(w.host.cfg.ElectionTicks)*w.host.cfg.Tick
	if n.state != raft.StateLeader {
		return 0
	}
	var match uint64
	n.raw.WithProgress(func(id uint64, typ raft.ProgressType, pr progress) {
		p := layout.PeerID(id)
		there := w.answers(g, p) || last && (n.answers.Within(p, election, w.now) || w.host.pulse.Alive(n.members.Chunkservers[p]))
		more := pr.Match > match || pr.Match == match && n.answers.Of(p) >= n.answers.Of(best)
		if p != g.peer && typ == raft.ProgressTypePeer && there && more && n.members.Voter(p) {
			best, match = p, pr.Match
		}
	})
	return best
}

// resign lets the successor of a leader that is about to stop campaign at once, so that nobody waits for an election timeout.
// It is the message that ends a transfer, sent without waiting until the successor has the whole log: should it lack entries
// that the others have, it is not elected, and they campaign in their time. The lease ends before the message leaves.
func (w *worker) resign(g *Group) {
	if best := w.successor(g, true); best != 0 {
		w.send(g, &raftpb.Message{
			Type: raftpb.MsgTimeoutNow.Enum(), From: new(uint64(g.peer)), To: new(uint64(best)), Term: new(g.node.term),
		})
	}
}

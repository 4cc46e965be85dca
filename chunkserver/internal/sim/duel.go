package sim

import (
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/history"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// A duel is a moment in which one leader follows another and the first does not know: somebody writes at those who elect, and others
// read at the old leader as often as they can. The lease is all that keeps what they read from being stale.
const (
	// duelsMax bounds the duels of a world: each makes its history longer.
	duelsMax = 2
	// duelTime is how long it lasts: longer than an election timeout and a little, on the slowest clock. probeEvery is the longest
	// pause between two reads, probeTimeout how long an answer is waited for.
	duelTime     = 2200 * time.Millisecond
	probeEvery   = 20 * time.Millisecond
	probeTimeout = 12 * time.Millisecond
	// waitTimeout is that of one read in waitEvery: it is there when a stopped leader goes on.
	waitTimeout = duelTime / 2
	waitEvery   = 8
	// electMax is after what time who does not hear of its leader asks for votes, electing again and again.
	electMax = 1800 * time.Millisecond
	// freshMax is how old an answer of a follower to the leader may be, at the most, that a duel begins with.
	freshMax = 4 * latency
	// probers is added to the number of a duel to name the initiator that writes.
	probers = 1000
)

// duel has one of the ways happen in which another leader comes.
func (w *world) duel(s *set) {
	if w.duels == duelsMax {
		return
	}
	w.net.heal()
	writer := w.second(s)
	old, a, b, ok := w.trio(s)
	if w.quiet || !ok || a.life == nil || b.life == nil || writer == nil {
		return
	}
	w.duels++
	kind := w.dice.IntN(5)
	w.say("duel %d: chunkserver %d leads copyset %d", kind, old.id, s.id)
	if kind >= 3 { // the other one wants to lead, and needs one vote
		w.cut(old, b)
		w.Sleep(electMax)
		if w.quiet || a.life == nil {
			return
		}
	}
	end := w.Now + duelTime
	w.probe(s, writer, old, []*node{a, b}, end)
	w.Sleep(w.within(probeEvery))
	if w.quiet {
		return
	}
	switch kind {
	case 0: // it is cut off, and others elect in their time
	case 1: // it is stopped meanwhile, and reads wait for it when it goes on
		if l := old.life; l != nil {
			w.stats.Pauses++
			l.paused = true
			w.After(w.within(duelTime/2), func() { l.paused = false })
		}
	case 2: // it hands over, and does not hear how that ended
		w.hand(s, old, a)
	case 3: // who has promised it to vote for nobody starts again
		if a.life != nil {
			a.life.fall()
			w.After(time.Millisecond, a.start)
		}
	case 4: // who has promised it is stopped, and answers what it missed when it goes on
		if l := a.life; l != nil {
			w.stats.Pauses++
			l.paused = true
			w.Sleep(300*time.Millisecond + w.within(500*time.Millisecond))
			l.paused = false
			w.Sleep(2*latency + w.within(freshMax))
		}
	}
	w.lonely(old, end)
	for w.Now < end && !w.quiet {
		w.Sleep(100 * time.Millisecond)
	}
}

// cut cuts two chunkservers off from each other.
func (w *world) cut(a, b *node) {
	if !w.quiet {
		w.net.cut[a.id][b.id], w.net.cut[b.id][a.id] = true, true
	}
}

// lonely cuts a chunkserver off from the others, but not from the clients, until then.
func (w *world) lonely(n *node, until time.Duration) {
	w.stats.Partitions++
	for _, other := range w.nodes {
		w.cut(n, other)
	}
	w.After(until-w.Now, func() { w.net.cut = [nodesMax + 1][nodesMax + 1]bool{} })
}

// hand asks a leader to hand over. It hears nothing from then on.
func (w *world) hand(s *set, from, to *node) {
	l, other := from.life, to.life
	if l == nil || l.host == nil || other == nil || other.host == nil || other.host.Group(s.id) == nil {
		return
	}
	w.stats.Transfers++
	peer := other.host.Group(s.id).Peer()
	asked := false
	w.Spawn(l, "hand", func() {
		if g := l.host.Group(s.id); g != nil {
			_ = g.TransferLeader(w.ctx, peer) // it may not lead any more
		}
		asked = true
	})
	w.Park(func() bool { return asked }, w.Now+2*latency)
	for _, n := range w.nodes {
		w.net.cut[n.id][from.id] = !w.quiet
	}
	w.Sleep(2 * latency)
}

// second returns a client that the copyset knows, nil when it does not get to know one in time.
func (w *world) second(s *set) *client {
	c, known := &client{w: w, id: probers + w.duels, rng: w.rand(streamClient, uint64(probers+w.duels)), epoch: 1}, false
	c.leader = map[*set]layout.ChunkserverID{}
	w.Spawn(nil, "second", func() {
		c.raise(s)
		known = true
	})
	w.Park(func() bool { return known }, w.Now+secondMax)
	if !known {
		return nil
	}
	return c
}

// secondMax is how long that may take.
const secondMax = 3 * time.Second

// probe has a client write at those who may elect, and others read: most at the old leader, one at the others.
func (w *world) probe(s *set, writer *client, old *node, others []*node, end time.Duration) {
	at := w.dice.IntN(history.Area)
	w.clients = append(w.clients, writer)
	w.Spawn(nil, "writer", func() {
		for w.Now < end && w.err == nil {
			writer.insist(s, at, others, end)
		}
		writer.done = true
	})
	for _, where := range [][]*node{{old}, {old}, others} {
		reader := &client{w: w, id: writer.id, rng: writer.rng, epoch: writer.epoch}
		w.Spawn(nil, "reader", func() {
			for w.Now < end && w.err == nil {
				reader.glance(s, at, where[reader.rng.IntN(len(where))])
				w.Sleep(1 + time.Duration(reader.rng.Int64N(int64(probeEvery))))
			}
		})
	}
}

// glance reads a sector at a chunkserver, once.
func (c *client) glance(s *set, at int, n *node) {
	o := &history.Op{First: at, N: 1, Call: c.w.Steps}
	a := &multiraft.Access{Initiator: layout.InitiatorID(c.id), Fence: c.fence(), Access: access}
	var r multiraft.Reply
	var seen []uint32
	timeout := probeTimeout
	if c.rng.IntN(waitEvery) == 0 {
		timeout = waitTimeout
	}
	answered := c.w.call(outside, int(n.id), "glance", timeout, true, func(l *life) { r, seen = l.read(s, o, a) })
	if answered && r.Status == multiraft.Done && r.Outcome.Code == copyset.OK {
		o.Seen, o.Out, o.Ret = seen, r.Outcome, c.w.Steps
		s.history = append(s.history, o)
	}
}

// insist writes a sector, at the chunkservers given until then, and from then on as other clients do.
func (c *client) insist(s *set, at int, where []*node, until time.Duration) {
	c.seq++
	c.w.values++
	o := &history.Op{Kind: copyset.OpWrite, First: at, N: 1, Value: c.w.values, Call: c.w.Steps}
	c.now, c.at = o, s
	c.w.stats.Operations++
	for i := c.rng.IntN(2); o.Ret == 0; i++ {
		if c.w.Now >= until {
			c.repeat(s, o)
			break
		}
		cmd := c.command(s, o)
		r, answered := c.proposeIn(s, int(where[i%len(where)].id), &cmd, probeTimeout)
		if answered && r.Status == multiraft.Done && r.Outcome.Code == copyset.OK {
			o.Out, o.Ret = r.Outcome, c.w.Steps
			break
		}
		c.w.Sleep(1 + time.Duration(c.rng.Int64N(int64(probeEvery/4))))
	}
	o.Ret = c.w.Steps
	s.history = append(s.history, o)
	c.now = nil
	c.w.Sleep(1 + time.Duration(c.rng.Int64N(int64(10*probeEvery))))
}

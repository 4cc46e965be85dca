package sim

import (
	"math/rand/v2"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/history"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	volume = layout.VolumeID(1)
	access = layout.AccessGeneration(1)
	// callMin and callMax are how long a client waits for an answer before it asks again.
	callMin = 200 * time.Millisecond
	callMax = 1500 * time.Millisecond
	// thinkMax is the longest pause between two operations.
	thinkMax = 60 * time.Millisecond
	// patience is the longest that a client waits, which one in patientEvery does.
	patience     = 6 * time.Second
	patientEvery = 5
	// zombieMax is how late a command comes that waits in a gateway which hangs.
	zombieMax = 4 * time.Second
	// moveEvery: one in so many operations is abandoned when it is not answered at once.
	moveEvery = 6
)

// client is an initiator behind a gateway: it has one operation in flight, and repeats it until it is answered.
type client struct {
	w     *world
	id    int
	rng   *rand.Rand
	epoch layout.Epoch
	seq   layout.Seq
	done  bool
	// What is under way: a mutation and its copyset.
	now *history.Op
	at  *set
	// leader of each copyset, as far as the client knows.
	leader map[*set]layout.ChunkserverID
}

func (c *client) fence() layout.Fence { return layout.Fence{Epoch: c.epoch} }

// run does n operations.
func (c *client) run(n int) {
	for range n {
		c.w.Sleep(1 + time.Duration(c.rng.Int64N(int64(thinkMax))))
		c.w.Park(func() bool { return c.w.Now >= c.w.lull }, c.w.lull)
		c.one(c.w.sets[c.rng.IntN(len(c.w.sets))], c.draw())
	}
	c.done = true
}

// draw chooses an operation.
func (c *client) draw() *history.Op {
	o := &history.Op{}
	blocks := func(most int) {
		o.N = (1 + c.rng.IntN(most)) * history.BlockSectors
		o.First = c.rng.IntN((history.Area-o.N)/history.BlockSectors+1) * history.BlockSectors
	}
	sectors := func(most int) {
		o.N = 1 + c.rng.IntN(most)
		o.First = c.rng.IntN(history.Area - o.N + 1)
	}
	switch k := c.rng.IntN(100); {
	case k < 28:
		o.Kind = copyset.OpWrite
		blocks(3)
	case k < 44:
		o.Kind = copyset.OpWrite
		sectors(12)
	case k < 54: // large enough for a sidecar
		o.Kind, o.N = copyset.OpWrite, 16*history.BlockSectors
		o.First = c.rng.IntN(history.AreaBlocks-16+1) * history.BlockSectors
	case k < 66:
		o.Kind = copyset.OpCompareAndWrite
		sectors(history.BlockSectors)
	case k < 70:
		o.Kind = copyset.OpDiscard
		sectors(40)
	case k < 74:
		o.Kind = copyset.OpWriteZeroes
		sectors(40)
	default:
		sectors(history.Area)
	}
	return o
}

// command encodes a mutation.
func (c *client) command(s *set, o *history.Op) copyset.Command {
	cmd := copyset.Command{
		Op: o.Kind, Chunk: s.chunk, Offset: uint32(o.First * copyset.SectorSize), Length: uint32(o.N * copyset.SectorSize),
		Initiator: layout.InitiatorID(c.id), Fence: c.fence(), Access: access, Seq: c.seq, LowWater: c.seq,
	}
	switch o.Kind {
	case copyset.OpWrite:
		cmd.Payload = make([]byte, cmd.Length)
		history.Fill(cmd.Payload, o.Value)
		first := (layout.BlockSize - cmd.Offset%layout.BlockSize) % layout.BlockSize
		for i := range copyset.WholeBlocks(cmd.Offset, cmd.Length) {
			at := int(first) + i*layout.BlockSize
			cmd.CRCs = append(cmd.CRCs, layout.CRC(cmd.Payload[at:at+layout.BlockSize]))
		}
	case copyset.OpCompareAndWrite:
		cmd.Payload = make([]byte, 2*cmd.Length)
		for i, v := range o.Expect {
			history.Fill(cmd.Payload[i*copyset.SectorSize:(i+1)*copyset.SectorSize], v)
		}
		history.Fill(cmd.Payload[cmd.Length:], o.Value)
	}
	return cmd
}

// one does an operation.
func (c *client) one(s *set, o *history.Op) {
	if o.Kind == copyset.OpCompareAndWrite {
		// Mostly what is there, as far as this client knows; it may have changed when the command arrives.
		r := &history.Op{First: o.First, N: o.N}
		if c.one(s, r); r.Seen == nil {
			return // there is no good copy
		}
		o.Expect = append([]uint32(nil), r.Seen...)
	}
	if o.Kind != 0 {
		c.seq++
		c.w.values++
		o.Value = c.w.values
	}
	c.w.stats.Operations++
	o.Call, c.now, c.at = c.w.Steps, o, s
	ok := c.repeat(s, o)
	o.Ret = c.w.Steps
	c.w.Note(uint64(c.id), uint64(o.Value), uint64(o.Out.Code))
	switch {
	case ok:
		s.history = append(s.history, o)
	case o.Kind != 0: // once a new epoch is known to the copyset, the old one changes nothing
		c.move(s, o)
	}
	c.now = nil
}

// leave ends the client with what is under way left open.
func (c *client) leave() {
	if o := c.now; o != nil && o.Kind != 0 {
		o.Maybe, o.Ret = true, c.w.Steps+1
		c.at.history = append(c.at.history, o)
	}
}

// repeat asks until the operation is answered. It returns false when the operation is to be abandoned.
func (c *client) repeat(s *set, o *history.Op) bool {
	leave := o.Kind != 0 && !c.w.quiet && c.id < probers && c.rng.IntN(moveEvery) == 0
	if leave && c.rng.IntN(2) == 0 {
		// The gateway hangs with the command and goes on when another serves the client.
		cmd, to := c.command(s, o), c.where(s)
		c.w.After(time.Duration(c.rng.Int64N(int64(zombieMax))), func() {
			c.w.Spawn(nil, "zombie", func() { c.propose(s, to, &cmd) })
		})
		c.w.Sleep(1 + time.Duration(c.rng.Int64N(int64(callMin))))
		return false
	}
	for {
		r, answered := c.ask(s, o)
		c.w.say("client %d: %v: answered %v: %v %v %v", c.id, o, answered, r.Status, r.Outcome.Code, r.Err)
		switch {
		case !answered:
			c.leader[s] = 0
			if leave {
				return false
			}
		case r.Status == multiraft.Done && r.Outcome.Code == copyset.OK, r.Status == multiraft.Done && r.Outcome.Code == copyset.Miscompare:
			o.Out = r.Outcome
			return true
		case r.Status == multiraft.Done && r.Outcome.Code == copyset.StaleAccess, r.Status == multiraft.Invalid, r.Status == multiraft.Done:
			c.w.find("client %d: %v is answered %v %v: %v", c.id, o, r.Status, r.Outcome.Code, r.Err)
			return true
		case r.Status == multiraft.Behind:
			c.raise(s)
		case r.Status == multiraft.Damaged && c.w.opts.hopeless:
			return false // an error is right
		default:
			c.leader[s] = r.Leader
			c.refused(o, r)
			c.w.Sleep(1 + time.Duration(c.rng.Int64N(int64(callMin))))
		}
	}
}

// refused looks at why an operation was not done.
func (c *client) refused(o *history.Op, r multiraft.Reply) {
	switch {
	case r.Status == multiraft.Damaged && !c.w.opts.damages(), r.Status == multiraft.NoSpace && !c.w.opts.tight,
		r.Status == multiraft.NoSpace && o.Kind == copyset.OpDiscard:
		c.w.find("client %d: %v is refused: status %d: %v", c.id, o, r.Status, r.Err)
	case r.Status == multiraft.NoSpace:
		c.w.stats.Refusals++
	}
}

// where tells whom to ask: the leader, as far as it is known, or anybody.
func (c *client) where(s *set) int {
	if c.leader[s] != 0 && c.rng.IntN(6) != 0 {
		return int(c.leader[s])
	}
	at := s.where()
	return int(at[c.rng.IntN(len(at))])
}

func (c *client) timeout() time.Duration {
	if c.rng.IntN(patientEvery) == 0 {
		return patience
	}
	return callMin + time.Duration(c.rng.Int64N(int64(callMax-callMin)))
}

// ask sends the operation once.
func (c *client) ask(s *set, o *history.Op) (r multiraft.Reply, answered bool) {
	to := c.where(s)
	if o.Kind != 0 {
		cmd := c.command(s, o)
		return c.propose(s, to, &cmd)
	}
	var seen []uint32
	a := &multiraft.Access{Initiator: layout.InitiatorID(c.id), Fence: c.fence(), Access: access}
	answered = c.w.call(outside, to, taskRead, c.timeout(), true, func(l *life) {
		r, seen = l.read(s, o, a)
	})
	if answered && r.Status == multiraft.Done {
		o.Seen = seen
		c.leader[s] = layout.ChunkserverID(to)
	}
	return r, answered
}

// read serves a read.
func (l *life) read(s *set, o *history.Op, a *multiraft.Access) (r multiraft.Reply, seen []uint32) {
	g := l.host.Group(s.id)
	if g == nil {
		return multiraft.Reply{Status: multiraft.NotLeader}, nil
	}
	w := l.node.w
	dst := make([]byte, o.N*copyset.SectorSize)
	for range repairsMax {
		r = w.opts.Bug.read(l, s, o, a, dst, g)
		if r.Status != multiraft.Done || r.Outcome.Code != copyset.OK {
			if r.Status == multiraft.Damaged && l.mend(g, r.Err) {
				continue
			}
			return r, nil
		}
		break
	}
	if r.Status != multiraft.Done {
		return r, nil
	}
	w.say("chunkserver %d serves %v at %d", l.node.id, o, g.Applied())
	seen, ok := history.Values(dst)
	if !ok {
		w.find("chunkserver %d returns wrong bytes: copyset %d sectors %d+%d", l.node.id, s.id, o.First, o.N)
	}
	return r, seen
}

// propose sends a command once.
func (c *client) propose(s *set, to int, cmd *copyset.Command) (r multiraft.Reply, answered bool) {
	return c.proposeIn(s, to, cmd, c.timeout())
}

// proposeIn is propose with a timeout.
func (c *client) proposeIn(s *set, to int, cmd *copyset.Command, timeout time.Duration) (r multiraft.Reply, answered bool) {
	answered = c.w.call(outside, to, "propose", timeout, false, func(l *life) {
		own := *cmd // a repeated packet is a command of its own
		r = l.propose(s, &own)
	})
	if answered && r.Status == multiraft.Done {
		c.leader[s] = layout.ChunkserverID(to)
	}
	return r, answered
}

// propose serves a mutation.
func (l *life) propose(s *set, cmd *copyset.Command) multiraft.Reply {
	g := l.host.Group(s.id)
	if g == nil {
		return multiraft.Reply{Status: multiraft.NotLeader}
	}
	if l.node.w.opts.damages() && cmd.Length > 0 {
		for range repairsMax { // as the data path does
			if !l.mend(g, g.Probe(cmd.Chunk, cmd.Offset, cmd.Length, cmd.Op == copyset.OpCompareAndWrite)) {
				break
			}
		}
	}
	return l.node.w.opts.Bug.propose(l, g, cmd)
}

// proposeOnce proposes and waits.
func (l *life) proposeOnce(g *multiraft.Group, cmd *copyset.Command) multiraft.Reply {
	a := &waiter{}
	g.Propose(cmd, a)
	l.node.w.Park(func() bool { return a.done }, 0)
	return a.reply
}

// raise makes the client's epoch known to the copyset.
func (c *client) raise(s *set) {
	cmd := copyset.Command{
		Op: copyset.OpRaise, Chunk: layout.ChunkID{Volume: volume}, Initiator: layout.InitiatorID(c.id), Fence: c.fence(), Access: access,
	}
	for {
		r, answered := c.propose(s, c.where(s), &cmd)
		switch {
		case answered && r.Status == multiraft.Done:
			if r.Outcome.Code != copyset.OK {
				c.w.find("client %d: epoch %d is answered %v", c.id, c.epoch, r.Outcome.Code)
			}
			return
		case answered:
			c.leader[s] = r.Leader
			c.w.Sleep(1 + time.Duration(c.rng.Int64N(int64(callMin))))
		default:
			c.leader[s] = 0
		}
	}
}

// move begins a new epoch in all copysets, as a path that moves to another gateway does.
func (c *client) move(s *set, o *history.Op) {
	c.w.stats.Moves++
	c.epoch++
	c.seq = 0
	c.w.epochs[layout.InitiatorID(c.id)] = c.epoch
	o.Maybe = true
	c.raise(s)
	o.Ret = c.w.Steps
	s.history = append(s.history, o)
	c.now = nil
	for _, other := range c.w.sets {
		if other != s {
			c.raise(other)
		}
	}
}

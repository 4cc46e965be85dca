package sim

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/history"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/loop"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Options say what is simulated.
type Options struct {
	// Seed decides everything that is left to chance.
	Seed uint64
	// Bug is built in; see the list of bugs.
	Bug Bug
	// CrashAt, if not 0, has the first chunkserver crash at that change of its disk, counted from its first start, and
	// nothing else happens. CrashLate: once the change is made.
	CrashAt   int
	CrashLate bool
	// Log gets what happens, if it is not nil.
	Log func(format string, args ...any)

	// What the seed has chosen.
	nodes, copysets, clients, operations int
	cacheBytes, leafCache                int64
	deferBelow                           int
	checkpointEvery                      time.Duration
	tailEntries                          uint64
	nemesisMax                           time.Duration // the longest pause between two faults
	slow                                 time.Duration // the most that a sync of any log takes
	gentle                               bool          // hardly any crashes
	ill                                  illness       // of the disks of the first sick chunkservers
	sick                                 int
	hopeless                             bool // all are
	tight                                bool // disks are full at times
	moves                                bool // peers are replaced, if there is a chunkserver for that
	quietTicks                           int  // after how many idle ticks groups go quiet
}

// Stats count what happened.
type Stats struct {
	// Operations were asked for by clients, Moves are those that were abandoned for a new epoch.
	Operations, Moves int
	// Crashes of chunkservers, PowerCuts of all at once, Refused starts.
	Crashes, PowerCuts, Refused int
	// Partitions, Pauses of a process, Skips of its clock, Transfers of leadership that were asked for; Faults of all kinds.
	Partitions, Pauses, Skips, Transfers, Faults int
	// Packets that were sent, Lost, and Doubled.
	Packets, Lost, Doubled int
	// DiskChanges are writes, syncs and the like; Images were sent, Installed arrived; Repaired blocks.
	DiskChanges, Images, Installed, Repaired int
	// Replaced peers, and Digests of replicas.
	Replaced, Digests int
	// Damages are what disks did wrong by themselves; Full disks for a while; Refused writes because of that.
	Damages, Full, Refusals int
	// Hopeless worlds lost blocks, or most replicas of a copyset, because of too many disks that were ill.
	Hopeless int
	// Unchecked histories took too long to check.
	Unchecked int
	// Time is what passed in the simulation.
	Time time.Duration
}

// Add sums up.
func (s *Stats) Add(t *Stats) {
	for _, p := range []struct{ to, from *int }{
		{&s.Operations, &t.Operations},
		{&s.Moves, &t.Moves},
		{&s.Crashes, &t.Crashes},
		{&s.PowerCuts, &t.PowerCuts},
		{&s.Refused, &t.Refused},
		{&s.Partitions, &t.Partitions},
		{&s.Pauses, &t.Pauses},
		{&s.Skips, &t.Skips},
		{&s.Transfers, &t.Transfers},
		{&s.Faults, &t.Faults},
		{&s.Packets, &t.Packets},
		{&s.Lost, &t.Lost},
		{&s.Doubled, &t.Doubled},
		{&s.DiskChanges, &t.DiskChanges},
		{&s.Images, &t.Images},
		{&s.Installed, &t.Installed},
		{&s.Repaired, &t.Repaired},
		{&s.Unchecked, &t.Unchecked},
		{&s.Damages, &t.Damages},
		{&s.Replaced, &t.Replaced},
		{&s.Digests, &t.Digests},
		{&s.Full, &t.Full},
		{&s.Refusals, &t.Refusals},
		{&s.Hopeless, &t.Hopeless},
	} {
		*p.to += *p.from
	}
	s.Time += t.Time
}

// Result is how a simulation ended.
type Result struct {
	Stats Stats
	// Trace is a hash of all that happened: two runs of a seed have the same.
	Trace uint64
	// Err is the promise that was broken, or nil.
	Err error
}

// What a simulation is like.
const (
	// foundMax is how long the copysets may take to be founded, without faults.
	foundMax = 30 * time.Second
	// faultsMax is how long faults happen, at most: they end when the clients have done their operations.
	faultsMax = 90 * time.Second
	// progressMax is within what time after the last fault everything that was asked for is answered, a last read of
	// all is served, and all replicas have applied the same.
	progressMax = 60 * time.Second
	// restMax is how long checkpoints may take after that.
	restMax = 10 * time.Second
)

// freshSeq is above all sequence numbers that clients use.
const freshSeq = 1000

// draw has the seed choose what is left open.
func (o *Options) draw() {
	r := rand.New(rand.NewPCG(o.Seed, uint64(streamPlan)<<32))
	o.nodes, o.copysets = 3, 1+r.IntN(2)
	if r.IntN(3) == 0 {
		o.nodes = 4 + r.IntN(2)
	}
	o.clients, o.operations = 2+r.IntN(3), 12+r.IntN(18)
	o.nemesisMax = []time.Duration{300 * time.Millisecond, time.Second, 2 * time.Second}[r.IntN(3)]
	o.gentle = r.IntN(3) == 0
	o.slow = []time.Duration{0, 0, 60 * time.Millisecond}[r.IntN(3)]
	o.cacheBytes = []int64{-1, 64 << 10, 8 << 20}[r.IntN(3)]
	o.leafCache = []int64{1, 1 << 20}[r.IntN(2)]
	o.deferBelow = []int{-1, 0, 0}[r.IntN(3)]
	o.checkpointEvery = []time.Duration{50 * time.Millisecond, 400 * time.Millisecond, 3 * time.Second}[r.IntN(3)]
	o.tailEntries = []uint64{1, 8, 256}[r.IntN(3)]
	if r.IntN(3) == 0 {
		o.ill = illness(r.IntN(int(illnesses)))
	}
	o.quietTicks = []int{8, 8, 12, 40}[r.IntN(4)] // none less than ElectionTicks
	o.sick = 1
	if n := r.IntN(6); n < 4 && o.ill.repairable() {
		o.sick = []int{2, 2, 2, nodesMax}[n]
	}
	o.tight = r.IntN(4) == 0
	o.moves = true
	if o.CrashAt > 0 || o.Bug != NoBug {
		o.ill, o.tight = healthy, false
	}
	if o.ill == healthy {
		o.sick = 0
	}
	o.hopeless = o.sick >= o.nodes
	if o.CrashAt > 0 {
		o.nodes, o.copysets, o.clients, o.operations, o.slow = 3, 1, 2, 12, 0
		o.checkpointEvery, o.moves = 50*time.Millisecond, false
	}
}

// Run simulates a cluster with clients and faults. A simulation of which one step does not end is left to itself: its error
// is a *loop.StuckError, and the process should run no other.
func Run(opts Options) Result {
	opts.draw()
	w := newWorld(opts)
	done := make(chan struct{})
	go func() { // whoever watches can not be what is watched
		defer close(done)
		w.live()
		w.stats.Time = w.Now
		w.over = true
		w.finish()
	}()
	if err := w.Watch(done, stuckMax); err != nil {
		return Result{Err: err}
	}
	return Result{Stats: w.stats, Trace: w.Trace, Err: w.err}
}

// stuckMax is how long one step may take, in real time; the check of a history, which is none, ends sooner.
const stuckMax = 2 * time.Minute

// newWorld makes the chunkservers and the copysets.
func newWorld(opts Options) *world {
	w := &world{opts: opts, logf: opts.Log, ctx: context.Background(), epochs: map[layout.InitiatorID]layout.Epoch{}, fresh: freshSeq}
	w.digests = map[moment]map[layout.PeerID]*digest.Result{}
	w.Loop = loop.New(time.Second, w.rand(streamChoose, 0), w.bury, w.wrong)
	w.dice = w.rand(streamDice, 0)
	w.net = &network{w: w, rng: w.rand(streamNetwork, 0)}
	for i := range opts.nodes {
		w.addNode().sick = i < opts.sick
	}
	for i := range opts.copysets {
		w.sets = append(w.sets, w.makeSet(i))
	}
	return w
}

// addNode adds a chunkserver with an empty disk.
func (w *world) addNode() *node {
	i := len(w.nodes)
	n := &node{
		w: w, id: layout.ChunkserverID(i + 1), disk: w.rand(streamDisk, uint64(i)), slow: w.opts.slow, since: w.Now,
		erased: map[layout.PeerID]bool{},
	}
	n.format()
	n.base, n.rate = time.Duration(1+n.disk.Int64N(int64(time.Hour))), 0.96+0.08*n.disk.Float64()
	if w.opts.Bug == ClockDrifts && i%2 == 0 {
		n.rate /= 2
	}
	w.nodes = append(w.nodes, n)
	return n
}

// addClient adds a client that has done nothing yet.
func (w *world) addClient(id int) *client {
	c := &client{w: w, id: id, rng: w.rand(streamClient, uint64(id)), epoch: 1, leader: map[*set]layout.ChunkserverID{}}
	w.clients = append(w.clients, c)
	return c
}

// makeSet draws a copyset of three peers.
func (w *world) makeSet(i int) *set {
	s := &set{
		id: layout.CopysetID(i + 7), chunk: layout.ChunkID{Volume: volume, Index: uint32(i)},
		members: map[layout.PeerID]layout.ChunkserverID{}, joined: map[layout.PeerID]layout.ChunkserverID{}, gone: map[layout.PeerID]bool{},
	}
	for _, at := range w.dice.Perm(len(w.nodes))[:3] {
		id := w.nodes[at].id
		s.members[layout.PeerID(id)*10+layout.PeerID(i)] = id
	}
	return s
}

// live runs the phases of a simulation.
func (w *world) live() {
	for _, n := range w.nodes {
		n.start()
	}
	if !w.Until(w.Now+foundMax, w.founded) {
		w.find("the copysets are not founded")
		return
	}
	for i := range w.opts.clients {
		c := w.addClient(i + 1)
		w.Spawn(nil, "client", func() { c.run(w.opts.operations) })
	}
	done := func() bool {
		for _, c := range w.clients {
			if !c.done {
				return false
			}
		}
		return true
	}
	if w.opts.CrashAt == 0 {
		w.Spawn(nil, "nemesis", w.nemesis)
	}
	for _, s := range w.sets {
		s.moves = w.opts.moves && len(w.nodes) > len(s.members)
		if w.opts.CrashAt == 0 {
			w.Spawn(nil, "tend", func() { w.tend(s) })
		}
	}
	w.Until(w.Now+faultsMax, done)
	w.heal()
	if w.err != nil {
		return
	}
	if !w.opts.hopeless && w.Until(w.Now+progressMax, func() bool { return done() && w.moved() }) {
		w.last(w.clients[0])
		w.rest()
	} else if !w.opts.hopeless && !w.doomed() && !(w.opts.sick > 1 && w.spoiled()) {
		w.find("no progress within %v after the last fault", progressMax)
	} else { // some blocks, or most replicas, are lost: what was answered is right
		w.stats.Hopeless++
		w.Until(w.Now+restMax, done)
		for _, c := range w.clients {
			c.leave()
		}
	}
	w.judge()
}

// founded tells whether all copysets are there.
func (w *world) founded() bool {
	for _, s := range w.sets {
		for _, id := range s.members {
			l := w.nodes[id-1].life
			if l == nil || l.host == nil || l.host.Group(s.id) == nil {
				return false
			}
		}
	}
	return true
}

// heal ends all faults.
func (w *world) heal() {
	w.say("no faults any more")
	w.quiet = true
	w.net.heal()
	for _, n := range w.nodes {
		n.slow = 0
		n.room()
		if n.life != nil {
			n.life.paused, n.life.crash, n.life.late = false, 0, false
		}
	}
}

// last reads everything once more.
func (w *world) last(c *client) {
	done := false
	w.Spawn(nil, "last", func() {
		for _, s := range w.sets {
			c.one(s, &history.Op{N: history.Area})
		}
		done = true
	})
	if !w.Until(w.Now+progressMax, func() bool { return done }) {
		w.find("no read within %v after the last fault", progressMax)
	}
}

// replicas are the peers of a copyset that are to be alike.
func (w *world) replicas(s *set) []*life {
	var ls []*life
	for _, id := range s.where() {
		if n := w.nodes[id-1]; !n.out(s) {
			ls = append(ls, n.life)
		}
	}
	return ls
}

// same tells whether all replicas have applied the same.
func (w *world) same() bool {
	for _, s := range w.sets {
		ls := w.replicas(s)
		for _, l := range ls {
			if l == nil || l.host == nil || l.host.Group(s.id) == nil || ls[0] == nil || ls[0].host == nil ||
				ls[0].host.Group(s.id) == nil || l.host.Group(s.id).Applied() != ls[0].host.Group(s.id).Applied() {
				return false
			}
		}
	}
	return true
}

// rest waits until nothing happens any more, and compares the replicas.
func (w *world) rest() {
	if w.err != nil {
		return
	}
	if !w.Until(w.Now+progressMax, w.same) {
		w.find("the replicas have not applied the same within %v after the last fault", progressMax)
		return
	}
	w.Until(w.Now+restMax, func() bool { return w.Now > w.Now+1 })
	for _, s := range w.sets {
		w.compare(s)
		w.compared(s)
	}
	for _, n := range w.nodes {
		w.account(n)
	}
}

// compare reads the replicas of a copyset. What they hold must be the same to the byte, and so must be what is allocated.
func (w *world) compare(s *set) {
	var first []byte
	var usage map[layout.VolumeID]int64
	for _, l := range w.replicas(s) {
		var data []byte
		var err error
		done := false
		w.Spawn(l, "compare", func() {
			for range repairsMax {
				g := l.host.Group(s.id)
				if data, _, _, err = g.ReadBlocks(w.ctx, s.chunk, 0, history.AreaBlocks*layout.BlockSize, 0); !l.mend(g, err) {
					break
				}
			}
			done = true
		})
		w.Until(w.Now+restMax, func() bool { return done })
		if w.err != nil {
			return
		}
		if err != nil || !done {
			w.find("chunkserver %d: copyset %d can not be read: %v", l.node.id, s.id, err)
			return
		}
		cs, err := l.store.Copyset(s.id)
		if err != nil {
			w.find("chunkserver %d: copyset %d: %v", l.node.id, s.id, err)
			return
		}
		if first == nil {
			first, usage = data, cs.Usage()
		}
		if !bytes.Equal(first, data) {
			w.find("the replicas of copyset %d differ", s.id)
		}
		if !maps.Equal(usage, cs.Usage()) {
			w.find("the replicas of copyset %d have %v and %v allocated", s.id, usage, cs.Usage())
		}
	}
}

// account checks that the disk has nothing in use but what the copysets' content needs.
func (w *world) account(n *node) {
	if w.err != nil || n.lost != nil || n.life != nil && n.life.store != nil && n.life.store.Err() != nil {
		return
	}
	if n.life == nil || n.life.store == nil || n.life.host == nil {
		w.find("chunkserver %d is down although nothing happened to it", n.id)
		return
	}
	sum := int64(layout.BlockSize) // the header of the data file
	for _, id := range n.life.store.Copysets() {
		cs, err := n.life.store.Copyset(id)
		if err != nil {
			w.find("chunkserver %d: copyset %d: %v", n.id, id, err)
			return
		}
		for _, bytes := range cs.Usage() {
			sum += bytes
		}
	}
	if u := n.life.store.Usage(); u.Used != sum {
		w.find("chunkserver %d: %d bytes are in use, the content has %d", n.id, u.Used, sum)
	}
}

// judge checks the histories.
func (w *world) judge() {
	if w.err != nil {
		return
	}
	for _, s := range w.sets {
		switch history.Check(s.history) {
		case porcupine.Illegal:
			if w.logf != nil {
				for _, o := range s.history {
					w.logf("%v", o)
				}
			}
			w.find("the history of copyset %d is not linearizable (%d operations)", s.id, len(s.history))
		case porcupine.Unknown:
			w.stats.Unchecked++
		}
	}
}

// String sums up in one line.
func (s *Stats) String() string {
	return fmt.Sprintf("%d operations (%d abandoned), %d faults: %d crashes, %d power cuts, %d partitions, %d stops, %d clock jumps, "+
		"%d transfers; %d packets (%d lost, %d doubled), %d changes of disks, %d images (%d installed), %d peers replaced, %d digests, %d damages of disks (%d worlds beyond repair), %d repairs, %d full disks (%d refusals), %d not checked; %v simulated",
		s.Operations, s.Moves, s.Faults, s.Crashes, s.PowerCuts, s.Partitions, s.Pauses, s.Skips, s.Transfers,
		s.Packets, s.Lost, s.Doubled, s.DiskChanges, s.Images, s.Installed, s.Replaced, s.Digests, s.Damages, s.Hopeless, s.Repaired, s.Full, s.Refusals, s.Unchecked, s.Time.Round(time.Second))
}

package multiraft

import (
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/quiet"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// quick has groups go quiet after a short while.
func quick(cfg *Config) { cfg.QuietTicks = cfg.ElectionTicks }

// hushed waits until the peers on these chunkservers are quiet.
func (c *cluster) hushed(ids ...layout.ChunkserverID) {
	c.t.Helper()
	c.until("quiet groups", func() bool {
		for _, id := range ids {
			if g := c.group(id); g == nil || !g.quiet() {
				return false
			}
		}
		return true
	})
}

// quietCluster is three chunkservers with a quiet copyset, in which block 0 is 1.
func quietCluster(t *testing.T) (c *cluster, lead layout.ChunkserverID) {
	t.Helper()
	c = newCluster(t, 3, quick)
	c.found(1, 2, 3)
	c.leader()
	c.retry(c.command(0, 1))
	c.hushed(1, 2, 3)
	for id := range c.servers {
		if c.group(id).Leading() {
			lead = id
		}
	}
	return c, lead
}

// TestQuiet: a quiet group has a leader and no lease; it stays so, and a read or a write wakes it.
func TestQuiet(t *testing.T) {
	c, lead := quietCluster(t)
	g := c.group(lead)
	if g.lease.Load() != 0 || c.servers[lead].host.Quiet() != 1 {
		t.Errorf("quiet with a lease until %d", g.lease.Load())
	}
	term := g.Report().Term
	time.Sleep(3 * time.Duration(Default().ElectionTicks) * testTick)
	for id := range c.servers {
		if g := c.group(id); !g.quiet() || g.Report().Term != term || g.Report().LeaderPeer != layout.PeerID(lead*10) {
			t.Errorf("on %d: %+v", id, g.Report())
		}
	}
	if _, r := c.read(lead, 0); r.Status != NotReady {
		t.Errorf("a quiet leader reads without asking anybody: %v", r)
	}
	c.mustRead(0, 1)
	c.hushed(1, 2, 3)
	if r := c.propose(lead, c.command(0, 2)); r.Status != Done || r.Outcome.Code != copyset.OK {
		t.Errorf("a write to a quiet leader: %v", r)
	}
	c.mustRead(0, 2)
	if now := g.Report().Term; now != term {
		t.Errorf("term %d after %d: to wake is no election", now, term)
	}
	c.equal(1, 2, 3)
}

// TestQuietIsUsed: a group that is read does not go quiet.
func TestQuietIsUsed(t *testing.T) {
	c, lead := quietCluster(t)
	c.mustRead(0, 1)
	for end := time.Now().Add(30 * testTick); time.Now().Before(end); time.Sleep(testTick / 4) {
		if _, r := c.read(lead, 0); !served(r) {
			t.Fatalf("a read: %v", r)
		}
	}
}

// TestQuietLeaderLost: the others notice that the process of a quiet leader is gone.
func TestQuietLeaderLost(t *testing.T) {
	c, lead := quietCluster(t)
	c.halt(lead)
	begin := time.Now()
	c.leader(lead)
	if d := time.Since(begin); d > 40*testTick {
		t.Errorf("a new leader took %v, that is more than 40 ticks", d)
	}
	c.mustRead(0, 1)
	c.retry(c.command(0, 2))
	c.start(lead)
	c.equal(1, 2, 3)
	c.hushed(1, 2, 3)
}

// TestQuietLeaderLostByTurns: one follower notices that the leader's process is gone, campaigns, and is not heard, because the other
// one has not noticed. When that one does it does not wait for a leader that it calls in vain.
func TestQuietLeaderLostByTurns(t *testing.T) {
	const tick = 3 * testTick
	c := newCluster(t, 3, func(cfg *Config) { cfg.QuietTicks, cfg.Tick = cfg.ElectionTicks, tick })
	c.found(1, 2, 3)
	c.leader()
	c.retry(c.command(0, 1))
	c.hushed(1, 2, 3)
	lead := layout.ChunkserverID(c.group(1).leader.Load())
	first, second := lead%3+1, (lead+1)%3+1
	pulse, own := c.servers[second].host.pulse, c.servers[lead].host.pulse.Own()
	c.halt(lead)
	c.until("the first campaigns", func() bool {
		pulse.Heard(lead, own)
		return c.group(first).Report().LeaderPeer == 0 && !c.group(second).quiet()
	})
	for pulse.Alive(lead) {
		pulse.Tick()
	}
	c.servers[second].host.rouse(lead)
	began := time.Now()
	c.until("the second forgets the leader", func() bool { return c.group(second).Report().LeaderPeer != layout.PeerID(lead*10) })
	if d := time.Since(began); d > 5*tick {
		t.Errorf("after %v, more than 5 ticks", d)
	}
	c.leader(lead)
	c.mustRead(0, 1)
}

// TestQuietLeaderRestarts sooner than it is missed, and than it could campaign: its other incarnation is noticed.
func TestQuietLeaderRestarts(t *testing.T) {
	const tick = 4 * testTick
	c := newCluster(t, 3, func(cfg *Config) { cfg.QuietTicks, cfg.Tick = cfg.ElectionTicks, tick })
	c.found(1, 2, 3)
	c.leader()
	c.hushed(1, 2, 3)
	lead := layout.ChunkserverID(c.group(1).leader.Load())
	began := time.Now()
	c.restart(lead)
	c.until("the others are awake", func() bool { return !c.group(lead%3+1).quiet() && !c.group((lead+1)%3+1).quiet() })
	d, beat := time.Since(began), time.Duration(Default().HeartbeatTicks)*tick
	if d > time.Duration(Default().ElectionTicks)*tick-beat {
		t.Errorf("after %v, when it would have been missed", d)
	}
	c.leader()
	c.retry(c.command(0, 1))
	c.hushed(1, 2, 3)
}

// TestQuietFollowerRestarts: it hears what is committed from a leader that was quiet.
func TestQuietFollowerRestarts(t *testing.T) {
	c, lead := quietCluster(t)
	term := c.group(lead).Report().Term
	c.restart(lead%3 + 1)
	c.equal(1, 2, 3)
	c.hushed(1, 2, 3)
	if !c.group(lead).Leading() || c.group(lead).Report().Term != term {
		t.Error("the leader is another one")
	}
}

// TestQuietLeaderIsolated: the others elect one; the old leader serves nothing, and wakes into the new term.
func TestQuietLeaderIsolated(t *testing.T) {
	c, old := quietCluster(t)
	c.net.isolate(old, true)
	next := c.leader(old)
	c.until("a write elsewhere", func() bool { return c.propose(next, c.command(0, 2)).Status == Done })
	for range 20 {
		if v, r := c.read(old, 0); r.Status == Done {
			t.Fatalf("the isolated leader reads %d", v)
		}
		time.Sleep(testTick / 2)
	}
	c.net.isolate(old, false)
	c.mustRead(0, 2)
	c.equal(1, 2, 3)
	c.hushed(1, 2, 3)
}

// TestQuietLeaderDeaf: a follower that does not hear the leader any more wakes the group, and changes nothing in it.
func TestQuietLeaderDeaf(t *testing.T) {
	c, lead := quietCluster(t)
	deaf := lead%3 + 1
	term := c.group(lead).Report().Term
	c.net.cut(lead, deaf, true)
	c.until("the group is awake", func() bool { return !c.group(lead).quiet() && !c.group(deaf).quiet() })
	time.Sleep(2 * time.Duration(Default().ElectionTicks) * testTick)
	if !c.group(lead).Leading() || c.group(lead).Report().Term != term {
		t.Error("leadership moved, although a majority hears the leader")
	}
	c.net.cut(lead, deaf, false)
	c.hushed(1, 2, 3)
}

// TestQuietLeaderStops: the group of a quiet leader stops, and its process does not: the followers hear of it.
func TestQuietLeaderStops(t *testing.T) {
	c, lead := quietCluster(t)
	c.net.setDrop(1) // the last message of the leader is lost
	if err := c.servers[lead].host.Distrust(testCopyset, layout.PeerID(lead*10)); err != nil {
		t.Fatal(err)
	}
	c.until("the peer has stopped", func() bool { return c.group(lead).failure.Load() != nil })
	c.net.setDrop(0)
	c.leader(lead)
	c.mustRead(0, 1)
}

// TestQuietFollowerStops: the group of a quiet follower stops, and its process does not. The leader wakes, and is not followed by a
// peer that is not there.
func TestQuietFollowerStops(t *testing.T) {
	c, lead := quietCluster(t)
	stopped := layout.ChunkserverID(3)
	if lead == stopped {
		stopped = 2 // the higher of the others
	}
	if err := c.servers[stopped].host.Distrust(testCopyset, layout.PeerID(stopped*10)); err != nil {
		t.Fatal(err)
	}
	c.until("the leader is awake", func() bool { return !c.group(lead).quiet() })
	c.mustRead(0, 1) // somebody has answered
	if err := c.group(lead).Yield(c.ctx()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if c.leader(lead); time.Since(began) > time.Duration(Default().ElectionTicks)*testTick {
		t.Errorf("another one leads after %v, more than an election timeout", time.Since(began))
	}
}

// TestQuietTransfer: leadership of a quiet group is handed over at the first request.
func TestQuietTransfer(t *testing.T) {
	c, lead := quietCluster(t)
	if err := c.group(lead).TransferLeader(c.ctx(), layout.PeerID(lead%3+1)*10); err != nil {
		t.Fatal(err)
	}
	c.until("another leader", func() bool { return c.leader() == lead%3+1 })
	c.mustRead(0, 1)
	c.hushed(1, 2, 3)
	if err := c.group(lead%3 + 1).Yield(c.ctx()); err != nil {
		t.Fatal(err)
	}
	c.until("another leader", func() bool { return c.leader(lead%3+1) != 0 })
}

// TestQuietDiskFails: a quiet leader whose disk fails hands over at once.
func TestQuietDiskFails(t *testing.T) {
	c, lead := quietCluster(t)
	begin := time.Now()
	c.servers[lead].host.fail(ErrStopped)
	c.leader(lead)
	if d := time.Since(begin); d > time.Duration(Default().ElectionTicks)*testTick {
		t.Errorf("a new leader took %v, more than an election timeout", d)
	}
}

// TestQuietUnderLoss: groups that go quiet and wake while messages are lost answer everything.
func TestQuietUnderLoss(t *testing.T) {
	c := newCluster(t, 3, quick)
	c.found(1, 2, 3)
	c.leader()
	c.net.setDrop(0.1)
	for i := range 20 {
		c.retry(c.command(i, byte(i+1)))
		time.Sleep(time.Duration(i%4) * 6 * testTick)
		c.mustRead(i, byte(i+1))
	}
	c.net.setDrop(0)
	c.equal(1, 2, 3)
	c.hushed(1, 2, 3)
}

// TestQuietAskedTwice: a follower that is asked twice before it answers knows that it is quiet, and wakes.
func TestQuietAskedTwice(t *testing.T) {
	c, _ := quietCluster(t)
	c.net.setTwice()
	for i := range 10 {
		c.retry(c.command(0, byte(i+2)))
		c.hushed(1, 2, 3)
	}
}

// TestQuietAsProcessRenews: a follower that goes quiet in the moment in which its leader's process begins another incarnation
// takes part in raft again.
func TestQuietAsProcessRenews(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.QuietTicks, cfg.Tick = cfg.ElectionTicks, testTick/4 })
	c.found(1, 2, 3)
	c.leader()
	c.retry(c.command(0, 1))
	for i, end := 0, time.Now().Add(3*time.Second); time.Now().Before(end); i++ {
		for id, s := range c.servers {
			for of := range c.servers {
				if of != id {
					s.host.pulse.Heard(of, c.servers[of].host.pulse.Own()+quiet.Incarnation(i%2))
				}
			}
		}
	}
	c.retry(c.command(0, 2))
	c.equal(1, 2, 3)
	c.hushed(1, 2, 3)
}

// TestQuietTooSoon: who was told to ask again must not find the group quiet again.
func TestQuietTooSoon(t *testing.T) {
	c := newCluster(t, 1, nil)
	cfg := c.servers[1].host.cfg
	for ticks, ok := range map[int]bool{0: true, cfg.ElectionTicks - 1: false, cfg.ElectionTicks: true} {
		cfg.QuietTicks = ticks
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("quiet after %d ticks: %v", ticks, err)
		}
	}
}

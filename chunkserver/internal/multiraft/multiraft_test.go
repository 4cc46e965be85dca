package multiraft

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

func TestWriteReadRestart(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	c.leader()
	for i := range 20 {
		if out := c.retry(c.command(i, byte(i+1))); out.Code != copyset.OK {
			t.Fatalf("write %d: %v", i, out)
		}
	}
	for i := range 20 {
		c.mustRead(i, byte(i+1))
	}
	c.equal(1, 2, 3)
	for id := range layout.ChunkserverID(3) {
		c.restart(id + 1)
	}
	for i := range 20 {
		c.mustRead(i, byte(i+1))
	}
	c.retry(c.command(0, 99))
	c.mustRead(0, 99)
	c.equal(1, 2, 3)
}

func TestLeaderLost(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	old := c.leader()
	c.retry(c.command(1, 1))
	c.halt(old)
	begin := time.Now()
	if next := c.leader(old); next == old {
		t.Fatal("the leader is gone")
	}
	if d := time.Since(begin); d > 40*testTick {
		t.Errorf("a new leader took %v, that is more than 40 ticks", d)
	}
	c.mustRead(1, 1)
	c.retry(c.command(1, 2))
	c.start(old)
	c.mustRead(1, 2)
	c.equal(1, 2, 3)
}

// TestImage lets a peer miss so much that the log does not have it any more.
func TestImage(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.CheckpointEvery, cfg.TailEntries = 50*time.Millisecond, 4
	})
	c.found(1, 2, 3)
	lead := c.leader()
	behind := lead%3 + 1
	c.retry(c.command(0, 1))
	c.halt(behind)
	for i := range 60 {
		c.retry(c.command(i, byte(i+1)))
	}
	c.until("a cut log", func() bool {
		first, err := c.group(c.leader(behind)).log.FirstIndex()
		return err == nil && first > 20
	})
	c.start(behind)
	c.equal(1, 2, 3)
	c.retry(c.command(1, 77))
	c.equal(1, 2, 3)
	c.restart(behind)
	c.equal(1, 2, 3)
	c.mustRead(1, 77)
}

// TestReplacePeer moves a peer to a fourth chunkserver: learner, joint swap, removal.
func TestReplacePeer(t *testing.T) {
	c := newCluster(t, 4, nil)
	c.found(1, 2, 3)
	c.leader()
	for i := range 20 {
		c.retry(c.command(i, byte(i+1)))
	}
	if err := c.servers[4].host.Join(c.ctx(), testCopyset, 40); err != nil {
		t.Fatal(err)
	}
	change := func(changes ...copyset.MemberChange) {
		t.Helper()
		lead := c.leader()
		version := c.group(lead).Members().Version
		c.until("a change", func() bool {
			g := c.group(c.leader())
			if m := g.Members(); m.Version > version && !m.Joint() {
				return true
			}
			_ = g.ChangeMembers(c.ctx(), &copyset.Change{Replaces: version, Changes: changes})
			return false
		})
	}
	change(copyset.MemberChange{Peer: 40, Chunkserver: 4, Kind: copyset.AddLearner})
	c.until("the learner's copy", func() bool { return c.group(4).Applied() == c.group(c.leader()).Applied() })
	stale := c.group(c.leader()).Members().Version - 1
	if err := c.group(c.leader()).ChangeMembers(c.ctx(), &copyset.Change{Replaces: stale, Changes: []copyset.MemberChange{{Peer: 40, Kind: copyset.Promote}}}); err == nil {
		t.Error("a change of an old configuration was accepted")
	}
	gone := layout.ChunkserverID(1)
	if c.leader() == 1 {
		gone = 2
	}
	change(copyset.MemberChange{Peer: 40, Kind: copyset.Promote}, copyset.MemberChange{Peer: layout.PeerID(gone * 10), Kind: copyset.Remove})
	m := c.group(c.leader()).Members()
	if !m.Voter(40) || m.Has(layout.PeerID(gone*10)) || len(m.Conf.GetVoters()) != 3 {
		t.Fatalf("members are %v at %v", m.Conf, m.Chunkservers)
	}
	h := c.servers[gone].host
	for range 2 {
		if err := h.Remove(c.ctx(), testCopyset, layout.PeerID(gone*10)); err != nil {
			t.Fatal(err)
		}
	}
	if h.Group(testCopyset) != nil {
		t.Error("the removed peer is there")
	}
	if err := h.Join(c.ctx(), testCopyset, layout.PeerID(gone*10)); err == nil {
		t.Error("a removed peer came back under its id")
	}
	c.retry(c.command(0, 200))
	rest := []layout.ChunkserverID{}
	for id := layout.ChunkserverID(1); id <= 4; id++ {
		if id != gone {
			rest = append(rest, id)
		}
	}
	c.equal(rest...)
	for id := range c.servers {
		c.restart(id)
	}
	c.mustRead(0, 200)
	c.equal(rest...)
}

// TestTransfer: a leader that hands over serves no reads any more in its term, and another one does.
func TestTransfer(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	old := c.leader()
	c.retry(c.command(0, 1))
	to := old%3 + 1
	if err := c.group(old).TransferLeader(c.ctx(), layout.PeerID(to*10)); err != nil {
		t.Fatal(err)
	}
	if _, r := c.read(old, 0); r.Status == Done {
		t.Error("the old leader reads after the transfer began")
	}
	c.until("the new leader", func() bool { return c.group(to).Leading() })
	c.mustRead(0, 1)
}

// TestTransferToAPeerThatIsAway: it is refused, and the leader keeps its lease and takes writes.
func TestTransferToAPeerThatIsAway(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	old := c.leader()
	c.retry(c.command(0, 1))
	to := old%3 + 1
	c.halt(to)
	time.Sleep(2 * answeredTicks * c.servers[old].host.cfg.Tick)
	if err := c.group(old).TransferLeader(c.ctx(), layout.PeerID(to*10)); err == nil {
		t.Fatal("the transfer was begun")
	}
	c.until("a read", func() bool { v, r := c.read(old, 0); return r.Status == Done && v == 1 })
	if r := c.propose(old, c.command(0, 2)); r.Status != Done {
		t.Fatalf("a write after the refused transfer: %+v", r)
	}
}

// TestSleepingLeader: a leader whose clock went on while it stood still must not serve from its old lease.
func TestSleepingLeader(t *testing.T) {
	var slept [4]atomic.Int64
	c := newCluster(t, 3, func(cfg *Config) {
		begin, mine := time.Now(), &slept[cfg.Self]
		cfg.Clock = func() time.Duration { return time.Since(begin) + 1 + time.Duration(mine.Load()) }
	})
	c.found(1, 2, 3)
	for range 10 {
		lead := c.leader()
		c.until("a read", func() bool { _, r := c.read(lead, 0); return served(r) || r.Status != NotReady })
		lease := c.group(lead).lease.Load()
		slept[lead].Add(int64(time.Second))
		if _, r := c.read(lead, 0); r.Status == Done && c.group(lead).lease.Load() == lease {
			t.Fatal("a read was served from a lease that had ended")
		}
	}
}

// TestIsolatedLeader: nobody else leads before the lease ended, and then the old leader does not read.
func TestIsolatedLeader(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	old := c.leader()
	c.retry(c.command(0, 1))
	c.net.isolate(old, true)
	g := c.group(old)
	end := g.lease.Load()
	next := c.leader(old)
	c.until("a write elsewhere", func() bool { return c.propose(next, c.command(0, 2)).Status == Done })
	if now := int64(c.servers[old].host.now()); now < end {
		t.Fatalf("another leader %v before the lease ended", time.Duration(end-now))
	}
	if v, r := c.read(old, 0); r.Status == Done {
		t.Fatalf("the isolated leader reads %d", v)
	}
	c.net.isolate(old, false)
	c.equal(1, 2, 3)
	c.mustRead(0, 2)
}

// TestDuplicate sends a command again, to the same leader and to the next one.
func TestDuplicate(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	old := c.leader()
	first := c.command(0, 1)
	c.retry(first)
	c.retry(c.command(0, 2))
	c.retry(first)
	c.mustRead(0, 2)
	c.halt(old)
	c.leader(old)
	c.retry(first)
	c.mustRead(0, 2)
	low := c.command(1, 9)
	low.LowWater = low.Seq
	c.retry(low)
	if out := c.retry(first); out.Code != copyset.Forgotten {
		t.Errorf("below the low-water mark: %v", out)
	}
	c.start(old)
	c.equal(1, 2, 3)
}

// TestFences: what an older fence or access generation asks changes and reads nothing.
func TestFences(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	lead := c.leader()
	c.retry(c.command(0, 1))
	g := c.group(lead)
	dst := make([]byte, layout.BlockSize)
	ch := layout.ChunkID{Volume: 3, Index: 1}
	newer := Access{Initiator: 5, Fence: layout.Fence{Epoch: 2}, Access: 1}
	if _, r := g.Read(ch, 0, dst, nil, &newer); r.Status != Behind {
		t.Fatalf("a read with a newer fence: %v", r)
	}
	c.retry(copyset.Command{Op: copyset.OpRaise, Chunk: ch, Initiator: 5, Fence: newer.Fence, Access: 1})
	if _, r := g.Read(ch, 0, dst, nil, &newer); !served(r) || dst[0] != 1 {
		t.Fatalf("a read with the raised fence: %v", r)
	}
	if _, r := c.read(lead, 0); r.Outcome.Code != copyset.StaleFence {
		t.Fatalf("a read with the old fence: %v", r)
	}
	if out := c.retry(c.command(0, 3)); out.Code != copyset.StaleFence || out.Fence != newer.Fence {
		t.Fatalf("a write with the old fence: %v", out)
	}
	c.retry(copyset.Command{Op: copyset.OpRaiseAccess, Chunk: ch, Access: 4})
	if _, r := g.Read(ch, 0, dst, nil, &newer); r.Outcome.Code != copyset.StaleAccess || r.Outcome.Access != 4 {
		t.Fatalf("a read with the old access generation: %v", r)
	}
	c.retry(copyset.Command{Op: copyset.OpDeleteVolume, Chunk: ch})
	newer.Access = 9
	if _, r := g.Read(ch, 0, dst, nil, &newer); r.Outcome.Code != copyset.StaleAccess || r.Outcome.Access != layout.DeletedAccess {
		t.Fatalf("a read of a deleted volume: %v", r)
	}
	if u := g.store.Load().Usage(); len(u) != 0 {
		t.Errorf("a deleted volume uses %v", u)
	}
}

// TestDiskFull: a leader without space refuses writes before it proposes them, and everything else goes on.
func TestDiskFull(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.SpaceMargin = 1 << 40 })
	c.found(1, 2, 3)
	lead := c.leader()
	c.until("no space", func() bool { return c.propose(lead, c.command(0, 1)).Status == NoSpace })
	raise := copyset.Command{Op: copyset.OpRaise, Chunk: layout.ChunkID{Volume: 3}, Initiator: 5, Fence: testFence, Access: 1}
	if r := c.propose(lead, raise); r.Status != Done {
		t.Errorf("a raise: %v", r)
	}
}

// TestSpaceComesBack: what was discarded on a full disk gives room at once, although the entries that wrote it are few enough to stay
// in the log for followers that lag. A write waits for that and is not refused.
func TestSpaceComesBack(t *testing.T) {
	const room = 8 << 20 // of the 256 MiB that each disk has
	c := newCluster(t, 3, func(cfg *Config) { cfg.SpaceMargin, cfg.CheckpointEvery = 256<<20-room, time.Minute })
	c.found(1, 2, 3)
	lead := c.leader()
	n := 0
	c.until("a full disk", func() bool {
		r := c.propose(lead, c.large(n*largeBlocks, 1))
		if r.Status == Done {
			n++
		}
		return r.Status == NoSpace
	})
	if full := largeBlocks * layout.BlockSize * n; full < room/2 {
		t.Fatalf("full with %d bytes", full)
	}
	discard := c.large(0, 0)
	discard.Op, discard.Payload, discard.CRCs = copyset.OpDiscard, nil, nil
	discard.Length = uint32(n * largeBlocks * layout.BlockSize)
	if r := c.propose(lead, discard); r.Status != Done {
		t.Fatalf("a discard: %v", r)
	}
	c.until("that it is known", func() bool { return c.propose(lead, c.large(0, 2)).Status != NoSpace })
	c.until("room", func() bool {
		r := c.propose(lead, c.large(0, 2))
		if r.Status == NoSpace {
			t.Fatal("refused while space is being reclaimed")
		}
		return r.Status == Done
	})
}

// TestBusy: what is above the limit of waiting proposals is refused at once and counts nothing afterwards.
func TestBusy(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.ProposalsMax = 4 })
	c.found(1, 2, 3)
	lead := c.leader()
	g := c.group(lead)
	for other := range c.servers {
		if other != lead {
			c.net.isolate(other, true)
		}
	}
	replies := make(waiter, 64)
	for range 64 {
		cmd := c.command(0, 1)
		g.Propose(&cmd, replies)
	}
	busy := 0
	for range 64 {
		if r := <-replies; r.Status == Busy {
			busy++
		}
	}
	if busy != 60 {
		t.Errorf("%d proposals were refused, want 60", busy)
	}
	if n, b := g.proposals.Waiting(); n != 0 || b != 0 || g.host.proposed.Bytes() != 0 {
		t.Errorf("%d proposals of %d bytes are still counted", n, b)
	}
}

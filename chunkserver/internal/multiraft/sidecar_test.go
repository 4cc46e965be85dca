package multiraft

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

const largeBlocks = 24

// large returns a write of largeBlocks blocks, each filled with v, large enough to be sideloaded.
func (c *cluster) large(block int, v byte) copyset.Command {
	cmd := c.command(block, v)
	one, crc := cmd.Payload, cmd.CRCs[0]
	cmd.Payload, cmd.CRCs = nil, nil
	for range largeBlocks {
		cmd.Payload, cmd.CRCs = append(cmd.Payload, one...), append(cmd.CRCs, crc)
	}
	cmd.Length = largeBlocks * layout.BlockSize
	return cmd
}

// extents returns how many of the group's retained entries are sideloaded.
func (c *cluster) extents(id layout.ChunkserverID) (n int) {
	g := c.group(id)
	first, _ := g.log.FirstIndex()
	last, _ := g.log.LastIndex()
	for i := first; i <= last; i++ {
		term, _ := g.log.Term(i)
		if g.log.Extents(i, term) != nil {
			n++
		}
	}
	return n
}

// TestSideload writes large payloads: they are in the store, not in the log, and a follower that lags gets them from
// there.
func TestSideload(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery, cfg.TailEntries = 50*time.Millisecond, 1000 })
	c.uncached = true
	for id := range c.servers {
		c.restart(id)
	}
	c.found(1, 2, 3)
	lead := c.leader()
	for i := range 4 {
		c.retry(c.large(i*largeBlocks, byte(i+1)))
	}
	c.equal(1, 2, 3)
	for id, s := range c.servers {
		if n := c.extents(id); n != 4 {
			t.Errorf("chunkserver %d: %d entries are sideloaded, want 4", id, n)
		}
		if live := s.log.Usage().LiveBytes; live > 4*largeBlocks*layout.BlockSize/2 {
			t.Errorf("chunkserver %d: the log has %d bytes", id, live)
		}
	}
	behind := layout.ChunkserverID(1)
	if lead == behind {
		behind = 2
	}
	c.net.isolate(behind, true)
	for i := range 6 {
		c.retry(c.large(i*largeBlocks/2, byte(i+10)))
	}
	time.Sleep(200 * time.Millisecond) // checkpoints free what was overwritten; the log still holds it
	c.net.isolate(behind, false)
	c.equal(1, 2, 3)
	c.mustRead(0, 10)
	c.mustRead(5*largeBlocks/2, 15)
}

// TestSideloadPowerCut cuts the power of all again and again while large and small writes overwrite each other, and
// checkpoints free and reuse their blocks: what was answered is there.
func TestSideloadPowerCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 1))
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery, cfg.TailEntries = 20*time.Millisecond, 4 })
	c.found(1, 2, 3)
	want := map[int]byte{}
	for round := range 5 {
		lead := c.leader()
		for i := range 20 {
			block, v := rng.IntN(3*largeBlocks), byte(round*20+i+1)
			cmd, n := c.large(block, v), largeBlocks
			if rng.IntN(3) == 0 {
				cmd, n = c.command(block, v), 1
			}
			r := c.propose(lead, cmd)
			if r.Status != Done || r.Outcome.Code != copyset.OK {
				if c.retry(cmd).Code != copyset.OK {
					t.Fatal("a write was refused")
				}
			}
			for b := range n {
				want[block+b] = v
			}
		}
		for id := range c.servers {
			c.crash(id, rng)
		}
		for id := range c.servers {
			c.start(id)
		}
		for block, v := range want {
			c.mustRead(block, v)
		}
	}
	c.equal(1, 2, 3)
}

// lagging has a follower miss the large writes of blocks 0 to 4*largeBlocks, all of which the leader and the third one have
// applied and checkpointed. Logs keep no entry in memory.
func lagging(t *testing.T) (c *cluster, lead, behind, third layout.ChunkserverID) {
	t.Helper()
	c = newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery, cfg.TailEntries = 50*time.Millisecond, 1000 })
	c.uncached = true
	for id := range c.servers {
		c.restart(id)
	}
	c.found(1, 2, 3)
	lead = c.leader()
	behind, third = lead%3+1, (lead+1)%3+1
	c.retry(c.command(200, 99))
	c.equal(1, 2, 3)
	c.net.isolate(behind, true)
	for i := range 4 {
		c.retry(c.large(i*largeBlocks, byte(i+1)))
	}
	c.equal(lead, third)
	c.until("a checkpoint", func() bool {
		durable, _ := c.group(lead).store.Load().Durable()
		return durable == c.group(lead).Applied()
	})
	return c, lead, behind, third
}

// noneStopped checks that every peer goes on, and that the leader is the one that it was.
func (c *cluster) noneStopped(lead layout.ChunkserverID) {
	c.t.Helper()
	for id := range c.servers {
		if e := c.group(id).failure.Load(); e != nil {
			c.t.Errorf("the peer on %d stopped: %v", id, *e)
		}
	}
	if !c.group(lead).Leading() {
		c.t.Errorf("%d does not lead any more", lead)
	}
}

// TestRepairedPayload: when a damaged block of a large write is repaired, the log entry that holds it too is good again, and
// a follower that needs it gets it.
func TestRepairedPayload(t *testing.T) {
	c, lead, behind, _ := lagging(t)
	c.damage(lead, 2)
	g := c.group(lead)
	first, _ := g.log.FirstIndex()
	last, _ := g.log.LastIndex()
	if _, err := g.log.Entries(first, last+1, 1<<30); !errors.As(err, new(*raftlog.CorruptError)) {
		t.Fatalf("the damage is not in the log: %v", err)
	}
	for b := range uint32(largeBlocks) {
		e := &blockstore.ChecksumError{Copyset: testCopyset, Chunk: layout.ChunkID{Volume: 3, Index: 1}, Block: largeBlocks + b}
		if err := c.servers[lead].host.Repair(c.ctx(), g, e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.log.Entries(first, last+1, 1<<30); err != nil {
		t.Fatalf("after the repair: %v", err)
	}
	c.net.isolate(behind, false)
	c.equal(1, 2, 3)
	c.mustRead(largeBlocks, 2)
	c.noneStopped(lead)
}

// TestDamagedPayload: a follower that needs a damaged entry gets an image instead; a damaged block that the image meets is
// repaired from the third peer.
func TestDamagedPayload(t *testing.T) {
	c, lead, behind, third := lagging(t)
	c.damage(lead, 2)
	c.net.isolate(behind, false)
	c.equal(lead, third, behind)
	c.mustRead(largeBlocks, 2)
	c.noneStopped(lead)
}

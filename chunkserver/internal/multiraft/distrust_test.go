package multiraft

import (
	"errors"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestDistrust ends a peer for good: it serves, votes and helps no more, also after a restart, and its place is taken by a new
// peer only.
func TestDistrust(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery = 20 * time.Millisecond })
	c.found(1, 2, 3)
	odd := c.leader()
	c.retry(c.command(0, 1))
	c.equal(1, 2, 3)
	h, peer := c.servers[odd].host, layout.PeerID(odd*10)
	if err := h.Distrust(testCopyset, peer+1); !errors.Is(err, ErrNoGroup) {
		t.Errorf("another peer: %v", err)
	}
	for range 2 {
		if err := h.Distrust(testCopyset, peer); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		h, g := c.servers[odd].host, c.group(odd)
		c.until("the report", func() bool { return errors.Is(g.Report().Err, ErrDistrusted) && !g.Report().Leading })
		if r := c.propose(odd, c.command(1, 1)); r.Status == Done {
			t.Errorf("it takes proposals: %v", r)
		}
		if _, r := c.read(odd, 0); served(r) {
			t.Error("it reads")
		}
		if _, _, _, err := g.ReadBlocks(c.ctx(), layout.ChunkID{Volume: 3, Index: 1}, 0, layout.BlockSize, 0); err == nil {
			t.Error("it gives others its blocks")
		}
		if err := h.Join(c.ctx(), testCopyset, peer); !errors.Is(err, ErrExists) {
			t.Errorf("it is made again: %v", err)
		}
	}
	check()
	next := c.leader(odd)
	c.retry(c.command(0, 2))
	c.restart(odd)
	check()
	if err := c.servers[odd].host.Remove(c.ctx(), testCopyset, peer); err != nil {
		t.Fatal(err)
	}
	if err := c.servers[odd].host.Join(c.ctx(), testCopyset, peer); !errors.Is(err, ErrRemoved) {
		t.Errorf("it is made again: %v", err)
	}
	if err := c.servers[odd].host.Join(c.ctx(), testCopyset, 99); err != nil {
		t.Fatal(err)
	}
	c.until("the new peer to be a learner", func() bool {
		v := c.group(next).Members().Version
		_ = c.group(next).ChangeMembers(c.ctx(), &copyset.Change{Replaces: v, Changes: []copyset.MemberChange{{Peer: 99, Chunkserver: odd, Kind: copyset.AddLearner}}})
		return c.group(next).Members().Has(99)
	})
	c.equal(1, 2, 3)
}

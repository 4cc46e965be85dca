package multiraft

import (
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peerlist"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestCrashAfterImage: the store has an image, the log does not know it yet.
func TestCrashAfterImage(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	lead := c.leader()
	behind := lead%3 + 1
	c.retry(c.command(0, 1))
	c.halt(behind)
	for i := range 20 {
		c.retry(c.command(i, byte(i+1)))
	}
	g := c.group(lead)
	g.orderImage()
	c.until("an image", func() bool { _, ok := g.offers.Pin(); return ok })
	im, _ := g.offers.Take()
	index, _ := im.Applied()
	s := c.servers[behind]
	st := s.openStore(t)
	in, err := st.NewInstaller(testCopyset)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.WriteTo(in); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	im.Close()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	c.start(behind)
	if err := c.group(behind).Report().Err; err != nil {
		t.Fatal(err)
	}
	if at := c.group(behind).Applied(); at < index {
		t.Errorf("applied %d, the image has %d", at, index)
	}
	c.retry(c.command(0, 99))
	c.equal(1, 2, 3)
}

// TestLostLog: a peer whose log is gone takes part in nothing, because it may have voted.
func TestLostLog(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery = 20 * time.Millisecond })
	c.found(1, 2, 3)
	lead := c.leader()
	for i := range 10 {
		c.retry(c.command(i, 1))
	}
	lost := lead%3 + 1
	time.Sleep(100 * time.Millisecond)
	c.halt(lost)
	c.servers[lost].dir = "another"
	c.start(lost)
	g := c.group(lost)
	if g == nil || g.Report().Err == nil {
		t.Fatal("a peer without its log runs")
	}
	other := 6 - lead - lost
	c.halt(other)
	time.Sleep(30 * testTick)
	if r := c.propose(lead, c.command(0, 2)); r.Status == Done {
		t.Error("a peer that lost its log made a quorum")
	}
	c.start(other)
	c.retry(c.command(0, 3))
	if err := c.servers[lost].host.Remove(c.ctx(), testCopyset, layout.PeerID(lost*10)); err != nil {
		t.Errorf("it can not be removed: %v", err)
	}
	if err := c.servers[lost].host.Join(c.ctx(), testCopyset, 777); err != nil {
		t.Errorf("nothing can take its place: %v", err)
	}
}

// TestHalfMade: a crash in the middle of a creation or removal is undone or finished.
func TestHalfMade(t *testing.T) {
	c := newCluster(t, 1, nil)
	h := c.servers[1].host
	if err := h.peers.Set(1, peerlist.Record{Peer: 11, State: peerlist.Creating}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.servers[1].store.Create(1); err != nil {
		t.Fatal(err)
	}
	if err := h.Join(c.ctx(), 2, 21); err != nil {
		t.Fatal(err)
	}
	if err := h.peers.Set(2, peerlist.Record{Peer: 21, State: peerlist.Removing}); err != nil {
		t.Fatal(err)
	}
	c.restart(1)
	h = c.servers[1].host
	if n := len(h.Groups()); n != 0 {
		t.Fatalf("%d groups", n)
	}
	if ids := c.servers[1].store.Copysets(); len(ids) != 0 {
		t.Errorf("the store has %v", ids)
	}
	if err := h.Found(c.ctx(), 1, 11, map[layout.PeerID]layout.ChunkserverID{11: 1}); err != nil {
		t.Errorf("made again: %v", err)
	}
	if err := h.Join(c.ctx(), 2, 21); err == nil {
		t.Error("a removed peer came back")
	}
	if err := h.Join(c.ctx(), 1, 12); err == nil {
		t.Error("a second peer of a copyset was made")
	}
	if out := c.alone(1, 1); out.Code != copyset.OK {
		t.Errorf("a copyset of one: %v", out)
	}
}

// alone writes to a copyset with a single peer.
func (c *cluster) alone(id layout.ChunkserverID, set layout.CopysetID) copyset.Outcome {
	var out copyset.Outcome
	c.until("a write", func() bool {
		w := make(waiter, 1)
		cmd := c.command(0, 1)
		c.servers[id].host.Group(set).Propose(&cmd, w)
		r := <-w
		out = r.Outcome
		return r.Status == Done
	})
	return out
}

// TestCommitComesWithEntries: who has an entry has durably what was committed when it was proposed. Else a peer could be elected
// after a restart by members that have been replaced, because it does not know that they have.
func TestCommitComesWithEntries(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	for i := range 20 {
		c.retry(c.command(i, byte(i+1))) // each is committed before the next is proposed
	}
	c.equal(1, 2, 3)
	for id := layout.ChunkserverID(1); id <= 3; id++ {
		lg := c.group(id).log
		last, err := lg.LastIndex()
		if commit := lg.HardState().GetCommit(); err != nil || commit < last-1 {
			t.Errorf("chunkserver %d has entry %d, and that %d is committed (%v)", id, last, commit, err)
		}
	}
}

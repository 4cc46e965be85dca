package multiraft

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/medium"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peerlist"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// crash stops a server and leaves on its disk what was durable, and any part of the rest.
func (c *cluster) crash(id layout.ChunkserverID, rng *rand.Rand) {
	s := c.servers[id]
	fs := s.fs.Crash(rng)
	index := s.index.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	c.halt(id)
	s.fs, s.index = fs, index
}

// TestPowerCut cuts the power of all at once, again and again: what was answered is there.
func TestPowerCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 1))
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery, cfg.TailEntries = 30*time.Millisecond, 8 })
	c.found(1, 2, 3)
	want := map[int]byte{}
	for round := range 4 {
		lead := c.leader()
		for i := range 40 {
			block := rng.IntN(16)
			cmd := c.command(block, byte(round*40+i+1))
			if r := c.propose(lead, cmd); r.Status == Done && r.Outcome.Code == copyset.OK {
				want[block] = cmd.Payload[0]
			} else if c.retry(cmd).Code == copyset.OK {
				want[block] = cmd.Payload[0]
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

// TestRepair damages a block of the leader: the reader gets it from another peer, and a write of a part of it waits for
// the repair.
func TestRepair(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery = time.Hour })
	c.found(1, 2, 3)
	lead := c.leader()
	c.retry(c.command(0, 11))
	c.retry(c.command(1, 22))
	c.equal(1, 2, 3)
	c.servers[lead].host.checkpoints.Kick()
	c.until("a checkpoint, which writes the blocks to the file", func() bool {
		st := c.group(lead).store.Load()
		durable, _ := st.Durable()
		return durable == c.group(lead).Applied()
	})
	c.damage(lead, 11)
	c.damage(lead, 22)
	_, r := c.read(lead, 0)
	if r.Status != Damaged {
		t.Fatalf("a damaged block reads: %v", r)
	}
	g := c.group(lead)
	if err := c.servers[lead].host.Repair(c.ctx(), g, checksumError(t, r.Err)); err != nil {
		t.Fatal(err)
	}
	if v, r := c.read(lead, 0); !served(r) || v != 11 {
		t.Fatalf("a repaired block reads %d: %v", v, r)
	}
	part := c.command(1, 33)
	part.Offset, part.Length, part.Payload, part.CRCs = layout.BlockSize, 512, part.Payload[:512], nil
	c.retry(part)
	c.equal(1, 2, 3)
	if n := c.servers[lead].host.Repaired(); n != 2 {
		t.Errorf("%d blocks were repaired, want 2", n)
	}
}

// TestRepairFromBehind: a peer that lags, and can not catch up, has the good copy of a block that is damaged on both others.
func TestRepairFromBehind(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery = time.Hour })
	c.found(1, 2, 3)
	lead := c.leader()
	behind, asks := lead%3+1, (lead+1)%3+1
	c.retry(c.command(0, 11))
	c.equal(1, 2, 3)
	c.net.cut(lead, behind, true)
	c.net.cut(behind, lead, true)
	c.retry(c.command(1, 22))
	c.until("the write", func() bool { return c.group(asks).Applied() == c.group(lead).Applied() })
	for _, id := range []layout.ChunkserverID{lead, asks} {
		c.servers[id].host.checkpoints.Kick()
		c.until("a checkpoint, which writes the block to the file", func() bool {
			durable, _ := c.group(id).store.Load().Durable()
			return durable == c.group(id).Applied()
		})
		c.damage(id, 11)
	}
	cs := c.group(asks).store.Load()
	block, chunk := make([]byte, layout.BlockSize), c.command(0, 0).Chunk
	_, err := cs.Read(chunk, 0, block, nil)
	if err := c.servers[asks].host.Repair(c.ctx(), c.group(asks), checksumError(t, err)); err != nil {
		t.Fatal(err)
	}
	if _, err := cs.Read(chunk, 0, block, nil); err != nil || block[0] != 11 {
		t.Errorf("a repaired block reads %d, %v", block[0], err)
	}
}

// TestCopyTellsOfAnImage: an image is in place, and the group does not know yet. Who asks for a block gets the image's, and hears up
// to where entries may be in it.
func TestCopyTellsOfAnImage(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery = time.Hour })
	c.found(1, 2, 3)
	lead := c.leader()
	old, image := c.command(0, 11), c.command(0, 22)
	c.retry(old)
	c.equal(1, 2, 3)
	behind := layout.ChunkserverID(1 + uint64(lead)%3)
	g := c.group(behind)
	at := g.Applied() + 100
	in, err := c.servers[behind].host.cfg.Store.NewInstaller(g.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer in.Abort()
	if _, err := in.Write(streamOf(t, g.ID(), at, &image)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	data, _, through, err := g.ReadBlocks(c.ctx(), image.Chunk, image.Offset, layout.BlockSize, 0)
	if err != nil || data[0] != 22 || through <= at {
		t.Errorf("%v: block of %d, nothing behind %d, which is %d", err, data[0], through, at)
	}
}

// streamOf returns an image of a copyset with one write, made at an index.
func streamOf(t *testing.T, id layout.CopysetID, index uint64, w *copyset.Command) []byte {
	t.Helper()
	s, err := blockstore.Open(vfs.NewMem(), "other", blockstore.Identity{Cluster: [16]byte{1}, Chunkserver: 9}, blockstore.Options{
		IndexFS: pebblevfs.NewMem(), GrowStep: blockstore.GrowStepMin,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing is asked of it any more
	cs, err := s.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := cs.Write(w.Chunk, w.Offset, w.Payload, nil); err != nil {
		t.Fatal(err)
	}
	cs.SetApplied(index, 1)
	im, err := cs.Snapshot(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	var b bytes.Buffer
	if _, err := im.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestOldCopyIsRefused: a block could not be read and another peer was asked for it, then it could, and an entry was applied
// with it: the copy, which does not have the entry, comes too late. Nobody waits for what else might have been in it.
func TestOldCopyIsRefused(t *testing.T) {
	c := newCluster(t, 3, func(*Config) {})
	c.found(1, 2, 3)
	lead := c.leader()
	old := c.command(0, 11)
	c.retry(old)
	c.equal(1, 2, 3)
	g := c.group(lead)
	asked := g.Applied()
	c.retry(c.command(0, 22))
	c.until("both entries", func() bool { return g.Applied() > asked })
	err := g.ask(c.ctx(), task{g: g, kind: taskReplace, chunk: old.Chunk, off: old.Offset, data: old.Payload, upTo: asked, through: g.Applied() + 1})
	if !errors.Is(err, medium.ErrOldCopy) {
		t.Errorf("the copy is taken: %v", err)
	}
	if v, r := c.read(lead, 0); !served(r) || v != 22 {
		t.Errorf("the block reads %d: %v", v, r)
	}
}

// TestBlockedInTheMiddle: a follower's disk gets full in the middle of what raft gave it to apply at once. What of that is applied
// is checkpointed, but stays in the log: raft, which has not heard of it, looks at it when the follower campaigns.
func TestBlockedInTheMiddle(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.CheckpointEvery, cfg.TailEntries = time.Hour, 1
		if cfg.Self == 3 {
			cfg.CheckpointEvery = 20 * time.Millisecond
		}
	})
	c.found(1, 2, 3)
	c.retry(c.command(0, 1))
	c.equal(1, 2, 3)
	const full = 3
	g, s := c.group(full), c.servers[full]
	c.net.isolate(full, true)
	space, err := s.fs.Space("/")
	if err != nil {
		t.Fatal(err)
	}
	s.fs.SetCapacity(space.Total - space.Free)
	const room, entries = 10, 30
	ballast, err := s.store.StoreBlocks(make([]byte, s.store.Usage().Free-room*layout.BlockSize))
	if err != nil {
		t.Fatal(err)
	}
	before := g.Applied()
	for i := range entries {
		c.retry(c.command(1+i, 2))
	}
	c.net.isolate(full, false)
	c.until("a checkpoint of the part that it has room for", func() bool {
		durable, _ := g.store.Load().Durable()
		return g.blocked.Load() != nil && durable > before && durable == g.Applied()
	})
	for range 10 {
		_ = g.Campaign(c.ctx()) // it is not elected, or is and can not serve
		time.Sleep(testTick)
	}
	if e := g.failure.Load(); e != nil {
		t.Fatal(*e)
	}
	s.fs.SetCapacity(1 << 40)
	s.store.ReleaseBlocks(ballast)
	c.equal(1, 2, 3)
}

// TestStartOnAFullDisk: a crash left a peer half made and another half removed, and there is no room to note how they end. The
// chunkserver starts, and both orders are obeyed when there is room.
func TestStartOnAFullDisk(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.found(1)
	c.retry(c.command(0, 1))
	s := c.servers[1]
	const made, removed = testCopyset + 1, testCopyset + 2
	members := map[layout.PeerID]layout.ChunkserverID{99: 1}
	if err := errors.Join(
		s.host.Found(c.ctx(), removed, 99, members),
		s.host.peers.Set(removed, peerlist.Record{Peer: 99, State: peerlist.Removing}),
		s.host.peers.Set(made, peerlist.Record{Peer: 99, State: peerlist.Creating}),
	); err != nil {
		t.Fatal(err)
	}
	c.halt(1)
	space, err := s.fs.Space("/")
	if err != nil {
		t.Fatal(err)
	}
	s.fs.SetCapacity(space.Total - space.Free)
	c.start(1)
	if err := s.host.Found(c.ctx(), made, 99, members); err == nil {
		t.Error("a peer was made without room")
	}
	s.fs.SetCapacity(1 << 40)
	c.mustRead(0, 1)
	if err := errors.Join(s.host.Found(c.ctx(), made, 99, members), s.host.Remove(c.ctx(), removed, 99)); err != nil {
		t.Error(err)
	}
	if err := s.host.Found(c.ctx(), removed, 99, members); !errors.Is(err, ErrRemoved) {
		t.Errorf("a removed peer is made again: %v", err)
	}
}

// TestRepairIsDurable: a repaired block of a copyset that nobody writes to is on the disk after a while, not only in memory.
func TestRepairIsDurable(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery = 50 * time.Millisecond })
	c.found(1, 2, 3)
	lead := c.leader()
	c.retry(c.command(0, 11))
	c.equal(1, 2, 3)
	g, s := c.group(lead), c.servers[lead]
	c.until("a checkpoint", func() bool {
		durable, _ := g.store.Load().Durable()
		return durable == g.Applied() && s.store.Usage().Deferred == 0
	})
	c.damage(lead, 11)
	_, r := c.read(lead, 0)
	if err := s.host.Repair(c.ctx(), g, checksumError(t, r.Err)); err != nil {
		t.Fatal(err)
	}
	c.until("a checkpoint of the repaired block", func() bool {
		u := s.store.Usage()
		return u.Deferred == 0 && u.Overlay == 0
	})
	for other := range c.servers {
		if other != lead {
			c.halt(other) // so that nothing is applied after the restart
		}
	}
	c.restart(lead)
	v, err := c.group(lead).store.Load().Verify(layout.ChunkID{Volume: 3, Index: 1}, 0)
	if err != nil || v.Blocks != 1 || len(v.Damaged) != 0 {
		t.Fatalf("after a restart: %+v, %v", v, err)
	}
}

// TestPeerWithoutData: a peer whose data is lost only reports it. Others go on, with checkpoints, and a repair is refused.
func TestPeerWithoutData(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.CheckpointEvery = 50 * time.Millisecond })
	c.found(1)
	s := c.servers[1]
	const lost = testCopyset + 1
	if err := s.host.Found(c.ctx(), lost, 99, map[layout.PeerID]layout.ChunkserverID{99: 1}); err != nil {
		t.Fatal(err)
	}
	c.halt(1)
	st := s.openStore(t)
	if err := errors.Join(st.Remove(lost), st.Close()); err != nil {
		t.Fatal(err)
	}
	c.start(1)
	c.leader()
	c.retry(c.command(0, 1))
	c.until("a checkpoint", func() bool {
		durable, _ := c.group(1).store.Load().Durable()
		return durable == c.group(1).Applied()
	})
	g := s.host.Group(lost)
	if err := g.Report().Err; !errors.Is(err, blockstore.ErrNotFound) {
		t.Errorf("it reports %v", err)
	}
	if err := g.Own(c.ctx(), func(*blockstore.Copyset) error { return nil }); !errors.Is(err, ErrStopped) {
		t.Errorf("a repair: %v", err)
	}
	if err := g.Probe(layout.ChunkID{Volume: 3, Index: 1}, 512, 1024, true); err != nil {
		t.Errorf("damage is found where there is nothing: %v", err)
	}
}

// damage flips a bit in each block of the data file that is filled with v.
func (c *cluster) damage(id layout.ChunkserverID, v byte) {
	c.t.Helper()
	f, err := c.servers[id].fs.Open("store/blocks", vfs.ReadWrite)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	size, _ := f.Size()
	buf := make([]byte, layout.BlockSize)
	found := false
	for off := int64(layout.BlockSize); off < size; off += layout.BlockSize {
		if _, err := f.ReadAt(buf, off); err != nil {
			c.t.Fatal(err)
		}
		if buf[0] == v && buf[layout.BlockSize-1] == v {
			if _, err := f.WriteAt([]byte{v ^ 1}, off+100); err != nil {
				c.t.Fatal(err)
			}
			found = true
		}
	}
	if !found {
		c.t.Fatal("the block is not in the file")
	}
}

// TestPressure: small writes that are only in memory are checkpointed when they reach their bound.
func TestPressure(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery = time.Hour })
	for id, s := range c.servers {
		s.deferred = 8 * layout.BlockSize
		c.restart(id)
	}
	c.found(1, 2, 3)
	for i := range 24 {
		c.retry(c.command(i%16, byte(i+1)))
	}
	c.equal(1, 2, 3)
	for id, s := range c.servers {
		c.until("checkpoints", func() bool {
			durable, _ := c.group(id).store.Load().Durable()
			return durable > 0 && s.store.Usage().Deferred < 16*layout.BlockSize
		})
	}
}

// TestDiskFails: a peer whose log fails stops and says why; the others go on, also when it led.
func TestDiskFails(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.found(1, 2, 3)
	lead := c.leader()
	c.retry(c.command(0, 1))
	c.servers[lead].host.fail(errors.New("the disk is gone"))
	c.until("another leader", func() bool { return c.leader(lead) != lead })
	if out := c.retry(c.command(0, 2)); out.Code != copyset.OK {
		t.Fatal(out)
	}
	if r := c.propose(lead, c.command(0, 3)); r.Status != Failed {
		t.Errorf("the failed peer answers %v", r)
	}
	if _, r := c.read(lead, 0); r.Status != Failed {
		t.Errorf("the failed peer reads: %v", r)
	}
	if r := c.group(lead).Report(); r.Err == nil || r.Leading {
		t.Errorf("the failed peer reports %+v", r)
	}
}

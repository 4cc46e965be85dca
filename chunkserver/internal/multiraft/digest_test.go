package multiraft

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// digested is a cluster of three of which each has its digests computed.
type digested struct {
	*cluster
	runners map[layout.ChunkserverID]*digest.Runner
}

func newDigested(t *testing.T, tune func(*Config)) *digested {
	d := &digested{runners: map[layout.ChunkserverID]*digest.Runner{}}
	for id := range layout.ChunkserverID(4) {
		r := digest.New(nil)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Run(ctx)
		}()
		t.Cleanup(func() { cancel(); <-done }) // after the cluster has ended
		d.runners[id] = r
	}
	d.cluster = newCluster(t, 3, func(cfg *Config) {
		cfg.Digest = func(id layout.CopysetID, p layout.PeerID, im *blockstore.Image) { d.runners[cfg.Self].Take(id, p, im) }
		tune(cfg)
	})
	d.found(1, 2, 3)
	return d
}

// compare has digests made and returns those of one index.
func (d *digested) compare(ids ...layout.ChunkserverID) map[layout.ChunkserverID]*digest.Result {
	d.t.Helper()
	d.retry(copyset.Command{Op: copyset.OpDigest})
	out := map[layout.ChunkserverID]*digest.Result{}
	d.until("digests of one index", func() bool {
		for _, id := range ids {
			r, asked := d.runners[id].Last(testCopyset)
			if r == nil || r.Index != asked {
				return false
			}
			out[id] = r
		}
		for _, r := range out {
			if r.Index != out[ids[0]].Index {
				return false
			}
		}
		return true
	})
	return out
}

// TestDigestsAreEqual compares replicas again and again under a random load, while one of them is cut off and gets images,
// restarts and replays its log, or loses its power and any part of what was not synced: replicas that hold the same are never taken for different.
func TestDigestsAreEqual(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 1))
	d := newDigested(t, func(cfg *Config) { cfg.CheckpointEvery, cfg.TailEntries = 20*time.Millisecond, 4 })
	for round := range 12 {
		away := layout.ChunkserverID(1 + rng.IntN(3))
		how := rng.IntN(3)
		if how == 0 {
			d.net.isolate(away, true)
		}
		for i := range 30 {
			v := byte(round*30 + i)
			cmd := d.command(rng.IntN(40), v)
			switch rng.IntN(6) {
			case 0:
				cmd = d.large(rng.IntN(40), v)
			case 1:
				cmd.Op, cmd.Payload, cmd.CRCs, cmd.Length = copyset.OpDiscard, nil, nil, 8*layout.BlockSize
			case 2:
				cmd.Op, cmd.Payload, cmd.CRCs, cmd.Offset = copyset.OpWriteZeroes, nil, nil, cmd.Offset+512
			case 3:
				cmd.Offset, cmd.Length, cmd.CRCs, cmd.Payload = cmd.Offset+1024, 512, nil, cmd.Payload[:512]
			}
			d.retry(cmd)
		}
		switch how {
		case 0:
			d.net.isolate(away, false)
		case 1:
			d.restart(away) // the log is replayed
		case 2:
			d.net.isolate(away, true) // what it says after the power was cut is not heard
			d.until("a checkpoint", func() bool {
				durable, _ := d.group(away).store.Load().Durable()
				return durable == d.group(away).Applied()
			})
			d.crash(away, rng)
			d.net.isolate(away, false)
			d.start(away)
		}
		d.equal(1, 2, 3)
		got := d.compare(1, 2, 3)
		if got[1].Sum != got[2].Sum || got[2].Sum != got[3].Sum || got[1].Blocks == 0 {
			t.Fatalf("round %d: %+v\n%+v\n%+v", round, got[1], got[2], got[3])
		}
	}
}

// TestDigestFindsWrongData: a block that is another on one replica, with a checksum that fits, is found, in its chunk.
func TestDigestFindsWrongData(t *testing.T) {
	d := newDigested(t, func(*Config) {})
	for i := range 8 {
		d.retry(d.command(i, byte(i+1)))
		other := d.command(i, byte(i+1))
		other.Chunk.Index = 5
		d.retry(other)
	}
	d.equal(1, 2, 3)
	odd := d.leader()
	forged := make([]byte, layout.BlockSize)
	if err := d.group(odd).store.Load().Write(layout.ChunkID{Volume: 3, Index: 5}, 2*layout.BlockSize, forged, nil); err != nil {
		t.Fatal(err)
	}
	got := d.compare(1, 2, 3)
	a, b := odd%3+1, (odd+1)%3+1
	if got[a].Sum != got[b].Sum || got[odd].Sum == got[a].Sum || got[odd].State != got[a].State {
		t.Fatalf("%+v\n%+v\n%+v", got[odd], got[a], got[b])
	}
	for i, c := range got[odd].Chunks {
		if same := c == got[a].Chunks[i]; same != (c.ID.Index != 5) {
			t.Errorf("chunk %v: same %v", c.ID, same)
		}
	}
}

package multiraft

import (
	"errors"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestGathered: blocks that the owner exchanges on one replica are made durable there although no entry is applied, other replicas
// hear nothing of it, and after a restart all hold the same.
func TestGathered(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEvery = 20 * time.Millisecond })
	c.found(1, 2, 3)
	for i := range 64 { // every block apart from its neighbours
		c.retry(c.command(i*29%64, byte(i*29%64)))
	}
	c.equal(1, 2, 3)
	g, ch := c.group(1), layout.ChunkID{Volume: 3, Index: 1}
	cs := g.store.Load()
	c.until("a checkpoint", func() bool { return !cs.Changed() })
	before, err := cs.Scatter(ch)
	if err != nil || before.Pieces < 32 {
		t.Fatalf("%+v, %v", before, err)
	}
	x, _, err := cs.Gather(ch, 0)
	if err != nil || x == nil {
		t.Fatalf("gather: %v, %v", x, err)
	}
	defer x.Drop()
	failure := errors.New("told")
	if err := g.Own(c.ctx(), func(own *blockstore.Copyset) error {
		if n, err := own.Exchange(x); own != cs || n != 64 || err != nil {
			t.Errorf("exchanged %d, %v", n, err)
		}
		return failure
	}); !errors.Is(err, failure) {
		t.Errorf("the owner's error is %v", err)
	}
	c.until("a checkpoint", func() bool { return !cs.Changed() })
	c.equal(1, 2, 3)
	c.restart(1)
	c.equal(1, 2, 3)
	if after, err := c.group(1).store.Load().Scatter(ch); err != nil || after.Pieces > 2 || after.Blocks != 64 {
		t.Errorf("after a restart %+v, %v", after, err)
	}
	if other, err := c.group(2).store.Load().Scatter(ch); err != nil || other.Pieces < 32 {
		t.Errorf("another replica: %+v, %v", other, err)
	}
}

package multiraft

import (
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

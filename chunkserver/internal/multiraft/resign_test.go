package multiraft

import (
	"errors"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
)

// TestFailedLeaderResigns: when the disk of a leader fails the next one does not wait for an election timeout, which is ten
// seconds here.
func TestFailedLeaderResigns(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.ElectionTicks = int(10 * time.Second / cfg.Tick) })
	c.found(1, 2, 3)
	lead := c.leader()
	c.retry(c.command(0, 1))
	c.equal(1, 2, 3)
	c.until("answers of the followers", func() bool {
		_, r := c.read(lead, 0)
		return served(r)
	})
	began := time.Now()
	c.servers[lead].host.fail(errors.New("the disk is gone"))
	c.until("another leader", func() bool { return c.leader(lead) != lead })
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("another one leads after %v", d)
	}
	if out := c.retry(c.command(0, 2)); out.Code != copyset.OK {
		t.Fatal(out)
	}
}

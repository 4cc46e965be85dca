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
	failedLeaderResigns(t, 2, 0)
}

// TestFailedLeaderResignsLate: nor does it when its followers have not answered for a while.
func TestFailedLeaderResignsLate(t *testing.T) {
	failedLeaderResigns(t, 200, 10*answeredTicks)
}

// failedLeaderResigns has the disk of a leader fail that sends heartbeats each so many ticks, and has been idle for some.
func failedLeaderResigns(t *testing.T, heartbeat, idle int) {
	var tick time.Duration
	c := newCluster(t, 3, func(cfg *Config) {
		tick = cfg.Tick
		cfg.ElectionTicks, cfg.HeartbeatTicks, cfg.QuietTicks = int(10*time.Second/cfg.Tick), heartbeat, 0
	})
	c.found(1, 2, 3)
	lead := c.leader()
	c.retry(c.command(0, 1))
	c.equal(1, 2, 3)
	c.until("answers of the followers", func() bool {
		_, r := c.read(lead, 0)
		return served(r)
	})
	time.Sleep(time.Duration(idle) * tick)
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

//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/load"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// resumeMax is how long I/O may take to go on once a majority is back (reliability F5 names no time).
const resumeMax = 10 * time.Second

// alarmMax is within what time cluster status names what waits; a chunkserver is down after 5 s without a heartbeat.
const alarmMax = 15 * time.Second

// gentle is a load that others run beside, in a region of a chunk.
var gentle = load.Config{Blocks: 8 << 20 / load.BlockLen, Depth: 4, MaxBlocks: 16, ReadPct: 35, UnmapPct: 5, Pause: 5 * time.Millisecond}

// outage is a cluster of six chunkservers in three zones, so each copyset has one of the two of each zone, and the loads on it.
type outage struct {
	t  *testing.T
	cl *cluster.Cluster
	// loads are "waits", of a part of the demo volume whose copyset is to lose its majority, "same", of another part of it, and
	// "other", of another volume; the copysets of both keep theirs.
	loads map[string]*loaded
	// down are the two chunkservers whose loss takes the majority from "waits" alone.
	down []string
}

// newOutage starts the cluster and the loads.
func newOutage(t *testing.T) *outage {
	o := &outage{t: t, cl: startCluster(t, cluster.Options{Chunkservers: 6, Args: []string{"--zones", "3"}}), loads: map[string]*loaded{}}
	u := createUnit(t, o.cl, "16MiB")
	awaitHealthy(t, o.cl, 30*time.Second)
	sets := copysets(t, o.cl)
	members := func(m *layout.Map, chunk int64) []uint64 {
		e, ok := m.Locate(chunk*int64(m.ChunkSize), load.BlockLen)
		if !ok {
			t.Fatalf("chunk %d is nowhere", chunk)
		}
		var out []uint64
		for _, p := range sets[uint64(e.Copyset)].Peers {
			out = append(out, p.Chunkserver)
		}
		return out
	}
	demoMap := placement(t, o.cl, "demo")
	other := members(placement(t, o.cl, u.volume), 0)
	where := places(t, o.cl)
	both := func(in []uint64, pair []uint64) bool {
		return slices.Contains(in, pair[0]) && slices.Contains(in, pair[1])
	}
	for chunk := range demoMap.Size / int64(demoMap.ChunkSize) {
		m := members(demoMap, chunk)
		for _, pair := range [][]uint64{{m[0], m[1]}, {m[0], m[2]}, {m[1], m[2]}} {
			for same := range demoMap.Size / int64(demoMap.ChunkSize) {
				if both(other, pair) || both(members(demoMap, same), pair) {
					continue
				}
				part := func(chunk int64) load.Config {
					cfg := gentle
					cfg.Base = uint64(chunk) * uint64(demoMap.ChunkSize) / load.BlockLen
					return cfg
				}
				o.down = []string{where[pair[0]].role, where[pair[1]].role}
				o.loads["waits"] = startLoadOn(t, demo(o.cl, "waits", o.cl.Portals...), part(chunk))
				o.loads["same"] = startLoadOn(t, demo(o.cl, "same", o.cl.Portals...), part(same))
				o.loads["other"] = startLoadOn(t, client(u, "other"), gentle)
				return o
			}
		}
	}
	t.Fatal("all copysets have the same members")
	return nil
}

// check takes the reports of the loads that go on: no errors, and no operation longer than limit.
func (o *outage) check(phase string, limit time.Duration, names ...string) {
	o.t.Helper()
	for _, name := range names {
		o.loads[name].check(phase+", "+name, limit)
	}
}

func (o *outage) kill(roles ...string) {
	o.t.Helper()
	for _, r := range roles {
		must(o.t, o.cl.Kill(r))
	}
}

func (o *outage) start(roles ...string) {
	o.t.Helper()
	for _, r := range roles {
		must(o.t, o.cl.StartRole(o.t.Context(), r))
	}
}

// TestFaultMajority: a whole zone is lost, which costs each copyset one replica: everything goes on. Then two chunkservers of
// different zones are lost: what has both waits without an error, is named, and goes on when they are back; nothing else waits.
func TestFaultMajority(t *testing.T) {
	o := newOutage(t)
	all := []string{"waits", "same", "other"}
	var zone []string
	for _, p := range places(t, o.cl) {
		if p.zone == "zone-1" {
			zone = append(zone, p.role)
		}
	}
	o.check("before", 0, all...)
	o.kill(zone...)
	time.Sleep(seconds(t, 3))
	for _, name := range all {
		o.loads[name].flow(50)
	}
	o.check(fmt.Sprintf("zone-1 (%v) killed", zone), chunkserverPause, all...)
	o.start(zone...)
	awaitCaughtUp(t, o.cl, 60*time.Second)
	o.check("zone-1 is back", chunkserverPause, all...)

	o.kill(o.down...)
	alarm := awaitProblem(t, o.cl, alarmMax, "I/O of a part of volume demo waits", "is down, chunkserver")
	done := o.loads["waits"].l.Done()
	time.Sleep(seconds(t, 3))
	if now := o.loads["waits"].l.Done(); now != done {
		t.Errorf("%d operations ended on a copyset without a majority", now-done)
	}
	o.check(fmt.Sprintf("%v killed", o.down), chunkserverPause, "same", "other")
	o.check("without a majority", 0, "waits")
	began := time.Now()
	o.start(o.down...)
	o.loads["waits"].flow(1)
	resumed := time.Since(began)
	t.Logf("named after %v; I/O goes on %v after the start of what was lost", alarm.Round(100*time.Millisecond), resumed.Round(time.Millisecond))
	if resumed > resumeMax {
		t.Errorf("I/O goes on only after %v", resumed)
	}
	awaitCaughtUp(t, o.cl, 60*time.Second)
	o.check("everything is back", chunkserverPause, "same", "other")
	for _, name := range all {
		r := o.loads[name]
		r.flow(50)
		r.stop()
		r.verify(name)
		if n := r.client.Reconnects(); n != 0 {
			t.Errorf("the session of %q ended %d times", name, n)
		}
	}
}

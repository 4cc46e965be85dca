package metaserver

import (
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/replicas"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// transfers are the copysets that a chunkserver was last told to hand over.
func (l *timeline) transfers(id layout.ChunkserverID) int {
	n := 0
	for _, o := range l.advice[id].Orders {
		if o.Action == schedule.Transfer {
			n++
		}
	}
	return n
}

// TestSlowDisk: chunkserver 1 leads all copysets. When its disk becomes slow it is told within five heartbeats to hand over
// all of them at once, and that it is slow, until it has been well for half a minute.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "slow")
	ok := schedule.Disk{Syncs: 500, SyncP50: 2 * time.Millisecond}
	for id := range layout.ChunkserverID(4) {
		l.disks[id] = ok
	}
	for range 5 {
		l.step(time.Second)
	}
	if l.advice[1].Slow || l.transfers(1) != 0 {
		t.Fatalf("a good disk: %+v", l.advice[1])
	}
	l.disks[1] = schedule.Disk{Syncs: 3, SyncP50: 600 * time.Millisecond}
	steps := 0
	for ; steps < 20 && l.transfers(1) < len(l.Members()); steps++ {
		l.step(time.Second)
	}
	if steps > 5 || !l.advice[1].Slow || l.advice[2].Slow || l.transfers(2) != 0 {
		t.Errorf("after %d heartbeats: %+v", steps, l.advice)
	}
	v := l.View()
	if why := v.Chunkservers[0].Slow; !strings.Contains(why, "600ms, that of others 2ms") || v.Chunkservers[1].Slow != "" {
		t.Errorf("why: %q", why)
	}
	l.disks[1] = ok
	for steps = 0; steps < 60 && l.advice[1].Slow; steps++ {
		l.step(time.Second)
	}
	if steps < 28 || steps > 33 || l.transfers(1) != 0 {
		t.Errorf("well after %d heartbeats, %+v", steps, l.advice[1])
	}
	l.disks[1] = schedule.Disk{Stalled: 2 * time.Second}
	for steps = 0; steps < 20 && l.transfers(1) < len(l.Members()); steps++ {
		l.step(time.Second)
	}
	if steps > 2 {
		t.Errorf("a disk that does not answer was seen after %d heartbeats", steps)
	}
}

// TestFailedDiskOnlyMoves: a chunkserver whose disk has failed is told to hand over what it still leads, and nothing that needs
// a disk.
func TestFailedDiskOnlyMoves(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "nodisk")
	fails := func(id layout.ChunkserverID, digest byte) []schedule.Order {
		t.Helper()
		var orders []schedule.Order
		for _, failure := range []string{"", "gone"} { // the second time it has failed
			b := l.beat(id)
			b.DiskError = failure
			for i := range b.Copysets {
				r := &b.Copysets[i]
				r.Digest = replicas.Digest{Peer: r.Report.Peer, Index: 7, Format: 1, Sum: [16]byte{digest}}
			}
			a := must(l.Heartbeat(t.Context(), b))(t)
			if len(a.Orders) == 0 && failure == "" && digest > 1 {
				t.Fatalf("chunkserver %d is told nothing", id)
			}
			orders = a.Orders
		}
		return orders
	}
	l.disks[1] = schedule.Disk{Stalled: 2 * time.Second}
	for range 20 {
		if l.step(time.Second); l.transfers(1) == len(l.Members()) {
			break
		}
	}
	moves := fails(1, 1)
	for _, o := range moves {
		if o.Action != schedule.Transfer {
			t.Errorf("it is told %v", o)
		}
	}
	if len(moves) != len(l.Members()) {
		t.Errorf("%d of %d leaders are to be moved", len(moves), len(l.Members()))
	}
	fails(3, 1)
	if orders := fails(2, 2); len(orders) != 0 { // it holds something else, and is to distrust that
		t.Errorf("it is told %v", orders)
	}
	if v := l.View(); v.Chunkservers[1].DiskError != "gone" {
		t.Errorf("disk error %q", v.Chunkservers[1].DiskError)
	}
}

// TestOlderDirectory: a directory that has not come as far as it was told to have is refused, at registration and while it
// serves, also by the metaserver that becomes active next. One that tells nothing is of an older release.
func TestOlderDirectory(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "older")
	ctx := t.Context()
	reg := topology.Registration{ID: 1, Cluster: l.Cluster(), UUID: [16]byte{1}, Address: "127.0.0.1:1", Zone: "a", Capacity: 1 << 40}
	register := func(tp *topology.Topology, generation uint64) error {
		r := reg
		r.Generation = generation
		_, err := tp.Register(ctx, r)
		return err
	}
	beat := func(tp *topology.Topology, generation uint64) error {
		b := l.beat(1)
		b.Generation = generation
		_, err := tp.Heartbeat(ctx, b)
		return err
	}
	taken := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused := func(what string, err error) {
		t.Helper()
		if !refuse.Is(err, refuse.Foreign) || !strings.Contains(err.Error(), "older copy") {
			t.Errorf("%s: %v", what, err)
		}
	}
	taken("the first registration", register(l.Topology, 7))
	taken("its heartbeat", beat(l.Topology, 8))
	taken("registered again", register(l.Topology, 8))
	refused("a copy", register(l.Topology, 7))
	refused("a copy that started without a metaserver", beat(l.Topology, 7))
	taken("the real one", beat(l.Topology, 9))
	taken("an older release", beat(l.Topology, 0))
	taken("an older release", register(l.Topology, 0))
	taken("a long run", beat(l.Topology, 30))
	next := must(topology.Open(ctx, l.options))(t)
	refused("a copy, at the next metaserver", register(next, 20))
	taken("the real one, at the next metaserver", register(next, 30))
}

package metaserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// timeline drives a topology by hand: its clock, its heartbeats, its ticks.
type timeline struct {
	*topology.Topology
	options  topology.Options
	t        *testing.T
	now      time.Time
	replicas map[layout.ChunkserverID]map[layout.CopysetID]layout.PeerID
	errors   map[layout.ChunkserverID]string
	silent   map[layout.ChunkserverID]bool
	disks    map[layout.ChunkserverID]schedule.Disk
	advice   map[layout.ChunkserverID]topology.Advice // the last answers
}

func newTimeline(t *testing.T, name string) *timeline {
	t.Helper()
	l := &timeline{
		t: t, now: time.Now(), replicas: map[layout.ChunkserverID]map[layout.CopysetID]layout.PeerID{},
		errors: map[layout.ChunkserverID]string{}, silent: map[layout.ChunkserverID]bool{},
		disks: map[layout.ChunkserverID]schedule.Disk{}, advice: map[layout.ChunkserverID]topology.Advice{},
	}
	c := etcdClient(t)
	key := "/ashlar/" + name + "/election/a"
	r := must(c.Put(t.Context(), key, "a"))(t)
	store := must(metastore.Open(t.Context(), metastore.Options{
		Client: c, Prefix: "/ashlar/" + name, ElectionKey: key, Revision: r.Header.Revision, Valid: func() bool { return true },
	}))(t)
	l.options = topology.Options{
		Store: store, Log: zap.NewNop(), Arrange: schedule.Arrangement{Replicas: 3, PerServer: 2},
		Limits: schedule.Limits{Operations: 10, PerServer: 10}, DownAfter: 5 * time.Second, Now: func() time.Time { return l.now },
	}
	l.Topology = must(topology.Open(context.Background(), l.options))(t)
	for i := range byte(3) {
		id := must(l.Register(t.Context(), topology.Registration{
			UUID: [16]byte{i + 1}, Address: "127.0.0.1:1", Zone: string('a' + rune(i)), Capacity: 1 << 40,
		}))(t)
		l.replicas[id] = map[layout.CopysetID]layout.PeerID{}
	}
	for range 4 {
		l.step(time.Second)
	}
	if n := len(l.Members()); n != 2 {
		t.Fatalf("%d copysets, want 2", n)
	}
	return l
}

// step lets time pass, one heartbeat of each chunkserver come, and one tick.
func (l *timeline) step(d time.Duration) {
	l.t.Helper()
	l.now = l.now.Add(d)
	for id := layout.ChunkserverID(1); id <= 3; id++ {
		if l.silent[id] {
			continue
		}
		a, err := l.Heartbeat(l.t.Context(), l.beat(id))
		if err != nil {
			l.t.Fatal(err)
		}
		for _, o := range a.Orders {
			if o.Action == schedule.Found {
				l.replicas[id][o.Copyset] = o.Peer
			}
		}
		l.advice[id] = a
	}
	if err := l.Tick(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// beat reports what a chunkserver has; chunkserver 1 leads everything.
func (l *timeline) beat(id layout.ChunkserverID) *topology.Beat {
	b := &topology.Beat{ID: id, Capacity: 1 << 40, Disk: l.disks[id]}
	for c, p := range l.replicas[id] {
		r := topology.CopysetReport{Copyset: c, Report: schedule.Report{Peer: p, Term: 1, Commit: 9, Error: l.errors[id]}}
		if id == 1 {
			r.Leader = true
			for _, rec := range l.Members() {
				for _, m := range rec.Peers {
					if rec.ID == c {
						r.Members = append(r.Members, schedule.Member{ID: m.ID, Chunkserver: m.Chunkserver, Match: 9})
					}
				}
			}
		}
		b.Copysets = append(b.Copysets, r)
	}
	return b
}

// operations counts the replacements under way.
func (l *timeline) operations() int {
	n := 0
	for _, r := range l.Members() {
		if r.Op != nil {
			n++
		}
	}
	return n
}

// TestLostReplica: a replica that is not reported any more is replaced, but not before a minute, nor while its chunkserver
// does not beat, nor one that is back in time.
func TestLostReplica(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "lost-replica")
	lost := l.replicas[3][1]
	delete(l.replicas[3], 1)
	for range 29 {
		l.step(2 * time.Second)
	}
	l.replicas[3][1] = lost
	l.step(2 * time.Second)
	delete(l.replicas[3], 1)
	for range 29 {
		l.step(2 * time.Second)
	}
	if l.operations() != 0 {
		t.Fatal("replaced although it was missing for less than a minute each time")
	}
	l.silent[3] = true
	for range 60 {
		l.step(2 * time.Second)
	}
	if l.operations() != 0 {
		t.Fatal("replaced while its chunkserver was silent")
	}
	l.silent[3] = false
	for range 30 {
		l.step(2 * time.Second)
	}
	if l.operations() != 0 {
		t.Fatal("the time of silence was counted")
	}
	l.step(2 * time.Second)
	l.step(2 * time.Second)
	if l.operations() != 1 {
		t.Errorf("%d operations, want 1", l.operations())
	}
}

// TestFailingReplica: an error that passes is borne, one that lasts is not.
func TestFailingReplica(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "failing-replica")
	for range 3 {
		l.errors[2] = "no space"
		for range 29 {
			l.step(2 * time.Second)
		}
		l.errors[2] = ""
		l.step(2 * time.Second)
	}
	if l.operations() != 0 {
		t.Fatal("replaced for an error that passed")
	}
	l.errors[2] = "gone"
	for range 32 {
		l.step(2 * time.Second)
	}
	if l.operations() != 2 {
		t.Errorf("%d operations, want 2", l.operations())
	}
}

// TestStaleElection: a heartbeat that has seen a later election tells the metaserver that its time is over.
func TestStaleElection(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "stale")
	b := l.beat(1)
	b.Revision = l.Revision() + 1
	_, err := l.Heartbeat(t.Context(), b)
	var stale *topology.StaleError
	if !errors.As(err, &stale) || stale.Seen != b.Revision {
		t.Errorf("got %v", err)
	}
}

// TestForgottenChunkserver: after etcd was set back, a chunkserver with an id of this cluster is taken back under it, its
// replicas are kept, and its id is not given to another one.
func TestForgottenChunkserver(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "forgotten")
	ctx := t.Context()
	id := must(l.Register(ctx, topology.Registration{ID: 9, Cluster: l.Cluster(), UUID: [16]byte{9}, Address: "a:1", Zone: "z"}))(t)
	next := must(l.Register(ctx, topology.Registration{UUID: [16]byte{10}, Address: "a:2", Zone: "z"}))(t)
	if id != 9 || next != 10 {
		t.Errorf("ids %d and %d, want 9 and 10", id, next)
	}
	a, err := l.Heartbeat(ctx, &topology.Beat{ID: 9, Copysets: []topology.CopysetReport{
		{Copyset: 77, Report: schedule.Report{Peer: 770}}, {Copyset: 1, Report: schedule.Report{Peer: 771}},
	}})
	if err != nil || len(a.Orders) != 0 {
		t.Errorf("orders about replicas that are not on record: %v, %v", a.Orders, err)
	}
	for _, c := range l.View().Chunkservers {
		if c.ID == 9 && c.Strays != 2 {
			t.Errorf("%d strays, want 2", c.Strays)
		}
	}
}

// TestGatewayLeaves: a gateway that stops is down at once, whatever heartbeat of it was still on its way, until it registers.
func TestGatewayLeaves(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "gateway-leaves")
	g := topology.GatewayRegistration{Name: "g", Portals: []string{"127.0.0.1:3260"}}
	id := must(l.RegisterGateway(t.Context(), g))(t).ID
	want := func(up bool) {
		t.Helper()
		must(l.GatewayBeat(id, time.Time{}, 0, ""))(t)
		if v := l.View().Gateways[0]; v.Up != up || v.MayServe != up || (len(l.MayServe()) == 1) != up {
			t.Fatalf("up %v, may serve %v, %d may serve", v.Up, v.MayServe, len(l.MayServe()))
		}
	}
	want(true)
	if err := l.GatewayLeaves(id); err != nil {
		t.Fatal(err)
	}
	want(false)
	l.step(time.Second)
	want(false)
	must(l.RegisterGateway(t.Context(), g))(t)
	want(true)
	// It was told late, of a gateway that has begun anew: its heartbeats go on.
	if err := l.GatewayLeaves(id); err != nil {
		t.Fatal(err)
	}
	want(false)
	l.step(6 * time.Second)
	want(true)
	if err := l.GatewayLeaves(id + 1); err == nil {
		t.Fatal("an unknown gateway left")
	}
}

// TestYoungTerm: gateways are not held for down because the metaserver has just begun; those that stay silent are, and the
// others are told.
func TestYoungTerm(t *testing.T) {
	t.Parallel()
	l := newTimeline(t, "young-term")
	for _, name := range []string{"g", "h"} {
		must(l.RegisterGateway(t.Context(), topology.GatewayRegistration{Name: name, Portals: []string{"127.0.0.1:3260"}}))(t)
	}
	changed := 0
	l.options.Changed = func() { changed++ }
	next := must(topology.Open(t.Context(), l.options))(t)
	want := func(g, h bool) {
		t.Helper()
		if v := next.View().Gateways; v[0].MayServe != g || v[1].MayServe != h {
			t.Fatalf("may serve: %v and %v", v[0].MayServe, v[1].MayServe)
		}
	}
	want(true, true)
	must(next.GatewayBeat(1, time.Time{}, 0, ""))(t)
	l.now = l.now.Add(5 * time.Second)
	if err := next.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(true, true)
	must(next.GatewayBeat(1, time.Time{}, 0, ""))(t)
	l.now, changed = l.now.Add(time.Second), 0
	if err := next.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(true, false)
	if changed == 0 {
		t.Fatal("nobody was told")
	}
	changed = 0
	if err := next.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if changed != 0 {
		t.Fatal("told again")
	}
}

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
	"github.com/ashlar-storage/ashlar/scripts/e2e/load"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// verifyMax bounds one pass over the region.
const verifyMax = 90 * time.Second

// mixed is the load of the fault tests: small and larger writes, reads and UNMAPs over 64 MiB, in the depth of
// a busy host, slow enough that two cores are left for the cluster.
var mixed = load.Config{Blocks: 64 << 20 / load.BlockLen, Depth: 8, MaxBlocks: 32, ReadPct: 35, UnmapPct: 5, Pause: 2 * time.Millisecond}

// loaded is a verified load that runs beside a test.
type loaded struct {
	t      *testing.T
	client *load.Client
	l      *load.Load
	cancel context.CancelFunc
	done   chan struct{}
	// aborts allows aborted commands: where the path moves between gateways.
	aborts bool
}

// demo is a client of the cluster's demo unit.
func demo(cl *cluster.Cluster, name string, portals ...string) *load.Client {
	return load.NewClient(initiator.Config{
		Target: cl.Target, LUN: cl.LUN, Name: "iqn.2026-11.dev.ashlar.test:" + name,
	}, portals...)
}

// startLoad begins a load on the demo unit and waits until it flows.
func startLoad(t *testing.T, cl *cluster.Cluster, cfg load.Config) *loaded {
	t.Helper()
	return startLoadOn(t, demo(cl, "load", cl.Portals...), cfg)
}

// startLoadOn begins a load of a client, which it closes at the end of the test, and waits until it flows.
func startLoadOn(t *testing.T, c *load.Client, cfg load.Config) *loaded {
	t.Helper()
	cfg.Seed = uint64(time.Now().UnixNano())
	r := &loaded{t: t, client: c, l: load.New(c, cfg)}
	t.Cleanup(func() { r.stop(); c.Close() })
	r.begin((*load.Load).Run)
	r.flow(50)
	return r
}

// begin starts the load with one of its Run methods; it goes on until stop.
func (r *loaded) begin(run func(*load.Load, context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	go func() { defer close(r.done); run(r.l, ctx) }()
}

// stop ends the load and waits for it.
func (r *loaded) stop() {
	r.cancel()
	<-r.done
}

// flow waits until n operations have ended since the last report.
func (r *loaded) flow(n int64) {
	r.t.Helper()
	for range 600 {
		if r.l.Done() >= n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.t.Fatalf("the load does not flow: %d operations in 30 s, want %d", r.l.Done(), n)
}

// check takes the report of a phase. No phase may have errors or violations; none of its operations may have
// taken longer than limit.
func (r *loaded) check(phase string, limit time.Duration) load.Report {
	r.t.Helper()
	rep := r.l.Report()
	r.t.Logf("%s: %s, %d reconnects", phase, rep.String(), r.client.Reconnects())
	for _, s := range rep.Errors {
		r.t.Errorf("%s: I/O error: %s", phase, s)
	}
	if rep.Aborted > 0 && !r.aborts {
		r.t.Errorf("%s: %d commands aborted", phase, rep.Aborted)
	}
	for _, s := range rep.Violations {
		r.t.Errorf("%s: violation: %s", phase, s)
	}
	if limit > 0 && rep.Latency.Max() > limit {
		r.t.Errorf("%s: slowest operation took %v, began at %s; limit %v",
			phase, rep.Latency.Max().Round(time.Millisecond), rep.SlowestAt.Format("15:04:05.000"), limit)
	}
	return rep
}

// verify reads the whole region.
func (r *loaded) verify(phase string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), verifyMax)
	defer cancel()
	start := time.Now()
	defer func() { r.t.Logf("%s: verified in %v", phase, time.Since(start).Round(time.Millisecond)) }()
	if err := r.l.Verify(ctx); err != nil {
		r.t.Errorf("%s: %v", phase, err)
	}
	r.check(phase+", verify", 0)
}

// object is a decoded JSON object whose keys are compared without case and underscores.
type object map[string]any

func (o object) field(name string) any {
	flat := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for k, v := range o {
		if flat(k) == flat(name) {
			return v
		}
	}
	return nil
}

// status is what "cluster status" says through the given metaservers.
func status(t *testing.T, cl *cluster.Cluster, meta string) (object, error) {
	t.Helper()
	out, err := cl.AdminAt(t.Context(), meta, "cluster", "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(out, &o); err != nil {
		return nil, err
	}
	return o, nil
}

// allMeta is the address list of all metaservers.
func allMeta(cl *cluster.Cluster) string { return strings.Join(cl.Meta, ",") }

// awaitHealthy waits until the cluster says that nothing is wrong with it.
func awaitHealthy(t *testing.T, cl *cluster.Cluster, limit time.Duration) {
	t.Helper()
	start := time.Now()
	var last object
	for time.Since(start) < limit {
		o, err := status(t, cl, allMeta(cl))
		if err == nil && o.field("healthy") == true {
			t.Logf("healthy after %v", time.Since(start).Round(100*time.Millisecond))
			return
		}
		last = o
		time.Sleep(300 * time.Millisecond)
	}
	t.Fatalf("not healthy after %v: %v", limit, last)
}

// copyset is what "copyset list" says of one.
type copyset struct {
	ID     uint64 `json:"id"`
	Commit uint64 `json:"commit"`
	// Leader is the chunkserver that leads it, 0 for none.
	Leader uint64        `json:"leader"`
	Peers  []copysetPeer `json:"peers"`
	// Operation is not nil while a peer is being replaced.
	Operation *struct{} `json:"operation"`
}

type copysetPeer struct {
	Chunkserver uint64 `json:"chunkserver"`
	Role        string `json:"role"`
	Match       uint64 `json:"match"`
	Up          bool   `json:"up"`
}

func copysets(t *testing.T, cl *cluster.Cluster) map[uint64]copyset {
	t.Helper()
	var list []copyset
	must(t, json.Unmarshal([]byte(admin(t, cl, "copyset", "list", "-o", "json")), &list))
	out := map[uint64]copyset{}
	for _, c := range list {
		out[c.ID] = c
	}
	if len(out) == 0 {
		t.Fatal("no copysets")
	}
	return out
}

// site is where a chunkserver is.
type site struct{ role, zone string }

// places returns where the chunkservers are, by their ids.
func places(t *testing.T, cl *cluster.Cluster) map[uint64]site {
	t.Helper()
	var list []struct {
		ID           uint64
		Zone, Server string
	}
	must(t, json.Unmarshal([]byte(admin(t, cl, "chunkserver", "list", "-o", "json")), &list))
	out := map[uint64]site{}
	for _, c := range list {
		out[c.ID] = site{role: "chunkserver-" + strings.TrimPrefix(c.Server, "server-"), zone: c.Zone}
	}
	return out
}

// placement returns where a volume's bytes are.
func placement(t *testing.T, cl *cluster.Cluster, volume string) *layout.Map {
	t.Helper()
	var v struct {
		Size        int64  `json:"size_bytes"`
		ChunkSize   uint32 `json:"chunk_size_bytes"`
		StripeUnit  uint32 `json:"stripe_unit_bytes"`
		StripeCount uint32 `json:"stripe_count"`
		Ranges      []struct {
			First    uint32 `json:"first_chunk"`
			Chunks   uint32
			Copysets []layout.CopysetID
		}
	}
	must(t, json.Unmarshal([]byte(admin(t, cl, "volume", "show", volume, "-o", "json")), &v))
	m := &layout.Map{Volume: 1, Size: v.Size, ChunkSize: v.ChunkSize, StripeUnit: v.StripeUnit, StripeCount: v.StripeCount}
	for _, r := range v.Ranges {
		m.Ranges = append(m.Ranges, layout.Range{First: r.First, Chunks: r.Chunks, Copysets: r.Copysets})
	}
	must(t, m.Validate())
	return m
}

// scrubState is what the chunkservers say of their scrubs: how many run, how many blocks the last ones found and repaired, and how
// many can not be repaired.
type scrubState struct{ chunkservers, running, damaged, repaired, left int }

// readScrubs sums up what "chunkserver scrub --all" printed.
func readScrubs(t *testing.T, out []byte) (s scrubState) {
	t.Helper()
	var all []struct {
		Running bool
		Last    struct {
			Damaged  int `json:"damaged_blocks"`
			Repaired int `json:"repaired_blocks"`
		}
		Unrepairable []struct{}
	}
	must(t, json.Unmarshal(out, &all))
	for _, c := range all {
		s.chunkservers, s.damaged, s.repaired = s.chunkservers+1, s.damaged+c.Last.Damaged, s.repaired+c.Last.Repaired
		s.left += len(c.Unrepairable)
		if c.Running {
			s.running++
		}
	}
	return s
}

// problems is what "cluster status" says is wrong.
func problems(t *testing.T, cl *cluster.Cluster) []string {
	t.Helper()
	o, err := status(t, cl, allMeta(cl))
	must(t, err)
	var out []string
	list, _ := o.field("problems").([]any)
	for _, p := range list {
		out = append(out, p.(string))
	}
	return out
}

// awaitProblem waits until one of the problems has all of the texts, and tells how long that took.
func awaitProblem(t *testing.T, cl *cluster.Cluster, limit time.Duration, texts ...string) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		all := problems(t, cl)
		if slices.ContainsFunc(all, func(p string) bool {
			return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(p, text) })
		}) {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("no problem with %q after %v: %q", texts, limit, all)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// reportsFresh is after how long the metaserver's view is later than an event: two heartbeats and some.
const reportsFresh = 2500 * time.Millisecond

// awaitCaughtUp waits until every peer of every copyset is up and has what was committed a moment after the call,
// and the cluster says that it is healthy.
func awaitCaughtUp(t *testing.T, cl *cluster.Cluster, limit time.Duration) {
	t.Helper()
	start := time.Now()
	time.Sleep(reportsFresh)
	goal := copysets(t, cl)
	behind := 0
	for time.Since(start) < limit {
		behind = 0
		for id, c := range copysets(t, cl) {
			for _, p := range c.Peers {
				if !p.Up || p.Match < goal[id].Commit {
					behind++
				}
			}
		}
		if behind == 0 {
			t.Logf("caught up after %v", time.Since(start).Round(100*time.Millisecond))
			awaitHealthy(t, cl, limit)
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatalf("%d peers are behind after %v", behind, limit)
}

// active finds the index of the metaserver that says it is active, from the cluster's own status.
func active(t *testing.T, cl *cluster.Cluster, limit time.Duration) int {
	t.Helper()
	start := time.Now()
	var err error
	var o object
	for time.Since(start) < limit {
		if o, err = status(t, cl, allMeta(cl)); err == nil {
			if n := activeOf(cl, o); n >= 0 {
				return n
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatalf("no active metaserver after %v: %v %v", limit, o, err)
	return -1
}

// activeOf finds the active metaserver in a status; -1 when there is none, or not exactly one.
func activeOf(cl *cluster.Cluster, o object) int {
	list, _ := o.field("metaservers").([]any)
	found := -1
	for _, m := range list {
		m, _ := m.(map[string]any)
		if object(m).field("active") != true {
			continue
		}
		for i, addr := range cl.Meta {
			if object(m).field("address") == addr {
				if found >= 0 {
					return -1
				}
				found = i
			}
		}
	}
	return found
}

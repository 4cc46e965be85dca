//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/load"
)

// backgroundPause is the longest that an operation may take beside work in the background, on a machine that is busy with other
// things too.
const backgroundPause = 4 * time.Second

// backgroundRatio is by how much p99 may rise beside work in the background (reliability F14). It is checked with E2E_QUIET only,
// which says that nothing else runs on the machine.
const backgroundRatio = 2

// background measures a load beside something else.
type background struct {
	t    *testing.T
	cl   *cluster.Cluster
	r    *loaded
	seen []measured
}

// measured is what a load was like meanwhile.
type measured struct {
	phase         string
	took          time.Duration
	p50, p99, max time.Duration
}

// beside does something and takes the latencies of the operations that ended meanwhile, for least at least.
func (b *background) beside(phase string, least time.Duration, do func()) {
	b.t.Helper()
	b.r.check("until "+phase, backgroundPause)
	began := time.Now()
	do()
	time.Sleep(time.Until(began.Add(least)))
	b.r.flow(500)
	rep := b.r.check(phase, backgroundPause)
	l := &rep.Latency
	b.seen = append(b.seen, measured{phase, time.Since(began), l.Quantile(0.50), l.Quantile(0.99), l.Max()})
}

// moved waits until a chunkserver has as many replicas as wanted says, and nothing moves.
func (b *background) moved(limit time.Duration, wanted func(replicas int) bool, id uint64) {
	b.t.Helper()
	replicas := -1
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		replicas = 0
		moving := false
		for _, c := range copysets(b.t, b.cl) {
			moving = moving || c.Operation != nil
			if slices.ContainsFunc(c.Peers, func(p copysetPeer) bool { return p.Chunkserver == id }) {
				replicas++
			}
		}
		if !moving && wanted(replicas) {
			return
		}
	}
	b.t.Fatalf("not in time: chunkserver %d has %d replicas", id, replicas)
}

// TestFaultBackground runs a verified load beside what the cluster does in the background: replicas that are copied to other
// chunkservers, with images and changes of membership, and back for balance; a scrub of everything; the deletion of a volume that
// is much larger than the load. No operation fails or takes longer than backgroundPause. With E2E_QUIET=1 the volume is larger, and
// p99 may be backgroundRatio times what it is without.
func TestFaultBackground(t *testing.T) {
	quiet := os.Getenv("E2E_QUIET") != ""
	size, least := 128<<20, time.Second
	if quiet {
		size, least = 2<<30, 15*time.Second
	}
	cl := startCluster(t, cluster.Options{Chunkservers: 4})
	bulk := createUnit(t, cl, fmt.Sprint(size))
	awaitHealthy(t, cl, 30*time.Second)
	f := newFiller(t, client(bulk, "bulk"))
	if f.write(size / pieceLen) {
		t.Fatal("the disks are full")
	}
	f.c.Close()
	cfg := mixed
	cfg.Blocks = 32 << 20 / load.BlockLen
	b := &background{t: t, cl: cl, r: startLoad(t, cl, cfg)}
	time.Sleep(least)
	b.beside("nothing", 3*least, func() {})
	id := busiest(t, cl)
	b.beside("a chunkserver is drained", least, func() {
		admin(t, cl, "chunkserver", "drain", fmt.Sprint(id))
		b.moved(3*time.Minute, func(n int) bool { return n == 0 }, id)
	})
	b.beside("replicas move back", least, func() {
		admin(t, cl, "chunkserver", "drain", fmt.Sprint(id), "--cancel")
		b.moved(3*time.Minute, func(n int) bool { return n > 0 }, id)
	})
	b.beside("a scrub", least, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		out, err := cl.AdminUntil(ctx, "chunkserver", "scrub", "--all", "--wait", "-o", "json")
		must(t, err)
		if s := readScrubs(t, out); s.running+s.damaged+s.left > 0 {
			t.Errorf("scrubs: %+v", s)
		}
	})
	b.beside("a volume is deleted", least, func() {
		admin(t, cl, "target", "unmap", bulk.target, "--lun", "0")
		admin(t, cl, "volume", "delete", bulk.volume)
	})
	b.beside("nothing again", 3*least, func() {})
	b.r.stop()
	b.r.verify("in the end")
	if n := b.r.client.Reconnects(); n != 0 {
		t.Errorf("the session ended %d times", n)
	}
	b.compare(quiet)
}

// compare prints what was measured, beside the worse of the two phases in which nothing else was done.
func (b *background) compare(check bool) {
	b.t.Helper()
	base := max(b.seen[0].p99, b.seen[len(b.seen)-1].p99)
	for _, m := range b.seen {
		ratio := float64(m.p99) / float64(base)
		b.t.Logf("%-26s %8v: p50 %8v p99 %8v (%.1f times) max %v", m.phase, m.took.Round(100*time.Millisecond), m.p50.Round(10*time.Microsecond),
			m.p99.Round(10*time.Microsecond), ratio, m.max.Round(time.Millisecond))
		if check && ratio > backgroundRatio {
			b.t.Errorf("%s: p99 is %.1f times as long, limit %d", m.phase, ratio, backgroundRatio)
		}
	}
}

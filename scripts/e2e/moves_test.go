//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// TestPathsAtOnce has one host use two gateways at once, as with all paths in one group: first one path alone, for comparison,
// then both in their ways of doing it. No session ends, no command fails, and the history of each block is linearizable.
func TestPathsAtOnce(t *testing.T) {
	const blocks, stride = 24, 16 << 20 // each block in another chunk
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var paths []*initiator.Session
	for _, p := range cl.Portals {
		paths = append(paths, host(ctx, t, cl, p, "at-once"))
	}
	_, lb, err := paths[0].Capacity(ctx)
	must(t, err)
	h := &history{begin: time.Now()}
	worker := func(ctx context.Context, id int, path func(i int) *initiator.Session) int {
		rnd := rand.New(rand.NewPCG(uint64(id), uint64(h.begin.UnixNano())))
		for i := 0; ; i++ {
			if ctx.Err() != nil {
				return i
			}
			in := step{kind: "rwww"[rnd.IntN(4)], block: rnd.Uint64N(blocks) * stride / uint64(lb), new: h.value.Add(1)}
			call := time.Since(h.begin)
			out, err := once(t.Context(), path(i), lb, in)
			for err != nil && attention(err) { // of the start of the gateways; the command was not done
				out, err = once(t.Context(), path(i), lb, in)
			}
			if err != nil {
				t.Errorf("%c of block %d: %v", in.kind, in.block, err)
				return i
			}
			h.add(id, in, out, call)
		}
	}
	for _, way := range []struct {
		name    string
		workers int
		path    func(worker, i int) int
	}{
		{"one path, depth 8", 8, func(int, int) int { return 0 }},
		{"both paths, depth 8 on each", 16, func(w, _ int) int { return w % 2 }},
		{"by turns, depth 8", 8, func(w, i int) int { return (w + i) % 2 }},
		{"by turns, one at a time", 1, func(_, i int) int { return i % 2 }},
	} {
		before := epochOf(t, cl, "at-once")
		phase, end := context.WithTimeout(ctx, 2*time.Second)
		var wg sync.WaitGroup
		done := make([]int, way.workers)
		for w := range way.workers {
			wg.Go(func() {
				done[w] = worker(phase, w, func(i int) *initiator.Session { return paths[way.path(w, i)] })
			})
		}
		wg.Wait()
		end()
		all := 0
		for w, n := range done {
			if all += n; n == 0 {
				t.Errorf("%s: nothing of worker %d was served", way.name, w)
			}
		}
		t.Logf("%s: %d commands in 2 s, %d moves", way.name, all, epochOf(t, cl, "at-once")-before)
	}
	for i, s := range paths {
		select {
		case <-s.Done():
			t.Errorf("the session at gateway %d has ended", i+1)
		default:
		}
	}
	if got := porcupine.CheckOperationsTimeout(register, h.ops, 60*time.Second); got != porcupine.Ok {
		t.Errorf("the history of %d operations is not linearizable: %v", len(h.ops), got)
	}
}

// epochOf returns the last epoch of a host on the demo volume.
func epochOf(t *testing.T, cl *cluster.Cluster, name string) uint64 {
	t.Helper()
	var v struct {
		Attachments []struct {
			Initiator string
			Epoch     uint64
		}
	}
	must(t, json.Unmarshal([]byte(admin(t, cl, "volume", "show", "demo", "-o", "json")), &v))
	for _, a := range v.Attachments {
		if a.Initiator == "iqn.2026-11.dev.ashlar.test:"+name {
			return a.Epoch
		}
	}
	return 0
}

// attention tells whether a command ended with a unit attention.
func attention(err error) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Key == 6
}

package metaserver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// TestReplicasDiffer: what a majority disproves is ended and named; without a majority there is an alarm and nothing else; a
// comparison that finds no difference ends it.
func TestReplicasDiffer(t *testing.T) {
	t.Parallel()
	d := start(t, testConfig("replicas-differ"), Options{})
	w := newWorld(t, dial(t, d.address))
	for i, zone := range []string{"a", "b", "c"} {
		w.add(byte(i+1), zone)
	}
	admin := w.client.Admin()
	var set *metav1.Copyset
	eventually(t, "copysets", func() bool {
		r, err := admin.ListCopysets(t.Context(), &metav1.ListCopysetsRequest{})
		if err != nil || len(r.GetCopysets()) == 0 {
			return false
		}
		set = r.GetCopysets()[0]
		return set.GetQuorum() && len(set.GetPeers()) == 3 && set.GetPeers()[0].GetMatch() > 0
	})
	peers := set.GetPeers()
	report := func(index uint64, sums string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, c := range sums {
			if c != '-' {
				w.digests[peers[i].GetId()] = &metav1.ReplicaDigest{Index: index, Format: 257, Sum: []byte(strings.Repeat(string(c), 16))}
			}
		}
	}
	ended := func() (all []uint64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for p := range w.distrust {
			all = append(all, p)
		}
		return all
	}
	compared := func() *metav1.Comparison {
		return must(admin.ShowCopyset(t.Context(), &metav1.ShowCopysetRequest{Id: set.GetId()}))(t).GetComparison()
	}
	problem := func(text string) bool {
		r := must(admin.ClusterStatus(t.Context(), &metav1.ClusterStatusRequest{}))(t)
		return slices.ContainsFunc(r.GetProblems(), func(p string) bool { return strings.Contains(p, text) })
	}

	report(10, "AAA")
	eventually(t, "the comparison", func() bool { return compared().GetIndex() == 10 && len(compared().GetPeers()) == 3 })
	if compared().GetDiffer() || problem("differed") {
		t.Fatal("equal replicas differ")
	}
	report(20, "ABC")
	eventually(t, "the alarm", func() bool { return compared().GetDiffer() && problem("no majority tells which is right") })
	report(30, "AA-")
	eventually(t, "the end of the alarm", func() bool { return !compared().GetDiffer() })
	if got := ended(); len(got) != 0 {
		t.Fatalf("ended without a majority against them: %v", got)
	}
	// With one of the two that are right away, the copyset would not go on without the odd one.
	report(40, "AA-")
	eventually(t, "the next comparison", func() bool { return compared().GetIndex() == 40 })
	slices.SortFunc(peers[:2], func(a, b *metav1.Peer) int { return int(a.GetId()) - int(b.GetId()) })
	away := peers[1].GetChunkserver()
	w.down(away)
	eventually(t, "the silence to be noticed", func() bool { return problem(fmt.Sprintf("Chunkserver %d (", away)) })
	report(40, "--B")
	eventually(t, "the alarm", func() bool { return len(compared().GetOdd()) == 1 && problem("against a majority of the others") })
	time.Sleep(300 * time.Millisecond)
	if got := ended(); len(got) != 0 {
		t.Fatalf("ended while the others are too few: %v", got)
	}
	w.run(w.servers[away])
	eventually(t, "the odd one to end", func() bool { return len(ended()) > 0 })
	if got := ended(); len(got) != 1 || got[0] != peers[2].GetId() {
		t.Fatalf("ended %v, want %d", got, peers[2].GetId())
	}
	if odd := compared().GetOdd(); len(odd) != 1 || odd[0] != peers[2].GetId() || !problem("against a majority of the others") {
		t.Errorf("odd: %v", odd)
	}
	// The next comparison of the others does not make it right.
	report(50, "AA-")
	time.Sleep(300 * time.Millisecond)
	if odd := compared().GetOdd(); len(odd) != 1 || !problem("against a majority of the others") {
		t.Errorf("forgotten: %v", odd)
	}
	// It is replaced at once: that it fails will not pass.
	eventually(t, "its replacement", func() bool {
		r := must(admin.ShowCopyset(t.Context(), &metav1.ShowCopysetRequest{Id: set.GetId()}))(t)
		return !slices.ContainsFunc(r.GetPeers(), func(p *metav1.Peer) bool { return p.GetId() == peers[2].GetId() })
	})
	eventually(t, "the end of the alarm", func() bool { return !compared().GetDiffer() && !problem("differed") })
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.distrust[peers[2].GetId()]; got.GetIndex() != 40 || string(got.GetSum()) != strings.Repeat("B", 16) {
		t.Errorf("the order names %v", got)
	}
}

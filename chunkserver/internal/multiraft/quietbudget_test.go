package multiraft

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// counted is a way into the network that counts.
type counted struct {
	port
	beats, others, ballots *atomic.Int64
}

func (p *counted) Send(to layout.ChunkserverID, msgs []Message) {
	for i := range msgs {
		switch {
		case msgs[i].Raft == nil:
			p.beats.Add(1)
		case msgs[i].Raft.GetType() == raftpb.MsgPreVote:
			p.ballots.Add(1)
			p.others.Add(1)
		default:
			p.others.Add(1)
		}
	}
	p.port.Send(to, msgs)
}

// herd is three chunkservers with many quiet copysets.
type herd struct {
	*cluster
	n                      int
	beats, others, ballots atomic.Int64
}

func newHerd(t *testing.T, n int) *herd {
	h := &herd{n: n}
	h.cluster = newCluster(t, 3, func(cfg *Config) {
		quick(cfg)
		if p, ok := cfg.Transport.(*port); ok {
			cfg.Transport = &counted{*p, &h.beats, &h.others, &h.ballots}
		}
	})
	for i := range n {
		id, members := layout.CopysetID(i+1), map[layout.PeerID]layout.ChunkserverID{}
		for cs := range layout.ChunkserverID(3) {
			members[layout.PeerID(i*10)+layout.PeerID(cs+1)] = cs + 1
		}
		for p, cs := range members {
			if err := h.servers[cs].host.Found(h.ctx(), id, p, members); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.quietAll(1, 2, 3)
	return h
}

// quietAll waits until all is quiet and led.
func (h *herd) quietAll(ids ...layout.ChunkserverID) {
	h.t.Helper()
	h.until("quiet copysets", func() bool {
		quiet, led := 0, 0
		for _, id := range ids {
			quiet += h.servers[id].host.Quiet()
			for _, g := range h.servers[id].host.Groups() {
				if g.Leading() {
					led++
				}
			}
		}
		return quiet == len(ids)*h.n && led == h.n
	})
}

// TestQuietBudget: what idle copysets cost does not grow with their number: the beats of three processes, no message of raft, and
// hardly any allocation. A message of each copyset in each heartbeat would be 100 times as many.
func TestQuietBudget(t *testing.T) {
	const span, tries = 50 * testTick, 5
	// A beat to each of two neighbours from each of three processes in each period; one more for where the span begins.
	beatsMax := int64(3 * 2 * (50/Default().HeartbeatTicks + 1))
	// Measured: 200 to 2,000, most by the stores.
	const allocationsMax = 4000
	for _, n := range []int{4, 100} {
		h := newHerd(t, n)
		var beats, others int64
		var made uint64
		for range tries { // a machine that stands still for an election timeout wakes them
			h.quietAll(1, 2, 3)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			h.beats.Store(0)
			h.others.Store(0)
			time.Sleep(span)
			beats, others = h.beats.Load(), h.others.Load()
			runtime.ReadMemStats(&after)
			if made = after.Mallocs - before.Mallocs; beats <= beatsMax && others == 0 && made <= allocationsMax {
				break
			}
		}
		t.Logf("%d idle copysets: %d beats, %d allocations in %v", n, beats, made, span)
		if beats > beatsMax || others != 0 || made > allocationsMax {
			t.Errorf("%d idle copysets: %d beats in %v, want at most %d; %d messages of raft, want none; %d allocations, want at most %d",
				n, beats, span, beatsMax, others, made, allocationsMax)
		}
		for id := range h.servers {
			h.halt(id)
		}
	}
}

// TestQuietStorm: the process that led a third of many copysets is lost: each has another leader within the time that one has, and
// there are not many more ballots than it takes.
func TestQuietStorm(t *testing.T) {
	const n = 60
	h := newHerd(t, n)
	lost := 0
	for _, g := range h.servers[1].host.Groups() {
		if g.Leading() {
			lost++
		}
	}
	h.ballots.Store(0)
	begin := time.Now()
	h.halt(1)
	h.until("leaders", func() bool {
		led := 0
		for _, id := range []layout.ChunkserverID{2, 3} {
			for _, g := range h.servers[id].host.Groups() {
				if g.Leading() {
					led++
				}
			}
		}
		return led == n
	})
	took := time.Since(begin)
	t.Logf("%d of %d copysets have another leader after %v, %d ballots", lost, n, took, h.ballots.Load())
	if took > 150*testTick {
		t.Errorf("it took %v, more than 150 ticks", took)
	}
	if b := h.ballots.Load(); lost > 0 && b > int64(6*lost+6) { // one asks two; the second follower may have begun, and once more
		t.Errorf("%d ballots for %d leaders", b, lost)
	}
}

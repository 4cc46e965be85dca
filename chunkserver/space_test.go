package chunkserver

import (
	"bytes"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/heartbeat"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestSpace: what a chunkserver tells of its disk adds up to the data file, and says how much was written.
func TestSpace(t *testing.T) {
	b := newTestbedOf(t, 1, 20*time.Millisecond)
	c := b.dial(b.leader())
	defer c.close()
	data := bytes.Repeat([]byte("ashlar!!"), layout.BlockSize/8)
	const blocks = 40
	for seq := uint64(1); seq <= blocks; seq++ {
		if r := c.do(request(chunkv1.Op_OP_WRITE, uint32(seq), seq, data))[seq+1]; r.GetStatus() != chunkv1.Status_STATUS_OK {
			t.Fatalf("write %d: %v", seq, r)
		}
	}
	for id, n := range b.nodes {
		n.s.mu.Lock()
		d := n.s.mu.disk
		n.s.mu.Unlock()
		var s heartbeat.Space
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if s = d.report(nil).Space; s.Content == blocks*layout.BlockSize && s.Reclaimable == 0 {
				break
			}
		}
		sum := layout.BlockSize + s.Content + s.Versions + s.Incoming + s.Logged + s.Reclaimable + s.Spare + s.Holes
		if s.Content != blocks*layout.BlockSize || sum != s.DataFile || s.RaftLog <= 0 || s.Index <= 0 || s.Reclaimable != 0 ||
			s.Reserved != 64<<20+256<<20 {
			t.Errorf("chunkserver %d: %+v is %d", id, s, sum)
		}
	}
}

// TestSpaceMetrics: each value has a metric of its own.
func TestSpaceMetrics(t *testing.T) {
	b := newTestbed(t, 1)
	id := b.leader()
	b.halt(id)
	reg := prometheus.NewRegistry()
	b.registry = reg
	b.start(id)
	got, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, m := range got {
		have[m.GetName()] = true
	}
	for _, name := range []string{
		"space_data_file_bytes", "space_content_bytes", "space_versions_bytes", "space_incoming_bytes", "space_logged_bytes",
		"space_reclaimable_bytes", "space_spare_bytes", "space_holes_bytes", "space_index_bytes", "space_reserved_bytes", "pieces_per_mib", "scattered_chunks",
		"compacted_bytes_total", "given_back_bytes_total",
	} {
		if !have["ashlar_chunkserver_"+name] {
			t.Errorf("no %s", name)
		}
	}
}

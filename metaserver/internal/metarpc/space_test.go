package metarpc

import (
	"testing"

	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestSpaces: each chunkserver counts once, the fullest decides whether a volume is low, and what is not known is not told.
func TestSpaces(t *testing.T) {
	server := func(id layout.ChunkserverID, capacity, used uint64) topology.Chunkserver {
		c := topology.Chunkserver{Capacity: capacity, Used: used}
		c.ID = id
		return c
	}
	copyset := func(id layout.CopysetID, on ...layout.ChunkserverID) topology.Copyset {
		c := topology.Copyset{State: &schedule.State{Record: &schedule.Record{}}}
		c.Record.ID = id
		for _, s := range on {
			c.Record.Peers = append(c.Record.Peers, schedule.Peer{Chunkserver: s})
		}
		return c
	}
	volume := func(id layout.VolumeID, copysets ...layout.CopysetID) *namespace.VolumeRecord {
		return &namespace.VolumeRecord{ID: id, Ranges: []layout.Range{{Chunks: 1, Copysets: copysets}}}
	}
	view := &topology.View{
		Chunkservers: []topology.Chunkserver{
			server(1, 1000, 100), server(2, 1000, 200), server(3, 1000, 849), server(4, 1000, 850), server(5, 0, 0), server(6, 10, 20),
		},
		Copysets: []topology.Copyset{copyset(1, 1, 2, 3), copyset(2, 1, 2, 4), copyset(3, 1, 2, 5), copyset(4, 6)},
		Usage:    map[layout.VolumeID]uint64{1: 77},
	}
	deleting := volume(6, 1)
	deleting.Deleting = true
	got := spaces(view, []*namespace.VolumeRecord{
		volume(1, 1, 1), volume(2, 1, 2), volume(3, 3), volume(4, 4), volume(5, 9), deleting,
	})
	want := []struct {
		volume, used, available uint64
		low                     bool
	}{{1, 77, (900 + 800 + 151) / 3, false}, {2, 0, (900 + 800 + 151 + 150) / 3, true}, {4, 0, 0, true}}
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i, w := range want {
		if g := got[i]; g.GetVolume() != w.volume || g.GetUsed() != w.used || g.GetAvailable() != w.available || g.GetLow() != w.low {
			t.Errorf("%v, want %+v", g, w)
		}
	}
}

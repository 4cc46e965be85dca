package metarpc

import (
	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// disk is the disk of a chunkserver.
type disk struct {
	free uint64
	full bool // beyond fullPercent
}

// spaces tells for each volume what it uses and what is free on the chunkservers that hold it, each of which keeps one copy.
// A volume with a chunkserver whose disk is not known yet is left out.
func spaces(cluster *topology.View, volumes []*namespace.VolumeRecord) []*metav1.VolumeSpace {
	disks := map[layout.ChunkserverID]disk{}
	for _, c := range cluster.Chunkservers {
		if c.Capacity > 0 {
			disks[c.ID] = disk{free: c.Capacity - min(c.Used, c.Capacity), full: c.Used*100/c.Capacity >= fullPercent}
		}
	}
	peers := map[layout.CopysetID][]layout.ChunkserverID{}
	for _, c := range cluster.Copysets {
		for _, p := range c.Record.Peers {
			peers[c.Record.ID] = append(peers[c.Record.ID], p.Chunkserver)
		}
	}
	var out []*metav1.VolumeSpace
	for _, v := range volumes {
		if v.Deleting {
			continue
		}
		if s := spaceOf(v, disks, peers); s != nil {
			s.Used = cluster.Usage[v.ID]
			out = append(out, s)
		}
	}
	return out
}

// spaceOf returns what is free for a volume, nil if that is not known.
func spaceOf(v *namespace.VolumeRecord, disks map[layout.ChunkserverID]disk, peers map[layout.CopysetID][]layout.ChunkserverID) *metav1.VolumeSpace {
	s := &metav1.VolumeSpace{Volume: uint64(v.ID)}
	copies, seen := 0, map[layout.ChunkserverID]bool{}
	for _, r := range v.Ranges {
		for _, c := range r.Copysets {
			copies = max(copies, len(peers[c]))
			for _, id := range peers[c] {
				d, known := disks[id]
				switch {
				case !known:
					return nil
				case !seen[id]:
					seen[id] = true
					s.Available += d.free
					s.Low = s.Low || d.full
				}
			}
		}
	}
	if copies == 0 {
		return nil
	}
	s.Available /= uint64(copies)
	return s
}

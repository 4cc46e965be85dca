package chunkserver

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/heartbeat"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
)

// usage asks the disk for its space.
func (p *parts) usage() (blockstore.Usage, heartbeat.Space) {
	u, s, c := p.store.Usage(), p.store.Space(), p.compact.Stats()
	out := heartbeat.Space{
		DataFile: s.File, Incoming: s.Incoming, Logged: s.Logged, Reclaimable: s.Reclaimable, Spare: s.Spare, Holes: s.Holes,
		RaftLog: p.log.Bytes(), Index: s.Index,
		Blocks: c.Blocks, Pieces: c.Pieces, ScatteredChunks: c.Scattered, Moved: c.Moved, GivenBack: c.GivenBack,
	}
	for _, v := range s.Volumes {
		out.Content, out.Versions = out.Content+v.Content, out.Versions+v.Versions
	}
	return u, out
}

// spaceMetrics tell what the bytes of the disk are for, and what the compaction did.
func (s *Server) spaceMetrics(p *parts) []prometheus.Collector {
	bytes := func(kind, help string, f func(heartbeat.Space) int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "ashlar", Subsystem: "chunkserver", Name: "space_" + kind + "_bytes", Help: help,
		}, func() float64 { return float64(f(p.disk.space())) })
	}
	number := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "ashlar", Subsystem: "chunkserver", Name: name, Help: help}, f)
	}
	total := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "ashlar", Subsystem: "chunkserver", Name: name, Help: help}, f)
	}
	return []prometheus.Collector{
		bytes("data_file", "Length of the data file; the other space_ values but index are its parts.", func(s heartbeat.Space) int64 { return s.DataFile }),
		bytes("content", "What volumes hold now.", func(s heartbeat.Space) int64 { return s.Content }),
		bytes("versions", "What only earlier versions of volumes hold.", func(s heartbeat.Space) int64 { return s.Versions }),
		bytes("incoming", "Of images that are not installed yet.", func(s heartbeat.Space) int64 { return s.Incoming }),
		bytes("logged", "Held for entries of the raft log alone.", func(s heartbeat.Space) int64 { return s.Logged }),
		bytes("reclaimable", "Freed, and waits for a checkpoint, a reader or an image.", func(s heartbeat.Space) int64 { return s.Reclaimable }),
		bytes("spare", "Free, with disk space behind it.", func(s heartbeat.Space) int64 { return s.Spare }),
		bytes("holes", "Free, without disk space.", func(s heartbeat.Space) int64 { return s.Holes }),
		bytes("index", "Length of the index's files.", func(s heartbeat.Space) int64 { return s.Index }),
		bytes("reserved", "Free space that writes leave alone; it is in no file.", func(s heartbeat.Space) int64 { return s.Reserved }),
		number("pieces_per_mib", "In how many pieces 1 MiB lies on the disk on average, as the compaction found last.",
			func() float64 { return p.compact.Stats().PiecesPerMiB() }),
		number("scattered_chunks", "Chunks that are worth to be compacted, as the compaction found last.",
			func() float64 { return float64(p.compact.Stats().Scattered) }),
		total("compacted_bytes_total", "Bytes of the blocks that the compaction moved.", func() float64 { return float64(p.compact.Stats().Moved) }),
		total("given_back_bytes_total", "Disk space that the data file gave back because it had too much to spare.",
			func() float64 { return float64(p.compact.Stats().GivenBack) }),
	}
}

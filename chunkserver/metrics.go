package chunkserver

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// register registers the metrics and returns how to take them back.
func (s *Server) register(p *parts) (func(), error) {
	if s.opts.Registry == nil {
		return func() {}, nil
	}
	counter := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "ashlar", Subsystem: "chunkserver", Name: name, Help: help}, f)
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "ashlar", Subsystem: "chunkserver", Name: name, Help: help}, f)
	}
	st := p.rpc.Stats()
	sc := p.scrub.Counters()
	value := func(v *atomic.Uint64) func() float64 { return func() float64 { return float64(v.Load()) } }
	all := []prometheus.Collector{
		counter("reads_total", "Read requests.", value(&st.Reads)),
		counter("writes_total", "Write requests.", value(&st.Writes)),
		counter("other_requests_total", "Requests that neither read nor write.", value(&st.Others)),
		counter("read_bytes_total", "Bytes asked for by reads.", value(&st.ReadBytes)),
		counter("written_bytes_total", "Bytes of write requests.", value(&st.WrittenBytes)),
		counter("damaged_requests_total", "Requests whose data did not match its checksums when it came in. The gateway sends it again.",
			value(&st.Damaged)),
		counter("repaired_blocks_total", "Damaged blocks that were replaced by another peer's copy.", func() float64 { return float64(p.host.Repaired()) }),
		counter("scrub_verified_blocks_total", "Blocks that the scrub read.", func() float64 { return float64(sc.Verified.Load()) }),
		counter("scrub_damaged_blocks_total", "Blocks that the scrub found damaged.", func() float64 { return float64(sc.Damaged.Load()) }),
		counter("scrub_repaired_blocks_total", "Of those, the ones that are good again.", func() float64 { return float64(sc.Repaired.Load()) }),
		gauge("scrub_unrepairable_blocks", "Damaged blocks that no peer could repair so far.", func() float64 { return float64(len(p.scrub.Status().Bad)) }),
		gauge("scrub_skipped_chunks", "Chunks that the last whole pass of the scrub could not read, because their extent maps are damaged.",
			func() float64 { return float64(p.scrub.Status().Last.Skipped) }),
		gauge("scrub_last_pass_timestamp_seconds", "When the last whole pass of the scrub ended, in seconds since 1970; 0: never.",
			func() float64 { return float64(unixMs(p.scrub.Status().Ended)) / 1000 }),
		gauge("copysets", "Peers of copysets on this disk.", func() float64 { return float64(len(p.host.Groups())) }),
		gauge("quiet_copysets", "Of those, the ones that are idle: they cost nothing until they are used.", func() float64 { return float64(p.host.Quiet()) }),
		gauge("leaders", "Copysets that are led here.", func() float64 { return float64(leads(p.host)) }),
		gauge("capacity_bytes", "Space for data.", func() float64 { u, _ := p.disk.Usage(); return float64(u.Capacity) }),
		gauge("used_bytes", "Space that data occupies.", func() float64 { u, _ := p.disk.Usage(); return float64(u.Used) }),
		gauge("overlay_bytes", "Memory of changes that no checkpoint has made durable.", func() float64 { u, _ := p.disk.Usage(); return float64(u.Overlay) }),
		gauge("log_bytes", "Disk space of the raft log.", func() float64 { return float64(p.log.Bytes()) }),
		counter("log_syncs_total", "Syncs of the raft log; what waits at the same time shares one.", func() float64 { return float64(p.log.Syncs()) }),
		counter("log_entries_total", "Entries that the raft log took.", func() float64 { return float64(p.log.Usage().Written) }),
		gauge("disk_failed", "1 when the disk failed, or has not answered for long, and no copyset of it serves.", func() float64 {
			return truth(p.host.Err() != nil || p.disk.Err() != nil)
		}),
		gauge("disk_slow", "1 while the metaserver finds the disk much slower than those of others; nothing is led here then.",
			func() float64 { return truth(p.disk.slow.Load()) }),
		gauge("disk_stalled_seconds", "For how long the oldest operation that the disk has not answered in time has been under way.",
			func() float64 { return p.disk.report(nil).Stalled.Seconds() }),
		gauge("disk_log_sync_p50_seconds", "Median time of the raft log's syncs in the last 2 s; 0: there were none.",
			func() float64 { return p.watch.Health().Syncs.P50.Seconds() }),
		gauge("disk_log_sync_p99_seconds", "99th percentile of the same.", func() float64 { return p.watch.Health().Syncs.P99.Seconds() }),
		gauge("disk_log_sync_usual_seconds", "Median time of the raft log's syncs in the last hours.", func() float64 { return p.watch.Health().UsualSync.Seconds() }),
		gauge("disk_read_p50_seconds", "Median time of reads of data in the last 2 s; 0: there were none.", func() float64 { return p.watch.Health().Reads.P50.Seconds() }),
		gauge("disk_read_p99_seconds", "99th percentile of the same.", func() float64 { return p.watch.Health().Reads.P99.Seconds() }),
	}
	all = append(all, s.spaceMetrics(p)...)
	all = append(all, digestMetrics(p.digests.Counters(), counter)...)
	var done []prometheus.Collector
	undo := func() {
		for _, c := range done {
			s.opts.Registry.Unregister(c)
		}
	}
	for _, c := range all {
		if err := s.opts.Registry.Register(c); err != nil {
			undo()
			return func() {}, err
		}
		done = append(done, c)
	}
	return undo, nil
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

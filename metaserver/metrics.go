package metaserver

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector gives the metrics of a metaserver, from the state at the moment when they are asked for.
type collector struct{ s *Server }

// The metrics. All but the first exist only on the active metaserver.
var (
	activeDesc       = desc("active", "1 on the active metaserver, 0 on a standby.")
	revisionDesc     = desc("election_revision", "The revision of the election that made this metaserver active.")
	chunkserversDesc = desc("chunkservers", "Chunkservers on record, by state.", "state")
	gatewaysDesc     = desc("gateways", "Gateways on record, by state.", "state")
	copysetsDesc     = desc("copysets", "Copysets: serving, degraded (serving with fewer replicas) or without a quorum.", "state")
	operationsDesc   = desc("copyset_operations", "Membership changes under way.")
	volumesDesc      = desc("volumes", "Volumes.")
	pendingDesc      = desc("pending_raises", "Volumes with copysets that were not told yet that access was taken away.")
	attachmentsDesc  = desc("attachments", "Attachments of initiators to volumes that are remembered.")
	initiatorsDesc   = desc("initiators", "Initiators that are remembered.")
	capacityDesc     = desc("capacity_bytes", "Capacity of all chunkservers.")
	usedDesc         = desc("used_bytes", "Space in use on all chunkservers.")
	differDesc       = desc("copysets_differing", "Copysets whose replicas did not hold the same when they were compared last.")
	differencesDesc  = desc("replica_differences_total", "Comparisons that found replicas which differ, since this metaserver became active.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ashlar_metaserver_"+name, help, labels, nil)
}

// Describe sends the descriptions.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		activeDesc, revisionDesc, chunkserversDesc, gatewaysDesc, copysetsDesc, operationsDesc, volumesDesc, pendingDesc,
		attachmentsDesc, initiatorsDesc, capacityDesc, usedDesc, differDesc, differencesDesc,
	} {
		ch <- d
	}
}

// Collect sends the values.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	c.s.mu.Lock()
	t := c.s.mu.term
	c.s.mu.Unlock()
	if t == nil || !t.Valid() {
		gauge(activeDesc, 0)
		return
	}
	gauge(activeDesc, 1)
	gauge(revisionDesc, float64(t.Topology.Revision()))
	v := t.Topology.View()
	servers, gateways, copysets := map[bool]int{}, map[bool]int{}, map[string]int{}
	var capacity, used uint64
	operations, differing := 0, 0
	for _, s := range v.Chunkservers {
		servers[s.Up]++
		capacity += s.Capacity
		used += s.Used
	}
	for _, g := range v.Gateways {
		gateways[g.Up]++
	}
	for _, s := range v.Copysets {
		switch {
		case !s.Quorum:
			copysets["no_quorum"]++
		case s.Live < s.Voters:
			copysets["degraded"]++
		default:
			copysets["serving"]++
		}
		if s.Record.Op != nil {
			operations++
		}
		if s.Verdict.Differ {
			differing++
		}
	}
	for state, up := range map[string]bool{"up": true, "down": false} {
		gauge(chunkserversDesc, float64(servers[up]), state)
		gauge(gatewaysDesc, float64(gateways[up]), state)
	}
	for _, state := range []string{"serving", "degraded", "no_quorum"} {
		gauge(copysetsDesc, float64(copysets[state]), state)
	}
	gauge(operationsDesc, float64(operations))
	gauge(volumesDesc, float64(len(t.Namespace.View().Volumes)))
	gauge(pendingDesc, float64(len(t.Namespace.Pending())))
	attachments, initiators := t.Namespace.Remembered()
	gauge(attachmentsDesc, float64(attachments))
	gauge(initiatorsDesc, float64(initiators))
	gauge(capacityDesc, float64(capacity))
	gauge(usedDesc, float64(used))
	gauge(differDesc, float64(differing))
	ch <- prometheus.MustNewConstMetric(differencesDesc, prometheus.CounterValue, float64(t.Topology.Differences()))
}

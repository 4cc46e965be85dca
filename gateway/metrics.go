package gateway

import "github.com/prometheus/client_golang/prometheus"

// collector turns the portal's counters into metrics when they are asked for.
type collector struct{ g *Gateway }

var (
	descSessions = prometheus.NewDesc("ashlar_gateway_sessions", "Sessions now.", nil, nil)
	descConns    = prometheus.NewDesc("ashlar_gateway_connections", "Connections now.", nil, nil)
	descMemory   = prometheus.NewDesc("ashlar_gateway_memory_bytes", "Data of commands in memory now.", nil, nil)
	descCommands = prometheus.NewDesc("ashlar_gateway_commands_total", "SCSI commands.", nil, nil)
	descBytes    = prometheus.NewDesc("ashlar_gateway_bytes_total", "Bytes of data moved for commands.", []string{"direction"}, nil)
	descLogins   = prometheus.NewDesc("ashlar_gateway_logins_total", "Logins that ended.", []string{"result"}, nil)
	descAuth     = prometheus.NewDesc("ashlar_gateway_authentications_refused_total", "CHAP that failed, and CHAP that was not begun because too much had failed.", []string{"why"}, nil)
	descRefused  = prometheus.NewDesc("ashlar_gateway_refused_connections_total", "Connections refused at a limit.", nil, nil)
	descErrors   = prometheus.NewDesc("ashlar_gateway_protocol_errors_total", "Connections closed because the peer broke the protocol.", nil, nil)
	descPanics   = prometheus.NewDesc("ashlar_gateway_panics_total", "Connections closed because of a defect; the log has the place.", nil, nil)
	descFailed   = prometheus.NewDesc("ashlar_gateway_failed_commands_total", "Commands that ended with another status than GOOD.", nil, nil)
	descRejected = prometheus.NewDesc("ashlar_gateway_rejected_requests_total", "Requests that were answered with an iSCSI Reject.", nil, nil)
	descMoves    = prometheus.NewDesc("ashlar_gateway_moves_total", "Times that an initiator's path to a volume came back from another gateway.", nil, nil)
	descAborted  = prometheus.NewDesc("ashlar_gateway_aborted_commands_total", "Commands that were aborted.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.g.stats()
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descSessions, float64(s.Sessions))
	gauge(descConns, float64(s.Conns))
	gauge(descMemory, float64(s.MemoryUsed))
	count(descCommands, s.Session.Commands)
	count(descBytes, s.Session.ReadBytes, "read")
	count(descBytes, s.Session.WriteBytes, "write")
	count(descLogins, s.LoginsDone, "done")
	count(descLogins, s.LoginsFailed, "failed")
	count(descAuth, s.AuthFailed, "failed")
	count(descAuth, s.HeldOff, "held-off")
	count(descRefused, s.Refused)
	count(descErrors, s.ProtocolErrors)
	count(descPanics, s.Panics)
	if c.g.portal.Load() != nil { // there are mediums
		count(descMoves, c.g.mediums.moves.total.Load())
	}
	count(descAborted, s.Session.Aborted)
	count(descFailed, s.Session.Failed)
	count(descRejected, s.Session.Rejected)
}

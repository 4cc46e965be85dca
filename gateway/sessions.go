package gateway

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.uber.org/zap"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/portal"
)

// Sessions are told to the metaserver every second, or less often when there are more than sessionsFew.
const (
	sessionsFew    = 64
	reportEvery    = time.Second
	reportEveryFew = 5 * time.Second
)

// reportSessions tells the metaserver of the sessions, for administrators, until ctx ends.
func (g *Gateway) reportSessions(ctx context.Context, node metav1.NodeClient) error {
	for {
		pause := reportEvery
		if p := g.portal.Load(); p != nil {
			list := newSessions(p.Sessions())
			if len(list) > sessionsFew {
				pause = reportEveryFew
			}
			attempt, cancel := context.WithTimeout(ctx, registerTimeout)
			_, err := node.ReportSessions(attempt, &metav1.ReportSessionsRequest{Gateway: g.id.Load(), Sessions: list})
			cancel()
			if err != nil {
				g.log.Debug("report of the sessions", zap.Error(err))
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// newSessions translates sessions for the metaserver.
func newSessions(list []portal.SessionInfo) []*metav1.Session {
	out := make([]*metav1.Session, 0, len(list))
	for i := range list {
		s, l := &list[i], list[i].Login
		m := &metav1.Session{
			Tsih: uint32(l.TSIH), Isid: fmt.Sprint(l.ISID), Initiator: l.InitiatorName, Alias: l.InitiatorAlias, Target: l.TargetName,
			User: l.User, SinceUnixMs: s.Since.UnixMilli(), Keys: keysOf(&l.Params),
			InFlight: uint32(s.InFlight), Window: uint32(s.Window),
			Commands: s.Stats.Commands, Failed: s.Stats.Failed, Aborted: s.Stats.Aborted, Rejected: s.Stats.Rejected,
			ReadBytes: s.Stats.ReadBytes, WriteBytes: s.Stats.WriteBytes,
		}
		for _, c := range s.Conns {
			m.Connections = append(m.Connections, &metav1.Connection{
				Cid: uint32(c.Login.CID), Initiator: c.Initiator, Portal: c.Portal,
				HeaderDigest: c.Login.Params.HeaderDigest.String(), DataDigest: c.Login.Params.DataDigest.String(),
			})
		}
		out = append(out, m)
	}
	return out
}

// keysOf returns what was negotiated for a session, by key.
func keysOf(p *login.Params) map[string]string {
	number := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	truth := func(b bool) string {
		if b {
			return "Yes"
		}
		return "No"
	}
	return map[string]string{
		"MaxConnections":      number(uint32(p.MaxConnections)),
		"InitialR2T":          truth(p.InitialR2T),
		"ImmediateData":       truth(p.ImmediateData),
		"MaxBurstLength":      number(p.MaxBurstLength),
		"FirstBurstLength":    number(p.FirstBurstLength),
		"DefaultTime2Wait":    number(uint32(p.DefaultTime2Wait)),
		"DefaultTime2Retain":  number(uint32(p.DefaultTime2Retain)),
		"MaxOutstandingR2T":   number(uint32(p.MaxOutstandingR2T)),
		"DataPDUInOrder":      truth(p.DataPDUInOrder),
		"DataSequenceInOrder": truth(p.DataSequenceInOrder),
		"ErrorRecoveryLevel":  number(uint32(p.ErrorRecoveryLevel)),
		"TaskReporting":       p.TaskReporting.String(),
		"iSCSIProtocolLevel":  number(uint32(p.ISCSIProtocolLevel)),
		// Of the first connection: what it may send to the initiator.
		"MaxRecvDataSegmentLength": number(p.InitiatorMaxRecvDataSegmentLength),
	}
}

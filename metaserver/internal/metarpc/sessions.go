package metarpc

import (
	"cmp"
	"context"
	"slices"
	"sync"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
)

// sessionsMax bounds the sessions that one gateway reports.
const sessionsMax = 4096

// sessions is what gateways told of their sessions in this term. It is for people to read; nothing is decided by it.
type sessions struct {
	mu struct {
		sync.Mutex
		byGateway map[uint64][]*metav1.Session // each list is replaced whole
	}
}

func (s *sessions) set(gateway uint64, list []*metav1.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.byGateway == nil {
		s.mu.byGateway = map[uint64][]*metav1.Session{}
	}
	s.mu.byGateway[gateway] = list
}

func (s *sessions) of(gateway uint64) []*metav1.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.byGateway[gateway]
}

// ReportSessions implements metav1.NodeServer.
func (n *node) ReportSessions(ctx context.Context, r *metav1.ReportSessionsRequest) (*metav1.ReportSessionsReply, error) {
	t := termOf(ctx)
	name := t.Topology.GatewayName(r.GetGateway())
	if name == "" {
		return nil, refuse.As(refuse.NotFound, "gateway %d is not registered: register first", r.GetGateway())
	}
	list := r.GetSessions()
	if len(list) > sessionsMax {
		return nil, refuse.As(refuse.Invalid, "%d sessions, the limit is %d", len(list), sessionsMax)
	}
	for _, s := range list {
		s.Gateway = name
	}
	slices.SortFunc(list, func(a, b *metav1.Session) int {
		return cmp.Or(cmp.Compare(a.GetTarget(), b.GetTarget()), cmp.Compare(a.GetInitiator(), b.GetInitiator()), cmp.Compare(a.GetTsih(), b.GetTsih()))
	})
	t.sessions.set(r.GetGateway(), list)
	return &metav1.ReportSessionsReply{}, nil
}

// ListSessions implements metav1.AdminServer. A gateway that is down has no sessions: its initiators use other paths.
func (a *admin) ListSessions(ctx context.Context, r *metav1.ListSessionsRequest) (*metav1.ListSessionsReply, error) {
	t := termOf(ctx)
	gateways := t.Topology.View().Gateways
	known := func(g topology.Gateway) bool { return g.Name == r.GetGateway() }
	if r.GetGateway() != "" && !slices.ContainsFunc(gateways, known) {
		return nil, refuse.As(refuse.NotFound, "there is no gateway %q: see ashlar cluster status", r.GetGateway())
	}
	out := &metav1.ListSessionsReply{}
	for _, g := range gateways {
		if !g.Up || r.GetGateway() != "" && r.GetGateway() != g.Name {
			continue
		}
		for _, s := range t.sessions.of(g.ID) {
			if (r.GetTarget() == "" || r.GetTarget() == s.GetTarget()) && (r.GetInitiator() == "" || r.GetInitiator() == s.GetInitiator()) {
				out.Sessions = append(out.Sessions, s)
			}
		}
	}
	return out, nil
}

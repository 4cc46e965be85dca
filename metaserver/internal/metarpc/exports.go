package metarpc

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// coalesce is the least time between two sets that are sent.
const coalesce = 50 * time.Millisecond

// termBits is the room for the number within a term in a revision.
const termBits = 28

// Exports keeps what gateways export, for those who watch it.
type Exports struct {
	log  *zap.Logger
	kick chan struct{}
	// sealed remembers which grants could not be opened, so that it is logged once. Owned by build's caller, Run.
	sealed map[string]bool

	mu struct {
		sync.Mutex
		last *metav1.Exports
		next chan struct{} // closed when last changes
		// asked counts those who wait for a set with all that was on record when they asked; built is asked as it was when
		// the building of last began, or of one like it.
		asked, built uint64
		// confirmed is the revision by which each gateway serves.
		confirmed map[uint64]int64
		news      chan struct{} // closed when built or confirmed changes
	}
}

// NewExports makes an empty one; Changed may be called from now on.
func NewExports(log *zap.Logger) *Exports {
	e := &Exports{log: log, kick: make(chan struct{}, 1), sealed: map[string]bool{}}
	e.mu.next, e.mu.news = make(chan struct{}), make(chan struct{})
	e.mu.confirmed = map[uint64]int64{}
	return e
}

// Changed says that something may have changed. It does not block.
func (e *Exports) Changed() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// Last returns the last set, nil before the first, and a channel that is closed when there is a newer one. The set is
// shared and must not be changed.
func (e *Exports) Last() (*metav1.Exports, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.last, e.mu.next
}

// Run builds sets until ctx ends.
func (e *Exports) Run(ctx context.Context, t *topology.Topology, n *namespace.Namespace) error {
	revision := t.Revision() << termBits
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
		began := time.Now()
		e.mu.Lock()
		asked := e.mu.asked
		e.mu.Unlock()
		x := e.build(t, n)
		e.mu.Lock()
		if e.mu.last != nil {
			x.Revision = e.mu.last.GetRevision()
		}
		if e.mu.last == nil || !proto.Equal(x, e.mu.last) {
			revision++
			x.Revision = revision
			e.mu.last = x
			close(e.mu.next)
			e.mu.next = make(chan struct{})
		}
		e.mu.built = asked
		e.newsLocked()
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.kick:
		}
		pause.Reset(max(coalesce-time.Since(began), 0))
	}
}

// build makes the whole set.
func (e *Exports) build(t *topology.Topology, n *namespace.Namespace) *metav1.Exports {
	p := newPicture(t.View(), n.View(), 0)
	cluster := t.Cluster()
	x := &metav1.Exports{ClusterId: cluster[:]}
	used := map[layout.CopysetID]bool{}
	for _, tg := range p.names.Targets {
		x.Targets = append(x.Targets, e.target(p, n, tg))
	}
	for _, v := range p.names.Volumes {
		if len(p.names.Mapped[v.ID]) == 0 {
			continue
		}
		x.Volumes = append(x.Volumes, exported(v))
		for _, r := range v.Ranges {
			for _, c := range r.Copysets {
				used[c] = true
			}
		}
	}
	for _, r := range n.AllReservations() {
		if len(p.names.Mapped[r.Volume]) > 0 {
			x.Reservations = append(x.Reservations, reservations(r))
		}
	}
	for _, c := range p.cluster.Copysets {
		if used[c.Record.ID] {
			x.Copysets = append(x.Copysets, where(c))
		}
	}
	for _, s := range p.cluster.Chunkservers {
		x.Chunkservers = append(x.Chunkservers, &metav1.ChunkserverAddress{Id: uint64(s.ID), Address: s.Address})
	}
	for _, g := range p.cluster.Gateways {
		m := gateway(g)
		m.LastHeartbeatUnixMs, m.Sessions, m.ClockSkewMs = 0, 0, 0
		m.Up = g.MayServe // hosts are not told that gateways are down because a metaserver has just begun
		x.Gateways = append(x.Gateways, m)
	}
	return x
}

// where makes the message of a copyset with what a gateway needs to find it.
func where(c topology.Copyset) *metav1.Copyset {
	out := &metav1.Copyset{
		Id: uint64(c.Record.ID), Pool: c.Record.Pool, ConfVersion: c.Record.ConfVersion, Leader: uint64(c.LeaderOn),
	}
	for _, m := range c.Record.Peers {
		out.Peers = append(out.Peers, &metav1.Peer{Id: uint64(m.ID), Chunkserver: uint64(m.Chunkserver), Role: role(m.Role)})
	}
	return out
}

// target makes the message of a target with its secrets. An entry whose secrets can not be opened is left out: without
// them it would let anybody in.
func (e *Exports) target(p *picture, n *namespace.Namespace, t *namespace.TargetRecord) *metav1.Target {
	out := &metav1.Target{Iqn: t.IQN, CreatedUnixMs: t.CreatedUnixMs, Luns: p.luns(t), Redirects: redirects(t)}
	for _, g := range t.Grants {
		o, err := n.OpenGrant(t.IQN, g)
		if at := t.IQN + " " + g.Name; err != nil {
			if !e.sealed[at] {
				e.log.Error("an initiator is not exported because its secret can not be opened",
					zap.String("target", t.IQN), zap.String("initiator", g.Name), zap.Error(err))
			}
			e.sealed[at] = true
			continue
		}
		out.Initiators = append(out.Initiators, &metav1.Initiator{
			Name: o.Name, ChapUser: o.ChapUser, ChapSecret: o.ChapSecret, MutualUser: o.MutualUser, MutualSecret: o.MutualSecret,
			ChapOldSecret: o.ChapOldSecret,
		})
	}
	return out
}

package schedule

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Limits bound what is begun at the same time.
type Limits struct {
	// RecoverAfter: a chunkserver that is down for longer loses its peers to others; 0: never.
	RecoverAfter time.Duration
	// Operations is how many replacements run in the cluster at once, at least 1.
	Operations int
	// PerServer is how many of them copy from or to one chunkserver at once, at least 1.
	PerServer int
	// Balance: copysets move to chunkservers that have fewer.
	Balance bool
}

// balanceSlack: copysets move only when the fullest chunkserver has more than this share above the emptiest, in percent,
// and at least two more.
const balanceSlack = 10

// Decision begins or gives up a replacement.
type Decision struct {
	Copyset layout.CopysetID
	// Abort gives the running one up, for the reason in Why; the rest is zero then.
	Abort          bool
	Kind           string
	OldPeer        layout.PeerID
	NewChunkserver layout.ChunkserverID
	Why            string
}

// The errors of Choose.
var (
	// ErrNoTarget: no chunkserver can take the peer.
	ErrNoTarget = errors.New("no chunkserver in a free zone can take the peer (up, not draining, with room and a good, quick disk)")
	// ErrNoPeer: the peer is no member.
	ErrNoPeer = errors.New("the peer is no member of the copyset")
)

// Plan returns the replacements to begin or give up now, in the order of the copysets, within the limits.
func Plan(c *Cluster, l Limits) []Decision {
	p := &planner{c: c, l: l, busy: map[layout.ChunkserverID]int{}, count: counts(c)}
	for _, s := range c.Copysets {
		if op := s.Record.Op; op != nil {
			p.running++
			p.busy[op.OldChunkserver]++
			p.busy[op.NewChunkserver]++
			if why := p.stuck(s); why != "" {
				p.out = append(p.out, Decision{Copyset: s.Record.ID, Abort: true, Why: why})
			}
		}
	}
	// What lost a replica comes before what merely moves.
	for _, s := range c.Copysets {
		for _, m := range s.Record.Peers {
			if p.broken(s, m) {
				p.begin(s, KindRecover, m)
			}
		}
	}
	for _, s := range c.Copysets {
		for _, m := range s.Record.Peers {
			if srv := c.Servers[m.Chunkserver]; srv != nil && srv.Draining {
				p.begin(s, KindDrain, m)
			}
		}
	}
	if l.Balance && len(p.out) == 0 && p.running == 0 {
		p.balance()
	}
	return p.out
}

type planner struct {
	c       *Cluster
	l       Limits
	busy    map[layout.ChunkserverID]int
	count   map[layout.ChunkserverID]int
	running int
	out     []Decision
}

// stuck says why a running replacement can not go on, empty when it can.
func (p *planner) stuck(s *State) string {
	op := s.Record.Op
	srv := p.c.Servers[op.NewChunkserver]
	switch {
	case op.Abort:
		return ""
	case srv == nil:
		return fmt.Sprintf("chunkserver %d is unknown", op.NewChunkserver)
	case p.l.RecoverAfter > 0 && !srv.Up && srv.Down > p.l.RecoverAfter:
		return fmt.Sprintf("chunkserver %d, which was to take the new peer, is down", op.NewChunkserver)
	case srv.DiskError != "" && !op.Same():
		return fmt.Sprintf("the disk of chunkserver %d, which was to take the new peer, has failed", op.NewChunkserver)
	}
	return ""
}

// broken tells whether a member must be replaced because its replica is lost.
func (p *planner) broken(s *State, m Peer) bool {
	srv := p.c.Servers[m.Chunkserver]
	rep := s.Reports[m.Chunkserver]
	switch {
	case !s.Record.Founded:
		return false
	case srv == nil:
		return true
	case !srv.Up:
		return p.l.RecoverAfter > 0 && srv.Down > p.l.RecoverAfter
	case srv.DiskError != "":
		// It says itself that nothing there serves. That does not pass, unless the disk only does not answer: it still may.
		return srv.Disk.Stalled == 0 || srv.Disk.Stalled >= failingMax
	case rep == nil:
		return m.Seen && s.lost(m.Chunkserver) || !m.Seen && !s.Record.founding()
	case rep.Peer != m.ID:
		return m.Seen && s.lost(m.Chunkserver) || s.Leader != nil
	}
	return s.failed(m.Chunkserver) || m.Seen && s.lost(m.Chunkserver)
}

// begin adds a replacement of m unless the copyset can not change now, a limit is reached or nobody can take it.
func (p *planner) begin(s *State, kind string, m Peer) {
	if s.Record.Op != nil || !s.Quorum(p.c) || p.running >= p.l.Operations || p.planned(s.Record.ID) {
		return
	}
	// A replica that is lost is no load for its chunkserver.
	if kind != KindRecover && p.busy[m.Chunkserver] >= p.l.PerServer {
		return
	}
	to, err := p.choose(s, m, kind == KindRecover)
	if err != nil || p.busy[to] >= p.l.PerServer || to == m.Chunkserver && !s.Spare(m.ID) {
		return
	}
	p.add(s, kind, m, to)
}

func (p *planner) add(s *State, kind string, m Peer, to layout.ChunkserverID) {
	p.running++
	p.busy[m.Chunkserver]++
	p.busy[to]++
	p.count[to]++
	p.out = append(p.out, Decision{Copyset: s.Record.ID, Kind: kind, OldPeer: m.ID, NewChunkserver: to})
}

func (p *planner) planned(id layout.CopysetID) bool {
	return slices.ContainsFunc(p.out, func(d Decision) bool { return d.Copyset == id })
}

// Choose returns the chunkserver that best takes the peer old of a copyset: in a zone that none of the other members is
// in, with the fewest copysets for its capacity. With same, the peer's own chunkserver is the last resort.
func Choose(c *Cluster, s *State, old layout.PeerID, same bool) (layout.ChunkserverID, error) {
	m, ok := s.Record.Peer(old)
	if !ok {
		return 0, ErrNoPeer
	}
	p := &planner{c: c, count: counts(c)}
	return p.choose(s, m, same)
}

// Fits says why a chunkserver can not take the peer old of a copyset, nil when it can.
func Fits(c *Cluster, s *State, old layout.PeerID, to layout.ChunkserverID) error {
	m, ok := s.Record.Peer(old)
	srv := c.Servers[to]
	switch {
	case !ok:
		return ErrNoPeer
	case srv == nil:
		return fmt.Errorf("there is no chunkserver %d", to)
	case srv.Pool != s.Record.Pool:
		return fmt.Errorf("chunkserver %d is in pool %q, the copyset in %q", to, srv.Pool, s.Record.Pool)
	case !srv.usable():
		return fmt.Errorf("chunkserver %d is down, draining, nearly full or has a bad or slow disk", to)
	case to == m.Chunkserver:
		return nil
	case s.Record.Holds(to):
		return fmt.Errorf("chunkserver %d already has a peer of the copyset", to)
	case taken(c, s, m)[srv.Zone]:
		return fmt.Errorf("another peer of the copyset is in zone %q", srv.Zone)
	}
	return nil
}

// taken returns the zones of the members other than m.
func taken(c *Cluster, s *State, m Peer) map[string]bool {
	zones := map[string]bool{}
	for _, q := range s.Record.Peers {
		if srv := c.Servers[q.Chunkserver]; srv != nil && q.ID != m.ID {
			zones[srv.Zone] = true
		}
	}
	return zones
}

func (p *planner) choose(s *State, m Peer, same bool) (layout.ChunkserverID, error) {
	zones := taken(p.c, s, m)
	var best *Server
	for _, srv := range sorted(p.c) {
		if srv.Pool != s.Record.Pool || !srv.usable() || zones[srv.Zone] || s.Record.Holds(srv.ID) {
			continue
		}
		if best == nil || p.load(srv) < p.load(best) {
			best = srv
		}
	}
	if best != nil {
		return best.ID, nil
	}
	if srv := p.c.Servers[m.Chunkserver]; same && srv != nil && srv.usable() {
		return srv.ID, nil
	}
	return 0, ErrNoTarget
}

// load is how many copysets a chunkserver has for its capacity.
func (p *planner) load(s *Server) float64 {
	return float64(p.count[s.ID]) / float64(max(s.Capacity, 1))
}

// balance adds at most one move, from the chunkserver of a pool with the most copysets for its capacity to the one with
// the fewest.
func (p *planner) balance() {
	servers := sorted(p.c)
	for _, to := range servers {
		if !to.usable() {
			continue
		}
		for _, s := range p.c.Copysets {
			for _, m := range s.Record.Peers {
				from := p.c.Servers[m.Chunkserver]
				if from == nil || !from.Up || from.Pool != to.Pool || !p.uneven(from, to) || Fits(p.c, s, m.ID, to.ID) != nil {
					continue
				}
				if voters, live := s.Voters(p.c); s.Record.Op == nil && s.Leader != nil && live == voters {
					p.add(s, KindBalance, m, to.ID)
					return
				}
			}
		}
	}
}

// uneven tells whether a copyset should move from one chunkserver to another.
func (p *planner) uneven(from, to *Server) bool {
	// The counts that capacity makes comparable.
	scale := float64(max(to.Capacity, 1)) / float64(max(from.Capacity, 1))
	f, t := float64(p.count[from.ID])*scale, float64(p.count[to.ID])
	return f-t >= 2 && f > t*(100+balanceSlack)/100 && p.count[from.ID] > 0
}

// counts returns how many copysets each chunkserver has.
func counts(c *Cluster) map[layout.ChunkserverID]int {
	n := map[layout.ChunkserverID]int{}
	for _, s := range c.Copysets {
		for _, m := range s.Record.Peers {
			n[m.Chunkserver]++
		}
		if op := s.Record.Op; op != nil && !op.Same() {
			if _, ok := s.Record.Peer(op.NewPeer); !ok {
				n[op.NewChunkserver]++
			}
		}
	}
	return n
}

// sorted returns the chunkservers by id.
func sorted(c *Cluster) []*Server {
	out := make([]*Server, 0, len(c.Servers))
	for _, s := range c.Servers {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Server) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

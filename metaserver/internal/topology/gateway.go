package topology

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
)

// Limits of gateways.
const (
	// gatewaysMax is the number of target port groups that 16 bits can tell apart, without 0.
	gatewaysMax = 1<<16 - 1
	// portalsMax bounds the portals of one gateway.
	portalsMax = 64
)

// GatewayRecord is what is stored of a gateway.
type GatewayRecord struct {
	ID           uint64   `json:"id"`
	Name         string   `json:"name"`
	Portals      []string `json:"portals"`
	AdminAddress string   `json:"admin_address,omitempty"`
	// TPGT is the target portal group tag and target port group, RelativePort the relative port identifier. Both stay with
	// the gateway for ever.
	TPGT         uint16 `json:"tpgt"`
	RelativePort uint16 `json:"relative_port"`
}

// gateway is a gateway in memory.
type gateway struct {
	rec        *GatewayRecord
	beat, wall time.Time
	up         bool
	left       time.Time // when it said that it stops, zero once it has registered since
	sessions   uint32
	version    string
	skew       skew
}

// GatewayRegistration is what a gateway says when it starts.
type GatewayRegistration struct {
	Name         string
	Portals      []string
	AdminAddress string
	Version      string
}

// RegisterGateway gives a gateway its ids: new ones, or those that its name got before.
func (t *Topology) RegisterGateway(ctx context.Context, r GatewayRegistration) (GatewayRecord, error) {
	switch {
	case r.Name == "" || len(r.Name) > nameMax:
		return GatewayRecord{}, refuse.As(refuse.Invalid, "a gateway registers with a name of 1 to %d bytes", nameMax)
	case len(r.Portals) > portalsMax:
		return GatewayRecord{}, refuse.As(refuse.Invalid, "%d portals, the limit is %d", len(r.Portals), portalsMax)
	}
	var rec GatewayRecord
	err := t.update(ctx, func(x *tx) error {
		old := t.gatewayNamed(r.Name)
		if old == nil {
			if x.ids.Gateway > gatewaysMax {
				return refuse.As(refuse.Exhausted, "all %d target port groups are given away", gatewaysMax)
			}
			id := x.ids.Gateway
			x.ids.Gateway++
			old = &GatewayRecord{ID: id, Name: r.Name, TPGT: uint16(id), RelativePort: uint16(id)}
		}
		rec = *old
		rec.Portals, rec.AdminAddress = slices.Clone(r.Portals), r.AdminAddress
		stored := rec
		x.batch.Put(gatewayTable, key(rec.ID), &stored)
		x.apply = append(x.apply, func() {
			g := t.mu.gateways[rec.ID]
			if g == nil {
				g = &gateway{}
				t.mu.gateways[rec.ID] = g
			}
			now := t.o.Now()
			g.rec, g.version, g.up, g.left, g.beat, g.wall = &stored, r.Version, true, time.Time{}, now, now
		})
		return nil
	})
	if err != nil {
		return GatewayRecord{}, err
	}
	t.o.Log.Info("gateway registered", zap.String("gateway", r.Name), zap.Strings("portals", r.Portals))
	t.o.Changed()
	return rec, nil
}

func (t *Topology) gatewayNamed(name string) *GatewayRecord {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, g := range t.mu.gateways {
		if g.rec.Name == name {
			return g.rec
		}
	}
	return nil
}

// GatewayBeat takes a gateway's heartbeat in and returns when it is to come again. at is the gateway's wall clock, zero
// when it does not tell.
func (t *Topology) GatewayBeat(id uint64, at time.Time, sessions uint32, version string) (time.Duration, error) {
	t.mu.Lock()
	g := t.mu.gateways[id]
	if g == nil {
		t.mu.Unlock()
		return 0, refuse.As(refuse.NotFound, "gateway %d is not registered: register first", id)
	}
	now := t.o.Now()
	// A heartbeat may have been on its way when the gateway left. One that comes much later says that it serves after all:
	// what was on its way is that it leaves, and it has begun anew meanwhile.
	up := g.left.IsZero() || now.Sub(g.left) > t.o.DownAfter
	changed := up != g.up
	g.beat, g.wall, g.up, g.sessions, g.version = now, now, up, sessions, version
	g.skew.add(at, now)
	t.mu.Unlock()
	if changed {
		t.o.Changed()
	}
	return min(beatCalm, t.o.DownAfter/4), nil
}

// GatewayLeaves takes in that a gateway stops: it is down at once, until it registers or its heartbeats go on.
func (t *Topology) GatewayLeaves(id uint64) error {
	t.mu.Lock()
	g := t.mu.gateways[id]
	if g == nil {
		t.mu.Unlock()
		return refuse.As(refuse.NotFound, "gateway %d is not registered", id)
	}
	now := t.o.Now()
	g.beat, g.wall, g.up, g.left = now, now, false, now
	name := g.rec.Name
	t.mu.Unlock()
	t.o.Log.Info("gateway leaves", zap.String("gateway", name))
	t.o.Changed()
	return nil
}

// GatewayName returns the name of a gateway, empty when there is none with that id.
func (t *Topology) GatewayName(id uint64) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if g := t.mu.gateways[id]; g != nil {
		return g.rec.Name
	}
	return ""
}

// Serving is a gateway that may be serving.
type Serving struct {
	ID   uint64
	Name string
	// Heard: a heartbeat or registration came in this metaserver's term, Silent ago.
	Heard  bool
	Silent time.Duration
}

// MayServe returns the gateways that may be serving, by id: those that are up, and those that have not been heard of yet
// while this metaserver is so young that they may be up all the same.
func (t *Topology) MayServe() []Serving {
	t.mu.RLock()
	defer t.mu.RUnlock()
	now := t.o.Now()
	var out []Serving
	for id, g := range t.mu.gateways {
		if t.mayServeLocked(g, now) {
			out = append(out, Serving{ID: id, Name: g.rec.Name, Heard: !g.beat.IsZero(), Silent: now.Sub(g.beat)})
		}
	}
	slices.SortFunc(out, func(a, b Serving) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// mayServeLocked tells whether a gateway is up, or may be for all that this metaserver can know yet.
func (t *Topology) mayServeLocked(g *gateway, now time.Time) bool {
	return g.up || g.beat.IsZero() && t.youngLocked(now)
}

// youngLocked tells whether a gateway that serves need not have been heard of yet in this metaserver's term.
func (t *Topology) youngLocked(now time.Time) bool { return now.Sub(t.began) <= t.o.DownAfter }

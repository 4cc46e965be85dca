// Package gateway is the composition root of the iSCSI gateway: it joins the target engine to the store.
//
//	initiators ══ portal ─ session ─ scsi ──► medium ──► storage/volume ──► chunkservers
//	                 ▲                           ▲
//	              target ◄──── exports ──────────┘◄── WatchExports ── metaserver
//
// A gateway registers, which gives it its target portal group tag and relative port identifier, waits for the first
// exports, and then listens. From then on it serves from what it knows: a metaserver that is away stops changes and
// attachments, not I/O.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/portal"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
)

// Options are what a gateway gets from its process.
type Options struct {
	Log *zap.Logger
	// Registry takes the metrics; nil: there are none.
	Registry prometheus.Registerer
	// Version and AdminAddress are what the cluster is told.
	Version, AdminAddress string
}

// Gateway is an iSCSI gateway.
type Gateway struct {
	cfg      Config
	opts     Options
	log      *zap.Logger
	mediums  *mediums
	registry *target.Registry
	reserver *reserver
	portal   atomic.Pointer[portal.Portal]
	// id is what the metaserver registered the gateway under.
	id atomic.Uint64
	// relativePort is the relative port identifier that it got.
	relativePort atomic.Uint32
	// applied is the revision of the exports that are served by; taken holds a token when it rose.
	applied atomic.Int64
	taken   chan struct{}
	// moved is where targets are redirected to, by name; of watch.
	moved map[string]string
	// isns registers what is exported; nil: nothing is to be registered.
	isns *registrar
}

const (
	// registerTimeout bounds one attempt to register, registerPause is between two.
	registerTimeout, registerPause = 5 * time.Second, 500 * time.Millisecond
	// beat is the time between heartbeats.
	beat = time.Second
	// leaveTimeout bounds how long the cluster is told that the gateway stops.
	leaveTimeout = 500 * time.Millisecond
	// drainTimeout bounds how long initiators may take to log out when the gateway stops, closeTimeout the rest.
	drainTimeout, closeTimeout = 2 * time.Second, 5 * time.Second
	// sessions bounds the session table, and sessionsPerInitiator what one initiator has of it.
	sessions, sessionsPerInitiator = 4096, 64
)

// New checks the configuration; nothing runs before Run.
func New(cfg Config, o Options) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, opts: o, log: o.Log, taken: make(chan struct{}, 1)}
	if g.log == nil {
		g.log = zap.NewNop()
	}
	if o.Registry != nil {
		if err := o.Registry.Register(&collector{g}); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Ready returns nil when initiators are served.
func (g *Gateway) Ready() error {
	switch {
	case g.id.Load() == 0:
		return errors.New("not registered yet: no metaserver has answered")
	case g.portal.Load() == nil:
		return errors.New("waiting for the list of exports")
	}
	return nil
}

// Run serves until ctx ends.
func (g *Gateway) Run(ctx context.Context) error {
	meta, err := metaclient.Dial(g.cfg.Metaservers, metaclient.Options{Log: g.log})
	if err != nil {
		return err
	}
	defer meta.Close() //nolint:errcheck // nothing is lost
	reg, err := g.register(ctx, meta.Node())
	if err != nil {
		return err
	}
	g.id.Store(reg.GetId())
	router := chunkclient.NewRouter(chunkclient.Options{Cluster: reg.GetClusterId()})
	defer router.Close()
	g.mediums = newMediums(router, &attacher{node: meta.Node(), gateway: g.id.Load}, g.cfg.InFlight)
	g.mediums.moves.log = g.log
	g.reserver = newReserver(meta.Node(), g.id.Load, g.log)
	g.mediums.reserver = g.reserver
	g.relativePort.Store(reg.GetRelativePort())
	g.mediums.erasures.log, g.mediums.erasures.change = g.log, g.reserver.change
	g.reserver.erasures = g.mediums.erasures
	defer g.mediums.erasures.stop()
	g.registry = target.New(backends{g.mediums}, target.Limits{Sessions: sessions, SessionsPerInitiator: sessionsPerInitiator})

	group, gctx := errgroup.WithContext(ctx)
	if g.cfg.ISNS.Server != "" {
		g.isns = newRegistrar(g.cfg.ISNS, reg.GetId(), reg.GetClusterId(), g.log)
		group.Go(func() error { return g.isns.run(gctx) })
	}
	g.reserver.unit = func(id layout.VolumeID) *scsi.LogicalUnit { return g.registry.Unit(uint64(id)) }
	g.reserver.port = func() uint16 { return uint16(g.relativePort.Load()) }
	g.mediums.erasures.port = g.reserver.port
	group.Go(func() error { return g.reserver.run(gctx) })
	group.Go(func() error { return g.mediums.erasures.run(gctx) })
	group.Go(func() error { return g.mediums.client.Watch(gctx) })
	first := make(chan struct{})
	group.Go(func() error { return g.watch(gctx, meta, router, first) })
	group.Go(func() error { return g.heartbeat(gctx, meta.Node()) })
	group.Go(func() error { return g.reportSessions(gctx, meta.Node()) })
	group.Go(func() error {
		select {
		case <-first:
		case <-gctx.Done():
			return gctx.Err()
		}
		return g.serve(gctx, meta.Node(), reg)
	})
	err = group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// register repeats until a metaserver has answered.
func (g *Gateway) register(ctx context.Context, node metav1.NodeClient) (*metav1.RegisterGatewayReply, error) {
	for told := false; ; told = true {
		attempt, cancel := context.WithTimeout(ctx, registerTimeout)
		reply, err := node.RegisterGateway(attempt, &metav1.RegisterGatewayRequest{
			Name: g.cfg.Name, Portals: g.cfg.Portals, AdminAddress: g.opts.AdminAddress, Version: g.opts.Version,
		})
		cancel()
		if err == nil {
			return reply, nil
		}
		if !told {
			g.log.Info("waiting to be registered", zap.Error(err))
		}
		select {
		case <-time.After(registerPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("not registered: %w", err)
		}
	}
}

// watch takes over what is exported, first and after each change.
func (g *Gateway) watch(ctx context.Context, meta *metaclient.Client, router *chunkclient.Router, first chan<- struct{}) error {
	return meta.WatchExports(ctx, g.id.Load(), func(m *metav1.Exports) error {
		e, err := newExports(m, g.id.Load())
		if err != nil {
			g.log.Error("exports can not be used, going on with the ones before", zap.Error(err))
			return nil
		}
		router.SetDirectory(e.directory)
		g.reserver.judgeAll(ctx, e.targets.Reservations)
		g.registry.SetReservations(e.targets.Reservations)
		g.mediums.update(e.volumes, e.allows)
		if err := g.registry.Apply(e.targets); err != nil {
			g.log.Error("exports can not be used, going on with the ones before", zap.Error(err))
			return nil
		}
		g.log.Debug("exports", zap.Int64("revision", e.revision), zap.Int("targets", len(e.targets.Targets)))
		g.move(e.targets.Targets)
		g.isns.set(m)
		g.orphan(e.targets.Reservations)
		g.applied.Store(e.revision)
		select {
		case g.taken <- struct{}{}:
		default:
		}
		if first != nil {
			close(first)
			first = nil
		}
		return nil
	})
}

// heartbeat tells the metaserver that the gateway lives, and at once which exports it has taken over: administrators wait
// for that.
func (g *Gateway) heartbeat(ctx context.Context, node metav1.NodeClient) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	var asked time.Time
	var askedFor int64
	for {
		applied := g.applied.Load()
		askSpace := time.Since(asked) >= spaceEvery || applied != askedFor // hosts read the figures of a new volume at once
		attempt, cancel := context.WithTimeout(ctx, registerTimeout)
		reply, err := node.GatewayHeartbeat(attempt, &metav1.GatewayHeartbeatRequest{
			Id: g.id.Load(), TimeUnixMs: time.Now().UnixMilli(), Sessions: uint32(g.stats().Sessions), Version: g.opts.Version,
			ExportsRevision: applied, Space: askSpace,
		})
		cancel()
		switch {
		case err != nil:
			g.log.Debug("heartbeat", zap.Error(err))
		case askSpace:
			asked, askedFor = time.Now(), applied
			g.tellSpace(reply.GetSpace())
		}
		select {
		case <-tick.C:
		case <-g.taken:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave tells the cluster that the gateway stops, so that hosts hear from the others at once that its paths go. It takes no
// longer than leaveTimeout, whether or not a metaserver answers: without one the silence will tell.
func (g *Gateway) leave(ctx context.Context, node metav1.NodeClient) {
	attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if _, err := node.GatewayHeartbeat(attempt, &metav1.GatewayHeartbeatRequest{Id: g.id.Load(), Leaving: true}); err != nil {
		g.log.Info("the cluster was not told that the gateway stops", zap.Error(err))
	}
}

// serve listens until ctx ends, then asks the initiators to log out.
func (g *Gateway) serve(ctx context.Context, node metav1.NodeClient, reg *metav1.RegisterGatewayReply) error {
	cfg := portal.Default()
	cfg.Addresses = g.cfg.Portals
	cfg.Port = target.Port{Group: uint16(reg.GetTpgt()), RelativeID: uint16(reg.GetRelativePort())}
	p, err := portal.New(cfg, g.registry, g.log)
	if err != nil {
		return err
	}
	g.portal.Store(p)
	g.log.Info("gateway serves", zap.Strings("portals", g.cfg.Portals), zap.Uint32("tpgt", reg.GetTpgt()))
	running := make(chan error, 1)
	go func() { running <- p.Run(context.WithoutCancel(ctx)) }()
	select {
	case err := <-running:
		return err
	case <-ctx.Done():
	}
	g.leave(ctx, node)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	p.Drain(drain)
	cancel()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := p.Close(closing); err != nil {
		return err
	}
	return <-running
}

func (g *Gateway) stats() portal.Stats {
	if p := g.portal.Load(); p != nil {
		return p.Stats()
	}
	return portal.Stats{}
}

// backends are the mediums as package target wants them.
type backends struct{ m *mediums }

// Open implements target.Mediums. The registry asks only for volumes that were exported to the mediums before.
func (b backends) Open(id uint64, initiator string) scsi.Backend {
	return b.m.Open(layout.VolumeID(id), initiator)
}

// Release implements target.Mediums.
func (backends) Release(b scsi.Backend) {
	if m, _ := b.(*medium); m != nil {
		m.owner.Release(m)
	}
}

// Abort implements target.Mediums.
func (b backends) Abort(id uint64, initiator string) { b.m.Abort(layout.VolumeID(id), initiator) }

// Acknowledged implements target.Mediums. Outcomes are kept by sequence number, so there is nothing to give up here.
func (backends) Acknowledged(uint64, string) {}

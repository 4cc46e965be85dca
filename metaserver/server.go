package metaserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/ashlar-storage/ashlar/metaserver/internal/election"
	"github.com/ashlar-storage/ashlar/metaserver/internal/leasefile"
	"github.com/ashlar-storage/ashlar/metaserver/internal/metarpc"
	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Limits of the gRPC server.
const (
	// messageMax bounds a received message in bytes: a heartbeat of a chunkserver with many copysets.
	messageMax = 32 << 20
	// streamsMax bounds the calls and streams of one connection.
	streamsMax = 1000
	// stopMax bounds how long calls may take to end when the server stops.
	stopMax = 2 * time.Second
)

// Raiser tells copysets that access to a volume was taken away. Both calls are idempotent and return when a quorum of
// the copyset has it on stable storage, or with an error when ctx ends before that.
type Raiser interface {
	// RaiseAccess raises the volume's access generation in a copyset to at least gen.
	RaiseAccess(ctx context.Context, copyset layout.CopysetID, volume layout.VolumeID, gen layout.AccessGeneration) error
	// DeleteVolume raises it to layout.DeletedAccess and gives the volume's blocks in the copyset back.
	DeleteVolume(ctx context.Context, copyset layout.CopysetID, volume layout.VolumeID) error
}

// Options are what a metaserver gets from its process. The zero value is usable.
type Options struct {
	// Log; nil: nothing is logged.
	Log *zap.Logger
	// Registry takes the metrics; nil: there are none.
	Registry prometheus.Registerer
	// Version is what others are told.
	Version string
	// Listener serves instead of Config.Listen; Run closes it.
	Listener net.Listener
	// Raiser is used instead of the metaserver's own, which asks the leaders of the copysets.
	Raiser Raiser
}

// Server is a metaserver.
type Server struct {
	cfg      Config
	o        Options
	log      *zap.Logger
	sealer   *namespace.Sealer
	rpc      *metarpc.Server
	election *election.Election
	etcd     *clientv3.Client
	// fatal ends Run with an error.
	fatal func(error)

	mu struct {
		sync.Mutex
		term *metarpc.Term
	}
}

// New makes a metaserver that does nothing until Run. It fails for a configuration that can not work; etcd need not be up.
func New(cfg Config, o Options) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, o: o, log: o.Log}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if cfg.SealKeyFile != "" {
		key, err := os.ReadFile(cfg.SealKeyFile)
		if err != nil {
			return nil, fmt.Errorf("seal-key-file: %w", err)
		}
		if s.sealer, err = namespace.NewSealer(key); err != nil {
			return nil, fmt.Errorf("seal-key-file %s: %w", cfg.SealKeyFile, err)
		}
	}
	etcd, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Etcd, DialTimeout: 2 * time.Second,
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		// etcd's client warns of each lost call; what matters of it the metaserver says itself.
		Logger: s.log.Named("etcd").WithOptions(zap.IncreaseLevel(zapcore.ErrorLevel)),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	s.etcd = etcd
	s.election = election.New(election.Options{
		Client: etcd, Prefix: s.prefix() + "/election", TTL: cfg.Lease, Log: s.log,
		Self: election.Candidate{Name: cfg.name(), Address: cfg.advertised(), Version: o.Version, SinceUnixMs: time.Now().UnixMilli()},
	})
	s.rpc = metarpc.New(metarpc.Options{
		Log: s.log, Version: o.Version, Address: cfg.advertised(), Candidates: s.election.Candidates, StartGrace: cfg.DownAfter,
	})
	if o.Registry != nil {
		if err := o.Registry.Register(&collector{s: s}); err != nil {
			return nil, errors.Join(err, etcd.Close())
		}
	}
	return s, nil
}

func (s *Server) prefix() string { return "/ashlar/" + s.cfg.Cluster }

// Ready returns nil when the metaserver answers, or stands by for one that does.
func (s *Server) Ready() error {
	if s.rpc.Active() {
		return nil
	}
	if c, ok := s.election.Active(); ok && c.Address != s.cfg.advertised() {
		return nil
	}
	return errors.New("no metaserver is active: is etcd reachable?")
}

// Active tells whether the metaserver is the active one.
func (s *Server) Active() bool { return s.rpc.Active() }

// Run serves until ctx ends, and returns ctx's error, or another one when it can not go on. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.etcd.Close() //nolint:errcheck // nothing is lost
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.fatal = cancel
	listener := s.o.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
			return fmt.Errorf("listen %s: %w", s.cfg.Listen, err)
		}
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(s.rpc.Unary), grpc.StreamInterceptor(s.rpc.Stream),
		grpc.MaxRecvMsgSize(messageMax), grpc.MaxConcurrentStreams(streamsMax),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 2 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	)
	s.rpc.Register(server)
	memory, closeMemory, err := s.remember(ctx)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer closeMemory()
	s.log.Info("metaserver serves", zap.Stringer("address", listener.Addr()), zap.Strings("etcd", s.cfg.Etcd))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serve(ctx, server, listener) })
	g.Go(func() error { return s.election.Run(ctx, memory, s.lead) })
	err = g.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// remember opens the lease file, if there is a data directory, and returns how to close it. A directory that can not be used
// is no reason not to serve; one that another process uses is.
func (s *Server) remember(ctx context.Context) (election.Memory, func(), error) {
	if s.cfg.Dir == "" {
		return nil, func() {}, nil
	}
	f, err := leasefile.Open(ctx, s.cfg.Dir)
	var used *leasefile.InUseError
	switch {
	case err == nil:
		return f, func() { _ = f.Close() }, nil // nothing is lost
	case errors.As(err, &used) || ctx.Err() != nil:
		return nil, nil, err
	default:
		s.log.Warn("the data directory can not be used: a restart after a kill takes the life of the lease longer", zap.Error(err))
		return nil, func() {}, nil
	}
}

// serve answers calls until ctx ends.
func (s *Server) serve(ctx context.Context, server *grpc.Server, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan struct{})
	defer close(done)
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		// Calls end with the term; what hangs on a connection is cut after a while.
		cut := time.AfterFunc(stopMax, server.Stop)
		defer cut.Stop()
		server.GracefulStop()
	})
	if err := server.Serve(l); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return ctx.Err()
}

// lead is one term.
func (s *Server) lead(ctx context.Context, e *election.Term) error {
	store, err := metastore.Open(ctx, metastore.Options{
		Client: s.etcd, Prefix: s.prefix(), ElectionKey: e.Key(), Revision: e.Revision(), Valid: e.Valid,
		Dead: func(err error) {
			s.log.Warn("the term ends", zap.Error(err))
			e.End()
		},
	})
	var format *metastore.FormatError
	if errors.As(err, &format) {
		s.fatal(err)
	}
	if err != nil {
		return err
	}
	t := &term{s: s, kick: make(chan struct{}, 1)}
	if err := t.open(ctx, store); err != nil {
		return fmt.Errorf("loading the records: %w", err)
	}
	defer t.close()
	pub := &metarpc.Term{
		Topology: t.topology, Namespace: t.namespace, Exports: t.exports, Valid: e.Valid, End: e.End, Began: time.Now(),
	}
	s.setTerm(pub)
	defer s.setTerm(nil)
	s.rpc.Begin(pub)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.topology.Run(gctx) })
	g.Go(func() error { return t.namespace.Run(gctx) })
	g.Go(func() error { return t.exports.Run(gctx, t.topology, t.namespace) })
	g.Go(func() error { return t.direct(gctx) })
	<-gctx.Done()
	// Calls end first: they use what the workers keep.
	s.rpc.End()
	return g.Wait()
}

func (s *Server) setTerm(t *metarpc.Term) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.term = t
}

// limits are those of membership changes.
func (s *Server) limits() schedule.Limits {
	return schedule.Limits{
		RecoverAfter: s.cfg.RecoverAfter, Operations: s.cfg.Operations, PerServer: s.cfg.OperationsPerChunkserver, Balance: s.cfg.Balance,
	}
}

// topologyOptions are those of a term.
func (s *Server) topologyOptions(store *metastore.Store, changed func()) topology.Options {
	return topology.Options{
		Store: store, Log: s.log, Changed: changed, Limits: s.limits(),
		Arrange:   schedule.Arrangement{Replicas: s.cfg.Replicas, PerServer: s.cfg.CopysetsPerChunkserver},
		DownAfter: s.cfg.DownAfter, Settle: s.cfg.CopysetSettle, LeaderMoves: s.cfg.LeaderMoves,
	}
}

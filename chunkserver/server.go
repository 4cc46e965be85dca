package chunkserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	raftv1 "github.com/ashlar-storage/ashlar/api/raft/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/chunkrpc"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/compact"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/diskwatch"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/heartbeat"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peernet"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/scrub"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
	"github.com/ashlar-storage/ashlar/storage/stream"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	// window is the flow-control window of gRPC streams and connections, in bytes; large and fixed, so that data never
	// waits for an estimate.
	window = 64 << 20
	// bufferSize is that of each connection's read and write buffers, in bytes.
	bufferSize = 128 << 10
	// handoverMax bounds how long a stopping chunkserver waits for others to take over what it leads.
	handoverMax = 500 * time.Millisecond
)

// Server is a chunkserver.
type Server struct {
	cfg     Config
	opts    Options
	log     *zap.Logger
	started chan struct{}
	address string // set before started is closed

	mu struct {
		sync.Mutex
		host *multiraft.Host // while it serves
		disk *disk
	}
}

// New returns a chunkserver that Run runs.
func New(cfg Config, opts Options) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("chunkserver: %w", err)
	}
	if st := opts.Static; st != nil && (st.ID == 0 || st.Cluster == [16]byte{}) {
		return nil, errors.New("chunkserver: static cluster without ids")
	}
	if opts.FS == nil {
		opts.FS = vfs.OS()
	}
	if opts.Log == nil {
		opts.Log = zap.NewNop()
	}
	return &Server{cfg: cfg, opts: opts, log: opts.Log, started: make(chan struct{})}, nil
}

// Started is closed when the chunkserver serves: it has an id then, and has recovered its copysets.
func (s *Server) Started() <-chan struct{} { return s.started }

// Address returns where others reach it, once it has started.
func (s *Server) Address() string { return s.address }

// Ready returns nil when the chunkserver serves, else why not.
func (s *Server) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.host == nil {
		return errors.New("chunkserver: not registered, or recovering its disk")
	}
	return errors.Join(s.mu.host.Err(), s.mu.disk.Err())
}

// parts are what a running chunkserver is made of.
type parts struct {
	id    *heartbeat.Identity
	lock  io.Closer
	watch *diskwatch.Watch
	disk  *disk
	log   *raftlog.Log
	store *blockstore.Store
	net   *peernet.Net
	host  *multiraft.Host
	scrub *scrub.Scrubber
	// compact gathers what lies scattered.
	compact *compact.Compactor
	// digests of the replicas, computed when their copysets are compared.
	digests *digest.Runner
	rpc     *chunkrpc.Server
	// streams has the listener: what is no stream goes to grpc.
	streams *stream.Server
	grpc    *grpc.Server
	meta    *metaclient.Client
}

// Run serves until ctx ends, and returns nil then. Any other return is why it could not start or go on. A disk that
// fails while it serves does not end it: it reports that, and the metaserver replaces its peers.
func (s *Server) Run(ctx context.Context) (err error) {
	p := &parts{watch: diskwatch.New()}
	defer func() { err = errors.Join(err, p.close()) }()
	lis, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("chunkserver: %w", err)
	}
	defer func() { _ = lis.Close() }() // closed already by the server of streams
	s.address = s.cfg.Advertise
	if s.address == "" {
		s.address = lis.Addr().String()
	}
	if err := s.identify(ctx, p); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := s.open(p, lis); err != nil {
		return err
	}
	return s.serve(ctx, p)
}

// identify takes the directory and gets an id for it.
func (s *Server) identify(ctx context.Context, p *parts) (err error) {
	if err := s.opts.FS.MkdirAll(s.cfg.Dir); err != nil {
		return fmt.Errorf("chunkserver: %w", err)
	}
	if p.lock, err = s.opts.FS.Lock(s.cfg.Dir + "/LOCK"); err != nil {
		return fmt.Errorf("chunkserver: %s is used by another process: %w", s.cfg.Dir, err)
	}
	if p.id, err = heartbeat.OpenIdentity(s.opts.FS, s.cfg.Dir); err != nil {
		return err
	}
	if st := s.opts.Static; st != nil {
		return p.id.Claim(st.Cluster, st.ID)
	}
	if p.meta, err = metaclient.Dial(s.cfg.Metaservers, metaclient.Options{Log: s.log}); err != nil {
		return err
	}
	capacity := s.cfg.Capacity
	if space, err := s.opts.FS.Space(s.cfg.Dir); err == nil && (capacity == 0 || capacity > space.Total) {
		capacity = space.Total
	}
	return heartbeat.Register(ctx, p.meta.Node(), p.id, s.beatConfig(p), capacity)
}

func (s *Server) beatConfig(p *parts) heartbeat.Config {
	return heartbeat.Config{
		Address: s.address, AdminAddress: s.opts.AdminAddress, Pool: s.cfg.Pool, Zone: s.cfg.Zone, Server: s.cfg.Server,
		Version: s.opts.Version, Logger: s.log,
		Disk:      func() heartbeat.Disk { return p.disk.report(p.host.Err()) },
		Slow:      func(slow bool) { p.disk.slow.Store(slow) },
		Addresses: func(a map[layout.ChunkserverID]string) { p.net.SetAddresses(a) },
		Digest: func(id layout.CopysetID) *digest.Result {
			last, _ := p.digests.Last(id)
			return last
		},
	}
}

// open opens the disk and builds what serves it.
func (s *Server) open(p *parts, lis net.Listener) (err error) {
	id, cluster := p.id.Chunkserver(), p.id.Cluster()
	s.log = s.opts.Log.With(zap.Uint64("chunkserver", uint64(id)))
	opts := raftlog.DefaultOptions()
	opts.Identity, opts.SegmentSize = p.id.UUID(), segmentSize
	if p.log, err = raftlog.Open(p.watch.LogFS(s.opts.FS), s.cfg.Dir+"/log", opts); err != nil {
		return err
	}
	data := p.watch.DataFS(s.opts.FS)
	bopts := blockstore.DefaultOptions()
	bopts.Capacity, bopts.Reserve, bopts.Logger = s.cfg.Capacity, s.cfg.Reserve, s.log
	if p.store, err = blockstore.Open(data, s.cfg.Dir+"/store", blockstore.Identity{Cluster: cluster, Chunkserver: id}, bopts); err != nil {
		return err
	}
	p.net = peernet.New(peernet.Config{Cluster: cluster, Self: id, Logger: s.log})
	mcfg := multiraft.Default()
	mcfg.Self, mcfg.Log, mcfg.Store, mcfg.Transport, mcfg.Logger = id, p.log, p.store, p.net, s.log
	mcfg.FS, mcfg.Dir = data, s.cfg.Dir
	mcfg.Tick, mcfg.ElectionTicks, mcfg.CheckpointEvery = s.cfg.Tick, s.cfg.ElectionTicks, s.cfg.CheckpointEvery
	mcfg.QuietTicks = int(s.cfg.QuietAfter / s.cfg.Tick)
	mcfg.SegmentsMax = int(s.cfg.LogBytes / segmentSize)
	if s.cfg.Capacity > 0 {
		mcfg.SpaceMargin = min(mcfg.SpaceMargin, s.cfg.Capacity/16)
	}
	p.digests = digest.New(s.log)
	mcfg.Digest = func(id layout.CopysetID, peer layout.PeerID, im *blockstore.Image) { p.digests.Take(id, peer, im) }
	if p.host, err = multiraft.New(mcfg); err != nil {
		return err
	}
	p.scrub, p.compact = s.newScrubber(p), s.newCompactor(p)
	p.disk = newDisk(s.log, p.watch, p.usage, mcfg.SpaceMargin, func(ctx context.Context, all bool) { yield(ctx, p.host, all) })
	p.net.Bind(p.host)
	p.rpc = chunkrpc.New(p.host, s.cfg.Readers)
	services := p.net.Streams()
	services[stream.Chunk] = p.rpc.Service()
	p.streams = stream.NewServer(lis, stream.Config{Cluster: cluster, Self: id, Services: services, Logger: s.log})
	p.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(peernet.MessageMax), grpc.MaxSendMsgSize(peernet.MessageMax),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.WriteBufferSize(bufferSize), grpc.ReadBufferSize(bufferSize),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Second, Timeout: 4 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	raftv1.RegisterRaftServer(p.grpc, p.net.Service())
	chunkv1.RegisterScrubServer(p.grpc, &scrubService{
		self: id, scrub: p.scrub, digests: p.digests, ready: s.Ready,
		compare: func(ctx context.Context, id layout.CopysetID) error { return compare(ctx, p.host, id) },
	})
	return nil
}

// serve runs the parts until ctx ends, or the listener fails, and stops them in this order, each before what it uses:
//
//  1. heartbeat: no more orders
//  2. disk: it hands leadership over too
//  3. leadership is handed over, so that others serve at once
//  4. scrub and compaction: they repair and move blocks through multiraft
//  5. the servers of streams and of gRPC: no more requests, messages or images come in; answers that wait are sent
//  6. chunkrpc's readers: nobody waits for them any more
//  7. multiraft: worker, log writer, appliers, checkpointer
//  8. digests: they let go of the contents that multiraft gave them
//  9. peernet: nobody sends any more
//  10. store and log (parts.close)
func (s *Server) serve(ctx context.Context, p *parts) error {
	addresses := p.id.Addresses()
	if s.opts.Static != nil {
		addresses = s.opts.Static.Addresses
	}
	p.net.SetAddresses(addresses)
	beat, disk, scrubber, rpc, host, listener := newPart(), newPart(), newPart(), newPart(), newPart(), newPart()
	digests, compactor := newPart(), newPart()
	digests.run(func(ctx context.Context) error { p.digests.Run(ctx); return nil })
	host.run(p.host.Run)
	disk.run(func(ctx context.Context) error { p.disk.Run(ctx); return nil })
	rpc.run(func(ctx context.Context) error { p.rpc.Run(ctx); return nil })
	listener.run(p.listen)
	unregister, err := s.register(p)
	if err == nil {
		err = s.found(ctx, p)
	}
	if err == nil {
		if p.meta != nil {
			b := heartbeat.New(p.meta.Node(), p.host, p.id, s.beatConfig(p))
			beat.run(b.Run)
		}
		scrubber.run(func(ctx context.Context) error { p.scrub.Run(ctx); return nil })
		compactor.run(func(ctx context.Context) error { p.compact.Run(ctx); return nil })
		s.setHost(p)
		close(s.started)
		s.log.Info("chunkserver serves", zap.String("address", s.address))
		select {
		case <-ctx.Done():
		case err = <-listener.done:
		case err = <-beat.done: // refused
		}
	}
	s.setHost(&parts{})
	_ = beat.stop()
	_ = disk.stop()
	handOver(p.host)
	_ = scrubber.stop()
	_ = compactor.stop()
	err = errors.Join(err, listener.stop())
	_ = rpc.stop()
	err = errors.Join(err, host.stop())
	_ = digests.stop()
	unregister()
	return err
}

// listen serves streams and gRPC until ctx ends or the listener fails.
func (p *parts) listen(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.grpc.Serve(p.streams.Others()) }) // it ends with the streams
	err := p.streams.Run(ctx)
	p.grpc.Stop()
	wg.Wait()
	return err
}

func (s *Server) setHost(p *parts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.host, s.mu.disk = p.host, p.disk
}

// found makes the copysets of a static cluster.
func (s *Server) found(ctx context.Context, p *parts) error {
	if s.opts.Static == nil {
		return nil
	}
	for id, members := range s.opts.Static.Copysets {
		for peer, cs := range members {
			if cs != s.opts.Static.ID {
				continue
			}
			if err := p.host.Found(ctx, id, peer, members); err != nil {
				return err
			}
		}
	}
	return nil
}

// yield asks for a transfer of what is led here: of all, or of what waits for this disk alone, because others have
// committed entries that are not applied here. (If they had not, their disks would be no better.)
func yield(ctx context.Context, h *multiraft.Host, all bool) {
	for _, g := range h.Groups() {
		if !g.Leading() {
			continue
		}
		if r := g.Report(); all || r.Commit > r.Applied {
			_ = g.Yield(ctx) // who can not take over now is asked again
		}
	}
}

// leads returns how much is led here.
func leads(h *multiraft.Host) (led int) {
	for _, g := range h.Groups() {
		if g.Leading() {
			led++
		}
	}
	return led
}

// handOver asks for a transfer of all that is led here and waits a little for it. It is only a courtesy.
func handOver(h *multiraft.Host) {
	ctx, cancel := context.WithTimeout(context.Background(), handoverMax)
	defer cancel()
	yield(ctx, h, true)
	for leads(h) > 0 && ctx.Err() == nil {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// close releases what was opened.
func (p *parts) close() error {
	var errs []error
	if p.net != nil {
		p.net.Close()
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.log != nil {
		errs = append(errs, p.log.Close())
	}
	if p.meta != nil {
		errs = append(errs, p.meta.Close())
	}
	if p.lock != nil {
		errs = append(errs, p.lock.Close())
	}
	return errors.Join(errs...)
}

// part is a goroutine with a context of its own.
type part struct {
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan error
	started bool
}

func newPart() *part {
	ctx, cancel := context.WithCancel(context.Background())
	return &part{ctx: ctx, cancel: cancel, done: make(chan error, 1)}
}

func (p *part) run(f func(context.Context) error) {
	p.started = true
	go func() { // stop waits for it
		p.done <- f(p.ctx)
		close(p.done)
	}()
}

// stop ends the part and waits for it. It may be called when it has ended by itself, or was never started.
func (p *part) stop() error {
	p.cancel()
	if !p.started {
		return nil
	}
	return <-p.done
}

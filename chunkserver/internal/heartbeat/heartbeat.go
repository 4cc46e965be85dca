package heartbeat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/diskwatch"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// interval is the time between heartbeats, unless the metaserver asks for another one within these bounds.
	interval, intervalMin, intervalMax = time.Second, 50 * time.Millisecond, 10 * time.Second
	// callTimeout bounds one heartbeat.
	callTimeout = 5 * time.Second
	// retryPause is between two attempts to register.
	retryPause = 500 * time.Millisecond
	// orderTimeout bounds one order.
	orderTimeout = 30 * time.Second
)

// Meta is what is asked of the active metaserver.
type Meta interface {
	RegisterChunkserver(ctx context.Context, in *metav1.RegisterChunkserverRequest, opts ...grpc.CallOption) (*metav1.RegisterChunkserverReply, error)
	ChunkserverHeartbeat(ctx context.Context, in *metav1.ChunkserverHeartbeatRequest, opts ...grpc.CallOption) (*metav1.ChunkserverHeartbeatReply, error)
}

// Host is what is reported of and what orders are for.
type Host interface {
	Reports() []multiraft.Report
	Group(id layout.CopysetID) *multiraft.Group
	Found(ctx context.Context, id layout.CopysetID, peer layout.PeerID, members map[layout.PeerID]layout.ChunkserverID) error
	Join(ctx context.Context, id layout.CopysetID, peer layout.PeerID) error
	Remove(ctx context.Context, id layout.CopysetID, peer layout.PeerID) error
	Distrust(id layout.CopysetID, peer layout.PeerID) error
}

// Config says what a chunkserver reports of itself.
type Config struct {
	// Address and AdminAddress are where it can be reached, HOST:PORT.
	Address, AdminAddress string
	Pool, Zone, Server    string
	Version               string
	// Disk tells how the disk does. It must not wait for it.
	Disk func() Disk
	// Slow is told whether the metaserver finds the disk much slower than those of others; nil: nobody is.
	Slow func(bool)
	// Addresses is told where the chunkservers are.
	Addresses func(map[layout.ChunkserverID]string)
	// Digest returns the last digest of a copyset's replica, or nil.
	Digest func(layout.CopysetID) *digest.Result
	Logger *zap.Logger
}

// Disk is how a disk does.
type Disk struct {
	// Capacity and Used are in bytes, and Age old.
	Capacity, Used int64
	Age            time.Duration
	diskwatch.Health
	// Stalled is for how long the oldest operation has been under way, 0 when none is late.
	Stalled time.Duration
	// Err is why the disk does not work, or nil.
	Err   error
	Space Space
}

// Space is what the bytes of the disk are for, Age old like Used; metav1.DiskSpace says what the words mean.
type Space struct {
	DataFile, Content, Versions, Incoming, Logged, Reclaimable, Spare, Holes int64
	RaftLog, Index                                                           int64
	Blocks, Pieces, ScatteredChunks                                          int64
	Moved, GivenBack, Reserved                                               int64
}

// confirmTimeout bounds how long a chunkserver that has an id waits for the metaserver to confirm it. It starts without:
// I/O does not depend on metaservers.
const confirmTimeout = 3 * time.Second

// Register asks for an id until it has one, and keeps it in the identity. With one it asks once whether this is the
// cluster that gave it. An error is final: the context ended, or the directory belongs to another cluster.
func Register(ctx context.Context, meta Meta, i *Identity, c Config, capacity int64) error {
	if i.Chunkserver() != 0 {
		return confirm(ctx, meta, i, c, capacity)
	}
	told := false
	for i.Chunkserver() == 0 {
		err := register(ctx, meta, i, c, capacity)
		if errors.As(err, new(*ForeignError)) {
			return err
		}
		if err == nil {
			return nil
		}
		if !told {
			c.Logger.Info("waiting to be registered", zap.Error(err))
			told = true
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fmt.Errorf("chunkserver: not registered: %w", err)
		}
	}
	return nil
}

// RefusedError says why the metaserver does not take the chunkserver.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return "the metaserver refuses it: " + e.Text }

// confirm fails only when the metaserver says that the identity is not of its cluster.
func confirm(ctx context.Context, meta Meta, i *Identity, c Config, capacity int64) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	err := register(ctx, meta, i, c, capacity)
	switch {
	case status.Code(err) == codes.PermissionDenied:
		return &RefusedError{Text: status.Convert(err).Message()}
	case errors.As(err, new(*ForeignError)):
		return err
	}
	if err != nil {
		c.Logger.Info("starting without a metaserver", zap.Error(err))
	}
	return nil
}

func register(ctx context.Context, meta Meta, i *Identity, c Config, capacity int64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	uuid, cluster := i.UUID(), i.Cluster()
	req := &metav1.RegisterChunkserverRequest{
		Id: uint64(i.Chunkserver()), Uuid: uuid[:], Address: c.Address, AdminAddress: c.AdminAddress,
		Pool: c.Pool, Zone: c.Zone, Server: c.Server, Version: c.Version, Capacity: uint64(max(capacity, 0)),
		Generation: i.Generation(),
	}
	if cluster != [16]byte{} {
		req.ClusterId = cluster[:]
	}
	r, err := meta.RegisterChunkserver(ctx, req)
	if err != nil {
		return err
	}
	if len(r.GetClusterId()) != len(cluster) {
		return fmt.Errorf("chunkserver: cluster id of %d bytes", len(r.GetClusterId()))
	}
	copy(cluster[:], r.GetClusterId())
	return i.Claim(cluster, layout.ChunkserverID(r.GetId()))
}

// Beat reports and obeys.
type Beat struct {
	meta Meta
	host Host
	id   *Identity
	cfg  Config
	// stores are for the goroutine that waits for the disk, moves for the one that does not.
	stores chan *answer
	moves  chan []*metav1.Order
	nudge  chan struct{}
	made   map[layout.CopysetID]made // owned by Run
}

// answer is what a heartbeat brought.
type answer struct {
	revision  int64
	addresses map[layout.ChunkserverID]string
	orders    []*metav1.Order
}

// New returns a Beat for a chunkserver that has an id.
func New(meta Meta, host Host, id *Identity, cfg Config) *Beat {
	return &Beat{
		meta: meta, host: host, id: id, cfg: cfg,
		stores: make(chan *answer), moves: make(chan []*metav1.Order), nudge: make(chan struct{}, 1),
		made: map[layout.CopysetID]made{},
	}
}

// Run serves until ctx ends, and returns nil then, or *RefusedError when the metaserver says that this chunkserver must not
// serve.
func (b *Beat) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { b.store(ctx) })
	wg.Go(func() { b.move(ctx) })
	failing := false
	for ctx.Err() == nil {
		began := time.Now()
		pause, err := b.once(ctx)
		if errors.As(err, new(*RefusedError)) {
			return err
		}
		if err != nil && !failing && ctx.Err() == nil {
			b.cfg.Logger.Warn("heartbeat not answered", zap.Error(err))
		}
		failing = err != nil
		select {
		case <-time.After(max(pause-time.Since(began), intervalMin)):
		case <-b.nudge:
			// Not at once: an order that changes nothing comes again with each answer.
			select {
			case <-time.After(intervalMin - time.Since(began)):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
	}
	return nil
}

// once sends one heartbeat and hands its answer on. It returns after how long the next is due. It does not wait for the disk.
func (b *Beat) once(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := b.meta.ChunkserverHeartbeat(ctx, b.report())
	switch status.Code(err) {
	case codes.NotFound:
		// It forgot us, or has never known us: its store may have been rolled back. The copysets stay as they are.
		again := register(ctx, b.meta, b.id, b.cfg, b.cfg.Disk().Capacity)
		if status.Code(again) == codes.PermissionDenied {
			return interval, &RefusedError{Text: status.Convert(again).Message()}
		}
		return interval, errors.Join(err, again)
	case codes.PermissionDenied:
		return interval, &RefusedError{Text: status.Convert(err).Message()}
	}
	if err != nil {
		return interval, err
	}
	pause := interval
	if ms := r.GetIntervalMs(); ms > 0 {
		pause = min(max(time.Duration(ms)*time.Millisecond, intervalMin), intervalMax)
	}
	if b.cfg.Slow != nil {
		b.cfg.Slow(r.GetDiskSlow())
	}
	return pause, b.hand(r)
}

// hand gives an answer to those who carry it out. What finds them busy is dropped and comes again.
func (b *Beat) hand(r *metav1.ChunkserverHeartbeatReply) error {
	a := &answer{revision: r.GetElectionRevision(), addresses: make(map[layout.ChunkserverID]string, len(r.GetAddresses()))}
	have := b.id.Revision()
	if a.revision < have {
		return fmt.Errorf("chunkserver: orders of election %d refused, %d was seen", a.revision, have)
	}
	for _, ad := range r.GetAddresses() {
		a.addresses[layout.ChunkserverID(ad.GetId())] = ad.GetAddress()
	}
	b.cfg.Addresses(a.addresses)
	var moves []*metav1.Order
	for _, o := range r.GetOrders() {
		if o.GetTransfer() != nil || o.GetChange() != nil {
			moves = append(moves, o)
		} else {
			a.orders = append(a.orders, o)
		}
	}
	if a.revision > have || len(a.orders) > 0 || b.id.generation.due() || b.id.news(a.addresses) {
		select {
		case b.stores <- a:
		default:
		}
	}
	if a.revision == have && len(moves) > 0 {
		select {
		case b.moves <- moves:
		default:
		}
	}
	return nil
}

// store makes durable what an answer says and carries out the orders that need the disk, one at a time.
func (b *Beat) store(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-b.stores:
			err := b.keep(a)
			if err != nil && !failing {
				b.cfg.Logger.Warn("the metaserver's answer can not be stored", zap.Error(err))
			}
			if failing = err != nil; !failing && len(a.orders) > 0 {
				b.obey(ctx, a.orders)
			}
		}
	}
}

// keep makes durable what an answer says. Only then may its orders be obeyed.
func (b *Beat) keep(a *answer) error {
	ok, err := b.id.raise(a.revision)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("chunkserver: orders of election %d refused, %d was seen", a.revision, b.id.Revision())
	}
	if err := b.id.generation.rise(); err != nil {
		return err
	}
	return b.id.learn(a.addresses)
}

// move carries out the orders that do not need this disk: a disk that does not answer must not keep leadership here.
func (b *Beat) move(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case orders := <-b.moves:
			b.obey(ctx, orders)
		}
	}
}

// obey carries orders out, and tells soon what became of them.
func (b *Beat) obey(ctx context.Context, orders []*metav1.Order) {
	for _, o := range orders {
		octx, cancel := context.WithTimeout(ctx, orderTimeout)
		err := b.order(octx, o)
		cancel()
		if err != nil && ctx.Err() == nil {
			b.cfg.Logger.Info("order not carried out", zap.Uint64("copyset", o.GetCopyset()), zap.Stringer("order", o), zap.Error(err))
		}
	}
	select {
	case b.nudge <- struct{}{}:
	default:
	}
}

func (b *Beat) order(ctx context.Context, o *metav1.Order) error {
	id := layout.CopysetID(o.GetCopyset())
	if c := o.GetCreate(); c != nil {
		if c.GetJoin() {
			return b.host.Join(ctx, id, layout.PeerID(c.GetPeer()))
		}
		members := map[layout.PeerID]layout.ChunkserverID{}
		for _, p := range c.GetPeers() {
			members[layout.PeerID(p.GetId())] = layout.ChunkserverID(p.GetChunkserver())
		}
		return b.host.Found(ctx, id, layout.PeerID(c.GetPeer()), members)
	}
	if r := o.GetRemove(); r != nil {
		return b.host.Remove(ctx, id, layout.PeerID(r.GetPeer()))
	}
	if d := o.GetDistrust(); d != nil {
		return b.distrust(id, d)
	}
	g := b.host.Group(id)
	if g == nil {
		return multiraft.ErrNoGroup
	}
	switch {
	case o.GetTransfer() != nil:
		return g.TransferLeader(ctx, layout.PeerID(o.GetTransfer().GetPeer()))
	case o.GetChange() != nil:
		return g.ChangeMembers(ctx, change(o.GetChange()))
	}
	return errors.New("chunkserver: an order of a kind that this release does not know")
}

// distrust ends a replica, unless the digest that the order holds against it is not its own.
func (b *Beat) distrust(id layout.CopysetID, o *metav1.DistrustReplica) error {
	peer, of := layout.PeerID(o.GetPeer()), o.GetDigest()
	own := b.cfg.Digest(id)
	if own != nil && own.Peer == peer && own.Index == of.GetIndex() && own.Format == of.GetFormat() && !bytes.Equal(own.Sum[:], of.GetSum()) {
		return fmt.Errorf("chunkserver: peer %d of copyset %d had another digest at index %d", peer, id, own.Index)
	}
	if err := b.host.Distrust(id, peer); err != nil {
		return err
	}
	b.cfg.Logger.Error("replica ended: it differs from a majority of the others", zap.Uint64("copyset", uint64(id)),
		zap.Uint64("peer", uint64(peer)), zap.Uint64("index", of.GetIndex()))
	return nil
}

func change(o *metav1.ChangeMembers) *copyset.Change {
	c := &copyset.Change{Replaces: o.GetReplaces()}
	for _, m := range o.GetChanges() {
		ch := copyset.MemberChange{Peer: layout.PeerID(m.GetPeer()), Chunkserver: layout.ChunkserverID(m.GetChunkserver())}
		switch m.GetKind() {
		case metav1.MemberChange_KIND_ADD_LEARNER:
			ch.Kind = copyset.AddLearner
		case metav1.MemberChange_KIND_PROMOTE:
			ch.Kind = copyset.Promote
		case metav1.MemberChange_KIND_REMOVE:
			ch.Kind = copyset.Remove
		}
		c.Changes = append(c.Changes, ch)
	}
	return c
}

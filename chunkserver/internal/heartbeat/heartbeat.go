package heartbeat

import (
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
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
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
	Err() error
	Group(id layout.CopysetID) *multiraft.Group
	Found(ctx context.Context, id layout.CopysetID, peer layout.PeerID, members map[layout.PeerID]layout.ChunkserverID) error
	Join(ctx context.Context, id layout.CopysetID, peer layout.PeerID) error
	Remove(ctx context.Context, id layout.CopysetID, peer layout.PeerID) error
}

// Config says what a chunkserver reports of itself.
type Config struct {
	// Address and AdminAddress are where it can be reached, HOST:PORT.
	Address, AdminAddress string
	Pool, Zone, Server    string
	Version               string
	// Usage tells the space of the disk.
	Usage func() blockstore.Usage
	// Addresses is told where the chunkservers are.
	Addresses func(map[layout.ChunkserverID]string)
	Logger    *zap.Logger
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
	meta   Meta
	host   Host
	id     *Identity
	cfg    Config
	orders chan []*metav1.Order
	nudge  chan struct{}
}

// New returns a Beat for a chunkserver that has an id.
func New(meta Meta, host Host, id *Identity, cfg Config) *Beat {
	return &Beat{meta: meta, host: host, id: id, cfg: cfg, orders: make(chan []*metav1.Order), nudge: make(chan struct{}, 1)}
}

// Run serves until ctx ends.
func (b *Beat) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { b.execute(ctx) })
	failing := false
	for ctx.Err() == nil {
		began := time.Now()
		pause, err := b.once(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			b.cfg.Logger.Warn("heartbeat not answered", zap.Error(err))
		}
		failing = err != nil
		select {
		case <-time.After(max(pause-time.Since(began), intervalMin)):
		case <-b.nudge:
		case <-ctx.Done():
		}
	}
}

// once sends one heartbeat and hands its orders on. It returns after how long the next is due.
func (b *Beat) once(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := b.meta.ChunkserverHeartbeat(ctx, b.report())
	if status.Code(err) == codes.NotFound {
		// It forgot us, or has never known us: its store may have been rolled back. The copysets stay as they are.
		return interval, errors.Join(err, register(ctx, b.meta, b.id, b.cfg, b.cfg.Usage().Capacity))
	}
	if err != nil {
		return interval, err
	}
	pause := interval
	if ms := r.GetIntervalMs(); ms > 0 {
		pause = min(max(time.Duration(ms)*time.Millisecond, intervalMin), intervalMax)
	}
	obey, err := b.id.raise(r.GetElectionRevision())
	if err != nil {
		return pause, err
	}
	if !obey {
		return pause, fmt.Errorf("chunkserver: orders of election %d refused, %d was seen", r.GetElectionRevision(), b.id.Revision())
	}
	addresses := make(map[layout.ChunkserverID]string, len(r.GetAddresses()))
	for _, a := range r.GetAddresses() {
		addresses[layout.ChunkserverID(a.GetId())] = a.GetAddress()
	}
	b.cfg.Addresses(addresses)
	if err := b.id.learn(addresses); err != nil {
		return pause, err
	}
	if len(r.GetOrders()) > 0 {
		select {
		case b.orders <- r.GetOrders():
		default: // the executor is busy; they come again
		}
	}
	return pause, nil
}

// execute carries orders out, one at a time.
func (b *Beat) execute(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case orders := <-b.orders:
			for _, o := range orders {
				octx, cancel := context.WithTimeout(ctx, orderTimeout)
				err := b.order(octx, o)
				cancel()
				if err != nil && ctx.Err() == nil {
					b.cfg.Logger.Info("order not carried out", zap.Uint64("copyset", o.GetCopyset()), zap.Stringer("order", o), zap.Error(err))
				}
			}
			select {
			case b.nudge <- struct{}{}: // tell at once what became of them
			default:
			}
		}
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

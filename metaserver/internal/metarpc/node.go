package metarpc

import (
	"context"
	"time"

	"google.golang.org/grpc"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/replicas"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Limits of one message.
const (
	peersMax = 32
	usageMax = 100_000
)

// node serves chunkservers and gateways.
type node struct {
	metav1.UnimplementedNodeServer
	s *Server
}

// clusterID takes a cluster's id from a message; empty is none.
func clusterID(b []byte) (topology.ClusterID, error) {
	var id topology.ClusterID
	if len(b) != 0 && len(b) != len(id) {
		return id, refuse.As(refuse.Invalid, "a cluster id has %d bytes, not %d", len(id), len(b))
	}
	copy(id[:], b)
	return id, nil
}

func (n *node) RegisterChunkserver(ctx context.Context, r *metav1.RegisterChunkserverRequest) (*metav1.RegisterChunkserverReply, error) {
	cluster, err := clusterID(r.GetClusterId())
	if err != nil {
		return nil, err
	}
	reg := topology.Registration{
		ID: layout.ChunkserverID(r.GetId()), Cluster: cluster, Address: r.GetAddress(), AdminAddress: r.GetAdminAddress(),
		Pool: r.GetPool(), Zone: r.GetZone(), Server: r.GetServer(), Version: r.GetVersion(), Capacity: r.GetCapacity(),
		Generation: r.GetGeneration(),
	}
	if len(r.GetUuid()) != len(reg.UUID) {
		return nil, refuse.As(refuse.Invalid, "a chunkserver's uuid has %d bytes, not %d", len(reg.UUID), len(r.GetUuid()))
	}
	copy(reg.UUID[:], r.GetUuid())
	t := termOf(ctx)
	id, err := t.Topology.Register(ctx, reg)
	if err != nil {
		return nil, err
	}
	own := t.Topology.Cluster()
	return &metav1.RegisterChunkserverReply{Id: uint64(id), ClusterId: own[:]}, nil
}

func (n *node) ChunkserverHeartbeat(ctx context.Context, r *metav1.ChunkserverHeartbeatRequest) (*metav1.ChunkserverHeartbeatReply, error) {
	cluster, err := clusterID(r.GetClusterId())
	if err != nil {
		return nil, err
	}
	b := &topology.Beat{
		ID: layout.ChunkserverID(r.GetId()), Cluster: cluster, Address: r.GetAddress(), AdminAddress: r.GetAdminAddress(),
		Version: r.GetVersion(), Time: wall(r.GetTimeUnixMs()), Capacity: r.GetCapacity(), Used: r.GetUsed(),
		DiskError: r.GetDiskError(), Disk: diskHealth(r.GetDisk()), Space: diskSpace(r.GetSpace()), Generation: r.GetGeneration(), Revision: r.GetElectionRevision(),
	}
	b.Copysets = make([]topology.CopysetReport, 0, len(r.GetCopysets()))
	for _, c := range r.GetCopysets() {
		rep, err := report(c)
		if err != nil {
			return nil, err
		}
		b.Copysets = append(b.Copysets, rep)
	}
	t := termOf(ctx)
	a, err := t.Topology.Heartbeat(ctx, b)
	if err != nil {
		return nil, err
	}
	out := &metav1.ChunkserverHeartbeatReply{
		ElectionRevision: t.Topology.Revision(), IntervalMs: uint32(a.Interval.Milliseconds()), DiskSlow: a.Slow,
	}
	for _, o := range a.Orders {
		out.Orders = append(out.Orders, order(o))
	}
	for id, a := range t.Topology.Addresses() {
		out.Addresses = append(out.Addresses, &metav1.ChunkserverAddress{Id: uint64(id), Address: a})
	}
	return out, nil
}

// diskHealth takes how quickly a disk answers from a message, which may be nil.
func diskHealth(d *metav1.DiskHealth) schedule.Disk {
	us := func(n uint64) time.Duration {
		return time.Duration(min(n, uint64(time.Hour/time.Microsecond))) * time.Microsecond
	}
	ms := func(n uint64) time.Duration { return us(min(n, uint64(time.Hour/time.Millisecond)) * 1000) }
	return schedule.Disk{
		Syncs: d.GetLogSyncs(), SyncP50: us(d.GetLogSyncP50Us()), SyncP99: us(d.GetLogSyncP99Us()), Usual: us(d.GetLogSyncUsualUs()),
		Reads: d.GetReads(), ReadP50: us(d.GetReadP50Us()), ReadP99: us(d.GetReadP99Us()),
		Stalled: ms(d.GetStalledMs()), UsageAge: ms(d.GetUsageAgeMs()),
	}
}

// diskMessage is the other way.
func diskMessage(d schedule.Disk) *metav1.DiskHealth {
	us := func(t time.Duration) uint64 { return uint64(t.Microseconds()) }
	return &metav1.DiskHealth{
		LogSyncs: d.Syncs, LogSyncP50Us: us(d.SyncP50), LogSyncP99Us: us(d.SyncP99), LogSyncUsualUs: us(d.Usual),
		Reads: d.Reads, ReadP50Us: us(d.ReadP50), ReadP99Us: us(d.ReadP99),
		StalledMs: uint64(d.Stalled.Milliseconds()), UsageAgeMs: uint64(d.UsageAge.Milliseconds()),
	}
}

// diskSpace takes what the bytes of a disk are for from a message, which may be nil.
func diskSpace(d *metav1.DiskSpace) topology.Space {
	return topology.Space{
		DataFile: d.GetDataFile(), Content: d.GetContent(), Versions: d.GetVersions(), Incoming: d.GetIncoming(), Logged: d.GetLogged(),
		Reclaimable: d.GetReclaimable(), Spare: d.GetSpare(), Holes: d.GetHoles(), RaftLog: d.GetRaftLog(), Index: d.GetIndex(),
		Blocks: d.GetBlocks(), Pieces: d.GetPieces(), ScatteredChunks: d.GetScatteredChunks(), Moved: d.GetMoved(), GivenBack: d.GetGivenBack(),
		Reserved: d.GetReserved(),
	}
}

// spaceMessage is the other way; nil when it was not told.
func spaceMessage(s topology.Space) *metav1.DiskSpace {
	if s == (topology.Space{}) {
		return nil
	}
	return &metav1.DiskSpace{
		DataFile: s.DataFile, Content: s.Content, Versions: s.Versions, Incoming: s.Incoming, Logged: s.Logged,
		Reclaimable: s.Reclaimable, Spare: s.Spare, Holes: s.Holes, RaftLog: s.RaftLog, Index: s.Index,
		Blocks: s.Blocks, Pieces: s.Pieces, ScatteredChunks: s.ScatteredChunks, Moved: s.Moved, GivenBack: s.GivenBack,
		Reserved: s.Reserved,
	}
}

// wall makes a time of milliseconds, zero of 0.
func wall(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// report takes one copyset's report from a message.
func report(c *metav1.CopysetReport) (topology.CopysetReport, error) {
	if len(c.GetPeers()) > peersMax || len(c.GetUsage()) > usageMax {
		return topology.CopysetReport{}, refuse.As(refuse.Exhausted, "copyset %d: a report with %d peers and %d volumes, the limits are %d and %d",
			c.GetCopyset(), len(c.GetPeers()), len(c.GetUsage()), peersMax, usageMax)
	}
	out := topology.CopysetReport{
		Copyset: layout.CopysetID(c.GetCopyset()),
		Report: schedule.Report{
			Peer: layout.PeerID(c.GetPeer()), Leader: c.GetLeader(), LeaderPeer: layout.PeerID(c.GetLeaderPeer()), Term: c.GetTerm(),
			Applied: c.GetApplied(), Commit: c.GetCommit(), ConfVersion: c.GetConfVersion(), Error: c.GetError(),
			SnapshotPeer: layout.PeerID(c.GetSnapshotPeer()), SnapshotDone: c.GetSnapshotDone(), SnapshotTotal: c.GetSnapshotTotal(),
		},
	}
	if d := c.GetDigest(); len(d.GetSum()) == len(out.Digest.Sum) {
		out.Digest = replicas.Digest{Peer: out.Peer, Index: d.GetIndex(), Format: d.GetFormat(), Sum: [16]byte(d.GetSum())}
	}
	for _, p := range c.GetPeers() {
		m := schedule.Member{ID: layout.PeerID(p.GetId()), Chunkserver: layout.ChunkserverID(p.GetChunkserver()), Match: p.GetMatch()}
		if p.GetRole() == metav1.PeerRole_PEER_ROLE_LEARNER {
			m.Role = schedule.Learner
		}
		out.Members = append(out.Members, m)
	}
	if c.GetLeader() {
		out.Usage = make(map[layout.VolumeID]uint64, len(c.GetUsage()))
		for _, u := range c.GetUsage() {
			out.Usage[layout.VolumeID(u.GetVolume())] = u.GetAllocated()
		}
	}
	return out, nil
}

// order turns an order into its message.
func order(o schedule.Order) *metav1.Order {
	out := &metav1.Order{Copyset: uint64(o.Copyset)}
	switch o.Action {
	case schedule.Found, schedule.Join:
		c := &metav1.CreatePeer{Peer: uint64(o.Peer), Join: o.Action == schedule.Join}
		for _, p := range o.Peers {
			c.Peers = append(c.Peers, &metav1.Peer{Id: uint64(p.ID), Chunkserver: uint64(p.Chunkserver), Role: role(p.Role)})
		}
		out.Do = &metav1.Order_Create{Create: c}
	case schedule.Change:
		c := &metav1.ChangeMembers{Replaces: o.Replaces}
		for _, m := range o.Changes {
			c.Changes = append(c.Changes, &metav1.MemberChange{
				Peer: uint64(m.Peer), Chunkserver: uint64(m.Chunkserver), Kind: changeKind(m.Action),
			})
		}
		out.Do = &metav1.Order_Change{Change: c}
	case schedule.Remove:
		out.Do = &metav1.Order_Remove{Remove: &metav1.RemoveReplica{Peer: uint64(o.Peer)}}
	case schedule.Transfer:
		out.Do = &metav1.Order_Transfer{Transfer: &metav1.TransferLeader{Peer: uint64(o.Peer)}}
	case schedule.Distrust:
		out.Do = &metav1.Order_Distrust{Distrust: &metav1.DistrustReplica{
			Peer: uint64(o.Peer), Digest: &metav1.ReplicaDigest{Index: o.Index, Format: o.Format, Sum: o.Sum[:]},
		}}
	}
	return out
}

func changeKind(a schedule.MemberAction) metav1.MemberChange_Kind {
	switch a {
	case schedule.AddLearner:
		return metav1.MemberChange_KIND_ADD_LEARNER
	case schedule.Promote:
		return metav1.MemberChange_KIND_PROMOTE
	case schedule.RemoveMember:
		return metav1.MemberChange_KIND_REMOVE
	}
	return metav1.MemberChange_KIND_UNSPECIFIED
}

func role(r schedule.Role) metav1.PeerRole {
	if r == schedule.Learner {
		return metav1.PeerRole_PEER_ROLE_LEARNER
	}
	return metav1.PeerRole_PEER_ROLE_VOTER
}

func (n *node) RegisterGateway(ctx context.Context, r *metav1.RegisterGatewayRequest) (*metav1.RegisterGatewayReply, error) {
	t := termOf(ctx)
	g, err := t.Topology.RegisterGateway(ctx, topology.GatewayRegistration{
		Name: r.GetName(), Portals: r.GetPortals(), AdminAddress: r.GetAdminAddress(), Version: r.GetVersion(),
	})
	if err != nil {
		return nil, err
	}
	own := t.Topology.Cluster()
	return &metav1.RegisterGatewayReply{
		Id: g.ID, Tpgt: uint32(g.TPGT), RelativePort: uint32(g.RelativePort), ClusterId: own[:],
	}, nil
}

func (n *node) GatewayHeartbeat(ctx context.Context, r *metav1.GatewayHeartbeatRequest) (*metav1.GatewayHeartbeatReply, error) {
	t := termOf(ctx)
	if r.GetLeaving() {
		return &metav1.GatewayHeartbeatReply{}, t.Topology.GatewayLeaves(r.GetId())
	}
	interval, err := t.Topology.GatewayBeat(r.GetId(), wall(r.GetTimeUnixMs()), r.GetSessions(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	t.Exports.Confirmed(r.GetId(), r.GetExportsRevision())
	reply := &metav1.GatewayHeartbeatReply{IntervalMs: uint32(interval.Milliseconds())}
	if r.GetSpace() {
		reply.Space = spaces(t.Topology.View(), t.Namespace.View().Volumes)
	}
	return reply, nil
}

func (n *node) WatchExports(r *metav1.WatchExportsRequest, stream grpc.ServerStreamingServer[metav1.Exports]) error {
	ctx := stream.Context()
	t := termOf(ctx)
	if t.Topology.GatewayName(r.GetGateway()) == "" {
		return refuse.As(refuse.NotFound, "gateway %d is not registered: register first", r.GetGateway())
	}
	for {
		e, next := t.Exports.Last()
		if e != nil && t.Valid() {
			if err := stream.Send(e); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}

func (n *node) Attach(ctx context.Context, r *metav1.AttachRequest) (*metav1.AttachReply, error) {
	t := termOf(ctx)
	if t.Topology.GatewayName(r.GetGateway()) == "" {
		return nil, refuse.As(refuse.NotFound, "gateway %d is not registered: register first", r.GetGateway())
	}
	a, access, err := t.Namespace.Attach(ctx, r.GetGateway(), layout.VolumeID(r.GetVolume()), r.GetInitiator(), layout.Epoch(r.GetHad()))
	if err != nil {
		return nil, err
	}
	return &metav1.AttachReply{InitiatorId: uint64(a.InitiatorID), Epoch: uint64(a.Epoch), AccessGeneration: uint64(access)}, nil
}

package metarpc

import (
	"cmp"
	"context"
	"slices"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// admin serves the command line.
type admin struct {
	metav1.UnimplementedAdminServer
	s *Server
}

// attachmentsListed bounds the attachments of each volume in a list of volumes.
const attachmentsListed = 64

// picture is what answers about volumes and targets are made from.
func (a *admin) picture(ctx context.Context) *picture {
	t := termOf(ctx)
	return newPicture(t.Topology.View(), t.Namespace.View(), a.s.o.StartGrace)
}

// volume answers with a volume.
func (a *admin) volume(ctx context.Context, v *namespace.VolumeRecord) *metav1.Volume {
	return a.picture(ctx).volume(v, termOf(ctx).Namespace.Attachments(v.ID))
}

func (a *admin) CreateVolume(ctx context.Context, r *metav1.CreateVolumeRequest) (*metav1.Volume, error) {
	v, err := termOf(ctx).Namespace.CreateVolume(ctx, namespace.NewVolume{
		Name: r.GetName(), Size: r.GetSize(), ChunkSize: r.GetChunkSize(), StripeUnit: r.GetStripeUnit(),
		StripeCount: r.GetStripeCount(), LogicalBlock: r.GetLogicalBlock(), Pool: r.GetPool(), Request: requestOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	return a.volume(ctx, v), nil
}

func (a *admin) ListVolumes(ctx context.Context, _ *metav1.ListVolumesRequest) (*metav1.ListVolumesReply, error) {
	p, n := a.picture(ctx), termOf(ctx).Namespace
	out := &metav1.ListVolumesReply{}
	for _, v := range p.names.Volumes {
		attachments := n.Attachments(v.ID)
		out.Volumes = append(out.Volumes, p.volume(v, attachments[:min(len(attachments), attachmentsListed)]))
	}
	return out, nil
}

func (a *admin) ShowVolume(ctx context.Context, r *metav1.ShowVolumeRequest) (*metav1.Volume, error) {
	p := a.picture(ctx)
	for _, v := range p.names.Volumes {
		if v.Name == r.GetName() && !v.Deleting {
			return p.volume(v, termOf(ctx).Namespace.Attachments(v.ID)), nil
		}
	}
	return nil, refuse.As(refuse.NotFound, "there is no volume %q: see ashlar volume list", r.GetName())
}

func (a *admin) ResizeVolume(ctx context.Context, r *metav1.ResizeVolumeRequest) (*metav1.Volume, error) {
	var v *namespace.VolumeRecord
	pending, err := confirmed(ctx, func(n *namespace.Namespace) (err error) {
		v, err = n.ResizeVolume(ctx, r.GetName(), r.GetSize())
		return err
	})
	if err != nil {
		return nil, err
	}
	out := a.volume(ctx, v)
	out.PendingGateways = pending
	return out, nil
}

func (a *admin) DeleteVolume(ctx context.Context, r *metav1.DeleteVolumeRequest) (*metav1.DeleteVolumeReply, error) {
	return &metav1.DeleteVolumeReply{}, termOf(ctx).Namespace.DeleteVolume(ctx, r.GetName())
}

// confirmed changes by f what gateways export, waits until they serve by it and returns those that do not. What f does not
// find may have been removed by an attempt of the same call whose answer was lost, so that is waited for too.
func confirmed(ctx context.Context, f func(*namespace.Namespace) error) ([]string, error) {
	t, until := termOf(ctx), time.Now().Add(confirmMax)
	err := f(t.Namespace)
	if err != nil && !refuse.Is(err, refuse.NotFound) {
		return nil, err
	}
	pending, werr := t.Exports.Await(ctx, t.Topology, until)
	return pending, cmp.Or(err, werr)
}

// change changes a target and answers with it as it was stored, when the gateways serve by it.
func (a *admin) change(ctx context.Context, f func(*namespace.Namespace) (*namespace.TargetRecord, error)) (*metav1.Target, error) {
	var t *namespace.TargetRecord
	pending, err := confirmed(ctx, func(n *namespace.Namespace) (err error) {
		t, err = f(n)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := a.picture(ctx).target(t)
	out.PendingGateways = pending
	return out, nil
}

func (a *admin) CreateTarget(ctx context.Context, r *metav1.CreateTargetRequest) (*metav1.Target, error) {
	return a.change(ctx, func(n *namespace.Namespace) (*namespace.TargetRecord, error) {
		return n.CreateTarget(ctx, r.GetIqn(), requestOf(ctx))
	})
}

func (a *admin) ListTargets(ctx context.Context, _ *metav1.ListTargetsRequest) (*metav1.ListTargetsReply, error) {
	p := a.picture(ctx)
	out := &metav1.ListTargetsReply{}
	for _, t := range p.names.Targets {
		out.Targets = append(out.Targets, p.target(t))
	}
	return out, nil
}

func (a *admin) ShowTarget(ctx context.Context, r *metav1.ShowTargetRequest) (*metav1.Target, error) {
	iqn, err := namespace.TargetName(r.GetIqn())
	if err != nil {
		return nil, err
	}
	p := a.picture(ctx)
	for _, t := range p.names.Targets {
		if t.IQN == iqn {
			return p.target(t), nil
		}
	}
	return nil, refuse.As(refuse.NotFound, "there is no target %s: see ashlar target list", iqn)
}

func (a *admin) DeleteTarget(ctx context.Context, r *metav1.DeleteTargetRequest) (*metav1.DeleteTargetReply, error) {
	pending, err := confirmed(ctx, func(n *namespace.Namespace) error { return n.DeleteTarget(ctx, r.GetIqn()) })
	return &metav1.DeleteTargetReply{PendingGateways: pending}, err
}

func (a *admin) MapLUN(ctx context.Context, r *metav1.MapLUNRequest) (*metav1.Target, error) {
	return a.change(ctx, func(n *namespace.Namespace) (*namespace.TargetRecord, error) {
		return n.MapLUN(ctx, r.GetIqn(), r.GetLun(), r.GetVolume(), r.GetReadOnly())
	})
}

func (a *admin) UnmapLUN(ctx context.Context, r *metav1.UnmapLUNRequest) (*metav1.Target, error) {
	return a.change(ctx, func(n *namespace.Namespace) (*namespace.TargetRecord, error) {
		return n.UnmapLUN(ctx, r.GetIqn(), r.GetLun())
	})
}

func (a *admin) AllowInitiator(ctx context.Context, r *metav1.AllowInitiatorRequest) (*metav1.Target, error) {
	i := r.GetInitiator()
	return a.change(ctx, func(n *namespace.Namespace) (*namespace.TargetRecord, error) {
		return n.AllowInitiator(ctx, r.GetIqn(), namespace.NewGrant{
			Name: i.GetName(), ChapUser: i.GetChapUser(), ChapSecret: i.GetChapSecret(),
			MutualUser: i.GetMutualUser(), MutualSecret: i.GetMutualSecret(),
			ChapOldSecret: i.GetChapOldSecret(), LongSecrets: r.GetLongSecrets(),
		})
	})
}

func (a *admin) DenyInitiator(ctx context.Context, r *metav1.DenyInitiatorRequest) (*metav1.Target, error) {
	return a.change(ctx, func(n *namespace.Namespace) (*namespace.TargetRecord, error) {
		return n.DenyInitiator(ctx, r.GetIqn(), r.GetInitiator())
	})
}

func (a *admin) RedirectTarget(ctx context.Context, r *metav1.RedirectTargetRequest) (*metav1.Target, error) {
	d := r.GetRedirect()
	known := func(g topology.Gateway) bool { return g.Name == d.GetGateway() }
	if d.GetGateway() != "" && d.GetAddress() != "" && !slices.ContainsFunc(a.picture(ctx).cluster.Gateways, known) {
		return nil, refuse.As(refuse.NotFound, "there is no gateway %q: see ashlar cluster status", d.GetGateway())
	}
	return a.change(ctx, func(n *namespace.Namespace) (*namespace.TargetRecord, error) {
		return n.SetRedirect(ctx, r.GetIqn(), namespace.Redirect{
			Gateway: d.GetGateway(), Address: d.GetAddress(), Permanent: d.GetPermanent(),
		})
	})
}

func (a *admin) ListChunkservers(ctx context.Context, _ *metav1.ListChunkserversRequest) (*metav1.ListChunkserversReply, error) {
	out := &metav1.ListChunkserversReply{}
	for _, c := range termOf(ctx).Topology.View().Chunkservers {
		out.Chunkservers = append(out.Chunkservers, chunkserver(c))
	}
	return out, nil
}

func (a *admin) ShowChunkserver(ctx context.Context, r *metav1.ShowChunkserverRequest) (*metav1.ShowChunkserverReply, error) {
	p := a.picture(ctx)
	c, ok := p.servers[layout.ChunkserverID(r.GetId())]
	if !ok {
		return nil, refuse.As(refuse.NotFound, "there is no chunkserver %d: see ashlar chunkserver list", r.GetId())
	}
	out := &metav1.ShowChunkserverReply{Chunkserver: chunkserver(c)}
	for _, cs := range p.cluster.Copysets {
		if cs.Record.Holds(c.ID) {
			out.Copysets = append(out.Copysets, p.copyset(cs))
		}
	}
	return out, nil
}

func (a *admin) DrainChunkserver(ctx context.Context, r *metav1.DrainChunkserverRequest) (*metav1.Chunkserver, error) {
	id := layout.ChunkserverID(r.GetId())
	if err := termOf(ctx).Topology.Drain(ctx, id, r.GetCancel()); err != nil {
		return nil, err
	}
	return chunkserver(a.picture(ctx).servers[id]), nil
}

func (a *admin) ListCopysets(ctx context.Context, _ *metav1.ListCopysetsRequest) (*metav1.ListCopysetsReply, error) {
	p := a.picture(ctx)
	out := &metav1.ListCopysetsReply{}
	for _, c := range p.cluster.Copysets {
		out.Copysets = append(out.Copysets, p.copyset(c))
	}
	return out, nil
}

func (a *admin) ShowCopyset(ctx context.Context, r *metav1.ShowCopysetRequest) (*metav1.Copyset, error) {
	p := a.picture(ctx)
	for _, c := range p.cluster.Copysets {
		if uint64(c.Record.ID) == r.GetId() {
			return p.copyset(c), nil
		}
	}
	return nil, refuse.As(refuse.NotFound, "there is no copyset %d: see ashlar copyset list", r.GetId())
}

func (a *admin) ReplacePeer(ctx context.Context, r *metav1.ReplacePeerRequest) (*metav1.Copyset, error) {
	err := termOf(ctx).Topology.Replace(ctx, layout.CopysetID(r.GetCopyset()), layout.PeerID(r.GetPeer()), layout.ChunkserverID(r.GetChunkserver()))
	if err != nil {
		return nil, err
	}
	return a.ShowCopyset(ctx, &metav1.ShowCopysetRequest{Id: r.GetCopyset()})
}

func (a *admin) ClusterStatus(ctx context.Context, _ *metav1.ClusterStatusRequest) (*metav1.ClusterStatusReply, error) {
	t := termOf(ctx)
	return a.s.status(t, a.picture(ctx)), nil
}

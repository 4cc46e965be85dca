package metarpc

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// picture is the state of everything at one moment, from which messages are made.
type picture struct {
	cluster  *topology.View
	names    *namespace.View
	servers  map[layout.ChunkserverID]topology.Chunkserver
	copysets map[layout.CopysetID]topology.Copyset
	volumes  map[layout.VolumeID]*namespace.VolumeRecord
	gateways map[uint64]string
	// young: the metaserver has not been active for long enough to tell whether those that it has not heard of are down.
	young bool
}

func newPicture(c *topology.View, n *namespace.View, grace time.Duration) *picture {
	p := &picture{
		cluster: c, names: n,
		servers:  map[layout.ChunkserverID]topology.Chunkserver{},
		copysets: map[layout.CopysetID]topology.Copyset{},
		volumes:  map[layout.VolumeID]*namespace.VolumeRecord{},
		gateways: map[uint64]string{},
	}
	for _, s := range c.Chunkservers {
		p.servers[s.ID] = s
		p.young = p.young || c.Age < grace && !s.Heard
	}
	for _, s := range c.Copysets {
		p.copysets[s.Record.ID] = s
	}
	for _, v := range n.Volumes {
		p.volumes[v.ID] = v
	}
	for _, g := range c.Gateways {
		p.gateways[g.ID] = g.Name
		p.young = p.young || c.Age < grace && g.Last.IsZero()
	}
	return p
}

// exported makes the message of a volume without what changes with every heartbeat.
func exported(v *namespace.VolumeRecord) *metav1.Volume {
	out := &metav1.Volume{
		Id: uint64(v.ID), Name: v.Name, Size: uint64(v.Size), ChunkSize: v.ChunkSize, StripeUnit: v.StripeUnit,
		StripeCount: v.StripeCount, LogicalBlock: v.LogicalBlock, Naa: v.NAA[:], Serial: v.Serial,
		AccessGeneration: uint64(v.Access), CreatedUnixMs: v.CreatedUnixMs, State: metav1.VolumeState_VOLUME_STATE_ACTIVE,
	}
	if v.Deleting {
		out.State = metav1.VolumeState_VOLUME_STATE_DELETING
	}
	for _, r := range v.Ranges {
		m := &metav1.Range{First: r.First, Chunks: r.Chunks}
		for _, c := range r.Copysets {
			m.Copysets = append(m.Copysets, uint64(c))
		}
		out.Ranges = append(out.Ranges, m)
	}
	return out
}

// volume makes the message of a volume for the administrator, with the attachments given.
func (p *picture) volume(v *namespace.VolumeRecord, attachments []*namespace.Attachment) *metav1.Volume {
	out := exported(v)
	out.Allocated = p.cluster.Usage[v.ID]
	out.MappedTo = p.names.Mapped[v.ID]
	out.Stalled = p.stalled(v)
	out.Sanitize = sanitizeMessage(p.names.Sanitizing[v.ID])
	for _, a := range attachments {
		gw := p.gateways[a.Gateway]
		if gw == "" {
			gw = fmt.Sprintf("gateway %d", a.Gateway)
		}
		out.Attachments = append(out.Attachments, &metav1.Attachment{
			Initiator: a.Initiator, InitiatorId: uint64(a.InitiatorID), Epoch: uint64(a.Epoch), Gateway: gw,
			SinceUnixMs: a.SinceUnixMs, Moves: uint32(a.Moves(time.Now())),
		})
	}
	return out
}

// listMax bounds how many things a sentence names.
const listMax = 5

// stalled says why I/O of a part of a volume waits.
func (p *picture) stalled(v *namespace.VolumeRecord) string {
	if p.young || v.Deleting {
		return ""
	}
	var out []string
	n := 0
	seen := map[layout.CopysetID]bool{}
	for _, r := range v.Ranges {
		for _, id := range r.Copysets {
			c, ok := p.copysets[id]
			if seen[id] || ok && !p.noQuorum(c) {
				continue
			}
			seen[id] = true
			n++
			if len(out) < listMax {
				out = append(out, p.whyStalled(id, c, ok))
			}
		}
	}
	if n > len(out) {
		out = append(out, fmt.Sprintf("and %d more copysets", n-len(out)))
	}
	return strings.Join(out, "; ")
}

// electing: a copyset that has not had a leader for less than this is not reported.
const electing = 5 * time.Second

// noQuorum tells whether a copyset does not serve, other than for the moment of an election.
func (p *picture) noQuorum(c topology.Copyset) bool {
	if c.Quorum {
		return false
	}
	return c.Live <= c.Voters/2 || c.Leaderless > electing
}

func (p *picture) whyStalled(id layout.CopysetID, c topology.Copyset, known bool) string {
	if !known {
		return fmt.Sprintf("copyset %d is not on record", id)
	}
	if c.Live > c.Voters/2 {
		return fmt.Sprintf("copyset %d has had no leader for %v", id, c.Leaderless.Round(time.Second))
	}
	return fmt.Sprintf("copyset %d has no quorum (%s)", id, p.dead(c))
}

// dead names the chunkservers because of which a copyset lacks replicas.
func (p *picture) dead(c topology.Copyset) string {
	var out []string
	for _, m := range c.Record.Peers {
		rep := c.Reports[m.Chunkserver]
		switch s, ok := p.servers[m.Chunkserver]; {
		case !ok:
			out = append(out, fmt.Sprintf("chunkserver %d is not on record", m.Chunkserver))
		case !s.Up:
			out = append(out, fmt.Sprintf("chunkserver %d is down", m.Chunkserver))
		case rep == nil || rep.Peer != m.ID:
			out = append(out, fmt.Sprintf("chunkserver %d does not have peer %d", m.Chunkserver, m.ID))
		case rep.Error != "":
			out = append(out, fmt.Sprintf("chunkserver %d: peer %d: %s", m.Chunkserver, m.ID, rep.Error))
		}
	}
	return strings.Join(out, ", ")
}

// target makes the message of a target, without secrets.
func (p *picture) target(t *namespace.TargetRecord) *metav1.Target {
	out := &metav1.Target{Iqn: t.IQN, CreatedUnixMs: t.CreatedUnixMs, Luns: p.luns(t), Redirects: redirects(t)}
	for _, g := range t.Grants {
		out.Initiators = append(out.Initiators, &metav1.Initiator{
			Name: g.Name, ChapUser: g.ChapUser, MutualUser: g.MutualUser, ChapRotating: g.ChapOldSecret != nil,
		})
	}
	return out
}

// redirects makes the messages of where the initiators of a target are sent.
func redirects(t *namespace.TargetRecord) []*metav1.Redirect {
	var out []*metav1.Redirect
	for _, r := range t.Redirects {
		out = append(out, &metav1.Redirect{Gateway: r.Gateway, Address: r.Address, Permanent: r.Permanent})
	}
	return out
}

func (p *picture) luns(t *namespace.TargetRecord) []*metav1.LUN {
	var out []*metav1.LUN
	for _, l := range t.LUNs {
		m := &metav1.LUN{Lun: l.LUN, VolumeId: uint64(l.Volume), ReadOnly: l.ReadOnly}
		if v := p.volumes[l.Volume]; v != nil {
			m.Volume = v.Name
		}
		out = append(out, m)
	}
	return out
}

// chunkserver makes the message of a chunkserver.
func chunkserver(c topology.Chunkserver) *metav1.Chunkserver {
	out := &metav1.Chunkserver{
		Id: uint64(c.ID), Address: c.Address, AdminAddress: c.AdminAddress, Pool: c.Pool, Zone: c.Zone, Server: c.Server,
		Version: c.Version, State: metav1.ChunkserverState_CHUNKSERVER_STATE_UP, Capacity: c.Capacity, Used: c.Used,
		Copysets: uint32(c.Copysets), Leaders: uint32(c.Leaders), DiskError: c.DiskError, ClockSkewMs: c.Skew.Milliseconds(),
		Disk: diskMessage(c.Disk), DiskSlow: c.Slow, Space: spaceMessage(c.Space),
	}
	switch {
	case !c.Up:
		out.State = metav1.ChunkserverState_CHUNKSERVER_STATE_DOWN
	case c.Draining:
		out.State = metav1.ChunkserverState_CHUNKSERVER_STATE_DRAINING
	}
	if !c.Last.IsZero() {
		out.LastHeartbeatUnixMs = c.Last.UnixMilli()
	}
	return out
}

// copyset makes the message of a copyset for the administrator.
func (p *picture) copyset(c topology.Copyset) *metav1.Copyset {
	out := &metav1.Copyset{
		Id: uint64(c.Record.ID), Pool: c.Record.Pool, ConfVersion: c.Record.ConfVersion, Leader: uint64(c.LeaderOn),
		Quorum: c.Quorum, Allocated: c.Allocated,
	}
	if c.Leader != nil {
		out.Term, out.Commit = c.Leader.Term, c.Leader.Commit
	}
	for _, m := range c.Record.Peers {
		q := &metav1.Peer{Id: uint64(m.ID), Chunkserver: uint64(m.Chunkserver), Role: role(m.Role), Up: p.servers[m.Chunkserver].Up}
		if c.Leader != nil {
			if mm, ok := c.Leader.Member(m.ID); ok {
				q.Match = mm.Match
			}
		}
		out.Peers = append(out.Peers, q)
	}
	if v := c.Verdict; v.Index != 0 {
		out.Comparison = &metav1.Comparison{Index: v.Index, Peers: peerNumbers(v.Compared), Differ: v.Differ, Odd: peerNumbers(v.Odd)}
	}
	if op := c.Record.Op; op != nil {
		out.Operation = &metav1.Operation{
			Kind: op.Kind, Step: c.Step, OldPeer: uint64(op.OldPeer), NewPeer: uint64(op.NewPeer),
			NewChunkserver: uint64(op.NewChunkserver), StartedUnixMs: op.StartedUnixMs, Error: op.Error,
		}
		if c.Leader != nil && c.Leader.SnapshotPeer == op.NewPeer {
			out.Operation.DoneBytes, out.Operation.TotalBytes = c.Leader.SnapshotDone, c.Leader.SnapshotTotal
		}
	}
	return out
}

// gateway makes the message of a gateway.
func gateway(g topology.Gateway) *metav1.Gateway {
	out := &metav1.Gateway{
		Id: g.ID, Name: g.Name, Portals: slices.Clone(g.Portals), Tpgt: uint32(g.TPGT), RelativePort: uint32(g.RelativePort),
		Version: g.Version, Up: g.Up, Sessions: g.Sessions, ClockSkewMs: g.Skew.Milliseconds(), AdminAddress: g.AdminAddress,
	}
	if !g.Last.IsZero() {
		out.LastHeartbeatUnixMs = g.Last.UnixMilli()
	}
	return out
}

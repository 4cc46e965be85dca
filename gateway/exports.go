package gateway

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// exports is what a gateway serves, in the terms of its parts.
type exports struct {
	revision  int64
	cluster   []byte
	directory chunkclient.Directory
	volumes   map[layout.VolumeID]volumeState
	targets   target.Config
	// allowed holds who may use a volume; target.AnyInitiator stands for all.
	allowed map[layout.VolumeID]map[string]bool
}

// allows tells whether an initiator may use a volume through any target.
func (e *exports) allows(id layout.VolumeID, initiator string) bool {
	return e.allowed[id][initiator] || e.allowed[id][target.AnyInitiator]
}

// newExports checks and translates what the metaserver sent to the gateway self.
func newExports(m *metav1.Exports, self uint64) (*exports, error) {
	e := &exports{
		revision: m.GetRevision(), cluster: m.GetClusterId(),
		volumes: map[layout.VolumeID]volumeState{}, allowed: map[layout.VolumeID]map[string]bool{},
		directory: newDirectory(m),
	}
	e.targets.Volumes = map[uint64]scsi.UnitConfig{}
	e.targets.Reservations = map[uint64]*scsi.Reservations{}
	reservations := map[uint64]*metav1.VolumeReservations{}
	for _, r := range m.GetReservations() {
		reservations[r.GetVolume()] = r
	}
	for _, v := range m.GetVolumes() {
		if v.GetState() != metav1.VolumeState_VOLUME_STATE_ACTIVE {
			continue
		}
		placement := newMap(v)
		if err := placement.Validate(); err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.GetName(), err)
		}
		now, err := reservationsOf(v, reservations[v.GetId()])
		if err != nil {
			return nil, err
		}
		e.targets.Reservations[v.GetId()] = now
		e.volumes[placement.Volume] = volumeState{placement: placement, reservations: now}
		e.targets.Volumes[v.GetId()] = newUnit(v)
	}
	var here *metav1.Gateway
	for _, g := range m.GetGateways() {
		if g.GetId() == self {
			here = g
		}
		for _, p := range g.GetPortals() {
			e.targets.Portals = append(e.targets.Portals, target.Portal{Address: p, Group: uint16(g.GetTpgt())})
		}
		e.targets.Gateways = append(e.targets.Gateways, target.Gateway{
			ID: g.GetId(), Port: target.Port{Group: uint16(g.GetTpgt()), RelativeID: uint16(g.GetRelativePort())},
			Up: g.GetUp() || g.GetId() == self, // whoever is told of it here reaches it
		})
	}
	slices.SortFunc(e.targets.Gateways, func(a, b target.Gateway) int { return cmp.Compare(a.Port.Group, b.Port.Group) })
	for _, t := range m.GetTargets() {
		out := e.newTarget(t)
		out.Redirect = newRedirect(t.GetRedirects(), here)
		for _, g := range m.GetGateways() {
			if newRedirect(t.GetRedirects(), g) != nil {
				out.Elsewhere = append(out.Elsewhere, g.GetId())
			}
		}
		e.targets.Targets = append(e.targets.Targets, out)
	}
	return e, nil
}

func newDirectory(m *metav1.Exports) chunkclient.Directory {
	d := chunkclient.Directory{
		Members:   map[layout.CopysetID][]layout.ChunkserverID{},
		Addresses: map[layout.ChunkserverID]string{},
	}
	for _, c := range m.GetChunkservers() {
		d.Addresses[layout.ChunkserverID(c.GetId())] = c.GetAddress()
	}
	for _, c := range m.GetCopysets() {
		for _, p := range c.GetPeers() {
			if p.GetRole() == metav1.PeerRole_PEER_ROLE_VOTER {
				id := layout.CopysetID(c.GetId())
				d.Members[id] = append(d.Members[id], layout.ChunkserverID(p.GetChunkserver()))
			}
		}
	}
	return d
}

func newMap(v *metav1.Volume) *layout.Map {
	m := &layout.Map{
		Volume: layout.VolumeID(v.GetId()), Size: int64(v.GetSize()), ChunkSize: v.GetChunkSize(),
		StripeUnit: v.GetStripeUnit(), StripeCount: v.GetStripeCount(),
	}
	for _, r := range v.GetRanges() {
		lr := layout.Range{First: r.GetFirst(), Chunks: r.GetChunks()}
		for _, c := range r.GetCopysets() {
			lr.Copysets = append(lr.Copysets, layout.CopysetID(c))
		}
		m.Ranges = append(m.Ranges, lr)
	}
	return m
}

// productRevision is the product revision level that hosts see; it is the version of the SCSI behaviour, not of a release.
const productRevision = "0001"

// atomicBlocks is what WRITE ATOMIC writes unless the stripe unit is shorter, in logical blocks.
const atomicBlocks = 256

func newUnit(v *metav1.Volume) scsi.UnitConfig {
	u := scsi.UnitConfig{
		Identity: scsi.Identity{
			Serial: v.GetSerial(), Vendor: scsi.DefaultVendor, Revision: productRevision,
			// ESXi wants the first eight bytes to be the volume's own.
			Product: fmt.Sprintf("%08X VOL", uint32(v.GetId())),
		},
		Capacity: int64(v.GetSize()), BlockLength: int(v.GetLogicalBlock()), Limits: scsi.DefaultLimits(),
	}
	copy(u.Identity.NAA[:], v.GetNaa())
	// An atomic write stays within one stripe unit, and so within one chunk.
	unit := int64(v.GetStripeUnit())
	u.Limits.MaxAtomic = min(atomicBlocks*int64(v.GetLogicalBlock()), unit&-unit)
	return u
}

func (e *exports) newTarget(t *metav1.Target) target.Target {
	out := target.Target{Name: t.GetIqn()}
	for _, l := range t.GetLuns() {
		if _, ok := e.targets.Volumes[l.GetVolumeId()]; !ok {
			continue
		}
		out.LUNs = append(out.LUNs, target.LUN{Number: uint16(l.GetLun()), Volume: l.GetVolumeId(), ReadOnly: l.GetReadOnly()})
		id := layout.VolumeID(l.GetVolumeId())
		if e.allowed[id] == nil {
			e.allowed[id] = map[string]bool{}
		}
		for _, i := range t.GetInitiators() {
			e.allowed[id][i.GetName()] = true
		}
	}
	for _, i := range t.GetInitiators() {
		out.Access = append(out.Access, target.Access{Initiator: i.GetName(), Auth: newAuth(i)})
	}
	return out
}

// newAuth is how an initiator has to prove itself. One that has a secret but no user, or a user but no secret, which no
// metaserver sends, can not: nobody knows the secret that it then has.
func newAuth(i *metav1.Initiator) login.Auth {
	var a login.Auth
	if i.GetChapUser() != "" || i.GetChapSecret() != "" {
		a.Initiator = &login.Credentials{User: i.GetChapUser()}
		for _, s := range []string{i.GetChapSecret(), i.GetChapOldSecret()} {
			if s != "" {
				a.Initiator.Secrets = append(a.Initiator.Secrets, login.Secret(s))
			}
		}
	}
	if i.GetMutualUser() != "" && i.GetMutualSecret() != "" {
		a.Mutual = &login.MutualCredentials{User: i.GetMutualUser(), Secret: login.Secret(i.GetMutualSecret())}
	}
	return a
}

package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// statusOut is the state of the cluster in JSON.
type statusOut struct {
	ClusterID             string           `json:"cluster_id"`
	Version               string           `json:"version"`
	Healthy               bool             `json:"healthy"`
	Problems              []string         `json:"problems"`
	Notes                 []string         `json:"notes"`
	Volumes               uint32           `json:"volumes"`
	ProvisionedBytes      uint64           `json:"provisioned_bytes"`
	CapacityBytes         uint64           `json:"capacity_bytes"`
	UsedBytes             uint64           `json:"used_bytes"`
	Copysets              uint32           `json:"copysets"`
	CopysetsWithoutQuorum uint32           `json:"copysets_without_quorum"`
	CopysetsDegraded      uint32           `json:"copysets_degraded"`
	Metaservers           []metaserverOut  `json:"metaservers"`
	Chunkservers          []chunkserverOut `json:"chunkservers"`
	Gateways              []gatewayOut     `json:"gateways"`
}

type metaserverOut struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Active      bool   `json:"active"`
	Version     string `json:"version"`
	SinceUnixMs int64  `json:"since_unix_ms"`
}

type gatewayOut struct {
	ID                  uint64   `json:"id"`
	Name                string   `json:"name"`
	Up                  bool     `json:"up"`
	Portals             []string `json:"portals"`
	TPGT                uint32   `json:"tpgt"`
	RelativePort        uint32   `json:"relative_port"`
	Version             string   `json:"version"`
	Sessions            uint32   `json:"sessions"`
	LastHeartbeatUnixMs int64    `json:"last_heartbeat_unix_ms"`
	ClockSkewMs         int64    `json:"clock_skew_ms"`
	AdminAddress        string   `json:"admin_address"`
}

func newStatusOut(r *metav1.ClusterStatusReply) statusOut {
	out := statusOut{
		ClusterID: r.GetClusterId(), Version: r.GetVersion(), Healthy: r.GetHealthy(), Problems: orEmpty(r.GetProblems()),
		Notes: orEmpty(r.GetNotes()), Volumes: r.GetVolumes(), ProvisionedBytes: r.GetProvisioned(), CapacityBytes: r.GetCapacity(),
		UsedBytes: r.GetUsed(), Copysets: r.GetCopysets(), CopysetsWithoutQuorum: r.GetCopysetsWithoutQuorum(),
		CopysetsDegraded: r.GetCopysetsDegraded(), Metaservers: []metaserverOut{}, Chunkservers: []chunkserverOut{}, Gateways: []gatewayOut{},
	}
	for _, m := range r.GetMetaservers() {
		out.Metaservers = append(out.Metaservers, metaserverOut{m.GetName(), m.GetAddress(), m.GetActive(), m.GetVersion(), m.GetSinceUnixMs()})
	}
	for _, c := range r.GetChunkservers() {
		out.Chunkservers = append(out.Chunkservers, newChunkserverOut(c))
	}
	for _, g := range r.GetGateways() {
		out.Gateways = append(out.Gateways, gatewayOut{
			g.GetId(), g.GetName(), g.GetUp(), orEmpty(g.GetPortals()), g.GetTpgt(), g.GetRelativePort(), g.GetVersion(), g.GetSessions(),
			g.GetLastHeartbeatUnixMs(), g.GetClockSkewMs(), g.GetAdminAddress(),
		})
	}
	return out
}

func clusterCommand() *cobra.Command {
	return group("cluster", "Show the state of the cluster", clusterStatus())
}

func clusterStatus() *cobra.Command {
	return verb("status", "Show whether the cluster is well, and what to do if not", cobra.NoArgs,
		func(ctx context.Context, s *session, _ []string) error {
			r, err := s.admin.ClusterStatus(ctx, &metav1.ClusterStatusRequest{})
			if err != nil {
				return err
			}
			o := newStatusOut(r)
			o.damage(askScrubs(ctx, r.GetChunkservers()))
			return s.print(o, func(w io.Writer) { o.table(w) })
		})
}

// damage adds what no replica could repair or nobody could read, which the chunkservers themselves know, to the problems.
func (o *statusOut) damage(scrubs map[uint64]*scrubOut) {
	for _, c := range o.Chunkservers {
		s := scrubs[c.ID]
		if s == nil {
			continue
		}
		if n := len(s.Unrepairable); n > 0 {
			o.Problems = append(o.Problems, fmt.Sprintf(
				"Chunkserver %d has damaged blocks that no replica could repair: %d. See ashlar chunkserver show %d.", c.ID, n, c.ID))
		}
		if n := s.Last.SkippedChunks; n > 0 {
			o.Problems = append(o.Problems, fmt.Sprintf(
				"The index of chunkserver %d is damaged: %d chunks can not be read. Replace it with ashlar chunkserver drain %d.", c.ID, n, c.ID))
		}
	}
	o.Healthy = o.Healthy && len(o.Problems) == 0
}

func (o *statusOut) table(w io.Writer) {
	health := "healthy"
	if !o.Healthy {
		health = fmt.Sprintf("problems: %d", len(o.Problems))
	}
	field(w, "Cluster", o.ClusterID)
	field(w, "State", health)
	field(w, "Version", o.Version)
	field(w, "Volumes", fmt.Sprintf("%d, %s provisioned", o.Volumes, sizeText(o.ProvisionedBytes)))
	field(w, "Space", fmt.Sprintf("%s of %s in use, all copies counted", sizeText(o.UsedBytes), sizeText(o.CapacityBytes)))
	field(w, "Copysets", fmt.Sprintf("%d, %d degraded, %d without quorum", o.Copysets, o.CopysetsDegraded, o.CopysetsWithoutQuorum))
	for _, m := range o.Metaservers {
		state := "standby"
		if m.Active {
			state = "active"
		}
		field(w, "Metaserver "+m.Name, m.Address+", "+state)
	}
	for _, c := range o.Chunkservers {
		field(w, fmt.Sprintf("Chunkserver %d", c.ID), fmt.Sprintf("%s, %s, zone %s, %s of %s in use", c.Address, c.State, c.Zone,
			sizeText(c.UsedBytes), sizeText(c.CapacityBytes)))
	}
	for _, g := range o.Gateways {
		state := "down"
		if g.Up {
			state = "up"
		}
		field(w, "Gateway "+g.Name, fmt.Sprintf("%s, %s, %d sessions", list(g.Portals), state, g.Sessions))
	}
	for _, p := range o.Problems {
		field(w, "Problem", p)
	}
	for _, n := range o.Notes {
		field(w, "Note", n)
	}
}

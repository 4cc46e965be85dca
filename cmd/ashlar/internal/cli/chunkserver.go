package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// chunkserverOut is a chunkserver in JSON.
type chunkserverOut struct {
	ID            uint64 `json:"id"`
	Address       string `json:"address"`
	State         string `json:"state"`
	Pool          string `json:"pool"`
	Zone          string `json:"zone"`
	Server        string `json:"server"`
	Version       string `json:"version"`
	CapacityBytes uint64 `json:"capacity_bytes"`
	UsedBytes     uint64 `json:"used_bytes"`
	Copysets      uint32 `json:"copysets"`
	Leaders       uint32 `json:"leaders"`
	DiskError     string `json:"disk_error"`
	// DiskSlow says why others lead in its place, empty when they do not.
	DiskSlow string  `json:"disk_slow"`
	Disk     diskOut `json:"disk"`
	// Space is null when the chunkserver has not told it.
	Space               *diskSpaceOut `json:"space"`
	ClockSkewMs         int64         `json:"clock_skew_ms"`
	LastHeartbeatUnixMs int64         `json:"last_heartbeat_unix_ms"`
	AdminAddress        string        `json:"admin_address"`
}

// diskOut is how quickly a disk answers, in JSON: the last seconds, 0 when nothing was done.
type diskOut struct {
	LogSyncs       uint64 `json:"log_syncs"`
	LogSyncP50Us   uint64 `json:"log_sync_p50_us"`
	LogSyncP99Us   uint64 `json:"log_sync_p99_us"`
	LogSyncUsualUs uint64 `json:"log_sync_usual_us"`
	Reads          uint64 `json:"reads"`
	ReadP50Us      uint64 `json:"read_p50_us"`
	ReadP99Us      uint64 `json:"read_p99_us"`
	StalledMs      uint64 `json:"stalled_ms"`
	UsageAgeMs     uint64 `json:"usage_age_ms"`
}

func newDiskOut(d *metav1.DiskHealth) diskOut {
	return diskOut{
		LogSyncs: d.GetLogSyncs(), LogSyncP50Us: d.GetLogSyncP50Us(), LogSyncP99Us: d.GetLogSyncP99Us(), LogSyncUsualUs: d.GetLogSyncUsualUs(),
		Reads: d.GetReads(), ReadP50Us: d.GetReadP50Us(), ReadP99Us: d.GetReadP99Us(),
		StalledMs: d.GetStalledMs(), UsageAgeMs: d.GetUsageAgeMs(),
	}
}

// text is the disk in a line.
func (d diskOut) text() string {
	ms := func(us uint64) string { return fmt.Sprintf("%.1f", float64(us)/1000) }
	out := "no writes lately"
	if d.LogSyncs > 0 {
		out = fmt.Sprintf("log syncs take %s ms (p99 %s, usually %s)", ms(d.LogSyncP50Us), ms(d.LogSyncP99Us), ms(d.LogSyncUsualUs))
	}
	if d.Reads > 0 {
		out += fmt.Sprintf(", reads %s ms (p99 %s)", ms(d.ReadP50Us), ms(d.ReadP99Us))
	}
	if d.StalledMs > 0 {
		out += fmt.Sprintf("; it has not answered for %s s", ms(d.StalledMs))
	}
	return out
}

// diskState is the disk in a word.
func (c chunkserverOut) diskState() string {
	switch {
	case c.DiskError != "":
		return "failed"
	case c.DiskSlow != "":
		return "slow"
	}
	return "ok"
}

func newChunkserverOut(c *metav1.Chunkserver) chunkserverOut {
	out := chunkserverOut{
		ID: c.GetId(), Address: c.GetAddress(), State: "unknown", Pool: c.GetPool(), Zone: c.GetZone(), Server: c.GetServer(),
		Version: c.GetVersion(), CapacityBytes: c.GetCapacity(), UsedBytes: c.GetUsed(), Copysets: c.GetCopysets(),
		Leaders: c.GetLeaders(), DiskError: c.GetDiskError(), ClockSkewMs: c.GetClockSkewMs(),
		LastHeartbeatUnixMs: c.GetLastHeartbeatUnixMs(), AdminAddress: c.GetAdminAddress(),
		DiskSlow: c.GetDiskSlow(), Disk: newDiskOut(c.GetDisk()), Space: newDiskSpaceOut(c.GetSpace()),
	}
	switch c.GetState() {
	case metav1.ChunkserverState_CHUNKSERVER_STATE_UP:
		out.State = "up"
	case metav1.ChunkserverState_CHUNKSERVER_STATE_DOWN:
		out.State = "down"
	case metav1.ChunkserverState_CHUNKSERVER_STATE_DRAINING:
		out.State = "draining"
	}
	return out
}

func chunkserverCommand() *cobra.Command {
	return group("chunkserver", "Show chunkservers and move data off them", chunkserverList(), chunkserverShow(), chunkserverDrain(),
		chunkserverScrub())
}

func chunkserverList() *cobra.Command {
	return verb("list", "List the chunkservers", cobra.NoArgs, func(ctx context.Context, s *session, _ []string) error {
		r, err := s.admin.ListChunkservers(ctx, &metav1.ListChunkserversRequest{})
		if err != nil {
			return err
		}
		out := []chunkserverOut{}
		for _, c := range r.GetChunkservers() {
			out = append(out, newChunkserverOut(c))
		}
		return s.print(out, func(w io.Writer) {
			row(w, "ID", "ADDRESS", "STATE", "POOL", "ZONE", "USED", "CAPACITY", "COPYSETS", "LEADERS", "DISK", "HEARTBEAT")
			for _, c := range out {
				row(w, c.ID, c.Address, c.State, c.Pool, c.Zone, sizeText(c.UsedBytes), sizeText(c.CapacityBytes), c.Copysets, c.Leaders,
					c.diskState(), age(c.LastHeartbeatUnixMs))
			}
		})
	})
}

// parseID reads the id of a chunkserver or copyset.
func parseID(what, s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("%q is not the id of a %s: it is a number, see ashlar %s list", s, what, what)
	}
	return id, nil
}

// table shows the chunkserver.
func (c chunkserverOut) table(w io.Writer) {
	field(w, "Id", c.ID)
	field(w, "Address", c.Address)
	field(w, "State", c.State)
	field(w, "Pool", c.Pool)
	field(w, "Zone", c.Zone)
	field(w, "Server", c.Server)
	field(w, "Version", dash(c.Version))
	field(w, "Space", sizeText(c.UsedBytes)+" of "+sizeText(c.CapacityBytes)+" in use")
	if c.Space != nil {
		c.Space.table(w)
	}
	field(w, "Copysets", fmt.Sprintf("%d, leads %d", c.Copysets, c.Leaders))
	field(w, "Heartbeat", age(c.LastHeartbeatUnixMs))
	field(w, "Clock", fmt.Sprintf("%+d ms", c.ClockSkewMs))
	field(w, "Metrics", dash(c.AdminAddress))
	switch {
	case c.DiskError != "":
		field(w, "Disk", "failed: "+c.DiskError)
	case c.DiskSlow != "":
		field(w, "Disk", "slow: "+c.DiskSlow+"; "+c.Disk.text())
	default:
		field(w, "Disk", c.Disk.text())
	}
}

// chunkserverShowOut is a chunkserver with its copysets in JSON.
type chunkserverShowOut struct {
	chunkserverOut
	CopysetList []copysetOut `json:"copyset_list"`
	// Scrub is null when the chunkserver does not answer.
	Scrub *scrubOut `json:"scrub"`
}

func chunkserverShow() *cobra.Command {
	return verb("show ID", "Show a chunkserver and its copysets", cobra.ExactArgs(1), func(ctx context.Context, s *session, args []string) error {
		id, err := parseID("chunkserver", args[0])
		if err != nil {
			return err
		}
		r, err := s.admin.ShowChunkserver(ctx, &metav1.ShowChunkserverRequest{Id: id})
		if err != nil {
			return err
		}
		o := chunkserverShowOut{newChunkserverOut(r.GetChunkserver()), []copysetOut{}, nil}
		o.Scrub = askScrubs(ctx, []*metav1.Chunkserver{r.GetChunkserver()})[o.ID]
		for _, c := range r.GetCopysets() {
			o.CopysetList = append(o.CopysetList, newCopysetOut(c))
		}
		return s.print(o, func(w io.Writer) {
			o.table(w)
			if o.Scrub != nil {
				o.Scrub.table(w)
			}
			row(w)
			copysetTable(w, o.CopysetList)
		})
	})
}

func chunkserverDrain() *cobra.Command {
	q := &metav1.DrainChunkserverRequest{}
	c := verb("drain ID", "Move everything off a chunkserver; it goes on in the background", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			var err error
			if q.Id, err = parseID("chunkserver", args[0]); err != nil {
				return err
			}
			r, err := s.admin.DrainChunkserver(ctx, q)
			if err != nil {
				return err
			}
			o := newChunkserverOut(r)
			return s.print(o, o.table)
		})
	c.Flags().BoolVar(&q.Cancel, "cancel", false, "end the drain")
	return c
}

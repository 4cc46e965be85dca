package heartbeat

import (
	"cmp"
	"maps"
	"slices"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// report describes the chunkserver and all its copysets.
func (b *Beat) report() *metav1.ChunkserverHeartbeatRequest {
	cluster, d := b.id.Cluster(), b.cfg.Disk()
	r := &metav1.ChunkserverHeartbeatRequest{
		Id: uint64(b.id.Chunkserver()), ClusterId: cluster[:], Address: b.cfg.Address, AdminAddress: b.cfg.AdminAddress,
		Version: b.cfg.Version, TimeUnixMs: time.Now().UnixMilli(), ElectionRevision: b.id.Revision(),
		Capacity: uint64(max(d.Capacity, 0)), Used: uint64(max(d.Used, 0)), Disk: health(&d), Generation: b.id.Generation(),
		Space: space(&d.Space),
	}
	if d.Err != nil {
		r.DiskError = d.Err.Error()
	}
	all := b.host.Reports()
	if len(b.made) > len(all) {
		clear(b.made) // some are not here any more
	}
	r.Copysets = make([]*metav1.CopysetReport, 0, len(all))
	for i := range all {
		r.Copysets = append(r.Copysets, b.copyset(&all[i]))
	}
	return r
}

// made is the message about a copyset that was quiet when it was made.
type made struct {
	peer   layout.PeerID
	still  uint64
	digest *digest.Result
	msg    *metav1.CopysetReport
}

// copyset returns the message about a copyset. That about a quiet one is made once: most are quiet, and nothing changes in them.
func (b *Beat) copyset(g *multiraft.Report) *metav1.CopysetReport {
	d := b.cfg.Digest(g.Copyset)
	if d != nil && d.Peer != g.Peer {
		d = nil
	}
	if m := b.made[g.Copyset]; g.Still != 0 && m.still == g.Still && m.peer == g.Peer && m.digest == d {
		return m.msg
	}
	c := copysetReport(g)
	if d != nil {
		c.Digest = &metav1.ReplicaDigest{Index: d.Index, Format: d.Format, Sum: d.Sum[:]}
	}
	if g.Still != 0 {
		b.made[g.Copyset] = made{g.Peer, g.Still, d, c}
	}
	return c
}

func health(d *Disk) *metav1.DiskHealth {
	us := func(t time.Duration) uint64 { return uint64(max(t.Microseconds(), 0)) }
	return &metav1.DiskHealth{
		LogSyncs: uint64(d.Syncs.Count), LogSyncP50Us: us(d.Syncs.P50), LogSyncP99Us: us(d.Syncs.P99), LogSyncUsualUs: us(d.UsualSync),
		Reads: uint64(d.Reads.Count), ReadP50Us: us(d.Reads.P50), ReadP99Us: us(d.Reads.P99),
		StalledMs: uint64(d.Stalled.Milliseconds()), UsageAgeMs: uint64(d.Age.Milliseconds()),
	}
}

func space(s *Space) *metav1.DiskSpace {
	n := func(v int64) uint64 { return uint64(max(v, 0)) }
	return &metav1.DiskSpace{
		DataFile: n(s.DataFile), Content: n(s.Content), Versions: n(s.Versions), Incoming: n(s.Incoming), Logged: n(s.Logged),
		Reclaimable: n(s.Reclaimable), Spare: n(s.Spare), Holes: n(s.Holes), RaftLog: n(s.RaftLog), Index: n(s.Index),
		Blocks: n(s.Blocks), Pieces: n(s.Pieces), ScatteredChunks: n(s.ScatteredChunks), Moved: n(s.Moved), GivenBack: n(s.GivenBack),
		Reserved: n(s.Reserved),
	}
}

func copysetReport(g *multiraft.Report) *metav1.CopysetReport {
	c := &metav1.CopysetReport{
		Copyset: uint64(g.Copyset), Peer: uint64(g.Peer), Leader: g.Leading, LeaderPeer: uint64(g.LeaderPeer),
		Term: g.Term, Applied: g.Applied, Commit: g.Commit, ConfVersion: g.Members.Version,
	}
	for _, p := range slices.SortedFunc(maps.Keys(g.Members.Chunkservers), cmp.Compare) {
		role := metav1.PeerRole_PEER_ROLE_LEARNER
		if g.Members.Voter(p) {
			role = metav1.PeerRole_PEER_ROLE_VOTER
		}
		c.Peers = append(c.Peers, &metav1.Peer{
			Id: uint64(p), Chunkserver: uint64(g.Members.Chunkservers[p]), Role: role, Match: g.Match[p],
		})
	}
	for _, v := range slices.SortedFunc(maps.Keys(g.Usage), cmp.Compare[layout.VolumeID]) {
		c.Usage = append(c.Usage, &metav1.VolumeUsage{Volume: uint64(v), Allocated: uint64(g.Usage[v])})
	}
	if t := g.Sending; t != nil {
		c.SnapshotPeer, c.SnapshotDone, c.SnapshotTotal = uint64(t.Peer), uint64(t.Sent.Load()), uint64(t.Total)
	}
	if g.Err != nil {
		c.Error = g.Err.Error()
	}
	return c
}

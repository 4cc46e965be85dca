package metarpc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// What is a problem.
const (
	// skewMax: clocks that differ by more make logs hard to read and certificates fail; nothing else depends on them.
	skewMax = 500 * time.Millisecond
	// fullPercent: a disk beyond this takes no new copysets, fullUrgent: it will soon refuse writes.
	fullPercent, fullUrgent = 85, 95
	// movesMany: a path that moved more often in ten minutes points at two hosts with one name, or at a flapping link.
	movesMany = 10
)

// problems collects sentences.
type problems struct{ out []string }

func (p *problems) add(format string, args ...any) {
	p.out = append(p.out, fmt.Sprintf(format, args...))
}

// status answers ClusterStatus.
func (s *Server) status(t *running, p *picture) *metav1.ClusterStatusReply {
	out := &metav1.ClusterStatusReply{
		ClusterId: t.Topology.Cluster().String(), Version: s.o.Version, Copysets: uint32(len(p.cluster.Copysets)),
	}
	for i, c := range s.o.Candidates() {
		out.Metaservers = append(out.Metaservers, &metav1.Metaserver{
			Name: c.Name, Address: c.Address, Version: c.Version, Active: i == 0, SinceUnixMs: c.SinceUnixMs,
		})
	}
	for _, c := range p.cluster.Chunkservers {
		out.Chunkservers = append(out.Chunkservers, chunkserver(c))
		out.Capacity += c.Capacity
		out.Used += c.Used
	}
	for _, g := range p.cluster.Gateways {
		out.Gateways = append(out.Gateways, gateway(g))
	}
	for _, v := range p.names.Volumes {
		if !v.Deleting {
			out.Volumes++
			out.Provisioned += uint64(v.Size)
		}
	}
	for _, c := range p.cluster.Copysets {
		switch {
		case p.noQuorum(c):
			out.CopysetsWithoutQuorum++
		case degraded(c):
			out.CopysetsDegraded++
		}
	}
	out.Problems = s.problems(t, p)
	out.Healthy = len(out.Problems) == 0
	if len(out.Metaservers) < 2 {
		out.Notes = append(out.Notes, "There is no standby metaserver: if this one ends, volumes can not be created or attached until it is "+
			"started again; I/O goes on. Start a second metaserver for a quick take-over.")
	}
	return out
}

// degraded tells whether a copyset serves with fewer replicas than it should.
func degraded(c topology.Copyset) bool { return c.Live < c.Voters }

// problems returns what is wrong, why, and what to do.
func (s *Server) problems(t *running, p *picture) []string {
	out := &problems{}
	if p.young {
		out.add("This metaserver became active %v ago and is still waiting for heartbeats, so it can not tell who is down: ask again in %v.",
			p.cluster.Age.Round(100*time.Millisecond), (s.o.StartGrace-p.cluster.Age).Round(time.Second)+time.Second)
	} else {
		p.nodeProblems(out)
		p.copysetProblems(out)
	}
	p.diskProblems(out)
	p.versionProblems(out, s.o.Version)
	if !p.young {
		p.pendingProblems(out, t.Namespace.Pending())
	}
	p.pathProblems(out, t.Namespace)
	return out.out
}

// nodeProblems tells who is down and whose clock is wrong.
func (p *picture) nodeProblems(out *problems) {
	if len(p.cluster.Chunkservers) == 0 {
		out.add("No chunkserver has registered: start chunkservers in at least three zones with this metaserver's address.")
	} else if len(p.cluster.Copysets) == 0 {
		out.add("There are no copysets, so no volume can be created: they are made when chunkservers of at least three zones are up (see ashlar chunkserver list).")
	}
	for _, c := range p.cluster.Chunkservers {
		if !c.Up {
			out.add("Chunkserver %d (%s) is down, %s: start it again, or, if its disk is lost, drain it (ashlar chunkserver drain %d).",
				c.ID, c.Address, silent(c.Last), c.ID)
			continue
		}
		if c.Skew > skewMax || c.Skew < -skewMax {
			out.add("The clock of chunkserver %d (%s) differs from this metaserver's by %v: check its time synchronisation. Data is not at risk.",
				c.ID, c.Address, c.Skew.Round(time.Millisecond))
		}
		if c.Draining && c.Copysets > 0 {
			p.drainProblem(out, c)
		}
		if c.Strays > 0 {
			out.add("Chunkserver %d (%s) holds %d replicas that the cluster's records do not know; they are kept. This happens when etcd was restored "+
				"from an older backup: compare ashlar copyset list with the chunkserver's disk before you delete anything.", c.ID, c.Address, c.Strays)
		}
	}
	for _, g := range p.cluster.Gateways {
		switch {
		case !g.Up:
			out.add("Gateway %s (%s) is down, %s: its initiators use their other paths; start it again.", g.Name, strings.Join(g.Portals, ", "), silent(g.Last))
		case g.Skew > skewMax || g.Skew < -skewMax:
			out.add("The clock of gateway %s differs from this metaserver's by %v: check its time synchronisation. Data is not at risk.",
				g.Name, g.Skew.Round(time.Millisecond))
		}
	}
}

// drainProblem tells about a drain that does not go on.
func (p *picture) drainProblem(out *problems, c topology.Chunkserver) {
	for _, cs := range p.cluster.Copysets {
		if op := cs.Record.Op; op != nil && op.OldChunkserver == c.ID {
			return
		}
	}
	out.add("Chunkserver %d is being drained and nothing moves: %d copysets remain. No other chunkserver in a free zone of pool %q can take them; "+
		"add one, or end the drain (ashlar chunkserver drain %d --cancel).", c.ID, c.Copysets, c.Pool, c.ID)
}

func silent(last time.Time) string {
	if last.IsZero() {
		return "not heard of since this metaserver became active"
	}
	return "last heard of " + last.UTC().Format(time.RFC3339)
}

// diskProblems tells of bad and full disks.
func (p *picture) diskProblems(out *problems) {
	for _, c := range p.cluster.Chunkservers {
		switch {
		case c.DiskError != "" && c.Up:
			out.add("The disk of chunkserver %d (%s) has failed: %s. %s. Replace the disk and start the chunkserver with an empty directory.",
				c.ID, c.Address, c.DiskError, p.moving(c))
		case c.Slow != "" && c.Up:
			out.add("The disk of chunkserver %d (%s) is slow: %s. Others lead in its place. Look at the disk, its controller and what else uses it; "+
				"if it stays slow, move everything off it (ashlar chunkserver drain %d).", c.ID, c.Address, c.Slow, c.ID)
		}
		if c.Capacity == 0 {
			continue
		}
		switch used := c.Used * 100 / c.Capacity; {
		case used >= 100:
			out.add("The disk of chunkserver %d (%s) is full: writes to the copysets on it are refused (07/27/07) until data is deleted or unmapped there, "+
				"or copysets have moved to other chunkservers.", c.ID, c.Address)
		case used >= fullUrgent:
			out.add("The disk of chunkserver %d (%s) is %d %% full and will soon refuse writes: add chunkservers or delete data now.", c.ID, c.Address, used)
		case used >= fullPercent:
			out.add("The disk of chunkserver %d (%s) is %d %% full and takes no new copysets: add chunkservers or delete data.", c.ID, c.Address, used)
		}
	}
}

// moving says what becomes of the copysets of a disk that has failed.
func (p *picture) moving(c topology.Chunkserver) string {
	if c.Copysets == 0 {
		return "All its copysets have been moved to others"
	}
	for _, cs := range p.cluster.Copysets {
		if op := cs.Record.Op; op != nil && op.OldChunkserver == c.ID && op.NewChunkserver != c.ID {
			return fmt.Sprintf("Its copysets are being moved to others, %d remain", c.Copysets)
		}
	}
	return fmt.Sprintf("%d copysets lack a replica, and no other chunkserver in a free zone of pool %q can take them", c.Copysets, c.Pool)
}

// copysetProblems tells of copysets that do not serve or lack replicas, and of the volumes that wait for them.
func (p *picture) copysetProblems(out *problems) {
	var noQuorum, lacking []layout.CopysetID
	var example, lackingExample topology.Copyset
	for _, c := range p.cluster.Copysets {
		switch {
		case p.noQuorum(c):
			noQuorum, example = append(noQuorum, c.Record.ID), c
		case degraded(c):
			lacking, lackingExample = append(lacking, c.Record.ID), c
		}
	}
	if len(noQuorum) > 0 {
		out.add("%s without quorum: reads and writes there wait. For example %s. Start those chunkservers again.",
			copysetList(noQuorum), p.whyStalled(example.Record.ID, example, true))
	}
	if len(lacking) > 0 {
		out.add("%s with fewer replicas than they should have: data is safe, but one more failure may stop I/O. For example copyset %d: %s.",
			copysetList(lacking), lackingExample.Record.ID, p.dead(lackingExample))
	}
	p.digestProblems(out)
	for _, v := range p.names.Volumes {
		if why := p.stalled(v); why != "" {
			out.add("I/O of a part of volume %s waits: %s.", v.Name, why)
		}
	}
}

// digestProblems tells of replicas that do not hold the same.
func (p *picture) digestProblems(out *problems) {
	for _, c := range p.cluster.Copysets {
		v := c.Verdict
		switch id := c.Record.ID; {
		case !v.Differ:
		case len(v.Odd) > 0:
			out.add("The replicas of copyset %d differed at index %d: %s against a majority of the others. What is odd serves no more and is "+
				"replaced where the others are enough; ashlar copyset verify %d --last names the chunks.", id, v.Index, p.members(c, v.Odd), id)
		default:
			out.add("The replicas of copyset %d differed at index %d and no majority tells which is right (%s were compared): nothing was "+
				"changed. Start chunkservers that are down and run ashlar copyset verify %d, which names the chunks too.",
				id, v.Index, p.members(c, v.Compared), id)
		}
	}
}

// members is "peer 12 on chunkserver 3, peer 14 on chunkserver 5".
func (p *picture) members(c topology.Copyset, ids []layout.PeerID) string {
	var all []string
	for _, id := range ids {
		m, _ := c.Record.Peer(id)
		all = append(all, fmt.Sprintf("peer %d on chunkserver %d", id, m.Chunkserver))
	}
	return strings.Join(all, ", ")
}

func peerNumbers(ids []layout.PeerID) []uint64 {
	out := make([]uint64, 0, len(ids))
	for _, id := range ids {
		out = append(out, uint64(id))
	}
	return out
}

// copysetList is "Copyset 3 is" or "3 copysets (1, 2, 3) are".
func copysetList(ids []layout.CopysetID) string {
	if len(ids) == 1 {
		return fmt.Sprintf("Copyset %d is", ids[0])
	}
	var names []string
	for _, id := range ids[:min(len(ids), listMax)] {
		names = append(names, id.String())
	}
	if len(ids) > listMax {
		names = append(names, "…")
	}
	return fmt.Sprintf("%d copysets (%s) are", len(ids), strings.Join(names, ", "))
}

// versionProblems tells of versions that differ.
func (p *picture) versionProblems(out *problems, own string) {
	others := map[string][]string{}
	note := func(version, who string) {
		if version != "" && version != own {
			others[version] = append(others[version], who)
		}
	}
	for _, c := range p.cluster.Chunkservers {
		note(c.Version, fmt.Sprintf("chunkserver %d", c.ID))
	}
	for _, g := range p.cluster.Gateways {
		note(g.Version, "gateway "+g.Name)
	}
	var versions []string
	for v := range others {
		versions = append(versions, v)
	}
	slices.Sort(versions)
	for _, v := range versions {
		who := others[v]
		if len(who) > listMax {
			who = append(slices.Clone(who[:listMax]), fmt.Sprintf("%d more", len(who)-listMax))
		}
		out.add("%s run version %s, this metaserver %s: finish the upgrade.", strings.Join(who, ", "), v, own)
	}
}

// pendingProblems tells of copysets that were not told that access was taken away.
func (p *picture) pendingProblems(out *problems, pending []namespace.Pending) {
	for _, v := range pending {
		var waiting []layout.CopysetID
		for _, id := range v.Copysets {
			if c, ok := p.copysets[id]; !ok || p.noQuorum(c) {
				waiting = append(waiting, id)
			}
		}
		if len(waiting) == 0 {
			continue
		}
		what := "Access to volume %s was taken away, but %s without quorum and will be told when they serve again; until then nothing is read or written there."
		if v.Deleting {
			what = "Volume %s was deleted, but %s without quorum and will give its space back when they serve again."
		}
		out.add(what, v.Name, copysetList(waiting))
	}
}

// pathProblems tells of paths that move between gateways too often, and of volumes that initiators of too many names used.
func (p *picture) pathProblems(out *problems, n *namespace.Namespace) {
	now := time.Now()
	moving := n.Moving(movesMany)
	slices.SortFunc(moving, func(a, b *namespace.Attachment) int { return cmp.Compare(b.Moves(now), a.Moves(now)) })
	for _, a := range moving[:min(len(moving), listMax)] {
		name := a.Volume.String()
		if v := p.volumes[a.Volume]; v != nil {
			name = v.Name
		}
		out.add("The path of initiator %s to volume %s moved between gateways %d times in ten minutes: see whether two hosts use the same "+
			"initiator name (a cloned host), whether a path keeps failing, or whether the host uses several gateways by turns.", a.Initiator, name, a.Moves(now))
	}
	crowded := n.Crowded()
	for _, v := range crowded[:min(len(crowded), listMax)] {
		out.add("Volume %s is open to any initiator and was used under so many names that further ones are refused: see whether a host keeps "+
			"changing its name (ashlar volume show %s), and allow hosts by name (ashlar target allow).", v.Name, v.Name)
	}
}

package topology

import (
	"cmp"
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/metaserver/internal/replicas"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Chunkserver is a chunkserver as others see it.
type Chunkserver struct {
	ChunkserverRecord
	Up bool
	// Heard: a heartbeat came in this metaserver's term.
	Heard bool
	// Last is when the last one came, by the wall clock; zero when none did.
	Last           time.Time
	Version        string
	Capacity, Used uint64
	DiskError      string
	// Slow says why nothing is to be led on its disk, empty when that is not so.
	Slow              string
	Disk              schedule.Disk
	Space             Space
	Skew              time.Duration
	Copysets, Leaders int
	// Strays are the replicas that it has and that the records do not know.
	Strays int
}

// Space is what the bytes of a chunkserver's disk are for; metav1.DiskSpace says what the words mean. It is only passed on; its zero
// value was not told.
type Space struct {
	DataFile, Content, Versions, Incoming, Logged, Reclaimable, Spare, Holes uint64
	RaftLog, Index                                                           uint64
	Blocks, Pieces, ScatteredChunks                                          uint64
	Moved, GivenBack, Reserved                                               uint64
}

// Gateway is a gateway as others see it.
type Gateway struct {
	GatewayRecord
	Up       bool
	MayServe bool // it is up, or was not heard of yet while the metaserver is so young that it may be
	Last     time.Time
	Sessions uint32
	Version  string
	Skew     time.Duration
}

// Copyset is a copyset as others see it.
type Copyset struct {
	*schedule.State
	// Quorum and Live as in package schedule; Voters is how many there are.
	Quorum       bool
	Voters, Live int
	// Leaderless is for how long nobody has led, 0 while somebody does.
	Leaderless time.Duration
	// Step is the step of the operation, empty when there is none.
	Step string
	// Allocated is what all volumes use, in bytes of one copy.
	Allocated uint64
	// Verdict tells whether the replicas hold the same.
	Verdict replicas.Verdict
}

// View is a picture of the cluster at one moment. It is the caller's to keep; the records in it are not to be changed.
type View struct {
	// Age is for how long this metaserver has been active.
	Age          time.Duration
	Chunkservers []Chunkserver // by id
	Gateways     []Gateway     // by id
	Copysets     []Copyset     // by id
	// Usage is how many bytes of data each volume has, of one copy.
	Usage map[layout.VolumeID]uint64
}

// View takes a picture.
func (t *Topology) View() *View {
	t.mu.RLock()
	defer t.mu.RUnlock()
	cl := t.clusterLocked()
	now := t.o.Now()
	v := &View{Age: now.Sub(t.began), Usage: map[layout.VolumeID]uint64{}}
	leaders, members := map[layout.ChunkserverID]int{}, map[layout.ChunkserverID]int{}
	for _, st := range cl.Copysets {
		c := Copyset{State: st, Quorum: st.Quorum(cl)}
		c.Voters, c.Live = st.Voters(cl)
		c.Step, _, _ = schedule.Step(st)
		mem := t.mu.copysets[st.Record.ID]
		c.Verdict = mem.verdict
		for vol, n := range mem.usage {
			v.Usage[vol] += n
			c.Allocated += n
		}
		if st.Leader == nil {
			c.Leaderless = now.Sub(mem.leaderless)
		}
		leaders[st.LeaderOn]++
		for _, p := range st.Record.Peers {
			members[p.Chunkserver]++
		}
		v.Copysets = append(v.Copysets, c)
	}
	for id, s := range t.mu.servers {
		v.Chunkservers = append(v.Chunkservers, Chunkserver{
			ChunkserverRecord: *s.rec, Up: s.up, Heard: !s.beat.IsZero(), Last: s.wall, Version: s.version,
			Capacity: s.capacity, Used: s.used, DiskError: s.diskError, Slow: s.slow.Why, Disk: s.disk, Space: s.space, Skew: s.skew.value(),
			Copysets: members[id], Leaders: leaders[id], Strays: s.strays,
		})
	}
	slices.SortFunc(v.Chunkservers, func(a, b Chunkserver) int { return cmp.Compare(a.ID, b.ID) })
	for _, g := range t.mu.gateways {
		v.Gateways = append(v.Gateways, Gateway{
			GatewayRecord: *g.rec, Up: g.up, MayServe: t.mayServeLocked(g, now), Last: g.wall, Sessions: g.sessions, Version: g.version, Skew: g.skew.value(),
		})
	}
	slices.SortFunc(v.Gateways, func(a, b Gateway) int { return cmp.Compare(a.ID, b.ID) })
	return v
}

// Addresses returns where the chunkservers are.
func (t *Topology) Addresses() map[layout.ChunkserverID]string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make(map[layout.ChunkserverID]string, len(t.mu.servers))
	for id, s := range t.mu.servers {
		out[id] = s.rec.Address
	}
	return out
}

// Room is a copyset that can take data of new volumes.
type Room struct {
	ID layout.CopysetID
	// Free is the space left on the fullest chunkserver that has a peer, in bytes.
	Free uint64
	// Live: a majority of its replicas works.
	Live bool
}

// Rooms returns the copysets of a pool, by id, and whether the pool has any chunkserver.
func (t *Topology) Rooms(pool string) (rooms []Room, known bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	cl := t.clusterLocked()
	for _, s := range cl.Servers {
		known = known || s.Pool == pool
	}
	for _, st := range cl.Copysets {
		if st.Record.Pool != pool {
			continue
		}
		r := Room{ID: st.Record.ID, Free: 1<<64 - 1, Live: st.Quorum(cl)}
		for _, p := range st.Record.Peers {
			if s := cl.Servers[p.Chunkserver]; s != nil && s.Capacity > 0 {
				r.Free = min(r.Free, s.Capacity-min(s.Used, s.Capacity))
			}
		}
		rooms = append(rooms, r)
	}
	return rooms, known
}

// Members returns the records of all copysets, in no order. They are not to be changed.
func (t *Topology) Members() []*schedule.Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*schedule.Record, 0, len(t.mu.copysets))
	for _, c := range t.mu.copysets {
		out = append(out, c.rec)
	}
	return out
}

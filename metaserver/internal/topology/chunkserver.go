package topology

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/replicas"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Limits of what nodes send.
const (
	// chunkserversMax bounds the chunkservers of a cluster.
	chunkserversMax = 10000
	// nameMax bounds names of pools, zones and servers, versions and addresses, in bytes.
	nameMax = 255
	// reportsMax bounds the copysets of one heartbeat.
	reportsMax = 20000
	// errorMax bounds what is kept of an error's text, in bytes.
	errorMax = 1024
)

// ChunkserverRecord is what is stored of a chunkserver.
type ChunkserverRecord struct {
	ID           layout.ChunkserverID `json:"id"`
	UUID         [16]byte             `json:"uuid"`
	Address      string               `json:"address"`
	AdminAddress string               `json:"admin_address,omitempty"`
	Pool         string               `json:"pool"`
	Zone         string               `json:"zone"`
	Server       string               `json:"server"`
	Capacity     uint64               `json:"capacity"`
	Draining     bool                 `json:"draining,omitempty"`
	// Generation is what its directory had come to, at least; see Beat.
	Generation uint64 `json:"generation,omitempty"`
}

// generationStep: the record of a chunkserver is stored anew when the generation is so far above it. A metaserver that has
// just become active knows what is stored.
const generationStep = 10

// server is a chunkserver in memory.
type server struct {
	rec *ChunkserverRecord
	// copysets are those that the chunkserver has, gets or should give back.
	copysets map[layout.CopysetID]struct{}
	// beat is when the last heartbeat came (zero: none in this term); wall is the same for people.
	beat, wall     time.Time
	up             bool
	version        string
	capacity, used uint64
	diskError      string
	disk           schedule.Disk
	space          Space
	slow           schedule.Slowness
	generation     uint64
	skew           skew
	revision       int64
	strays         int
	// missing tells since when a copyset that should be reported is not.
	missing map[layout.CopysetID]time.Time
}

func newServer(rec *ChunkserverRecord) *server {
	return &server{
		rec: rec, capacity: rec.Capacity, generation: rec.Generation,
		copysets: map[layout.CopysetID]struct{}{}, missing: map[layout.CopysetID]time.Time{},
	}
}

// Registration is what a chunkserver says when it starts.
type Registration struct {
	// ID is 0 for a chunkserver that has none yet.
	ID layout.ChunkserverID
	// Cluster is zero for a chunkserver that belongs to none yet.
	Cluster               ClusterID
	UUID                  [16]byte
	Address, AdminAddress string
	Pool, Zone, Server    string
	Version               string
	Capacity              uint64
	// Generation as in Beat.
	Generation uint64
}

func (r *Registration) check(cluster ClusterID) error {
	switch {
	case r.UUID == [16]byte{}:
		return refuse.As(refuse.Invalid, "a chunkserver registers with a uuid of 16 bytes that are not all zero")
	case r.Address == "":
		return refuse.As(refuse.Invalid, "a chunkserver registers with the address at which others reach it")
	case r.Cluster != ClusterID{} && r.Cluster != cluster:
		return refuse.As(refuse.Foreign, "the disk belongs to cluster %s, this is cluster %s: connect the chunkserver to its own metaservers, "+
			"or give it an empty directory", r.Cluster, cluster)
	}
	for _, f := range []string{r.Address, r.AdminAddress, r.Pool, r.Zone, r.Server, r.Version} {
		if len(f) > nameMax {
			return refuse.As(refuse.Invalid, "%.40q… is longer than %d bytes", f, nameMax)
		}
	}
	return nil
}

// Register gives a chunkserver its id: a new one, or the one that its uuid got before.
func (t *Topology) Register(ctx context.Context, r Registration) (layout.ChunkserverID, error) {
	if err := r.check(t.cluster); err != nil {
		return 0, err
	}
	if r.Pool == "" {
		r.Pool = DefaultPool
	}
	if r.Server == "" {
		// Chunkservers on one machine are not told apart by their ports.
		if r.Server, _, _ = net.SplitHostPort(r.Address); r.Server == "" {
			r.Server = r.Address
		}
	}
	if r.Zone == "" {
		r.Zone = r.Server
	}
	var id layout.ChunkserverID
	err := t.update(ctx, func(x *tx) error {
		var err error
		id, err = t.register(x, &r)
		return err
	})
	if err != nil {
		return 0, err
	}
	t.o.Log.Info("chunkserver registered", zap.Uint64("chunkserver", uint64(id)), zap.String("address", r.Address),
		zap.String("pool", r.Pool), zap.String("zone", r.Zone))
	t.o.Changed()
	t.wake()
	return id, nil
}

// DefaultPool is the pool of chunkservers and volumes that name none.
const DefaultPool = "default"

func (t *Topology) register(x *tx, r *Registration) (layout.ChunkserverID, error) {
	t.mu.RLock()
	id, known := t.mu.uuids[r.UUID]
	byID := t.mu.servers[r.ID]
	n := len(t.mu.servers)
	t.mu.RUnlock()
	switch {
	case known && r.ID != 0 && r.ID != id:
		return 0, refuse.As(refuse.Foreign, "the disk says that it is chunkserver %d, but its uuid is that of chunkserver %d: "+
			"one disk was copied over another", r.ID, id)
	case !known && byID != nil:
		return 0, refuse.As(refuse.Foreign, "chunkserver %d is another disk: do not reuse the id of a chunkserver, start this one with "+
			"an empty directory", r.ID)
	case !known && n >= chunkserversMax:
		return 0, refuse.As(refuse.Exhausted, "the cluster has %d chunkservers, which is the limit", n)
	case !known && r.ID != 0:
		// The store forgot it, for example because etcd was restored from a backup. Its data is worth more than the record.
		t.o.Log.Warn("a chunkserver with an id of this cluster that is not on record is taken back", zap.Uint64("chunkserver", uint64(r.ID)))
		id = r.ID
		x.ids.Chunkserver = max(x.ids.Chunkserver, id+1)
	case !known:
		id = x.ids.Chunkserver
		x.ids.Chunkserver++
	}
	rec := &ChunkserverRecord{
		ID: id, UUID: r.UUID, Address: r.Address, AdminAddress: r.AdminAddress,
		Pool: r.Pool, Zone: r.Zone, Server: r.Server, Capacity: r.Capacity,
	}
	t.mu.RLock()
	old := t.mu.servers[id]
	rec.Generation = r.Generation
	if old != nil {
		rec.Draining, rec.Generation = old.rec.Draining, max(r.Generation, old.generation)
	}
	t.mu.RUnlock()
	if err := older(id, r.Generation, rec.Generation); err != nil {
		return 0, err
	}
	if old == nil || *old.rec != *rec {
		x.batch.Put(chunkserverTable, key(uint64(id)), rec)
	}
	x.apply = append(x.apply, func() {
		s := t.mu.servers[id]
		if s == nil {
			s = newServer(rec)
			t.mu.servers[id] = s
			t.mu.registered = t.o.Now()
			for cid, c := range t.mu.copysets {
				if slices.Contains(involved(c.rec), id) {
					s.copysets[cid] = struct{}{}
				}
			}
		}
		s.rec, s.version, s.capacity = rec, r.Version, r.Capacity
		t.mu.uuids[r.UUID] = id
		t.mu.hurry = true
	})
	return id, nil
}

// older refuses a chunkserver whose directory has not come as far as it was told to have: votes and entries that it has
// answered for are missing there. A chunkserver of an older release tells nothing, which is 0.
func older(id layout.ChunkserverID, have, known uint64) error {
	if have == 0 || have >= known {
		return nil
	}
	return refuse.As(refuse.Foreign, "the directory of chunkserver %d is an older copy, of generation %d, and the cluster has heard of %d: what the "+
		"chunkserver has voted and stored since is missing in it, so it must not serve. Put the newest directory back, or start it with an "+
		"empty one and drain chunkserver %d", id, have, known, id)
}

// Beat is a heartbeat of a chunkserver.
type Beat struct {
	ID                    layout.ChunkserverID
	Cluster               ClusterID
	Address, AdminAddress string
	Version               string
	// Time is the chunkserver's wall clock; zero: not told.
	Time           time.Time
	Capacity, Used uint64
	DiskError      string
	Disk           schedule.Disk
	Space          Space
	// Generation is how far the chunkserver's directory has come: it rises with each start and while it serves. 0: not told.
	Generation uint64
	// Revision is the highest election revision that the chunkserver has persisted.
	Revision int64
	Copysets []CopysetReport
}

// CopysetReport is what a chunkserver says of one copyset.
type CopysetReport struct {
	Copyset layout.CopysetID
	schedule.Report
	// Usage is how many bytes each volume has in the copyset; a leader sends it.
	Usage map[layout.VolumeID]uint64
	// Digest is the last one of the replica; its Index is 0 when there is none.
	Digest replicas.Digest
}

// StaleError says that a chunkserver has seen a later election than this metaserver's own.
type StaleError struct{ Seen, Own int64 }

func (e *StaleError) Error() string {
	return fmt.Sprintf("a chunkserver obeyed election revision %d, this metaserver's is %d", e.Seen, e.Own)
}

// Advice is the answer to a heartbeat: what the chunkserver is to do, and when it is to come again.
type Advice struct {
	Orders   []schedule.Order
	Interval time.Duration
	// Slow: its disk is much slower than those of the others.
	Slow bool
}

// Heartbeat takes the reports of a chunkserver and answers them.
func (t *Topology) Heartbeat(ctx context.Context, b *Beat) (Advice, error) {
	if b.Cluster != (ClusterID{}) && b.Cluster != t.cluster {
		return Advice{}, refuse.As(refuse.State, "chunkserver %d belongs to cluster %s, this is cluster %s", b.ID, b.Cluster, t.cluster)
	}
	if len(b.Copysets) > reportsMax {
		return Advice{}, refuse.As(refuse.Exhausted, "a heartbeat with %d copysets, the limit is %d", len(b.Copysets), reportsMax)
	}
	if b.Revision > t.Revision() {
		return Advice{}, &StaleError{Seen: b.Revision, Own: t.Revision()}
	}
	if err := t.moved(ctx, b); err != nil {
		return Advice{}, err
	}
	t.mu.Lock()
	s := t.mu.servers[b.ID]
	if s == nil {
		t.mu.Unlock()
		return Advice{}, refuse.As(refuse.NotFound, "chunkserver %d is not registered: register first", b.ID)
	}
	changed := t.takeLocked(s, b)
	a := Advice{Orders: t.ordersLocked(s), Slow: s.slow.Slow()}
	a.Interval = t.intervalLocked(s, a.Orders)
	t.mu.Unlock()
	if changed {
		t.o.Changed()
	}
	return a, nil
}

// The times between heartbeats.
const (
	beatCalm = time.Second
	beatBusy = 200 * time.Millisecond
)

// intervalLocked lets a chunkserver come again soon while something is under way.
func (t *Topology) intervalLocked(s *server, orders []schedule.Order) time.Duration {
	calm := min(beatCalm, t.o.DownAfter/4)
	if len(orders) > 0 || len(t.mu.copysets) == 0 {
		return min(beatBusy, calm)
	}
	for id := range s.copysets {
		if c := t.mu.copysets[id]; c.rec.Op != nil || !c.rec.Founded {
			return min(beatBusy, calm)
		}
	}
	return calm
}

// moved stores a new address of a chunkserver that its heartbeat tells, or how far its directory has come.
func (t *Topology) moved(ctx context.Context, b *Beat) error {
	t.mu.RLock()
	s := t.mu.servers[b.ID]
	same := s == nil || b.Address == "" || b.Address == s.rec.Address &&
		(b.AdminAddress == "" || b.AdminAddress == s.rec.AdminAddress)
	recent := s != nil && s.up && b.Address != "" && b.Address != s.rec.Address
	var known uint64
	if s != nil {
		known = s.generation
		same = same && b.Generation < s.rec.Generation+generationStep
	}
	t.mu.RUnlock()
	err := older(b.ID, b.Generation, known)
	switch {
	case err != nil && !recent:
		return err
	case same:
		return nil
	case recent:
		return refuse.As(refuse.State, "chunkserver %d is up at %s, and %s says that it is the same one: stop one of them "+
			"(was a disk copied?), or register again", b.ID, s.rec.Address, b.Address)
	case len(b.Address) > nameMax || len(b.AdminAddress) > nameMax:
		return refuse.As(refuse.Invalid, "an address is longer than %d bytes", nameMax)
	}
	err = t.update(ctx, func(x *tx) error {
		t.mu.RLock()
		rec := *t.mu.servers[b.ID].rec
		t.mu.RUnlock()
		if b.Address != "" {
			rec.Address = b.Address
		}
		rec.Generation = max(rec.Generation, b.Generation)
		if b.AdminAddress != "" {
			rec.AdminAddress = b.AdminAddress
		}
		x.batch.Put(chunkserverTable, key(uint64(rec.ID)), &rec)
		x.apply = append(x.apply, func() { t.mu.servers[rec.ID].rec = &rec })
		return nil
	})
	if err == nil {
		t.o.Changed()
	}
	return err
}

// takeLocked takes a heartbeat in. It returns whether gateways must know.
func (t *Topology) takeLocked(s *server, b *Beat) bool {
	now := t.o.Now()
	changed := !s.up
	if !s.up {
		t.mu.hurry = true
	}
	s.beat, s.wall, s.up = now, now, true
	s.version, s.used, s.revision, s.disk = b.Version, b.Used, b.Revision, b.Disk
	s.space = b.Space
	s.generation = max(s.generation, b.Generation)
	if b.Capacity > 0 {
		s.capacity = b.Capacity
	}
	if b.DiskError != s.diskError {
		s.diskError, t.mu.hurry = b.DiskError[:min(len(b.DiskError), errorMax)], true
	}
	s.skew.add(b.Time, now)
	reported := make(map[layout.CopysetID]struct{}, len(b.Copysets))
	s.strays = 0
	for i := range b.Copysets {
		r := &b.Copysets[i]
		reported[r.Copyset] = struct{}{}
		changed = t.reportLocked(s, r) || changed
	}
	for id := range s.copysets {
		if _, ok := reported[id]; ok {
			delete(s.missing, id)
			continue
		}
		if s.missing[id].IsZero() {
			s.missing[id] = now
		}
		if c := t.mu.copysets[id]; c.reports[s.rec.ID] != nil {
			delete(c.reports, s.rec.ID)
			delete(c.failing, s.rec.ID)
			changed = t.leaderLocked(c) || changed
			t.mu.dirty[id] = struct{}{}
		}
	}
	return changed
}

package topology

import (
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Tables of the store.
const (
	clusterTable     = "cluster"
	idsTable         = "ids"
	chunkserverTable = "chunkserver"
	copysetTable     = "copyset"
	gatewayTable     = "gateway"
)

// tickEvery is how often Run looks for work.
const tickEvery = 100 * time.Millisecond

// planEvery is how often the whole cluster is looked at when nothing hurries.
const planEvery = time.Second

// Options say how the cluster is kept.
type Options struct {
	Store *metastore.Store
	Log   *zap.Logger
	// Arrange says how many replicas a copyset and how many copysets a chunkserver has.
	Arrange schedule.Arrangement
	// Limits bound membership changes.
	Limits schedule.Limits
	// DownAfter: a chunkserver or gateway whose heartbeats stay away for longer is down.
	DownAfter time.Duration
	// Settle: copysets are made when no chunkserver has registered for this long, so that those that start together
	// share them.
	Settle time.Duration
	// LeaderMoves is the least time between two moves of leaders for balance; 0: leaders are not moved.
	LeaderMoves time.Duration
	// Changed is called when something changed that gateways must know; it must not block. It may be nil.
	Changed func()
	// Now is the clock; nil: time.Now. Only differences on the monotonic clock decide anything.
	Now func() time.Time
	// Rand arranges copysets; nil: a random seed.
	Rand *mrand.Rand
}

// ids are the next free ones.
type ids struct {
	Chunkserver layout.ChunkserverID `json:"chunkserver"`
	Copyset     layout.CopysetID     `json:"copyset"`
	Peer        layout.PeerID        `json:"peer"`
	Gateway     uint64               `json:"gateway"`
}

// ClusterID is the cluster's id.
type ClusterID [16]byte

func (c ClusterID) String() string { return fmt.Sprintf("%x", c[:]) }

// Topology is the state of one term as the active metaserver. It is safe for use by several goroutines.
type Topology struct {
	o       Options
	cluster ClusterID
	began   time.Time
	// turn is the token of the writer.
	turn chan struct{}
	// kick wakes Run.
	kick chan struct{}

	mu struct {
		sync.RWMutex
		ids      ids
		servers  map[layout.ChunkserverID]*server
		uuids    map[[16]byte]layout.ChunkserverID
		copysets map[layout.CopysetID]*copyset
		gateways map[uint64]*gateway
		// grown: gateways that were not heard of are down.
		grown bool
		// dirty are the copysets whose reports changed since the last Tick.
		dirty map[layout.CopysetID]struct{}
		// registered is when a chunkserver last registered that was not known.
		registered time.Time
		// hurry: the whole cluster is to be looked at in the next Tick.
		hurry bool
		// differences counts how often replicas were found to differ.
		differences uint64
		planned     time.Time
		move        leaderMove
		// looked is when the disks were last looked at; away says who is to lead what slow ones lead.
		looked time.Time
		away   map[layout.CopysetID]layout.PeerID
	}
}

// leaderMove is the move of a leader under way.
type leaderMove struct {
	copyset layout.CopysetID
	to      layout.PeerID
	began   time.Time
	recent  map[layout.CopysetID]time.Time
}

// Open loads the topology, and makes the cluster's id if there is none.
func Open(ctx context.Context, o Options) (*Topology, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Rand == nil {
		o.Rand = mrand.New(mrand.NewPCG(mrand.Uint64(), mrand.Uint64()))
	}
	t := &Topology{o: o, began: o.Now(), turn: make(chan struct{}, 1), kick: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	t.mu.servers = map[layout.ChunkserverID]*server{}
	t.mu.uuids = map[[16]byte]layout.ChunkserverID{}
	t.mu.copysets = map[layout.CopysetID]*copyset{}
	t.mu.gateways = map[uint64]*gateway{}
	t.mu.dirty = map[layout.CopysetID]struct{}{}
	t.mu.move.recent = map[layout.CopysetID]time.Time{}
	t.mu.registered = t.began
	t.mu.ids = ids{Chunkserver: 1, Copyset: 1, Peer: 1, Gateway: 1}
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	return t, t.ensureCluster(ctx)
}

// load reads all records. Nobody else sees t yet.
func (t *Topology) load(ctx context.Context) error {
	s := t.o.Store
	err := metastore.LoadAll(ctx, s, idsTable, func(key string, v *ids) error {
		if key == "topology" {
			t.mu.ids = *v
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = metastore.LoadAll(ctx, s, chunkserverTable, func(_ string, v *ChunkserverRecord) error {
		t.mu.servers[v.ID] = newServer(v)
		t.mu.uuids[v.UUID] = v.ID
		return nil
	})
	if err != nil {
		return err
	}
	err = metastore.LoadAll(ctx, s, copysetTable, func(_ string, v *schedule.Record) error {
		t.setCopysetLocked(v)
		return nil
	})
	if err != nil {
		return err
	}
	err = metastore.LoadAll(ctx, s, gatewayTable, func(_ string, v *GatewayRecord) error {
		t.mu.gateways[v.ID] = &gateway{rec: v}
		return nil
	})
	if err != nil {
		return err
	}
	return metastore.LoadAll(ctx, s, clusterTable, func(_ string, v *ClusterID) error {
		t.cluster = *v
		return nil
	})
}

// ensureCluster makes the cluster's id.
func (t *Topology) ensureCluster(ctx context.Context) error {
	if t.cluster != (ClusterID{}) {
		return nil
	}
	var id ClusterID
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails: it ends the process instead
	var b metastore.Batch
	b.Put(clusterTable, "id", id)
	if err := t.o.Store.Commit(ctx, &b); err != nil {
		return err
	}
	t.cluster = id
	t.o.Log.Info("new cluster", zap.Stringer("cluster", id))
	return nil
}

// Cluster returns the cluster's id.
func (t *Topology) Cluster() ClusterID { return t.cluster }

// Revision returns the election revision that orders carry.
func (t *Topology) Revision() int64 { return t.o.Store.Revision() }

// tx is a change of records that is being put together.
type tx struct {
	batch metastore.Batch
	ids   ids
	// apply makes memory follow, under mu.
	apply []func()
}

// update runs f with the turn of the writer, commits what f put into the batch, and makes memory follow. f reads what it
// needs under mu itself, and must not keep mu.
func (t *Topology) update(ctx context.Context, f func(*tx) error) error {
	select {
	case <-t.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { t.turn <- struct{}{} }()
	x := &tx{}
	t.mu.RLock()
	x.ids = t.mu.ids
	t.mu.RUnlock()
	before := x.ids
	if err := f(x); err != nil {
		return err
	}
	if x.ids != before {
		x.batch.Put(idsTable, "topology", x.ids)
	}
	if err := t.o.Store.Commit(ctx, &x.batch); err != nil {
		return err
	}
	t.mu.Lock()
	t.mu.ids = x.ids
	for _, a := range x.apply {
		a()
	}
	t.mu.Unlock()
	return nil
}

// Run advances what is under way until ctx ends, and returns ctx's error, or that of the store when it is of no more use.
// What etcd refuses, for example because it has no space, is tried again.
func (t *Topology) Run(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-t.kick:
		}
		err := t.Tick(ctx)
		switch {
		case err == nil:
			failing = false
		case metastore.Final(err) || ctx.Err() != nil:
			return err
		case !failing:
			failing = true
			t.o.Log.Error("what the reports ask for can not be stored, trying again", zap.Error(err))
		}
	}
}

// wake makes Run look for work now.
func (t *Topology) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

func key(id uint64) string { return fmt.Sprintf("%016x", id) }

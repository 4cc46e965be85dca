package metaserver

import (
	"context"
	"fmt"
	"time"

	"github.com/ashlar-storage/ashlar/metaserver/internal/metarpc"
	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/schedule"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// directEvery is how often the raiser's directory is brought up to date at least.
const directEvery = time.Second

// term holds the parts of one time of being active.
type term struct {
	s         *Server
	topology  *topology.Topology
	namespace *namespace.Namespace
	exports   *metarpc.Exports
	// router is nil when the process brought a raiser of its own.
	router *chunkclient.Router
	kick   chan struct{}
}

// changed tells the parts that follow the records. It does not block.
func (t *term) changed() {
	t.exports.Changed()
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// open loads the records.
func (t *term) open(ctx context.Context, store *metastore.Store) error {
	var err error
	t.exports = metarpc.NewExports(t.s.log)
	if t.topology, err = topology.Open(ctx, t.s.topologyOptions(store, t.changed)); err != nil {
		return err
	}
	raiser := t.s.o.Raiser
	if raiser == nil {
		cluster := t.topology.Cluster()
		t.router = chunkclient.NewRouter(chunkclient.Options{Cluster: cluster[:]})
		raiser = routed{t.router}
	}
	t.namespace, err = namespace.Open(ctx, namespace.Options{
		Store: store, Log: t.s.log, Space: t.topology, Raiser: raiser, Sealer: t.s.sealer, Changed: t.changed,
	})
	return err
}

func (t *term) close() {
	if t.router != nil {
		t.router.Close()
	}
}

// direct keeps the raiser's directory until ctx ends.
func (t *term) direct(ctx context.Context) error {
	tick := time.NewTicker(directEvery)
	defer tick.Stop()
	for {
		if t.router != nil {
			t.router.SetDirectory(t.directory())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.kick:
		case <-tick.C:
		}
	}
}

// directory says where copysets are.
func (t *term) directory() chunkclient.Directory {
	d := chunkclient.Directory{Members: map[layout.CopysetID][]layout.ChunkserverID{}, Addresses: t.topology.Addresses()}
	for _, c := range t.topology.Members() {
		for _, p := range c.Peers {
			if p.Role == schedule.Voter {
				d.Members[c.ID] = append(d.Members[c.ID], p.Chunkserver)
			}
		}
	}
	return d
}

// routed is the Raiser that asks the leaders of copysets.
type routed struct{ r *chunkclient.Router }

func (r routed) RaiseAccess(ctx context.Context, c layout.CopysetID, v layout.VolumeID, gen layout.AccessGeneration) error {
	return r.do(ctx, &chunkclient.Request{
		Op: chunkclient.RaiseAccess, Copyset: c, Chunk: layout.ChunkID{Volume: v}, AccessGeneration: gen,
	})
}

func (r routed) DeleteVolume(ctx context.Context, c layout.CopysetID, v layout.VolumeID) error {
	return r.do(ctx, &chunkclient.Request{
		Op: chunkclient.DeleteVolume, Copyset: c, Chunk: layout.ChunkID{Volume: v}, AccessGeneration: layout.DeletedAccess,
	})
}

func (r routed) do(ctx context.Context, q *chunkclient.Request) error {
	resp, err := r.r.Do(ctx, q, nil)
	switch {
	case err != nil:
		return err
	case resp.Status == chunkclient.OK:
		return nil
	case resp.Status == chunkclient.StaleAccess && q.Op == chunkclient.RaiseAccess:
		// A later generation was raised already.
		return nil
	}
	return fmt.Errorf("copyset %d answered with status %d %s", q.Copyset, resp.Status, resp.Message)
}

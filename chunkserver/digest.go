package chunkserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// compareTimeout bounds how long a digest entry is waited for.
const compareTimeout = 10 * time.Second

// errNotLeading means that another chunkserver leads the copyset, or none.
var errNotLeading = errors.New("chunkserver: it does not lead the copyset")

// reply is where the reply to one proposal goes.
type reply chan multiraft.Reply

// Done implements multiraft.Waiter.
func (r reply) Done(v multiraft.Reply) { r <- v }

// compare has each replica of a copyset that is led here note what it holds, and returns when the entry that asks for it is
// applied here. errNotLeading, multiraft.ErrNoGroup, or why the group does not take it.
func compare(ctx context.Context, host *multiraft.Host, id layout.CopysetID) error {
	g := host.Group(id)
	switch {
	case g == nil:
		return multiraft.ErrNoGroup
	case !g.Leading():
		return errNotLeading
	}
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	done := make(reply, 1)
	g.Propose(&copyset.Command{Op: copyset.OpDigest}, done)
	select {
	case r := <-done:
		switch {
		case r.Status == multiraft.NotLeader:
			return errNotLeading
		case r.Status != multiraft.Done || r.Outcome.Code != copyset.OK:
			return errors.Join(fmt.Errorf("chunkserver: copyset %d does not take a digest now", id), r.Err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Compare implements scrub.Disk: who leads asks for all.
func (d scrubbed) Compare(ctx context.Context, id layout.CopysetID) error {
	err := compare(ctx, d.p.host, id)
	if errors.Is(err, errNotLeading) || errors.Is(err, multiraft.ErrNoGroup) {
		return nil
	}
	return err
}

// Digest implements chunkv1.ScrubServer.
func (v *scrubService) Digest(ctx context.Context, r *chunkv1.DigestRequest) (*chunkv1.DigestReply, error) {
	if err := v.meant(r.GetChunkserver()); err != nil {
		return nil, err
	}
	id := layout.CopysetID(r.GetCopyset())
	if r.GetStart() {
		err := v.ready()
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		switch err = v.compare(ctx, id); {
		case errors.Is(err, multiraft.ErrNoGroup):
			return nil, status.Errorf(codes.NotFound, "chunkserver %d has no replica of copyset %d", v.self, id)
		case errors.Is(err, errNotLeading):
			return nil, status.Errorf(codes.FailedPrecondition, "chunkserver %d does not lead copyset %d", v.self, id)
		case err != nil:
			return nil, status.Error(codes.Unavailable, err.Error())
		}
	}
	last, asked := v.digests.Last(id)
	if asked == 0 {
		return nil, status.Errorf(codes.NotFound, "chunkserver %d has no digest of copyset %d since it was started", v.self, id)
	}
	return digestReply(last, asked), nil
}

func digestReply(d *digest.Result, asked uint64) *chunkv1.DigestReply {
	out := &chunkv1.DigestReply{Asked: asked}
	if d == nil {
		return out
	}
	out.Peer, out.Index, out.Format, out.Sum, out.State = uint64(d.Peer), d.Index, d.Format, d.Sum[:], d.State[:]
	out.EndedUnixMs, out.Blocks, out.TookUs = unixMs(d.Ended), d.Blocks, uint64(d.Took.Microseconds())
	out.Chunks = make([]*chunkv1.ChunkDigest, 0, len(d.Chunks))
	for _, c := range d.Chunks {
		out.Chunks = append(out.Chunks, &chunkv1.ChunkDigest{
			Volume: uint64(c.ID.Volume), Chunk: c.ID.Index, Blocks: c.Blocks, Sum: binary.LittleEndian.Uint64(c.Sum[:]),
		})
	}
	return out
}

// digestMetrics are the counters of digests.
func digestMetrics(c *digest.Counters, counter func(name, help string, f func() float64) prometheus.Collector) []prometheus.Collector {
	return []prometheus.Collector{
		counter("digests_total", "Digests of replicas that were computed, to compare them with the others.",
			func() float64 { return float64(c.Computed.Load()) }),
		counter("digest_blocks_total", "Blocks whose checksums went into them.", func() float64 { return float64(c.Blocks.Load()) }),
		counter("digest_seconds_total", "The time that they took, in seconds.", func() float64 { return float64(c.Nanos.Load()) / 1e9 }),
		counter("digests_dropped_total", "Digests that were not made: too many waited, or an extent map could not be read.",
			func() float64 { return float64(c.Dropped.Load()) }),
	}
}

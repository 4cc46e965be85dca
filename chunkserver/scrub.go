package chunkserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/scrub"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// newScrubber returns the scrubber of the opened parts.
func (s *Server) newScrubber(p *parts) *scrub.Scrubber {
	return scrub.New(scrub.Config{
		FS: s.opts.FS, Dir: s.cfg.Dir, Interval: s.cfg.Scrub.Interval, RateMax: s.cfg.Scrub.RateMax, Logger: s.log,
	}, scrubbed{p})
}

// scrubbed is a chunkserver as its scrubber sees it.
type scrubbed struct{ p *parts }

func (d scrubbed) Err() error                   { return d.p.host.Err() }
func (d scrubbed) Copysets() []layout.CopysetID { return d.p.store.Copysets() }
func (d scrubbed) Used() int64                  { return d.p.store.Usage().Used }

func (d scrubbed) Copyset(id layout.CopysetID) (scrub.Content, error) {
	c, err := d.p.store.Copyset(id)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (d scrubbed) Repair(ctx context.Context, e *blockstore.ChecksumError) error {
	g := d.p.host.Group(e.Copyset)
	if g == nil {
		return fmt.Errorf("chunkserver: copyset %d has no peer here", e.Copyset)
	}
	if e.Version == 0 {
		return d.p.host.Repair(ctx, g, e)
	}
	return d.repairVersion(ctx, g.Members(), e)
}

// repairVersion asks the other peers, one after the other, for a block as a version has it. No entry can change it, so nobody has
// to wait for the applier.
func (d scrubbed) repairVersion(ctx context.Context, m *copyset.Members, e *blockstore.ChecksumError) error {
	c, err := d.p.store.Copyset(e.Copyset)
	if err != nil {
		return err
	}
	err = fmt.Errorf("chunkserver: copyset %d has no other peer: %w", e.Copyset, e)
	for _, peer := range slices.Sorted(maps.Keys(m.Chunkservers)) {
		cs := m.Chunkservers[peer]
		if cs == d.p.id.Chunkserver() {
			continue
		}
		data, failed := d.p.net.ReadVersion(ctx, cs, e.Copyset, e.Version, e.Chunk, e.Block*layout.BlockSize, layout.BlockSize)
		if failed == nil {
			failed = c.RepairVersion(e.Version, e.Chunk, e.Block*layout.BlockSize, data)
		}
		if err = failed; err == nil {
			return nil
		}
	}
	return err
}

// Requests counts what gateways ask, and the log's syncs for what this chunkserver follows.
func (d scrubbed) Requests() uint64 {
	st := d.p.rpc.Stats()
	return st.Reads.Load() + st.Writes.Load() + st.Others.Load() + d.p.log.Syncs()
}

// scrubService serves the Scrub service of api/chunk/v1.
type scrubService struct {
	chunkv1.UnimplementedScrubServer
	self    layout.ChunkserverID
	scrub   *scrub.Scrubber
	digests *digest.Runner
	compare func(ctx context.Context, id layout.CopysetID) error
	ready   func() error
}

// meant tells whether a request is for this chunkserver.
func (v *scrubService) meant(id uint64) error {
	if id != uint64(v.self) {
		return status.Errorf(codes.FailedPrecondition, "this is chunkserver %d, not %d", v.self, id)
	}
	return nil
}

// Scrub implements chunkv1.ScrubServer.
func (v *scrubService) Scrub(_ context.Context, r *chunkv1.ScrubRequest) (*chunkv1.ScrubReply, error) {
	if err := v.meant(r.GetChunkserver()); err != nil {
		return nil, err
	}
	if err := v.scrub.Err(); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	var asked uint64
	if r.GetStart() {
		err := v.ready()
		if err == nil {
			asked, err = v.scrub.Start()
		}
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
	}
	reply := scrubReply(v.scrub.Status())
	if asked != 0 {
		reply.Pass = asked
	}
	return reply, nil
}

func scrubReply(st scrub.Status) *chunkv1.ScrubReply {
	return &chunkv1.ScrubReply{
		Pass: st.Pass, Running: st.Running, Tally: scrubTally(st.Tally), Last: scrubTally(st.Last), LastPass: st.LastPass,
		BeganUnixMs: unixMs(st.Began), EndedUnixMs: unixMs(st.Ended), NextUnixMs: unixMs(st.Next),
		Used: uint64(max(st.Used, 0)), Rate: uint64(max(st.Rate, 0)),
		Findings: scrubFindings(st.Findings), Unrepairable: scrubFindings(st.Bad),
	}
}

func scrubTally(t scrub.Tally) *chunkv1.ScrubTally {
	return &chunkv1.ScrubTally{
		VerifiedBlocks: uint64(t.Verified), DamagedBlocks: uint64(t.Damaged), RepairedBlocks: uint64(t.Repaired),
		UnrepairableBlocks: uint64(t.Unrepairable), SkippedChunks: uint64(t.Skipped),
	}
}

func scrubFindings(all []scrub.Finding) []*chunkv1.ScrubFinding {
	var out []*chunkv1.ScrubFinding
	for _, f := range all {
		out = append(out, &chunkv1.ScrubFinding{
			Copyset: uint64(f.Copyset), Volume: uint64(f.Volume), Chunk: f.Chunk, Block: f.Block, TimeUnixMs: unixMs(f.Time),
			Repaired: f.Repaired, Problem: f.Problem, Error: f.Error, ContentVersion: f.Version,
		})
	}
	return out
}

// unixMs returns a time in ms since 1970, 0 for the zero time.
func unixMs(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

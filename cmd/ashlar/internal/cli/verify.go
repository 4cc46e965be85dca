package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

const (
	// digestBytesMax bounds an answer, in bytes: 30 for each chunk.
	digestBytesMax = 64 << 20
	// digestPoll is how often a digest that is being computed is asked for.
	digestPoll = 100 * time.Millisecond
	// chunksShown is how many chunks a table has; JSON has all.
	chunksShown = 20
)

// errDiffer says that replicas differ; what was printed says where.
var errDiffer = errors.New("the replicas differ: see ashlar cluster status for what becomes of them")

// verifyOut is a comparison in JSON.
type verifyOut struct {
	Copyset uint64 `json:"copyset"`
	// Index is where in the log the replicas were compared.
	Index    uint64       `json:"index"`
	Equal    bool         `json:"equal"`
	Replicas []replicaOut `json:"replicas"`
	// NotCompared says of the chunkservers whose replicas were not compared why.
	NotCompared []string `json:"not_compared"`
	// StateDiffers: what is remembered of initiators and members is not the same.
	StateDiffers bool           `json:"state_differs"`
	Chunks       []chunkDiffers `json:"chunks"`
}

type replicaOut struct {
	Chunkserver uint64 `json:"chunkserver"`
	Peer        uint64 `json:"peer"`
	Digest      string `json:"digest"`
	Blocks      uint64 `json:"blocks"`
	Chunks      int    `json:"chunks"`
	TookUs      uint64 `json:"took_us"`
}

// chunkDiffers is a chunk that is not the same everywhere: what each chunkserver has of it.
type chunkDiffers struct {
	Volume  uint64      `json:"volume"`
	Chunk   uint32      `json:"chunk"`
	Replica []chunkHeld `json:"replicas"`
}

type chunkHeld struct {
	Chunkserver uint64 `json:"chunkserver"`
	Blocks      uint32 `json:"blocks"`
	Digest      string `json:"digest"`
}

// compareDigests compares what chunkservers, by id, said, at the newest index of which two or more have a digest.
func compareDigests(copyset uint64, all map[uint64]*chunkv1.DigestReply) *verifyOut {
	type place struct {
		index  uint64
		format uint32
	}
	o := &verifyOut{Copyset: copyset, Equal: true, Replicas: []replicaOut{}, NotCompared: []string{}, Chunks: []chunkDiffers{}}
	count := map[place]int{}
	var at place
	for _, d := range all {
		p := place{d.GetIndex(), d.GetFormat()}
		if count[p]++; count[p] > 1 && p.index >= at.index {
			at = p
		}
	}
	o.Index = at.index
	same := map[uint64]*chunkv1.DigestReply{}
	var first *chunkv1.DigestReply
	for _, id := range slices.Sorted(maps.Keys(all)) {
		d := all[id]
		if (place{d.GetIndex(), d.GetFormat()}) != at || at.index == 0 {
			o.NotCompared = append(o.NotCompared, fmt.Sprintf("chunkserver %d: its digest is of index %d, format %d", id, d.GetIndex(), d.GetFormat()))
			continue
		}
		if first == nil {
			first = d
		}
		o.Equal = o.Equal && slices.Equal(d.GetSum(), first.GetSum())
		o.StateDiffers = o.StateDiffers || !slices.Equal(d.GetState(), first.GetState())
		o.Replicas = append(o.Replicas, replicaOut{
			id, d.GetPeer(), hex.EncodeToString(d.GetSum()), d.GetBlocks(), len(d.GetChunks()), d.GetTookUs(),
		})
		same[id] = d
	}
	if !o.Equal {
		o.Chunks = differing(same)
	}
	return o
}

// differing returns the chunks that are not the same on all.
func differing(all map[uint64]*chunkv1.DigestReply) []chunkDiffers {
	type chunk struct {
		volume uint64
		index  uint32
	}
	held := map[chunk]map[uint64]*chunkv1.ChunkDigest{}
	for id, d := range all {
		for _, c := range d.GetChunks() {
			k := chunk{c.GetVolume(), c.GetChunk()}
			if held[k] == nil {
				held[k] = map[uint64]*chunkv1.ChunkDigest{}
			}
			held[k][id] = c
		}
	}
	out := []chunkDiffers{}
	for k, by := range held {
		d := chunkDiffers{Volume: k.volume, Chunk: k.index}
		sums := map[chunkHeld]struct{}{}
		for _, id := range slices.Sorted(maps.Keys(all)) {
			h := chunkHeld{Blocks: by[id].GetBlocks(), Digest: fmt.Sprintf("%016x", by[id].GetSum())}
			sums[h] = struct{}{}
			h.Chunkserver = id
			d.Replica = append(d.Replica, h)
		}
		if len(sums) > 1 {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b chunkDiffers) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(a.Chunk, b.Chunk))
	})
	return out
}

func (o *verifyOut) table(w io.Writer) {
	field(w, "Copyset", o.Copyset)
	field(w, "Compared at", fmt.Sprintf("index %d", o.Index))
	result := "the replicas hold the same"
	switch {
	case len(o.Replicas) < 2:
		result = "nothing could be compared"
	case !o.Equal:
		result = "THE REPLICAS DIFFER"
	}
	field(w, "Result", result)
	for _, r := range o.Replicas {
		field(w, fmt.Sprintf("Peer %d", r.Peer), fmt.Sprintf("chunkserver %d, %s in %d chunks, digest %s, computed in %v",
			r.Chunkserver, sizeText(r.Blocks*blockBytes), r.Chunks, r.Digest, time.Duration(r.TookUs)*time.Microsecond))
	}
	for _, n := range o.NotCompared {
		field(w, "Not compared", n)
	}
	if o.StateDiffers {
		field(w, "State", "what is remembered of initiators and members differs")
	}
	if len(o.Chunks) == 0 {
		return
	}
	row(w)
	row(w, "DIFFERING", "VOLUME", "CHUNK", "BLOCKS:DIGEST@CHUNKSERVER")
	for _, c := range o.Chunks[:min(len(o.Chunks), chunksShown)] {
		var all []string
		for _, h := range c.Replica {
			all = append(all, fmt.Sprintf("%d:%s@%d", h.Blocks, h.Digest, h.Chunkserver))
		}
		row(w, "", c.Volume, c.Chunk, strings.Join(all, " "))
	}
	if n := len(o.Chunks) - chunksShown; n > 0 {
		row(w, "", fmt.Sprintf("and %d more", n))
	}
}

func copysetVerify() *cobra.Command {
	var last bool
	c := verb("verify COPYSET", "Compare the replicas of a copyset at one place of its log", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			id, err := parseID("copyset", args[0])
			if err != nil {
				return err
			}
			o, err := s.verify(ctx, id, last)
			if err != nil {
				return err
			}
			if err := s.print(o, o.table); err != nil {
				return err
			}
			switch {
			case !o.Equal:
				return errDiffer
			case len(o.Replicas) < 2:
				return errors.New("fewer than two replicas could be compared: start the chunkservers that are down")
			}
			return nil
		})
	c.Flags().BoolVar(&last, "last", false, "only show the last comparison, also of replicas that were replaced since")
	return c
}

// verify compares the replicas of a copyset now, or shows the last comparison.
func (s *session) verify(ctx context.Context, id uint64, last bool) (*verifyOut, error) {
	c, err := s.admin.ShowCopyset(ctx, &metav1.ShowCopysetRequest{Id: id})
	if err != nil {
		return nil, err
	}
	r, err := s.admin.ListChunkservers(ctx, &metav1.ListChunkserversRequest{})
	if err != nil {
		return nil, err
	}
	address := map[uint64]string{}
	var missing []string
	for _, cs := range r.GetChunkservers() {
		member := slices.ContainsFunc(c.GetPeers(), func(p *metav1.Peer) bool { return p.GetChunkserver() == cs.GetId() })
		switch down := cs.GetState() == metav1.ChunkserverState_CHUNKSERVER_STATE_DOWN; {
		case !down && (member || last):
			address[cs.GetId()] = cs.GetAddress()
		case down && member:
			missing = append(missing, fmt.Sprintf("chunkserver %d: it is down", cs.GetId()))
		}
	}
	var index uint64
	if !last {
		if index, err = s.startDigest(ctx, id, address); err != nil {
			return nil, err
		}
	}
	all := map[uint64]*chunkv1.DigestReply{}
	for _, cs := range slices.Sorted(maps.Keys(address)) {
		d, err := awaitDigest(ctx, cs, address[cs], id, index)
		switch {
		case err == nil:
			all[cs] = d
		case !last || status.Code(err) != codes.NotFound:
			missing = append(missing, err.Error())
		}
	}
	o := compareDigests(id, all)
	o.NotCompared = append(missing, o.NotCompared...)
	return o, nil
}

// startDigest has the leader of a copyset ask its replicas, and returns the index at which they are compared. Leadership may be
// on its way from one to another, so it waits a little for one that leads.
func (s *session) startDigest(ctx context.Context, id uint64, address map[uint64]string) (uint64, error) {
	wait, cancel := context.WithTimeout(ctx, scrubAsk)
	defer cancel()
	for {
		c, err := s.admin.ShowCopyset(ctx, &metav1.ShowCopysetRequest{Id: id})
		if err != nil {
			return 0, err
		}
		err = fmt.Errorf("copyset %d has no leader, which has to ask its replicas: see ashlar cluster status", id)
		if lead := c.GetLeader(); address[lead] != "" {
			var d *chunkv1.DigestReply
			if d, err = askDigest(ctx, lead, address[lead], id, true); err == nil {
				return d.GetAsked(), nil
			}
			switch status.Code(err) {
			case codes.FailedPrecondition, codes.Unavailable: // another one leads by now, or will: it hands over, or is gone
			default:
				return 0, err
			}
		}
		select {
		case <-wait.Done():
			return 0, err
		case <-time.After(pollEvery):
		}
	}
}

// awaitDigest asks a chunkserver until it has the digest of an index, or a later one; 0: the last one.
func awaitDigest(ctx context.Context, cs uint64, address string, copyset, index uint64) (*chunkv1.DigestReply, error) {
	ctx, cancel := context.WithTimeout(ctx, scrubAsk)
	defer cancel()
	for {
		d, err := askDigest(ctx, cs, address, copyset, false)
		if err == nil && d.GetIndex() >= max(index, 1) {
			return d, nil
		}
		if err != nil && (index == 0 || status.Code(err) != codes.NotFound) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("chunkserver %d: no digest of index %d within %v", cs, index, scrubAsk)
		case <-time.After(digestPoll):
		}
	}
}

// askDigest asks the chunkserver itself.
func askDigest(ctx context.Context, cs uint64, address string, copyset uint64, start bool) (*chunkv1.DigestReply, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(digestBytesMax)))
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	r, err := chunkv1.NewScrubClient(conn).Digest(ctx, &chunkv1.DigestRequest{Chunkserver: cs, Copyset: copyset, Start: start})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, &verbError{fmt.Sprintf("chunkserver %d does not know digests: it runs an older version, upgrade it", cs), err}
	case err != nil:
		return nil, &verbError{fmt.Sprintf("chunkserver %d at %s: %s", cs, address, status.Convert(err).Message()), err}
	}
	return r, nil
}

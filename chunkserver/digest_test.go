package chunkserver

import (
	"bytes"
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// digest asks a chunkserver for the digest of copyset 1.
func (b *testbed) digest(id layout.ChunkserverID, start bool) (*chunkv1.DigestReply, error) {
	c := b.dial(id)
	defer c.close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return chunkv1.NewScrubClient(c.conn).Digest(ctx, &chunkv1.DigestRequest{Chunkserver: uint64(id), Copyset: 1, Start: start})
}

// digests waits until each has a digest of one index, that one or a later one.
func (b *testbed) digests(index uint64) map[layout.ChunkserverID]*chunkv1.DigestReply {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		out, same := map[layout.ChunkserverID]*chunkv1.DigestReply{}, true
		for id := range b.nodes {
			r, err := b.digest(id, false)
			if err != nil && status.Code(err) != codes.NotFound {
				b.t.Fatal(err)
			}
			out[id] = r
			same = same && err == nil && r.GetIndex() >= index && r.GetIndex() == out[id].GetIndex() && r.GetAsked() == r.GetIndex()
		}
		if same && out[1].GetIndex() == out[2].GetIndex() && out[2].GetIndex() == out[3].GetIndex() {
			return out
		}
	}
	b.t.Fatal("no digests of one index")
	return nil
}

// forge stops a chunkserver and puts other data into a block of it, with a checksum that fits, so that nothing but a comparison
// can tell. What was applied up to index is not replayed over it.
func (b *testbed) forge(id layout.ChunkserverID, block uint32, index uint64) {
	b.t.Helper()
	opts := blockstore.DefaultOptions()
	opts.Capacity, opts.Reserve = 4<<30, 64<<20
	var s *blockstore.Store
	var c *blockstore.Copyset
	for try := 0; ; try++ {
		time.Sleep(500 * time.Millisecond) // for a checkpoint
		b.halt(id)
		var err error
		if s, err = blockstore.Open(vfs.OS(), b.nodes[id].dir+"/store", blockstore.Identity{Cluster: testCluster, Chunkserver: id}, opts); err != nil {
			b.t.Fatal(err)
		}
		if c, err = s.Copyset(1); err != nil {
			b.t.Fatal(err)
		}
		at, _ := c.Applied()
		if at >= index {
			break
		}
		if err := s.Close(); err != nil || try == 10 {
			b.t.Fatalf("the checkpoint is at %d, want %d: %v", at, index, err)
		}
		b.start(id)
	}
	forged := bytes.Repeat([]byte("other..."), layout.BlockSize/8)
	if err := c.Write(layout.ChunkID{Volume: 9, Index: 2}, block*layout.BlockSize, forged, nil); err != nil {
		b.t.Fatal(err)
	}
	if err := s.Commit([]*blockstore.Frozen{c.Freeze(c.State())}); err != nil {
		b.t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.start(id)
}

// TestDigests: the replicas of three chunkservers have the same digest, also when it is the scrub that asks; one that holds
// something else, with checksums that fit, has another, in the chunk where it does.
func TestDigests(t *testing.T) {
	b := newTestbedOf(t, 1, 20*time.Millisecond)
	id := b.leader()
	if _, err := b.digest(id, false); status.Code(err) != codes.NotFound {
		t.Errorf("before the first: %v", err)
	}
	if _, err := b.digest(id%3+1, true); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("asked of a follower: %v", err)
	}
	c := b.dial(id)
	for i := range uint32(4) {
		data := bytes.Repeat([]byte{byte(i + 1)}, layout.BlockSize)
		if r := c.do(request(chunkv1.Op_OP_WRITE, i*40, uint64(i+1), data)); r[uint64(i+2)].GetStatus() != chunkv1.Status_STATUS_OK {
			t.Fatal(r)
		}
	}
	c.close()
	asked, err := b.digest(id, true)
	if err != nil || asked.GetAsked() == 0 {
		t.Fatal(asked, err)
	}
	got := b.digests(asked.GetAsked())
	for id, d := range got {
		if !bytes.Equal(d.GetSum(), got[1].GetSum()) || len(d.GetSum()) != 16 || d.GetBlocks() != 4 || len(d.GetChunks()) != 1 || d.GetPeer() != uint64(id) {
			t.Fatalf("chunkserver %d: %v, 1: %v", id, d, got[1])
		}
	}
	for id := range b.nodes {
		b.scrub(id)
	}
	got = b.digests(asked.GetAsked() + 1)
	if !bytes.Equal(got[1].GetSum(), got[2].GetSum()) || !bytes.Equal(got[2].GetSum(), got[3].GetSum()) {
		t.Fatalf("after the scrub: %v", got)
	}

	odd := id%3 + 1
	b.forge(odd, 40, got[odd].GetIndex())
	id = b.leader()
	if asked, err = b.digest(id, true); err != nil {
		t.Fatal(err)
	}
	got = b.digests(asked.GetAsked())
	good := odd%3 + 1
	if bytes.Equal(got[odd].GetSum(), got[good].GetSum()) || !bytes.Equal(got[odd].GetState(), got[good].GetState()) ||
		got[odd].GetChunks()[0].GetSum() == got[good].GetChunks()[0].GetSum() {
		t.Fatalf("the odd one: %v, another: %v", got[odd], got[good])
	}
	if third := good%3 + 1; !bytes.Equal(got[third].GetSum(), got[good].GetSum()) {
		t.Fatalf("two that are right: %v, %v", got[third], got[good])
	}
	if l := b.scrub(odd).GetLast(); l.GetDamagedBlocks() != 0 {
		t.Errorf("the scrub sees the forged block: %v", l)
	}
}

package chunkserver

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// damage flips a bit in each copy of want in the data file of a chunkserver, and returns how many there were.
func (b *testbed) damage(id layout.ChunkserverID, want []byte) (n int) {
	b.t.Helper()
	return b.copies(id, want, true)
}

// copies counts the copies of want in the data file of a chunkserver, and flips a bit in each if flip is set.
func (b *testbed) copies(id layout.ChunkserverID, want []byte, flip bool) (n int) {
	b.t.Helper()
	f, err := os.OpenFile(b.nodes[id].dir+"/store/blocks", os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	buf := make([]byte, layout.BlockSize)
	for off := int64(layout.BlockSize); off < 64<<20; off += layout.BlockSize {
		if _, err := f.ReadAt(buf, off); err != nil {
			break
		}
		if bytes.Equal(buf, want) {
			if n++; !flip {
				continue
			}
			if _, err := f.WriteAt([]byte{want[99] ^ 8}, off+99); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	if err := f.Sync(); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// scrub asks a chunkserver for a pass and waits for it.
func (b *testbed) scrub(id layout.ChunkserverID) *chunkv1.ScrubReply {
	b.t.Helper()
	c := b.dial(id)
	defer c.close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := chunkv1.NewScrubClient(c.conn)
	r, err := client.Scrub(ctx, &chunkv1.ScrubRequest{Chunkserver: uint64(id), Start: true})
	if err != nil {
		b.t.Fatal(err)
	}
	for pass := r.GetPass(); r.GetLastPass() < pass; time.Sleep(10 * time.Millisecond) {
		if r, err = client.Scrub(ctx, &chunkv1.ScrubRequest{Chunkserver: uint64(id)}); err != nil {
			b.t.Fatal(err)
		}
	}
	return r
}

// TestScrub damages a block on every chunkserver in turn: its scrub finds it, though nobody reads it, and repairs it from a
// peer. Damaged on all of them it is told, until it is written anew.
func TestScrub(t *testing.T) {
	b := newTestbedOf(t, 1, 20*time.Millisecond)
	id := b.leader()
	c := b.dial(id)
	data := bytes.Repeat([]byte("ashlar!!"), 16*layout.BlockSize/8) // large enough to go to the file at once
	const first = 20
	special := bytes.Repeat([]byte("special."), layout.BlockSize/8)
	copy(data[5*layout.BlockSize:], special)
	w := request(chunkv1.Op_OP_WRITE, first, 1, data)
	w.Length = uint32(len(data))
	if r := c.do(w)[2]; r.GetStatus() != chunkv1.Status_STATUS_OK {
		t.Fatal(r)
	}
	c.close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		n := 0
		for _, r := range b.nodes {
			if g := r.s.mu.host.Group(1); g != nil && g.Applied() >= b.nodes[id].s.mu.host.Group(1).Applied() {
				n++
			}
		}
		if n == len(b.nodes) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the followers do not apply")
		}
	}
	for id := range b.nodes {
		if n := b.damage(id, special); n != 1 {
			t.Fatalf("chunkserver %d has %d copies of the block", id, n)
		}
		r := b.scrub(id)
		l := r.GetLast()
		if l.GetVerifiedBlocks() < 16 || l.GetDamagedBlocks() != 1 || l.GetRepairedBlocks() != 1 || len(r.GetUnrepairable()) != 0 {
			t.Fatalf("chunkserver %d: %v", id, r)
		}
		if f := r.GetFindings()[0]; f.GetCopyset() != 1 || f.GetVolume() != 9 || f.GetChunk() != 2 || f.GetBlock() != first+5 || !f.GetRepaired() {
			t.Errorf("chunkserver %d found %v", id, f)
		}
		if r = b.scrub(id); r.GetLast().GetDamagedBlocks() != 0 {
			t.Errorf("chunkserver %d, once more: %v", id, r)
		}
	}
	for at, r := range b.nodes { // a repaired block has two places, of which one is in memory until a checkpoint
		for end := time.Now().Add(10 * time.Second); b.copies(at, special, false) != 2; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the repaired block is not in the file of chunkserver %d: %v", at, r.s.Ready())
			}
		}
		b.damage(at, special)
	}
	if r := b.scrub(id); r.GetLast().GetUnrepairableBlocks() != 1 || len(r.GetUnrepairable()) != 1 || r.GetUnrepairable()[0].GetError() == "" {
		t.Fatalf("damaged on all: %v", r)
	}
	c = b.dial(b.leader())
	defer c.close()
	if r := c.do(request(chunkv1.Op_OP_WRITE, first+5, 2, special))[3]; r.GetStatus() != chunkv1.Status_STATUS_OK {
		t.Fatal(r)
	}
	if r := b.scrub(id); r.GetLast().GetDamagedBlocks() != 0 || len(r.GetUnrepairable()) != 0 {
		t.Fatalf("written anew: %v", r)
	}
}

// TestScrubVersions: a block that only a version has is found damaged, and repaired from a peer that has the version; one that has
// not can not help.
func TestScrubVersions(t *testing.T) {
	b := newTestbedOf(t, 1, 20*time.Millisecond)
	c := b.dial(b.leader())
	defer c.close()
	special, other := bytes.Repeat([]byte("special."), layout.BlockSize/8), bytes.Repeat([]byte("another."), layout.BlockSize/8)
	until := func(what string, f func(g *multiraft.Group, cs *blockstore.Copyset) bool) {
		t.Helper()
		end := time.Now().Add(10 * time.Second)
		for id, r := range b.nodes {
			for {
				done := false
				g := r.s.mu.host.Group(1)
				if err := g.Own(t.Context(), func(cs *blockstore.Copyset) error { done = f(g, cs); return nil }); err != nil {
					t.Fatal(err)
				}
				if done {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("chunkserver %d: not %s", id, what)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	is := func(want []byte) func(*multiraft.Group, *blockstore.Copyset) bool {
		return func(_ *multiraft.Group, cs *blockstore.Copyset) bool {
			got := make([]byte, layout.BlockSize)
			_, err := cs.Read(layout.ChunkID{Volume: 9, Index: 2}, 20*layout.BlockSize, got, nil)
			return err == nil && bytes.Equal(got, want)
		}
	}
	if r := c.do(request(chunkv1.Op_OP_WRITE, 20, 1, special))[2]; r.GetStatus() != chunkv1.Status_STATUS_OK {
		t.Fatal(r)
	}
	until("written", is(special))
	without := layout.ChunkserverID(3)
	for id, r := range b.nodes {
		if id == without {
			continue
		}
		if err := r.s.mu.host.Group(1).Own(t.Context(), func(cs *blockstore.Copyset) error { return cs.TakeVersion(9, 7) }); err != nil {
			t.Fatal(err)
		}
	}
	if r := c.do(request(chunkv1.Op_OP_WRITE, 20, 2, other))[3]; r.GetStatus() != chunkv1.Status_STATUS_OK {
		t.Fatal(r)
	}
	until("overwritten", is(other))
	until("durable", func(_ *multiraft.Group, cs *blockstore.Copyset) bool { return !cs.Changed() })
	for _, id := range []layout.ChunkserverID{1, 2} {
		if n := b.damage(id, special); n != 1 {
			t.Fatalf("chunkserver %d has %d copies of the block", id, n)
		}
		r := b.scrub(id)
		f := r.GetFindings()
		if r.GetLast().GetDamagedBlocks() != 1 || r.GetLast().GetRepairedBlocks() != 1 || len(f) != 1 || f[0].GetContentVersion() != 7 ||
			f[0].GetBlock() != 20 || f[0].GetChunk() != 2 || f[0].GetVolume() != 9 || !f[0].GetRepaired() {
			t.Fatalf("chunkserver %d: %v", id, r)
		}
		if n := b.copies(id, special, false); n != 1 {
			t.Errorf("chunkserver %d has %d copies of the repaired block", id, n)
		}
	}
	if r := b.scrub(without); r.GetLast().GetDamagedBlocks() != 0 || r.GetLast().GetVerifiedBlocks() != 1 {
		t.Errorf("where nobody took the version: %v", r)
	}
}

// TestScrubRefuses: another chunkserver is not scrubbed by mistake.
func TestScrubRefuses(t *testing.T) {
	b := newTestbed(t, 1)
	c := b.dial(1)
	defer c.close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := chunkv1.NewScrubClient(c.conn).Scrub(ctx, &chunkv1.ScrubRequest{Chunkserver: 2, Start: true})
	if status.Code(err) != codes.FailedPrecondition {
		t.Fatal(err)
	}
}

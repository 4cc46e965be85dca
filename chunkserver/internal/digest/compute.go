package digest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Version is that of the digest. It rises when equal replicas would get another sum.
const Version = 1

// Sum is a digest of a replica, or of its state.
type Sum [16]byte

// Chunk is a digest of one chunk.
type Chunk struct {
	ID layout.ChunkID
	// Blocks is how many it has.
	Blocks uint32
	Sum    [8]byte
}

// Content is the frozen content of a replica; *blockstore.Image is one.
type Content interface {
	Applied() (index, term uint64)
	State() []byte
	// NextSums returns the next blocks without their data, in order; io.EOF after the last.
	NextSums() (blockstore.BlockRun, error)
	Close()
}

// Result is what a replica held.
type Result struct {
	Copyset layout.CopysetID
	Peer    layout.PeerID
	Index   uint64
	Format  uint32
	Sum     Sum
	State   Sum
	Chunks  []Chunk
	Blocks  uint64
	// Took is how long it took to compute, Ended when it was done.
	Took  time.Duration
	Ended time.Time
}

// Compute returns the digest of a content.
func Compute(ctx context.Context, id layout.CopysetID, peer layout.PeerID, c Content) (*Result, error) {
	r := &Result{Copyset: id, Peer: peer}
	r.Index, _ = c.Applied()
	if len(c.State()) == 0 {
		return nil, errors.New("digest: no state")
	}
	r.Format = Version<<8 | uint32(c.State()[0])
	state := sha256.Sum256(c.State())
	copy(r.State[:], state[:])
	if err := r.chunks(ctx, c); err != nil {
		return nil, err
	}
	r.seal()
	return r, nil
}

// chunks computes the digests of the chunks.
func (r *Result) chunks(ctx context.Context, c Content) error {
	h := sha256.New()
	var cur *Chunk
	for ctx.Err() == nil {
		run, err := c.NextSums()
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return err
		}
		if cur != nil && (end || run.Chunk != cur.ID) {
			cur.end(h)
			cur = nil
		}
		if end {
			return nil
		}
		if cur == nil {
			r.Chunks = append(r.Chunks, Chunk{ID: run.Chunk})
			cur = &r.Chunks[len(r.Chunks)-1]
		}
		cur.add(h, &run)
		r.Blocks += uint64(len(run.CRCs))
	}
	return ctx.Err()
}

func (c *Chunk) add(h hash.Hash, run *blockstore.BlockRun) {
	var b [8]byte
	for i, crc := range run.CRCs {
		binary.LittleEndian.PutUint32(b[:], run.First+uint32(i))
		binary.LittleEndian.PutUint32(b[4:], crc)
		_, _ = h.Write(b[:]) // never fails
	}
	c.Blocks += uint32(len(run.CRCs))
}

// end takes the sum and makes h ready for the next chunk.
func (c *Chunk) end(h hash.Hash) {
	var all [sha256.Size]byte
	copy(c.Sum[:], h.Sum(all[:0]))
	h.Reset()
}

// seal computes the sum of everything.
func (r *Result) seal() {
	le := binary.LittleEndian
	h := sha256.New()
	b := le.AppendUint32(nil, r.Format)
	b = le.AppendUint64(le.AppendUint64(b, uint64(r.Copyset)), r.Index)
	_, _ = h.Write(append(b, r.State[:]...)) // never fails
	for _, c := range r.Chunks {
		b = le.AppendUint64(b[:0], uint64(c.ID.Volume))
		b = le.AppendUint32(le.AppendUint32(b, c.ID.Index), c.Blocks)
		_, _ = h.Write(append(b, c.Sum[:]...))
	}
	copy(r.Sum[:], h.Sum(nil))
}

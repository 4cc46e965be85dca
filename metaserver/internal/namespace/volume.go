package namespace

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/bits"
	mrand "math/rand/v2"
	"slices"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Limits of volumes.
const (
	volumesMax = 100_000
	// sizeMax is the largest volume, in bytes.
	sizeMax = 1 << 50
	// chunkSizeMin and chunkSizeMax bound the chunk size, in bytes.
	chunkSizeMin, chunkSizeMax = 64 << 10, 256 << 20
	stripeCountMax             = 64
	// copysetsMax bounds the list of copysets of one range.
	copysetsMax = 256
	// rangesMax bounds how often a volume grows by new chunks.
	rangesMax = 1000
	// nameMax bounds a volume's name, in bytes.
	nameMax = 128
)

// firstAccess is the access generation of a new volume.
const firstAccess layout.AccessGeneration = 1

// companyID is the company id of the NAA designators; see the package comment.
const companyID = 0x02A51A

// VolumeRecord is what is stored of a volume.
type VolumeRecord struct {
	ID           layout.VolumeID         `json:"id"`
	Name         string                  `json:"name"`
	Pool         string                  `json:"pool"`
	Size         int64                   `json:"size"`
	ChunkSize    uint32                  `json:"chunk_size"`
	StripeUnit   uint32                  `json:"stripe_unit"`
	StripeCount  uint32                  `json:"stripe_count"`
	Ranges       []layout.Range          `json:"ranges"`
	LogicalBlock uint32                  `json:"logical_block"`
	NAA          [16]byte                `json:"naa"`
	Serial       string                  `json:"serial"`
	Access       layout.AccessGeneration `json:"access"`
	// CreatedUnixMs is for people to read.
	CreatedUnixMs int64 `json:"created_unix_ms"`
	Deleting      bool  `json:"deleting,omitempty"`
	// Pending are the copysets that have not been told of Access (or of the deletion) yet.
	Pending []layout.CopysetID `json:"pending,omitempty"`
	// Request names the call that made the volume, so that its repetition is answered and not refused.
	Request string `json:"request,omitempty"`
}

// copysets returns the copysets in which the volume may have chunks, each once, by id.
func (v *VolumeRecord) copysets() []layout.CopysetID {
	var out []layout.CopysetID
	for _, r := range v.Ranges {
		out = append(out, r.Copysets...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// layoutMap returns the placement.
func (v *VolumeRecord) layoutMap() *layout.Map {
	return &layout.Map{
		Volume: v.ID, Size: v.Size, ChunkSize: v.ChunkSize, StripeUnit: v.StripeUnit, StripeCount: v.StripeCount, Ranges: v.Ranges,
	}
}

// NewVolume is what is asked for; zero fields mean the default.
type NewVolume struct {
	Name         string
	Size         uint64
	ChunkSize    uint32
	StripeUnit   uint32
	StripeCount  uint32
	LogicalBlock uint32
	Pool         string
	// Request names the call.
	Request string
}

// fill sets the defaults and checks what was asked for.
func (q *NewVolume) fill() error {
	if q.ChunkSize == 0 {
		q.ChunkSize = layout.DefaultChunkSize
	}
	if q.StripeUnit == 0 {
		q.StripeUnit = q.ChunkSize
	}
	if q.StripeCount == 0 {
		q.StripeCount = 1
	}
	if q.LogicalBlock == 0 {
		q.LogicalBlock = 512
	}
	if q.Pool == "" {
		q.Pool = topology.DefaultPool
	}
	if err := checkVolumeName(q.Name); err != nil {
		return err
	}
	switch {
	case q.LogicalBlock != 512 && q.LogicalBlock != 4096:
		return refuse.As(refuse.Invalid, "the logical block size is 512 or 4096 bytes, not %d", q.LogicalBlock)
	case bits.OnesCount32(q.ChunkSize) != 1 || q.ChunkSize < chunkSizeMin || q.ChunkSize > chunkSizeMax:
		return refuse.As(refuse.Invalid, "the chunk size is a power of two from %d to %d bytes, not %d", chunkSizeMin, chunkSizeMax, q.ChunkSize)
	case q.StripeUnit%layout.BlockSize != 0 || q.ChunkSize%q.StripeUnit != 0:
		return refuse.As(refuse.Invalid, "the stripe unit %d is not a multiple of %d that divides the chunk size %d",
			q.StripeUnit, layout.BlockSize, q.ChunkSize)
	case q.StripeCount > stripeCountMax:
		return refuse.As(refuse.Invalid, "a stripe goes across 1 to %d chunks, not %d", stripeCountMax, q.StripeCount)
	}
	return checkSize(q.Size, q.LogicalBlock, q.ChunkSize, q.StripeCount)
}

// checkSize tells why a volume can not have a size.
func checkSize(size uint64, block, chunk, stripes uint32) error {
	switch {
	case size == 0:
		return refuse.As(refuse.Invalid, "a volume has a size: say how many bytes, for example 4GiB")
	case size%uint64(block) != 0:
		return refuse.As(refuse.Invalid, "the size %d is not a multiple of the logical block size, %d bytes", size, block)
	case size > sizeMax:
		return refuse.As(refuse.Invalid, "the size %d is more than the largest volume, %d bytes", size, int64(sizeMax))
	case layout.ChunksFor(int64(size), chunk, stripes) >= math.MaxUint32:
		return refuse.As(refuse.Invalid, "a volume of %d bytes needs too many chunks of %d bytes: choose larger chunks", size, chunk)
	}
	return nil
}

// CreateVolume makes a volume. It uses no space until it is written.
func (n *Namespace) CreateVolume(ctx context.Context, q NewVolume) (*VolumeRecord, error) {
	if err := q.fill(); err != nil {
		return nil, err
	}
	var rec *VolumeRecord
	err := n.update(ctx, func(x *tx) error {
		if id, ok := n.mu.names[q.Name]; ok {
			old := n.mu.volumes[id]
			if q.Request == "" || old.Request != q.Request {
				return refuse.As(refuse.Exists, "there is a volume %q already", q.Name)
			}
			rec = old
			return nil
		}
		if len(n.mu.volumes) >= volumesMax {
			return refuse.As(refuse.Exhausted, "the cluster has %d volumes, which is the limit", len(n.mu.volumes))
		}
		chunks := uint32(layout.ChunksFor(int64(q.Size), q.ChunkSize, q.StripeCount))
		list, err := n.place(q.Pool, chunks)
		if err != nil {
			return err
		}
		rec = &VolumeRecord{
			ID: x.ids.Volume, Name: q.Name, Pool: q.Pool, Size: int64(q.Size), ChunkSize: q.ChunkSize,
			StripeUnit: q.StripeUnit, StripeCount: q.StripeCount, LogicalBlock: q.LogicalBlock, Access: firstAccess,
			Ranges:        []layout.Range{{First: 0, Chunks: chunks, Copysets: list}},
			CreatedUnixMs: n.o.Now().UnixMilli(), Request: q.Request,
		}
		rec.NAA, rec.Serial = n.identity()
		if err := rec.layoutMap().Validate(); err != nil {
			return err
		}
		x.ids.Volume++
		n.putVolume(x, rec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// identity makes a designator and serial number that no volume has.
func (n *Namespace) identity() ([16]byte, string) {
	for {
		var naa [16]byte
		_, _ = rand.Read(naa[:]) // crypto/rand.Read never fails: it ends the process instead
		head := uint32(6)<<28 | companyID<<4 | uint32(naa[3]&0x0f)
		binary.BigEndian.PutUint32(naa[:4], head)
		serial := hex.EncodeToString(naa[8:])
		taken := false
		for _, v := range n.mu.volumes {
			taken = taken || v.Serial == serial
		}
		if !taken {
			return naa, serial
		}
	}
}

// place chooses the copysets of a run of chunks: those with a quorum and room, by chance and the more likely the more
// room they have, each once. If none has a quorum at the moment those without are taken rather than none.
func (n *Namespace) place(pool string, chunks uint32) ([]layout.CopysetID, error) {
	rooms, known := n.o.Space.Rooms(pool)
	switch {
	case !known:
		return nil, refuse.As(refuse.NotFound, "there is no pool %q: a pool comes into being with its first chunkserver (see ashlar "+
			"chunkserver list)", pool)
	case len(rooms) == 0:
		return nil, refuse.As(refuse.State, "pool %q has no copysets yet: they are made when chunkservers of enough different zones "+
			"have registered (see ashlar cluster status)", pool)
	}
	type choice struct {
		id     layout.CopysetID
		weight float64
	}
	var choices []choice
	for _, live := range []bool{true, false} {
		for _, r := range rooms {
			if r.Live == live && r.Free > 0 {
				// The keys of Efraimidis and Spirakis: the largest are a sample without replacement, weighted by room.
				choices = append(choices, choice{r.ID, math.Log(1-mrand.Float64()) / float64(r.Free)})
			}
		}
		if len(choices) > 0 {
			break
		}
	}
	if len(choices) == 0 {
		return nil, refuse.As(refuse.Exhausted, "no copyset of pool %q has room: add chunkservers or delete data", pool)
	}
	slices.SortFunc(choices, func(a, b choice) int { return cmp.Compare(b.weight, a.weight) })
	choices = choices[:min(len(choices), copysetsMax, int(chunks))]
	list := make([]layout.CopysetID, 0, len(choices))
	for _, c := range choices {
		list = append(list, c.id)
	}
	shuffle(list)
	return list, nil
}

// ResizeVolume makes a volume larger. The size that it has already is no error.
func (n *Namespace) ResizeVolume(ctx context.Context, name string, size uint64) (*VolumeRecord, error) {
	var rec *VolumeRecord
	err := n.update(ctx, func(x *tx) error {
		old, err := n.named(name)
		if err != nil {
			return err
		}
		rec = old
		if err := checkSize(size, old.LogicalBlock, old.ChunkSize, old.StripeCount); err != nil {
			return err
		}
		switch {
		case int64(size) == old.Size:
			return nil
		case int64(size) < old.Size:
			return refuse.As(refuse.Invalid, "volume %q has %d bytes; making it smaller would cut data off and is not done", name, old.Size)
		}
		next := *old
		next.Size = int64(size)
		if err := n.extend(&next); err != nil {
			return err
		}
		if err := next.layoutMap().Validate(); err != nil {
			return err
		}
		rec = &next
		n.putVolume(x, rec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// extend appends a range if the volume's chunks do not hold its size.
func (n *Namespace) extend(v *VolumeRecord) error {
	var have uint64
	for _, r := range v.Ranges {
		have += uint64(r.Chunks)
	}
	want := layout.ChunksFor(v.Size, v.ChunkSize, v.StripeCount)
	if want <= have {
		return nil
	}
	if len(v.Ranges) >= rangesMax {
		return refuse.As(refuse.Exhausted, "volume %q was made larger %d times, which is the limit", v.Name, rangesMax)
	}
	list, err := n.place(v.Pool, uint32(want-have))
	if err != nil {
		return err
	}
	old := v.copysets()
	v.Ranges = append(slices.Clone(v.Ranges), layout.Range{First: uint32(have), Chunks: uint32(want - have), Copysets: list})
	if v.Access == firstAccess {
		return nil
	}
	// Copysets that are new to the volume have to learn that older rights are over.
	v.Pending = slices.Clone(v.Pending)
	for _, c := range list {
		if !slices.Contains(old, c) {
			v.Pending = append(v.Pending, c)
		}
	}
	slices.Sort(v.Pending)
	v.Pending = slices.Compact(v.Pending)
	return nil
}

// DeleteVolume deletes a volume that is mapped nowhere. Its name is free at once, its space as the copysets answer.
func (n *Namespace) DeleteVolume(ctx context.Context, name string) error {
	var id layout.VolumeID
	err := n.update(ctx, func(x *tx) error {
		old, err := n.named(name)
		if err != nil {
			return err
		}
		if m := n.mappedLocked(old.ID); len(m) > 0 {
			return refuse.As(refuse.State, "volume %q is mapped as %s: unmap it first (ashlar target unmap)", name, m[0])
		}
		id = old.ID
		next := *old
		next.Deleting, next.Access, next.Pending = true, layout.DeletedAccess, old.copysets()
		n.putVolume(x, &next)
		return nil
	})
	if err != nil {
		return err
	}
	n.await(ctx, id)
	return nil
}

// named returns the volume of a name. The caller holds the turn or mu.
func (n *Namespace) named(name string) (*VolumeRecord, error) {
	id, ok := n.mu.names[name]
	if !ok {
		return nil, refuse.As(refuse.NotFound, "there is no volume %q: see ashlar volume list", name)
	}
	return n.mu.volumes[id], nil
}

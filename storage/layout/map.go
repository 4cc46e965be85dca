package layout

import (
	"errors"
	"fmt"
)

// Range is a run of consecutive chunks that share one list of copysets.
type Range struct {
	// First is the index of the range's first chunk.
	First uint32
	// Chunks is the number of chunks in the range, at least 1.
	Chunks uint32
	// Copysets is the list, chosen when the range was made; chunk First+i lies in Copysets[i % len(Copysets)].
	Copysets []CopysetID
}

// Map is the placement of a volume. Its invariants, which Validate checks: ChunkSize is a multiple of BlockSize;
// StripeUnit divides ChunkSize; the ranges follow each other without a gap from chunk 0 and hold Size; every range
// names at least one copyset. A Map is not changed after it was made: a resize makes a new one.
type Map struct {
	// Volume is the volume that the map places.
	Volume VolumeID
	// Size is the volume's size in bytes.
	Size int64
	// ChunkSize is the size of each chunk in bytes; the last chunk is full size too, its tail is unused.
	ChunkSize uint32
	// StripeUnit is how many consecutive bytes stay in one chunk before the next chunk of the stripe, in bytes;
	// equal to ChunkSize when the volume is not striped.
	StripeUnit uint32
	// StripeCount is the number of chunks that a stripe goes across, at least 1.
	StripeCount uint32
	// Ranges is the placement of the chunks, in order.
	Ranges []Range
}

// Extent is a run of bytes within one chunk.
type Extent struct {
	Chunk   ChunkID
	Copyset CopysetID
	// Offset is where the run starts within the chunk, in bytes.
	Offset uint32
	// Length is the run's length in bytes, at least 1.
	Length uint32
}

// Validate reports the first broken invariant of m.
func (m *Map) Validate() error {
	switch {
	case m.Volume == 0:
		return errors.New("layout: map without a volume")
	case m.Size <= 0:
		return fmt.Errorf("layout: volume %d has size %d", m.Volume, m.Size)
	case m.ChunkSize == 0 || m.ChunkSize%BlockSize != 0:
		return fmt.Errorf("layout: chunk size %d is not a multiple of %d", m.ChunkSize, BlockSize)
	case m.StripeUnit == 0 || m.StripeUnit%BlockSize != 0 || m.ChunkSize%m.StripeUnit != 0:
		return fmt.Errorf("layout: stripe unit %d does not divide chunk size %d", m.StripeUnit, m.ChunkSize)
	case m.StripeCount == 0:
		return errors.New("layout: stripe count 0")
	}
	var next uint64
	for i, r := range m.Ranges {
		if uint64(r.First) != next || r.Chunks == 0 || len(r.Copysets) == 0 {
			return fmt.Errorf("layout: range %d (first %d, %d chunks, %d copysets) does not follow chunk %d",
				i, r.First, r.Chunks, len(r.Copysets), next)
		}
		next += uint64(r.Chunks)
		if next > 1<<32-1 {
			return fmt.Errorf("layout: volume %d has more than 2^32-1 chunks", m.Volume)
		}
	}
	if next*uint64(m.ChunkSize) < uint64(m.Size) {
		return fmt.Errorf("layout: %d chunks of %d do not hold size %d", next, m.ChunkSize, m.Size)
	}
	if next%uint64(m.StripeCount) != 0 {
		return fmt.Errorf("layout: %d chunks are not a multiple of stripe count %d", next, m.StripeCount)
	}
	return nil
}

// ChunksFor returns how many chunks a volume of size bytes needs: whole stripes.
func ChunksFor(size int64, chunkSize, stripeCount uint32) uint64 {
	stripe := uint64(chunkSize) * uint64(stripeCount)
	return (uint64(size) + stripe - 1) / stripe * uint64(stripeCount)
}

// Copyset returns the copyset that holds chunk index, and false when the volume has no such chunk.
func (m *Map) Copyset(index uint32) (CopysetID, bool) {
	for i := range m.Ranges {
		r := &m.Ranges[i]
		if index >= r.First && index-r.First < r.Chunks {
			return r.Copysets[(index-r.First)%uint32(len(r.Copysets))], true
		}
	}
	return 0, false
}

// Locate returns the extent that starts at off, cut at the first border of a chunk or stripe unit and at length.
// It returns false when off and length do not lie within the volume or length is not positive.
func (m *Map) Locate(off, length int64) (Extent, bool) {
	if off < 0 || length <= 0 || off >= m.Size || length > m.Size-off {
		return Extent{}, false
	}
	unit, count := int64(m.StripeUnit), int64(m.StripeCount)
	stripe := int64(m.ChunkSize) * count
	inStripe := off % stripe
	unitNo := inStripe / unit
	within := inStripe % unit
	index := uint32(off/stripe*count + unitNo%count)
	copyset, ok := m.Copyset(index)
	if !ok {
		return Extent{}, false
	}
	return Extent{
		Chunk:   ChunkID{Volume: m.Volume, Index: index},
		Copyset: copyset,
		Offset:  uint32(unitNo/count*unit + within),
		Length:  uint32(min(length, unit-within)),
	}, true
}

// Split appends to dst the extents that together are the length bytes at off, in the order of the volume's bytes.
// It returns false, and dst as it was, when the range does not lie within the volume.
func (m *Map) Split(dst []Extent, off, length int64) ([]Extent, bool) {
	out := dst
	for length > 0 {
		e, ok := m.Locate(off, length)
		if !ok {
			return dst, false
		}
		out = append(out, e)
		off += int64(e.Length)
		length -= int64(e.Length)
	}
	return out, true
}

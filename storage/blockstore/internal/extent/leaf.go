package extent

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// LeafBlocks is the number of blocks that a leaf maps: 256 KiB of a chunk.
	LeafBlocks = 64
	// leafVersion is the version of a leaf's encoding.
	leafVersion = 2
	// leafHeader is the length of a leaf's fixed part, leafHistory that of what follows it with flagHistory.
	leafHeader  = 10
	leafHistory = 16
	// flagHistory says that born and shared follow.
	flagHistory = 1
	// LeafMemory is what a leaf costs in memory, with its entry in the cache's ring or in the overlay's map, rounded.
	LeafMemory = int64(unsafe.Sizeof(Leaf{})) + 96
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ZeroCRC is the checksum of a block of zeroes.
var ZeroCRC = Checksum(make([]byte, layout.BlockSize))

// Checksum returns the CRC32C of b.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// UpdateChecksum returns the CRC32C of what crc is of, followed by b.
func UpdateChecksum(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// Addr is the number of a block in the data file. 0 means "not allocated".
type Addr uint64

// Run is a run of consecutive blocks of the data file.
type Run struct {
	// Start is the first block, N the number of blocks.
	Start Addr
	N     uint32
}

// AppendRun appends n blocks at a to runs, joining them to the last run when they follow it.
func AppendRun(runs []Run, a Addr, n uint32) []Run {
	if k := len(runs) - 1; k >= 0 && runs[k].Start+Addr(runs[k].N) == a && runs[k].N+n > n {
		runs[k].N += n
		return runs
	}
	return append(runs, Run{Start: a, N: n})
}

// JoinRuns sorts runs and joins those that follow each other.
func JoinRuns(runs []Run) []Run {
	slices.SortFunc(runs, func(a, b Run) int { return cmp.Compare(a.Start, b.Start) })
	out := runs[:0]
	for _, r := range runs {
		out = AppendRun(out, r.Start, r.N)
	}
	return out
}

// Entry is where a block is and what its checksum is. Addr 0: not allocated, CRC has no meaning.
type Entry struct {
	// Addr is the block's place in the data file, CRC the CRC32C of its bytes.
	Addr Addr
	CRC  uint32
}

// Leaf is the map of LeafBlocks consecutive blocks of a chunk. The owner changes a leaf only while its Gen is the
// copyset's; any other leaf is immutable and may be shared with frozen overlays and images.
type Leaf struct {
	// Addr and CRC are the blocks' entries.
	Addr [LeafBlocks]Addr
	CRC  [LeafBlocks]uint32
	// Allocated has bit i set when Addr[i] is not 0, Shared when the next older leaf of the same place has the block too. So of
	// all leaves that have a block the oldest owns it.
	Allocated, Shared uint64
	// Born is the last version of the volume that had been taken when the leaf was made: that and older ones do not have it.
	Born uint64
	// Gen is the copyset's generation in which the leaf was made; 0 for one that was read from the index.
	Gen uint64
	// Seq is the checkpoint that makes the leaf durable; 0 for one that was read from the index.
	Seq uint64
	// Used is set by readers and cleared by the cache's hand.
	Used atomic.Bool
}

// Set changes block i and returns what was there, and whether an older leaf has that too.
func (l *Leaf) Set(i uint32, e Entry) (old Addr, shared bool) {
	old, shared = l.Addr[i], l.Shared&(1<<i) != 0
	l.Addr[i], l.CRC[i] = e.Addr, e.CRC
	l.Shared &^= 1 << i
	if e.Addr == 0 {
		l.Allocated &^= 1 << i
	} else {
		l.Allocated |= 1 << i
	}
	return old, shared
}

// Own returns the blocks that the leaf owns: no older leaf has them.
func (l *Leaf) Own() uint64 { return l.Allocated &^ l.Shared }

// NewLeaf returns a leaf without blocks that the owner may change in generation gen, and that checkpoint seq makes durable.
func NewLeaf(gen, seq uint64) *Leaf {
	l := &Leaf{Gen: gen, Seq: seq}
	l.Used.Store(true)
	return l
}

// Clone returns a copy that the owner may change in generation gen, and that checkpoint seq makes durable.
func (l *Leaf) Clone(gen, seq uint64) *Leaf {
	c := NewLeaf(gen, seq)
	c.Addr, c.CRC, c.Allocated, c.Shared, c.Born = l.Addr, l.CRC, l.Allocated, l.Shared, l.Born
	return c
}

// AppendRuns appends the addresses of those of the leaf's blocks that are in the mask to runs.
func (l *Leaf) AppendRuns(runs []Run, mask uint64) []Run {
	for m := mask; m != 0; m &= m - 1 {
		runs = AppendRun(runs, l.Addr[bits.TrailingZeros64(m)], 1)
	}
	return runs
}

// AppendTo appends the leaf's encoding to b; the package comment draws it.
func (l *Leaf) AppendTo(b []byte) []byte {
	flags := byte(0)
	if l.Born != 0 || l.Shared != 0 {
		flags = flagHistory
	}
	b = append(b, leafVersion, flags)
	b = binary.LittleEndian.AppendUint64(b, l.Allocated)
	if flags != 0 {
		b = binary.LittleEndian.AppendUint64(b, l.Born)
		b = binary.LittleEndian.AppendUint64(b, l.Shared)
	}
	for m := l.Allocated; m != 0; {
		i := bits.TrailingZeros64(m)
		start, n := l.Addr[i], 0
		for m != 0 && bits.TrailingZeros64(m) == i+n && l.Addr[i+n] == start+Addr(n) {
			m &= m - 1
			n++
			if i+n == LeafBlocks {
				break
			}
		}
		b = append(b, 0)
		b = binary.AppendUvarint(b, uint64(start))
		b = binary.AppendUvarint(b, uint64(n))
	}
	for m := l.Allocated; m != 0; m &= m - 1 {
		b = binary.LittleEndian.AppendUint32(b, l.CRC[bits.TrailingZeros64(m)])
	}
	return b
}

// Parse fills l from the encoding b.
func (l *Leaf) Parse(b []byte) error {
	l.Addr, l.CRC = [LeafBlocks]Addr{}, [LeafBlocks]uint32{}
	b, err := l.parseHeader(b)
	if err != nil {
		return err
	}
	if b, err = l.parseRuns(b); err != nil {
		return err
	}
	if len(b) != 4*bits.OnesCount64(l.Allocated) {
		return &CorruptError{What: fmt.Sprintf("leaf: %d bytes of checksums", len(b))}
	}
	for m := l.Allocated; m != 0; m &= m - 1 {
		l.CRC[bits.TrailingZeros64(m)] = binary.LittleEndian.Uint32(b)
		b = b[4:]
	}
	return nil
}

// parseHeader decodes what is before the runs, and returns the rest.
func (l *Leaf) parseHeader(b []byte) ([]byte, error) {
	l.Allocated, l.Shared, l.Born = 0, 0, 0
	if len(b) < leafHeader {
		return nil, &CorruptError{What: "leaf: short"}
	}
	if b[0] != leafVersion || b[1]&^flagHistory != 0 {
		return nil, &VersionError{What: "leaf", Have: uint32(b[0]) | uint32(b[1])<<8, Knows: leafVersion}
	}
	flags := b[1]
	l.Allocated = binary.LittleEndian.Uint64(b[2:])
	if b = b[leafHeader:]; flags&flagHistory == 0 {
		return b, nil
	}
	if len(b) < leafHistory {
		return nil, &CorruptError{What: "leaf: short"}
	}
	l.Born, l.Shared = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	if l.Shared&^l.Allocated != 0 {
		return nil, &CorruptError{What: "leaf: it shares blocks that it does not have"}
	}
	return b[leafHistory:], nil
}

// parseRuns decodes the runs, and returns the rest.
func (l *Leaf) parseRuns(b []byte) ([]byte, error) {
	m := l.Allocated
	for m != 0 {
		flags, k := binary.Uvarint(b)
		if k <= 0 {
			return nil, &CorruptError{What: "leaf: run"}
		}
		if flags != 0 {
			return nil, &VersionError{What: "leaf run", Have: uint32(flags), Knows: 0}
		}
		start, k1 := binary.Uvarint(b[k:])
		if k1 <= 0 {
			return nil, &CorruptError{What: "leaf: run"}
		}
		n, k2 := binary.Uvarint(b[k+k1:])
		if k2 <= 0 || n == 0 || n > LeafBlocks || start == 0 || start > 1<<51 {
			return nil, &CorruptError{What: "leaf: run"}
		}
		b = b[k+k1+k2:]
		first := bits.TrailingZeros64(m)
		for j := range n {
			i := bits.TrailingZeros64(m)
			if m == 0 || uint64(i) != uint64(first)+j {
				return nil, &CorruptError{What: "leaf: run beyond the allocated blocks"}
			}
			l.Addr[i] = Addr(start + j)
			m &= m - 1
		}
	}
	return b, nil
}

// LeafID names a leaf of a copyset.
type LeafID struct {
	// Chunk is the chunk, Index the leaf's number within it.
	Chunk layout.ChunkID
	Index uint32
	// Version is the newest version that has the leaf; 0: the head, the content of now.
	Version uint64
}

// Head returns the name of the head's leaf of the same place.
func (a LeafID) Head() LeafID { return LeafID{Chunk: a.Chunk, Index: a.Index} }

// Compare orders leaves as the index does: those of one place oldest first, the head's last.
func (a LeafID) Compare(b LeafID) int {
	return cmp.Or(
		cmp.Compare(a.Chunk.Volume, b.Chunk.Volume), cmp.Compare(a.Chunk.Index, b.Chunk.Index), cmp.Compare(a.Index, b.Index),
		cmp.Compare(a.Version-1, b.Version-1), // 0 is the last
	)
}

package blockstore

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// leafBlocks is the number of blocks that a leaf maps: 256 KiB of a chunk.
	leafBlocks = 64
	// leafVersion is the version of a leaf's encoding.
	leafVersion = 1
	// leafHeader is the length of a leaf's fixed part.
	leafHeader = 10
	// leafMemory is what a leaf costs in memory, with its entry in the cache's ring or in the overlay's map, rounded.
	leafMemory = int64(unsafe.Sizeof(leaf{})) + 96
)

// blockAddr is the number of a block in the data file. 0 means "not allocated".
type blockAddr uint64

// run is a run of consecutive blocks of the data file.
type run struct {
	start blockAddr
	n     uint32
}

// appendRun appends n blocks at a to runs, joining them to the last run when they follow it.
func appendRun(runs []run, a blockAddr, n uint32) []run {
	if k := len(runs) - 1; k >= 0 && runs[k].start+blockAddr(runs[k].n) == a && runs[k].n+n > n {
		runs[k].n += n
		return runs
	}
	return append(runs, run{a, n})
}

// entry is where a block is and what its checksum is. addr 0: not allocated, crc has no meaning.
type entry struct {
	addr blockAddr
	crc  uint32
}

// leaf is the map of leafBlocks consecutive blocks of a chunk. The owner changes a leaf only while its gen is the
// copyset's; any other leaf is immutable and may be shared with frozen overlays and images.
type leaf struct {
	addr [leafBlocks]blockAddr
	crc  [leafBlocks]uint32
	// allocated has bit i set when addr[i] is not 0.
	allocated uint64
	// gen is the copyset's generation in which the leaf was made; 0 for one that was read from the index.
	gen uint64
	// seq is the checkpoint that makes the leaf durable; 0 for one that was read from the index.
	seq uint64
	// used is set by readers and cleared by the cache's hand.
	used atomic.Bool
}

// set changes block i and returns what was there.
func (l *leaf) set(i uint32, e entry) blockAddr {
	old := l.addr[i]
	l.addr[i], l.crc[i] = e.addr, e.crc
	if e.addr == 0 {
		l.allocated &^= 1 << i
	} else {
		l.allocated |= 1 << i
	}
	return old
}

// newLeaf returns a leaf without blocks that the owner may change in generation gen, and that checkpoint seq makes durable.
func newLeaf(gen, seq uint64) *leaf {
	l := &leaf{gen: gen, seq: seq}
	l.used.Store(true)
	return l
}

// clone returns a copy that the owner may change in generation gen, and that checkpoint seq makes durable.
func (l *leaf) clone(gen, seq uint64) *leaf {
	c := newLeaf(gen, seq)
	c.addr, c.crc, c.allocated = l.addr, l.crc, l.allocated
	return c
}

// appendRuns appends the addresses of the leaf's blocks to runs.
func (l *leaf) appendRuns(runs []run) []run {
	for m := l.allocated; m != 0; m &= m - 1 {
		runs = appendRun(runs, l.addr[bits.TrailingZeros64(m)], 1)
	}
	return runs
}

// appendTo appends the leaf's encoding to b; see the package comment.
func (l *leaf) appendTo(b []byte) []byte {
	b = append(b, leafVersion, 0)
	b = binary.LittleEndian.AppendUint64(b, l.allocated)
	for m := l.allocated; m != 0; {
		i := bits.TrailingZeros64(m)
		start, n := l.addr[i], 0
		for m != 0 && bits.TrailingZeros64(m) == i+n && l.addr[i+n] == start+blockAddr(n) {
			m &= m - 1
			n++
			if i+n == leafBlocks {
				break
			}
		}
		b = append(b, 0)
		b = binary.AppendUvarint(b, uint64(start))
		b = binary.AppendUvarint(b, uint64(n))
	}
	for m := l.allocated; m != 0; m &= m - 1 {
		b = binary.LittleEndian.AppendUint32(b, l.crc[bits.TrailingZeros64(m)])
	}
	return b
}

// parse fills l from the encoding b.
func (l *leaf) parse(b []byte) error {
	l.addr, l.crc, l.allocated = [leafBlocks]blockAddr{}, [leafBlocks]uint32{}, 0
	if len(b) < leafHeader {
		return &CorruptError{What: "leaf: short"}
	}
	if b[0] != leafVersion || b[1] != 0 {
		return &VersionError{What: "leaf", Have: uint32(b[0]) | uint32(b[1])<<8, Knows: leafVersion}
	}
	m := binary.LittleEndian.Uint64(b[2:])
	l.allocated = m
	b = b[leafHeader:]
	for m != 0 {
		flags, k := binary.Uvarint(b)
		if k <= 0 {
			return &CorruptError{What: "leaf: run"}
		}
		if flags != 0 {
			return &VersionError{What: "leaf run", Have: uint32(flags), Knows: 0}
		}
		start, k1 := binary.Uvarint(b[k:])
		if k1 <= 0 {
			return &CorruptError{What: "leaf: run"}
		}
		n, k2 := binary.Uvarint(b[k+k1:])
		if k2 <= 0 || n == 0 || n > leafBlocks || start == 0 || start > 1<<51 {
			return &CorruptError{What: "leaf: run"}
		}
		b = b[k+k1+k2:]
		first := bits.TrailingZeros64(m)
		for j := range n {
			i := bits.TrailingZeros64(m)
			if m == 0 || uint64(i) != uint64(first)+j {
				return &CorruptError{What: "leaf: run beyond the allocated blocks"}
			}
			l.addr[i] = blockAddr(start + j)
			m &= m - 1
		}
	}
	if len(b) != 4*bits.OnesCount64(l.allocated) {
		return &CorruptError{What: fmt.Sprintf("leaf: %d bytes of checksums", len(b))}
	}
	for m := l.allocated; m != 0; m &= m - 1 {
		l.crc[bits.TrailingZeros64(m)] = binary.LittleEndian.Uint32(b)
		b = b[4:]
	}
	return nil
}

// leafID names a leaf of a copyset.
type leafID struct {
	chunk layout.ChunkID
	index uint32
}

// compare orders leaves as the index does.
func (a leafID) compare(b leafID) int {
	switch {
	case a == b:
		return 0
	case a.chunk.Volume != b.chunk.Volume:
		if a.chunk.Volume < b.chunk.Volume {
			return -1
		}
	case a.chunk.Index != b.chunk.Index:
		if a.chunk.Index < b.chunk.Index {
			return -1
		}
	case a.index < b.index:
		return -1
	}
	return 1
}

package extent

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

const (
	// VersionsMax is the most versions that a volume may have in a copyset.
	VersionsMax = 1024
	// versionsVersion is the version of the encoding of Versions.
	versionsVersion = 1
	versionsHeader  = 2 + 8
)

// Versions are those of a volume in a copyset. The zero Versions has none. A Versions is never changed.
type Versions struct {
	// Last is the last one that was ever taken, 0 for none; Numbers are those that there are, ascending. A version's number is
	// above those of all before it.
	Last    uint64
	Numbers []uint64
}

// Newest returns the newest version that there is, 0 for none.
func (v Versions) Newest() uint64 {
	if len(v.Numbers) == 0 {
		return 0
	}
	return v.Numbers[len(v.Numbers)-1]
}

// Has reports whether there is version n.
func (v Versions) Has(n uint64) bool {
	_, ok := slices.BinarySearch(v.Numbers, n)
	return ok
}

// Before returns the version before n, 0 for none.
func (v Versions) Before(n uint64) uint64 {
	if i, _ := slices.BinarySearch(v.Numbers, n); i > 0 {
		return v.Numbers[i-1]
	}
	return 0
}

// From returns the versions from n on. The slice is shared.
func (v Versions) From(n uint64) []uint64 {
	i, _ := slices.BinarySearch(v.Numbers, n)
	return v.Numbers[i:]
}

// Take returns v with version n, the newest.
func (v Versions) Take(n uint64) Versions {
	return Versions{Last: n, Numbers: append(slices.Clone(v.Numbers), n)}
}

// Drop returns v without version n.
func (v Versions) Drop(n uint64) Versions {
	i, ok := slices.BinarySearch(v.Numbers, n)
	if !ok {
		return v
	}
	return Versions{Last: v.Last, Numbers: slices.Delete(slices.Clone(v.Numbers), i, i+1)}
}

// AppendTo appends the encoding to b; the package comment draws it.
func (v Versions) AppendTo(b []byte) []byte {
	b = append(b, versionsVersion, 0)
	b = binary.LittleEndian.AppendUint64(b, v.Last)
	for _, n := range v.Numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

// ParseVersions decodes a Versions.
func ParseVersions(b []byte) (Versions, error) {
	if len(b) < versionsHeader || (len(b)-versionsHeader)%8 != 0 {
		return Versions{}, &CorruptError{What: fmt.Sprintf("versions: %d bytes", len(b))}
	}
	if b[0] != versionsVersion || b[1] != 0 {
		return Versions{}, &VersionError{What: "versions", Have: uint32(b[0]) | uint32(b[1])<<8, Knows: versionsVersion}
	}
	v := Versions{Last: binary.LittleEndian.Uint64(b[2:])}
	before := uint64(0)
	for b = b[versionsHeader:]; len(b) > 0; b = b[8:] {
		n := binary.LittleEndian.Uint64(b)
		if n <= before || n > v.Last || len(v.Numbers) == VersionsMax {
			return Versions{}, &CorruptError{What: fmt.Sprintf("versions: %d after %d", n, before)}
		}
		v.Numbers = append(v.Numbers, n)
		before = n
	}
	return v, nil
}

// Lineage checks that the leaves of one place, in the order of the index, fit each other. Its zero value has met none.
type Lineage struct {
	inc uint64
	id  LeafID
	old *Leaf // the last leaf that was not a head's
}

// Next takes the next leaf of the index, which is borrowed. *CorruptError when it shares a block that the one before it does not
// have, or has a version that can not have it.
func (c *Lineage) Next(incarnation uint64, id LeafID, l *Leaf) error {
	if c.old != nil && (c.inc != incarnation || c.id.Head() != id.Head()) {
		c.old = nil
	}
	if id.Version != 0 && l.Born >= id.Version {
		return &CorruptError{What: fmt.Sprintf("leaf: born after version %d, it is version %d's", l.Born, id.Version)}
	}
	for m := l.Shared; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		if c.old == nil || c.old.Addr[i] != l.Addr[i] || c.old.CRC[i] != l.CRC[i] {
			return &CorruptError{What: fmt.Sprintf("leaf: no older one has its block %d", i)}
		}
	}
	if id.Version != 0 {
		c.inc, c.id, c.old = incarnation, id, l.Clone(0, 0)
	}
	return nil
}

package copyset

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// swapsMax is how many compare and writes of one (volume, initiator) are remembered across a change of epoch.
const swapsMax = 16

// swap remembers a compare and write that took effect and that the initiator has not acknowledged. When the initiator
// sends the same one again after its path moved, in the next epoch, and the medium still holds what it wrote, the
// answer is OK and not a false miscompare. It answers once, and is forgotten at the next change of epoch after that.
type swap struct {
	seq    layout.Seq // 0: of the epoch before
	chunk  layout.ChunkID
	offset uint32
	digest [16]byte // of both halves of the payload
}

func digest(p []byte) (d [16]byte) {
	full := sha256.Sum256(p)
	copy(d[:], full[:])
	return d
}

// inherit returns what the next epoch keeps: swaps that were not acknowledged, low being the low-water mark.
func inherit(swaps []swap, low layout.Seq) []swap {
	swaps = slices.DeleteFunc(swaps, func(s swap) bool { return s.seq == 0 || s.seq < low })
	for i := range swaps {
		swaps[i].seq = 0
	}
	return arrange(swaps)
}

// arrange sorts swaps as the encoding has them. They are always so: which one makes place for another is then the same
// on a replica that was restarted or got an image.
func arrange(swaps []swap) []swap {
	slices.SortFunc(swaps, func(a, b swap) int {
		return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.chunk.Index, b.chunk.Index), cmp.Compare(a.offset, b.offset))
	})
	return swaps
}

// acknowledged drops the swaps of this epoch below the low-water mark.
func acknowledged(swaps []swap, low layout.Seq) []swap {
	return slices.DeleteFunc(swaps, func(s swap) bool { return s.seq != 0 && s.seq < low })
}

// compareAndWrite compares the first half of the payload with the medium and writes the second half.
func (ini *initiator) compareAndWrite(c *Command, m Medium, space []byte) (Outcome, error) {
	expect, update := c.Payload[:c.Length], c.Payload[c.Length:]
	if err := m.Read(c.Chunk, c.Offset, space); err != nil {
		return Outcome{}, err
	}
	if i := firstDifference(space, expect); i >= 0 {
		at := slices.IndexFunc(ini.swaps, func(s swap) bool {
			return s.seq == 0 && s.chunk == c.Chunk && s.offset == c.Offset && s.digest == digest(c.Payload)
		})
		if at >= 0 && bytes.Equal(space, update) {
			ini.swaps[at].seq = c.Seq
			arrange(ini.swaps)
			return Outcome{Code: OK}, nil
		}
		return Outcome{Code: Miscompare, Offset: uint32(i)}, nil
	}
	if err := m.Write(c.Chunk, c.Offset, update, c.CRCs); err != nil {
		return Outcome{}, err
	}
	ini.swaps = slices.DeleteFunc(ini.swaps, func(s swap) bool { return s.chunk == c.Chunk && s.offset == c.Offset })
	if len(ini.swaps) >= swapsMax {
		ini.swaps = slices.Delete(ini.swaps, 0, 1)
	}
	ini.swaps = arrange(append(ini.swaps, swap{seq: c.Seq, chunk: c.Chunk, offset: c.Offset, digest: digest(c.Payload)}))
	return Outcome{Code: OK}, nil
}

// firstDifference returns the first index at which a and b, of one length, differ, or -1.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

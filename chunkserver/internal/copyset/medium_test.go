package copyset

import (
	"bytes"
	"errors"
	"slices"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const memChunk = 1 << 20

var errMedium = errors.New("medium failed")

// mem is a medium in memory.
type mem struct {
	chunks map[layout.ChunkID][]byte
	fail   bool
	writes int
}

func newMem() *mem { return &mem{chunks: map[layout.ChunkID][]byte{}} }

func (m *mem) chunk(ch layout.ChunkID) []byte {
	if m.chunks[ch] == nil {
		m.chunks[ch] = make([]byte, memChunk)
	}
	return m.chunks[ch]
}

func (m *mem) Write(ch layout.ChunkID, off uint32, data []byte, _ []uint32) error {
	if m.fail {
		return errMedium
	}
	m.writes++
	copy(m.chunk(ch)[off:], data)
	return nil
}

func (m *mem) Read(ch layout.ChunkID, off uint32, dst []byte) error {
	if m.fail {
		return errMedium
	}
	copy(dst, m.chunk(ch)[off:])
	return nil
}

func (m *mem) Discard(ch layout.ChunkID, off, length uint32) error {
	first := (off + layout.BlockSize - 1) / layout.BlockSize * layout.BlockSize
	if end := (off + length) / layout.BlockSize * layout.BlockSize; end > first {
		return m.WriteZeroes(ch, first, end-first)
	}
	return nil
}

func (m *mem) WriteZeroes(ch layout.ChunkID, off, length uint32) error {
	return m.Write(ch, off, make([]byte, length), nil)
}

func (m *mem) DeleteVolume(v layout.VolumeID) error {
	if m.fail {
		return errMedium
	}
	for ch := range m.chunks {
		if ch.Volume == v {
			delete(m.chunks, ch)
		}
	}
	return nil
}

// equal tells whether two media hold the same.
func (m *mem) equal(o *mem) bool {
	for _, pair := range [][2]*mem{{m, o}, {o, m}} {
		for ch, b := range pair[0].chunks {
			c := pair[1].chunks[ch]
			if c == nil {
				c = make([]byte, memChunk)
			}
			if !bytes.Equal(b, c) {
				return false
			}
		}
	}
	return true
}

// sample is a valid command with everything in it.
func sample() Command {
	p := bytes.Repeat([]byte{7}, 2*layout.BlockSize)
	return Command{
		Op: OpWrite, Chunk: layout.ChunkID{Volume: 3, Index: 4}, Offset: 512, Length: uint32(len(p)), Initiator: 5,
		Fence: layout.Fence{Epoch: 6, Generation: 7}, Access: 8, Seq: 9, LowWater: 2, Proposer: 10, Proposal: 11,
		CRCs: layout.AppendCRCs(nil, p, layout.BlockSize-512), Payload: p,
	}
}

func clone(c Command) Command {
	c.CRCs, c.Payload = slices.Clone(c.CRCs), slices.Clone(c.Payload)
	return c
}

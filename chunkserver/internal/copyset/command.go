package copyset

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Op is what a command does. The numbers up to OpDeleteVolume are those of the data protocol.
type Op uint8

// The ops that go through the log.
const (
	OpWrite           Op = 2
	OpDiscard         Op = 3
	OpWriteZeroes     Op = 4
	OpCompareAndWrite Op = 5
	OpRaise           Op = 7
	OpRaiseAccess     Op = 8
	OpDeleteVolume    Op = 9
	// OpDigest is the chunkservers' own: a replica that applies it notes what it holds, to be compared with the others. It is
	// encoded as an OpRaise of no volume, which changes nothing in releases that have no digests; its number was in entries once.
	OpDigest Op = 10
)

// Limits of a command.
const (
	// WriteMax is the most that one write carries, in bytes.
	WriteMax = 16 << 20
	// CompareMax is the most that a compare and write compares, in bytes: one logical block.
	CompareMax = layout.BlockSize
	// ChunkSizeMax bounds offset plus length, in bytes.
	ChunkSizeMax = 1 << 30
	// SectorSize is what offsets and lengths are multiples of, in bytes.
	SectorSize = 512
)

const (
	commandVersion = 1
	commandHeader  = 96
)

// ErrVersion means that an entry was written by a newer release: this replica can not go on before it is upgraded.
var ErrVersion = errors.New("copyset: entry of a newer version")

// Command is one mutation, before it is encoded or after. See the package comment for the fields.
type Command struct {
	Op        Op
	Chunk     layout.ChunkID
	Offset    uint32
	Length    uint32
	Initiator layout.InitiatorID
	Fence     layout.Fence
	Access    layout.AccessGeneration
	Seq       layout.Seq
	LowWater  layout.Seq
	// Proposer and Proposal name the waiter for the outcome.
	Proposer layout.PeerID
	Proposal uint64
	// CRCs holds the CRC32C of each whole block that is written; nil when there is none or they are to be computed.
	CRCs []uint32
	// Payload is borrowed: by AppendTo until it returns; after Decode it lies in the decoded bytes.
	Payload []byte
}

// WholeBlocks returns how many blocks lie wholly in the range.
func WholeBlocks(offset, length uint32) int {
	first := (uint64(offset) + layout.BlockSize - 1) / layout.BlockSize
	end := (uint64(offset) + uint64(length)) / layout.BlockSize
	if end <= first {
		return 0
	}
	return int(end - first)
}

// CheckRange reports whether offset and length are multiples of SectorSize, not empty and within a chunk.
func CheckRange(offset, length uint32) error {
	if length == 0 || offset%SectorSize != 0 || length%SectorSize != 0 || uint64(offset)+uint64(length) > ChunkSizeMax {
		return fmt.Errorf("range of %d bytes at %d", length, offset)
	}
	return nil
}

// Validate reports what breaks the rules of a command.
func (c *Command) Validate() error {
	if c.Chunk.Volume == 0 && c.Op != OpDigest {
		return errors.New("no volume")
	}
	if c.Chunk.Volume != 0 && c.Op == OpDigest {
		return errors.New("digest of a volume")
	}
	if c.Access == layout.DeletedAccess && c.Op != OpDeleteVolume {
		return errors.New("access generation of a deleted volume")
	}
	payload, sequenced := uint64(0), true
	switch c.Op {
	case OpWrite:
		payload = uint64(c.Length)
	case OpCompareAndWrite:
		if payload = 2 * uint64(c.Length); c.Length > CompareMax {
			return fmt.Errorf("compare and write of %d bytes", c.Length)
		}
	case OpDiscard, OpWriteZeroes:
	case OpRaise, OpRaiseAccess, OpDeleteVolume, OpDigest:
		sequenced = false
	default:
		return fmt.Errorf("op %d", c.Op)
	}
	if sequenced {
		if err := CheckRange(c.Offset, c.Length); err != nil {
			return err
		}
	}
	switch {
	case payload > 2*WriteMax || payload != uint64(len(c.Payload)):
		return fmt.Errorf("payload of %d bytes, want %d", len(c.Payload), payload)
	case len(c.CRCs) != 0 && len(c.CRCs) != c.blocks():
		return fmt.Errorf("%d checksums for %d whole blocks", len(c.CRCs), c.blocks())
	case sequenced && c.Seq == 0:
		return errors.New("mutation without a sequence number")
	case (sequenced || c.Op == OpRaise) && (c.Fence.Epoch == 0 || c.Initiator == 0):
		return errors.New("no fence")
	}
	return nil
}

// blocks is the number of whole blocks that the command writes.
func (c *Command) blocks() int {
	if c.Op != OpWrite && c.Op != OpCompareAndWrite {
		return 0
	}
	return WholeBlocks(c.Offset, c.Length)
}

// Size returns the length of the encoding, in bytes.
func (c *Command) Size() int { return commandHeader + 4*len(c.CRCs) + len(c.Payload) }

// AppendTo appends the encoding to dst.
func (c *Command) AppendTo(dst []byte) []byte {
	le := binary.LittleEndian
	var h [commandHeader]byte
	h[0], h[1] = commandVersion, byte(c.Op)
	if c.Op == OpDigest {
		h[1] = byte(OpRaise)
	}
	le.PutUint32(h[4:], c.Chunk.Index)
	le.PutUint64(h[8:], uint64(c.Chunk.Volume))
	le.PutUint64(h[16:], uint64(c.Initiator))
	le.PutUint64(h[24:], uint64(c.Fence.Epoch))
	le.PutUint64(h[32:], uint64(c.Fence.Generation))
	le.PutUint64(h[40:], uint64(c.Access))
	le.PutUint64(h[48:], uint64(c.Seq))
	le.PutUint64(h[56:], uint64(c.LowWater))
	le.PutUint32(h[64:], c.Offset)
	le.PutUint32(h[68:], c.Length)
	le.PutUint64(h[72:], uint64(c.Proposer))
	le.PutUint64(h[80:], c.Proposal)
	le.PutUint32(h[88:], uint32(len(c.CRCs)))
	le.PutUint32(h[92:], uint32(len(c.Payload)))
	dst = append(dst, h[:]...)
	for _, crc := range c.CRCs {
		dst = le.AppendUint32(dst, crc)
	}
	return append(dst, c.Payload...)
}

// Decode parses an entry's data into c. The payload lies in data. crcs is space for the checksums, which may be nil.
// ErrVersion for an entry of a newer release; any other error is the same on every replica.
func (c *Command) Decode(data []byte, crcs []uint32) error {
	if len(data) == 0 {
		return errors.New("copyset: empty command")
	}
	if data[0] != commandVersion {
		return fmt.Errorf("%w: %d", ErrVersion, data[0])
	}
	if len(data) < commandHeader {
		return fmt.Errorf("copyset: command of %d bytes", len(data))
	}
	le := binary.LittleEndian
	if flags := le.Uint16(data[2:]); flags != 0 {
		return fmt.Errorf("%w: flags %#x", ErrVersion, flags)
	}
	*c = Command{
		Op:        Op(data[1]),
		Chunk:     layout.ChunkID{Volume: layout.VolumeID(le.Uint64(data[8:])), Index: le.Uint32(data[4:])},
		Initiator: layout.InitiatorID(le.Uint64(data[16:])),
		Fence: layout.Fence{
			Epoch: layout.Epoch(le.Uint64(data[24:])), Generation: layout.Generation(le.Uint64(data[32:])),
		},
		Access:   layout.AccessGeneration(le.Uint64(data[40:])),
		Seq:      layout.Seq(le.Uint64(data[48:])),
		LowWater: layout.Seq(le.Uint64(data[56:])),
		Offset:   le.Uint32(data[64:]),
		Length:   le.Uint32(data[68:]),
		Proposer: layout.PeerID(le.Uint64(data[72:])),
		Proposal: le.Uint64(data[80:]),
	}
	n, p := uint64(le.Uint32(data[88:])), uint64(le.Uint32(data[92:]))
	if uint64(len(data)) != commandHeader+4*n+p {
		return fmt.Errorf("copyset: command of %d bytes with %d checksums and %d bytes", len(data), n, p)
	}
	crcs = crcs[:0]
	for i := range n {
		crcs = append(crcs, le.Uint32(data[commandHeader+4*i:]))
	}
	if n > 0 {
		c.CRCs = crcs
	}
	if p > 0 {
		c.Payload = data[commandHeader+4*n:]
	}
	switch c.Op {
	case OpWrite, OpDiscard, OpWriteZeroes, OpCompareAndWrite, OpRaise, OpRaiseAccess, OpDeleteVolume, OpDigest:
	default:
		return fmt.Errorf("%w: op %d", ErrVersion, data[1])
	}
	if c.Op == OpRaise && c.Chunk.Volume == 0 {
		c.Op = OpDigest
	}
	if err := c.Validate(); err != nil {
		return fmt.Errorf("copyset: %w", err)
	}
	return nil
}

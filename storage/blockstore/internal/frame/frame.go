// Package frame is the codec of image streams: what one chunkserver sends to another so that it gets the content of a
// copyset.
//
// An image stream is a sequence of frames (integers are little endian):
//
//	0  4  length of the payload
//	4  1  kind
//	5  3  zero
//	8  4  CRC32C of bytes 0-7 and of the payload, without the bytes of blocks, which have their own
//	12    payload
//
//	kind 1, header, the first:  magic "ashlarim"  version:2 (2; 1: no frame is of kind 5 or 6)  zero:6  copyset:8  index:8  term:8  length of state:8
//	kind 2, state, as often as needed for the whole state: its next bytes
//	kind 5, versions, of each volume that has or had any: volume:8  and what the index has of them
//	kind 6, leaf, before the blocks of a leaf that is not the head's, or that shares blocks with the leaf before it:
//	        volume:8  chunk:4  leaf:4  version:8 (0: the head's)  born:8  shared:8
//	kind 3, blocks, in the order of volume, chunk, leaf, version, block; those that are shared are left out:
//	        volume:8  chunk:4  first block:4  count:4  zero:4  crc:4 × count  4096 bytes × count
//	kind 4, end, the last: number of blocks in the stream:8
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Error means that an image stream is damaged, cut, or not for this copyset. Nothing was changed.
type Error struct {
	// What says what is wrong.
	What string
}

func (e *Error) Error() string { return "blockstore: image: " + e.What }

// Run is a run of consecutive blocks of a chunk in an image.
type Run struct {
	Chunk layout.ChunkID
	// First is the number of the first block within the chunk.
	First uint32
	// CRCs holds the CRC32C of each block, Data their bytes.
	CRCs []uint32
	Data []byte
}

const (
	// StateMax is the most that a copyset's state may be, in bytes.
	StateMax = 256 << 20
	// chunkBlocksMax is the most blocks that a chunk can have: what a 32-bit offset reaches.
	chunkBlocksMax = 1 << 32 / layout.BlockSize
)

const (
	// Header is the length of a frame's header, in bytes.
	Header = 12

	// KindHeader is the kind of the first frame.
	KindHeader = 1
	// KindState is the kind of a frame with a part of the state.
	KindState = 2
	// KindBlocks is the kind of a frame with blocks.
	KindBlocks = 3
	// KindEnd is the kind of the last frame.
	KindEnd = 4
	// KindVersions is the kind of a frame with a volume's versions.
	KindVersions = 5
	// KindLeaf is the kind of a frame that begins a leaf.
	KindLeaf = 6

	imageMagic    = "ashlarim"
	imageVersion  = 2
	plainVersion  = 1 // of an image without versions, which earlier releases take too
	imageHeader   = 48
	blocksPayload = 24 // before the checksums
	leafPayload   = 40

	// EndPayload is the length of the payload of the last frame, in bytes.
	EndPayload = 8

	// PayloadMax is the most that a payload may be long: leafBlocks blocks.
	PayloadMax = blocksPayload + extent.LeafBlocks*(4+layout.BlockSize)

	// Max is the most that one frame of an image stream can be long, in bytes.
	Max = Header + PayloadMax
)

// Begin appends the header of a frame, to be completed by End.
func Begin(b []byte, kind byte) []byte {
	return append(b, 0, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0)
}

// End completes the frame that is all of b; its last plain bytes are not in its checksum.
func End(b []byte, plain int) []byte {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-Header))
	binary.LittleEndian.PutUint32(b[8:], crc(b, plain))
	return b
}

// crc returns the checksum of a frame without its last plain bytes.
func crc(b []byte, plain int) uint32 {
	crc := extent.Checksum(b[:8])
	return extent.UpdateChecksum(crc, b[Header:len(b)-plain])
}

// AppendHeader appends the first frame of a stream to b, which is empty. plain says that no volume has or had versions.
func AppendHeader(b []byte, id layout.CopysetID, index, term uint64, state int, plain bool) []byte {
	version := uint16(imageVersion)
	if plain {
		version = plainVersion
	}
	b = Begin(b, KindHeader)
	b = append(b, imageMagic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(id))
	b = binary.LittleEndian.AppendUint64(b, index)
	b = binary.LittleEndian.AppendUint64(b, term)
	b = binary.LittleEndian.AppendUint64(b, uint64(state))
	return End(b, 0)
}

// AppendBlocks appends a run of blocks to b, which is empty.
func AppendBlocks(b []byte, r Run) []byte {
	b = Begin(b, KindBlocks)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Chunk.Volume))
	b = binary.LittleEndian.AppendUint32(b, r.Chunk.Index)
	b = binary.LittleEndian.AppendUint32(b, r.First)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.CRCs)))
	b = append(b, 0, 0, 0, 0)
	for _, c := range r.CRCs {
		b = binary.LittleEndian.AppendUint32(b, c)
	}
	return End(append(b, r.Data...), len(r.Data))
}

// AppendVersions appends the versions of a volume to b, which is empty.
func AppendVersions(b []byte, v layout.VolumeID, n extent.Versions) []byte {
	b = binary.LittleEndian.AppendUint64(Begin(b, KindVersions), uint64(v))
	return End(n.AppendTo(b), 0)
}

// ParseVersions decodes the payload of a frame of versions.
func ParseVersions(p []byte) (layout.VolumeID, extent.Versions, error) {
	if len(p) < 8 {
		return 0, extent.Versions{}, &Error{What: "short frame of versions"}
	}
	n, err := extent.ParseVersions(p[8:])
	var damaged *extent.CorruptError
	if errors.As(err, &damaged) {
		err = &Error{What: damaged.What}
	}
	return layout.VolumeID(binary.LittleEndian.Uint64(p)), n, err
}

// AppendLeaf appends the begin of a leaf to b, which is empty.
func AppendLeaf(b []byte, id extent.LeafID, l *extent.Leaf) []byte {
	b = binary.LittleEndian.AppendUint64(Begin(b, KindLeaf), uint64(id.Chunk.Volume))
	b = binary.LittleEndian.AppendUint32(b, id.Chunk.Index)
	b = binary.LittleEndian.AppendUint32(b, id.Index)
	b = binary.LittleEndian.AppendUint64(b, id.Version)
	b = binary.LittleEndian.AppendUint64(b, l.Born)
	return End(binary.LittleEndian.AppendUint64(b, l.Shared), 0)
}

// ParseLeaf decodes the payload of a frame that begins a leaf. shared are the blocks that it has of older, the leaf of before.
func ParseLeaf(p []byte, before extent.LeafID, older *extent.Leaf) (id extent.LeafID, l *extent.Leaf, err error) {
	if len(p) != leafPayload {
		return id, nil, &Error{What: "frame of a leaf"}
	}
	id.Chunk = layout.ChunkID{Volume: layout.VolumeID(binary.LittleEndian.Uint64(p)), Index: binary.LittleEndian.Uint32(p[8:])}
	id.Index, id.Version = binary.LittleEndian.Uint32(p[12:]), binary.LittleEndian.Uint64(p[16:])
	l = extent.NewLeaf(0, 0)
	l.Born = binary.LittleEndian.Uint64(p[24:])
	shared := binary.LittleEndian.Uint64(p[32:])
	if id.Index >= chunkBlocksMax/extent.LeafBlocks || shared != 0 && (older == nil || before.Head() != id.Head() || shared&^older.Allocated != 0) {
		return id, nil, &Error{What: fmt.Sprintf("chunk %v leaf %d shares blocks that nobody has", id.Chunk, id.Index)}
	}
	for m := shared; m != 0; m &= m - 1 {
		i := uint32(bits.TrailingZeros64(m))
		l.Set(i, extent.Entry{Addr: older.Addr[i], CRC: older.CRC[i]})
	}
	l.Shared = shared
	return id, l, nil
}

// Len returns the length of the frame that begins with b, of which at least Header bytes are there.
func Len(b []byte) (int, error) {
	n := binary.LittleEndian.Uint32(b)
	if n > PayloadMax {
		return 0, &Error{What: fmt.Sprintf("frame of %d bytes", n)}
	}
	return Header + int(n), nil
}

// Parse checks a whole frame and returns its kind and payload.
func Parse(b []byte) (kind byte, payload []byte, err error) {
	kind, payload = b[4], b[Header:]
	if b[5]|b[6]|b[7] != 0 {
		return 0, nil, &Error{What: "frame header"}
	}
	plain := 0
	if kind == KindBlocks {
		if len(payload) < blocksPayload {
			return 0, nil, &Error{What: "short frame of blocks"}
		}
		n := binary.LittleEndian.Uint32(payload[16:])
		if n == 0 || n > extent.LeafBlocks || len(payload) != blocksPayload+int(n)*(4+layout.BlockSize) {
			return 0, nil, &Error{What: fmt.Sprintf("frame of %d blocks", n)}
		}
		plain = int(n) * layout.BlockSize
	}
	if binary.LittleEndian.Uint32(b[8:]) != crc(b, plain) {
		return 0, nil, &Error{What: "frame checksum"}
	}
	return kind, payload, nil
}

// ParseHeader decodes the payload of the first frame.
func ParseHeader(p []byte) (id layout.CopysetID, r extent.Record, state uint64, err error) {
	if len(p) < 10 || string(p[:8]) != imageMagic {
		return 0, extent.Record{}, 0, &Error{What: "not an image"}
	}
	if v := binary.LittleEndian.Uint16(p[8:]); v != imageVersion && v != plainVersion {
		return 0, extent.Record{}, 0, &extent.VersionError{What: "image", Have: uint32(v), Knows: imageVersion}
	}
	if len(p) != imageHeader {
		return 0, extent.Record{}, 0, &Error{What: "header"}
	}
	id = layout.CopysetID(binary.LittleEndian.Uint64(p[16:]))
	r.Index = binary.LittleEndian.Uint64(p[24:])
	r.Term = binary.LittleEndian.Uint64(p[32:])
	state = binary.LittleEndian.Uint64(p[40:])
	if state > StateMax {
		return 0, extent.Record{}, 0, &Error{What: fmt.Sprintf("state of %d bytes", state)}
	}
	return id, r, state, nil
}

// ParseBlocks decodes the payload of a frame of blocks, whose length was checked, and verifies each block. crcs is space
// for the checksums; Data is part of p.
func ParseBlocks(p []byte, crcs []uint32) (Run, error) {
	r := Run{
		Chunk: layout.ChunkID{
			Volume: layout.VolumeID(binary.LittleEndian.Uint64(p)),
			Index:  binary.LittleEndian.Uint32(p[8:]),
		},
		First: binary.LittleEndian.Uint32(p[12:]),
	}
	n := binary.LittleEndian.Uint32(p[16:])
	if uint64(r.First)+uint64(n) > chunkBlocksMax || r.First/extent.LeafBlocks != (r.First+n-1)/extent.LeafBlocks {
		return r, &Error{What: fmt.Sprintf("%d blocks from block %d", n, r.First)}
	}
	p = p[blocksPayload:]
	r.Data = p[4*n:]
	r.CRCs = crcs[:0]
	for i := range n {
		crc := binary.LittleEndian.Uint32(p[4*i:])
		if extent.Checksum(r.Data[i*layout.BlockSize:(i+1)*layout.BlockSize]) != crc {
			return r, &Error{What: fmt.Sprintf("chunk %v block %d: checksum", r.Chunk, r.First+i)}
		}
		r.CRCs = append(r.CRCs, crc)
	}
	return r, nil
}

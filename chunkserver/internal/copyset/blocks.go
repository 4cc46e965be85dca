package copyset

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// ErrDamaged means that the blocks of an entry do not match the checksums in it.
var ErrDamaged = errors.New("copyset: the blocks of an entry do not match their checksums")

// EntryBlocks returns the whole blocks that the entry of a write brings with their checksums, and where they begin in its
// data; nothing for any other entry. Who has the data can compare them, so they need no other checksum (VerifyEntry).
func EntryBlocks(data []byte) (blocks []byte, at int) {
	blocks, _, at = entryBlocks(data)
	return blocks, at
}

// VerifyEntry compares the blocks of EntryBlocks with their checksums. It returns ErrDamaged if they differ.
func VerifyEntry(data []byte) error {
	blocks, crcs, _ := entryBlocks(data)
	for i := 0; len(blocks) > 0; i++ {
		if layout.CRC(blocks[:layout.BlockSize]) != binary.LittleEndian.Uint32(crcs[4*i:]) {
			return fmt.Errorf("%w: block %d", ErrDamaged, i)
		}
		blocks = blocks[layout.BlockSize:]
	}
	return nil
}

func entryBlocks(data []byte) (blocks, crcs []byte, at int) {
	le := binary.LittleEndian
	if len(data) < commandHeader || data[0] != commandVersion || Op(data[1]) != OpWrite || le.Uint16(data[2:]) != 0 {
		return nil, nil, 0
	}
	n, p := uint64(le.Uint32(data[88:])), uint64(le.Uint32(data[92:]))
	first := commandHeader + 4*n + uint64(-le.Uint32(data[64:])%layout.BlockSize)
	if end := first + n*layout.BlockSize; n == 0 || uint64(len(data)) != commandHeader+4*n+p || end > uint64(len(data)) {
		return nil, nil, 0
	}
	return data[first : first+n*layout.BlockSize], data[commandHeader:][:4*n], int(first)
}

package load

import (
	"encoding/binary"
	"fmt"
)

// BlockLen is the unit of verification in bytes.
const BlockLen = 4096

// chunkBlocks is the smallest chunk within which a write must be atomic, in blocks (16 MiB).
const chunkBlocks = 16 << 20 / BlockLen

const (
	magic     = 0x61736c61722d7631 // "aslar-v1"
	headerLen = 32
)

// fill makes the content of a block.
func fill(b []byte, seed, block, version uint64) {
	if version == 0 {
		clear(b[:BlockLen])
		return
	}
	binary.BigEndian.PutUint64(b, magic)
	binary.BigEndian.PutUint64(b[8:], seed)
	binary.BigEndian.PutUint64(b[16:], block)
	binary.BigEndian.PutUint64(b[24:], version)
	x := block*0x9e3779b97f4a7c15 ^ version
	for i := headerLen; i < BlockLen; i += 8 {
		x = next(x)
		binary.LittleEndian.PutUint64(b[i:], x)
	}
}

// next is one step of xorshift64.
func next(x uint64) uint64 {
	x |= 1 << 63 // never zero
	x ^= x << 13
	x ^= x >> 7
	return x ^ x<<17
}

// version reads a block and checks every byte of it. A zero block is version 0.
func version(b []byte, seed, block uint64) (uint64, error) {
	if binary.BigEndian.Uint64(b) == 0 {
		for _, c := range b[:BlockLen] {
			if c != 0 {
				return 0, fmt.Errorf("block %d: no header, and not zero", block)
			}
		}
		return 0, nil
	}
	if m := binary.BigEndian.Uint64(b); m != magic {
		return 0, fmt.Errorf("block %d: magic %x", block, m)
	}
	if s, n := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]); s != seed || n != block {
		return 0, fmt.Errorf("block %d: holds block %d of run %d", block, n, s)
	}
	v := binary.BigEndian.Uint64(b[24:])
	x := block*0x9e3779b97f4a7c15 ^ v
	for i := headerLen; i < BlockLen; i += 8 {
		x = next(x)
		if binary.LittleEndian.Uint64(b[i:]) != x {
			return 0, fmt.Errorf("block %d: version %d, but wrong bytes from offset %d on", block, v, i)
		}
	}
	return v, nil
}

package layout

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC returns the CRC32C (Castagnoli) of p, the checksum that every block carries.
func CRC(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// AppendCRCs appends to dst the CRC32C of each whole block in p, the first of which starts skip bytes into p.
func AppendCRCs(dst []uint32, p []byte, skip int) []uint32 {
	for ; skip+BlockSize <= len(p); skip += BlockSize {
		dst = append(dst, CRC(p[skip:skip+BlockSize]))
	}
	return dst
}

// VerifyBlocks compares the blocks of p, a whole number of them, with their CRC32C. It returns the number of the first
// block that differs, len(crcs) if their count does not fit, and -1 when all is well.
func VerifyBlocks(p []byte, crcs []uint32) int {
	if len(p) != len(crcs)*BlockSize {
		return len(crcs)
	}
	for i, crc := range crcs {
		if CRC(p[i*BlockSize:(i+1)*BlockSize]) != crc {
			return i
		}
	}
	return -1
}

// JoinCRCs returns the CRC32C of blocks that follow each other from their own, without going over them.
func JoinCRCs(crcs []uint32) uint32 {
	var crc uint32
	for _, c := range crcs {
		crc = zeroes[0][byte(crc)] ^ zeroes[1][byte(crc>>8)] ^ zeroes[2][byte(crc>>16)] ^ zeroes[3][crc>>24] ^ c
	}
	return crc
}

// zeroes says what a block of zero bits makes of a checksum: the sum modulo 2 of what it makes of each of the four bytes,
// for a CRC is linear.
var zeroes = zeroTables()

func zeroTables() *[4][256]uint32 {
	var bits [32]uint32 // what each bit becomes, at first by one byte
	apply := func(v uint32) (sum uint32) {
		for i := 0; v != 0; i, v = i+1, v>>1 {
			sum ^= bits[i] & -(v & 1)
		}
		return sum
	}
	for i := range bits {
		v := uint32(1) << i
		bits[i] = castagnoli[byte(v)] ^ v>>8
	}
	for n := 1; n < BlockSize; n *= 2 {
		twice := bits
		for i := range twice {
			twice[i] = apply(bits[i])
		}
		bits = twice
	}
	t := new([4][256]uint32)
	for i := range t {
		for b := range t[i] {
			t[i][b] = apply(uint32(b) << (8 * i))
		}
	}
	return t
}

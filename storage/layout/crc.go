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

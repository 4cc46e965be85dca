package odx

import "encoding/binary"

// The descriptors of the Third-party Copy VPD page (SPC-4 7.8.17, SBC-3 6.5.7) that say what tokens can do. Each begins
// with its type(2) and the length(2) of what follows, a multiple of 4. blockLength is that of the logical unit.

// AppendLimits appends Block Device ROD Token Limits (0000h), which is what Windows reads.
func AppendLimits(p []byte, blockLength int) []byte {
	start := len(p)
	p = append(p, make([]byte, 36)...)
	d := p[start:]
	d[3] = 32
	binary.BigEndian.PutUint16(d[10:], RangeMax)
	binary.BigEndian.PutUint32(d[12:], TimeoutMax)
	binary.BigEndian.PutUint32(d[16:], TimeoutDefault)
	binary.BigEndian.PutUint64(d[20:], uint64(TransferMax/blockLength)) // MAXIMUM TOKEN TRANSFER SIZE
	binary.BigEndian.PutUint64(d[28:], uint64(TransferMax/blockLength)) // OPTIMAL TRANSFER COUNT
	return p
}

// AppendTypes appends ROD Token Features (0106h) and Supported ROD Types (0108h). REMOTE TOKENS is 0: that
// tokens of other gateways are good for who sees their source is not promised. They have no least lifetime and no longest one but their inactivity.
func AppendTypes(p []byte) []byte {
	start := len(p)
	p = append(p, make([]byte, 48+48)...)
	d := p[start:]
	d[0], d[1], d[3] = 0x01, 0x06, 92
	binary.BigEndian.PutUint32(d[20:], 0xFFFFFFFF) // MAXIMUM TOKEN LIFETIME
	binary.BigEndian.PutUint32(d[24:], TimeoutMax) // MAXIMUM TOKEN INACTIVITY TIMEOUT
	binary.BigEndian.PutUint16(d[46:], 48)         // one block device type descriptor
	d = d[48:]
	d[3] = 0x2C
	binary.BigEndian.PutUint64(d[8:], TransferMax)  // MAXIMUM BYTES IN BLOCK ROD
	binary.BigEndian.PutUint64(d[16:], TransferMax) // OPTIMAL BYTES IN BLOCK ROD TRANSFER

	p = append(p, 0x01, 0x08, 0, 132, 0, 0, 0, 128)
	p = appendType(p, TypeChangeVulnerable, 0x03, 0x8000) // TOKEN_IN, TOKEN_OUT
	return appendType(p, TypeZero, 0x02, 0x0001)          // TOKEN_IN
}

// appendType appends a ROD type descriptor: ROD TYPE(4), flags, reserved, PREFERENCE INDICATOR(2), reserved(56).
func appendType(p []byte, rodType uint32, flags byte, preference uint16) []byte {
	p = binary.BigEndian.AppendUint32(p, rodType)
	p = append(p, flags, 0)
	p = binary.BigEndian.AppendUint16(p, preference)
	return append(p, make([]byte, 56)...)
}

package pdu

import (
	"encoding/binary"
	"hash/crc32"
)

// DigestLen is the length of a header or data digest, in bytes.
const DigestLen = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Digest is a running CRC32C (Castagnoli) as RFC 7143 section 13.1 uses it; its zero value is the CRC of nothing. On
// the wire the digest has its low byte first.
type Digest uint32

// Update returns the digest of what d covers followed by p.
func (d Digest) Update(p []byte) Digest { return Digest(crc32.Update(uint32(d), castagnoli, p)) }

// Append appends the digest as it is on the wire.
func (d Digest) Append(dst []byte) []byte { return binary.LittleEndian.AppendUint32(dst, uint32(d)) }

// check compares d with the digest on the wire.
func (d Digest) check(wire []byte, header bool) error {
	if got := binary.LittleEndian.Uint32(wire); got != uint32(d) {
		return &DigestError{Header: header, Got: got, Want: uint32(d)}
	}
	return nil
}

// PadLen returns how many zero bytes follow a data segment of n bytes, 0 to 3.
func PadLen(n int) int { return -n & 3 }

var zeroPad [3]byte

// Padding returns the zero bytes that follow a data segment of n bytes. The slice is shared and must not be written.
func Padding(n int) []byte { return zeroPad[:PadLen(n):PadLen(n)] }

// AppendHeaderDigest appends the digest of hdr, which is one BHS with its AHS as AppendHeader wrote them.
func AppendHeaderDigest(dst, hdr []byte) []byte { return Digest(0).Update(hdr).Append(dst) }

// AppendTrailer appends what follows a data segment: the padding, and the digest over data and padding if withDigest.
// The data may be given in parts. It appends nothing if there is no data.
func AppendTrailer(dst []byte, withDigest bool, data ...[]byte) []byte {
	n := 0
	for _, part := range data {
		n += len(part)
	}
	pad := Padding(n)
	dst = append(dst, pad...)
	if !withDigest || n == 0 {
		return dst
	}
	var d Digest
	for _, part := range data {
		d = d.Update(part)
	}
	return d.Update(pad).Append(dst)
}

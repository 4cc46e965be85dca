package login

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

const (
	// MaxBinaryLen is the longest binary value that is accepted, in bytes, RFC 7143 section 12.1.3.
	MaxBinaryLen = 1024
	// maxBinaryTextLen is the longest text of such a value: "0x" and two digits per byte.
	maxBinaryTextLen = 2 + 2*MaxBinaryLen
)

// decodeBinary decodes a binary value, "0x" and hexadecimal digits or "0b" and base64 (RFC 7143 section 6.1), of 1 to
// maxLen bytes. The length is checked before anything is decoded.
func decodeBinary(value string, maxLen int) ([]byte, error) {
	if len(value) < 3 || value[0] != '0' {
		return nil, textErrorf("a binary value of %d bytes without 0x or 0b", len(value))
	}
	digits := value[2:]
	switch value[1] {
	case 'x', 'X':
		if len(digits)%2 != 0 || len(digits) > 2*maxLen {
			return nil, textErrorf("%d hexadecimal digits", len(digits))
		}
		b, err := hex.DecodeString(digits)
		if err != nil {
			return nil, textErrorf("not hexadecimal")
		}
		return b, nil
	case 'b', 'B':
		// The decoder skips line ends, so those must be refused here.
		if len(digits) > base64.StdEncoding.EncodedLen(maxLen) || strings.ContainsAny(digits, "\r\n") {
			return nil, textErrorf("%d base64 characters", len(digits))
		}
		b, err := base64.StdEncoding.Strict().DecodeString(digits)
		if err != nil || len(b) == 0 || len(b) > maxLen {
			return nil, textErrorf("not base64 of 1 to %d bytes", maxLen)
		}
		return b, nil
	}
	return nil, textErrorf("a binary value without 0x or 0b")
}

// encodeBinary encodes b as hexadecimal digits, which every initiator reads.
func encodeBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }

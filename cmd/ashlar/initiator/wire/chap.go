package wire

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Algorithms of CHAP_A (RFC 7143 section 12.1.3, and the IANA registry for 6 to 8).
const (
	CHAPMD5    = 5
	CHAPSHA1   = 6
	CHAPSHA256 = 7
	CHAPSHA3   = 8
)

// CHAPResponse is the hash over identifier, secret and challenge (RFC 1994 section 4.1); nil for an unknown algorithm.
func CHAPResponse(algorithm int, id byte, secret string, challenge []byte) []byte {
	m := append(append([]byte{id}, secret...), challenge...)
	switch algorithm {
	case CHAPMD5:
		s := md5.Sum(m)
		return s[:]
	case CHAPSHA1:
		s := sha1.Sum(m)
		return s[:]
	case CHAPSHA256:
		s := sha256.Sum256(m)
		return s[:]
	case CHAPSHA3:
		s := sha3.Sum256(m)
		return s[:]
	}
	return nil
}

// Hex encodes a binary value as hexadecimal digits (RFC 7143 section 6.1).
func Hex(b []byte) string { return "0x" + hex.EncodeToString(b) }

// Base64 encodes a binary value in base64.
func Base64(b []byte) string { return "0b" + base64.StdEncoding.EncodeToString(b) }

// Binary decodes either form.
func Binary(s string) ([]byte, error) {
	switch {
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		if len(s)%2 == 1 {
			s = "0x0" + s[2:]
		}
		return hex.DecodeString(s[2:])
	case strings.HasPrefix(s, "0b"), strings.HasPrefix(s, "0B"):
		return base64.StdEncoding.DecodeString(s[2:])
	}
	return nil, fmt.Errorf("%q is no binary value", s)
}

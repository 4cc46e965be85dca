package login

import (
	"strings"
	"unicode/utf8"
)

// MaxNameLen is the longest iSCSI name, in bytes, RFC 7143 section 4.2.7.
const MaxNameLen = 223

// NormalizeName returns an iSCSI name in lower case, and whether it has one of the formats of RFC 7143 section 4.2.7:
//
//	iqn.YYYY-MM.reversed.domain[:anything]   eui.<16 hex digits>   naa.<16 or 32 hex digits>
//
// Characters that the standard's stringprep profile forbids but that break nothing (such as '_') are let through.
func NormalizeName(name string) (string, bool) {
	if len(name) > MaxNameLen || !utf8.ValidString(name) {
		return "", false
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f || r == ',' || r == '=' {
			return "", false
		}
	}
	name = strings.ToLower(name)
	if len(name) > MaxNameLen {
		return "", false // lower case can be longer outside of ASCII
	}
	switch {
	case strings.HasPrefix(name, "iqn."):
		return name, validIQN(name[len("iqn."):])
	case strings.HasPrefix(name, "eui."):
		return name, isHex(name[len("eui."):], 16)
	case strings.HasPrefix(name, "naa."):
		return name, isHex(name[len("naa."):], 16) || isHex(name[len("naa."):], 32)
	}
	return "", false
}

// validIQN checks "YYYY-MM." and that something follows.
func validIQN(s string) bool {
	const date = len("2001-04.")
	if len(s) <= date || s[4] != '-' || s[7] != '.' {
		return false
	}
	for _, i := range []int{0, 1, 2, 3, 5, 6} {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if _, ok := fromHex(s[i]); !ok {
			return false
		}
	}
	return true
}

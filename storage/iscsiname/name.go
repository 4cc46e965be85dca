package iscsiname

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Max is the longest iSCSI name, in bytes (RFC 7143 section 4.2.7.1).
const Max = 223

// Fold returns a name in lower case, and whether it is one.
func Fold(name string) (string, bool) {
	if len(name) > Max || !utf8.ValidString(name) {
		return "", false
	}
	for _, r := range name {
		if unicode.IsControl(r) || unicode.IsSpace(r) || r == ',' || r == '=' {
			return "", false
		}
	}
	name = strings.ToLower(name)
	if len(name) > Max {
		return "", false // lower case can be longer outside of ASCII
	}
	switch {
	case strings.HasPrefix(name, "iqn."):
		return name, qualified(name[len("iqn."):])
	case strings.HasPrefix(name, "eui."):
		return name, isHex(name[len("eui."):], 16)
	case strings.HasPrefix(name, "naa."):
		return name, isHex(name[len("naa."):], 16) || isHex(name[len("naa."):], 32)
	}
	return "", false
}

// qualified checks "YYYY-MM." and that something follows.
func qualified(s string) bool {
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

// isHex tells whether s is n hexadecimal digits in lower case.
func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

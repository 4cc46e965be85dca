package wire

import (
	"bytes"
	"strings"
)

// Keys joins key=value pairs to text, each with its terminating zero byte.
func Keys(pairs ...string) []byte {
	var b []byte
	for _, p := range pairs {
		b = append(append(b, p...), 0)
	}
	return b
}

// Pairs splits text at its zero bytes.
func Pairs(text []byte) []string {
	var out []string
	for kv := range bytes.SplitSeq(text, []byte{0}) {
		if len(kv) > 0 {
			out = append(out, string(kv))
		}
	}
	return out
}

// Lookup returns the value of a key in text, and how often the key is there.
func Lookup(text []byte, key string) (value string, times int) {
	for _, p := range Pairs(text) {
		if k, v, ok := strings.Cut(p, "="); ok && k == key {
			value = v
			times++
		}
	}
	return value, times
}

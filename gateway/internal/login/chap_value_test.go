package login

import (
	"bytes"
	"encoding/base64"
	"runtime"
	"strings"
	"testing"
)

func TestDecodeBinary(t *testing.T) {
	b64 := func(n int) string { return "0b" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xab}, n)) }
	for _, c := range []struct {
		name, in string
		max      int
		want     int // bytes of 0xab; -1: an error
	}{
		{"hex", "0xabABaBAb", 4, 4},
		{"hex, capital X", "0Xab", 4, 1},
		{"hex, one too many", "0xababababab", 4, -1},
		{"hex, odd digits", "0xaba", 4, -1},
		{"hex, no digits", "0x", 4, -1},
		{"hex, not a digit", "0xag", 4, -1},
		{"hex, a sign", "0x-b", 4, -1},
		{"base64 of 1", b64(1), 4, 1},
		{"base64 of 2", b64(2), 4, 2},
		{"base64 of 3", b64(3), 4, 3},
		{"base64 of 4", b64(4), 4, 4},
		{"base64, capital B", "0B" + b64(4)[2:], 4, 4},
		{"base64, one too many", b64(5), 4, -1}, // as many characters as 4 to 6 bytes have
		{"base64, far too many", b64(500), 4, -1},
		{"base64, empty", "0b", 4, -1},
		{"base64, no padding", strings.TrimRight(b64(4), "="), 4, -1},
		{"base64, line end", "0bq6ur\nqw==", 4, -1},
		{"base64, leftover bits", "0bq6urqx==", 4, -1},
		{"base64, URL alphabet", "0b_-8=", 4, -1},
		{"no prefix", "abab", 4, -1},
		{"decimal", "0d12", 4, -1},
		{"zero", "0", 4, -1},
		{"empty", "", 4, -1},
		{"largest hex", "0x" + strings.Repeat("ab", MaxBinaryLen), MaxBinaryLen, MaxBinaryLen},
		{"largest base64", b64(MaxBinaryLen), MaxBinaryLen, MaxBinaryLen},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := decodeBinary(c.in, c.max)
			if c.want < 0 {
				if err == nil {
					t.Fatalf("decoded to %x", got)
				}
				return
			}
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{0xab}, c.want)) {
				t.Fatalf("%x, %v", got, err)
			}
		})
	}
}

// TestDecodeBinaryMeasuresFirst gives values that are both too long and not decodable: the length must be noticed
// first, and nothing of their size be allocated.
func TestDecodeBinaryMeasuresFirst(t *testing.T) {
	for _, in := range []string{"0x" + strings.Repeat("z", 1<<20), "0b" + strings.Repeat("!", 1<<20)} {
		_, err := decodeBinary(in, 16)
		if err == nil || strings.Contains(err.Error(), "not ") {
			t.Errorf("%.4s: %v", in, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			_, _ = decodeBinary(in, 16)
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > 4096 {
			t.Errorf("%.4s: %d bytes allocated", in, n)
		}
	}
}

func TestEncodeBinary(t *testing.T) {
	for n := 1; n < 70; n++ {
		b := bytes.Repeat([]byte{0x5a}, n)
		if got, err := decodeBinary(encodeBinary(b), n); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d bytes: %x, %v", n, got, err)
		}
	}
}

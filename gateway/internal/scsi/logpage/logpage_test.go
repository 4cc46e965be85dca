package logpage

import (
	"encoding/binary"
	"testing"
)

// TestEveryPage goes through all page codes, subpage codes and some pointers: a page is well formed or refused.
func TestEveryPage(t *testing.T) {
	space := Space{HasUsed: true, HasAvailable: true, Used: 7, Available: 1 << 40}
	good := 0
	for code := range 64 {
		for subpage := range 256 {
			for _, pointer := range []uint16{0, 1, 2, 3, 0xFFFF} {
				p, fault := Append([]byte{9}, byte(code), byte(subpage), pointer, space)
				if fault != Fine {
					if len(p) != 1 {
						t.Fatalf("%02X/%02X: fault %v with % X", code, subpage, fault, p)
					}
					continue
				}
				good++
				p = p[1:]
				if p[0]&0x3F != byte(code) || p[1] != byte(subpage) || p[0]&0x80 == 0 || (p[0]&0x40 != 0) != (subpage != 0) ||
					int(binary.BigEndian.Uint16(p[2:])) != len(p)-4 {
					t.Fatalf("%02X/%02X: % X", code, subpage, p)
				}
				if subpage != 0 || code == Supported {
					continue
				}
				for p = p[4:]; len(p) > 0; p = p[4+int(p[3]):] {
					if binary.BigEndian.Uint16(p) < pointer || p[2] != 3 || len(p) < 4+int(p[3]) {
						t.Fatalf("%02X: parameter % X", code, p)
					}
				}
			}
		}
	}
	// Supported pages and all lists of subpages at pointer 0; 0C at 0..2, 0D at 0..1, 2F at 0.
	if want := 1 + 4 + 3 + 2 + 1; good != want {
		t.Errorf("%d answers, want %d", good, want)
	}
}

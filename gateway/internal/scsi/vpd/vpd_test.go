package vpd

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// TestPageLengths: each page has the length that the standard gives it, and appends behind what is there.
func TestPageLengths(t *testing.T) {
	for page, c := range map[byte]struct {
		make func([]byte) []byte
		want int
	}{
		PageExtended:             {func(p []byte) []byte { return AppendExtended(p, 28) }, 0x3C},
		PageBlockCharacteristics: {AppendCharacteristics, 0x3C},
		PageModePolicy:           {AppendModePolicy, 4},
		PageProvisioning:         {func(p []byte) []byte { return AppendProvisioning(p, 15) }, 4},
		PageBlockLimits:          {BlockLimits{}.Append, 0x3C},
	} {
		p := End(c.make(Begin(nil, page)))
		if p[1] != page || int(binary.BigEndian.Uint16(p[2:])) != c.want || len(p) != c.want+4 {
			t.Errorf("page %02X: % X", page, p)
		}
	}
}

// TestBlockLimits puts a number of its own into every field.
func TestBlockLimits(t *testing.T) {
	p := BlockLimits{
		CompareAndWrite: 1, Granularity: 2, Transfer: 3, OptimalTransfer: 4, Unmap: 5, UnmapDescriptors: 6,
		UnmapGranularity: 7, WriteSame: 8, Atomic: 9, AtomicAlignment: 10, AtomicGranularity: 11,
	}.Append(Begin(nil, PageBlockLimits))
	for _, f := range []struct{ at, want int }{
		{8, 3}, {12, 4}, {16, 0}, {20, 5}, {24, 6}, {28, 7}, {36, 0}, {40, 8}, {44, 9}, {48, 10}, {52, 11}, {56, 0}, {60, 0},
	} {
		if got := int(binary.BigEndian.Uint32(p[f.at:])); got != f.want {
			t.Errorf("bytes %d: %d, want %d", f.at, got, f.want)
		}
	}
	if p[4] != 1 || p[5] != 1 || p[7] != 2 || p[32] != 0x80 {
		t.Errorf("% X", p[:36])
	}
}

func TestInquiry(t *testing.T) {
	id := Identity{Vendor: "ASHLAR", Product: "A product that is too long", Revision: "1"}
	p := Inquiry{Peripheral: Disk, TPGS: 1, MultiPort: true, ThirdParty: true}.Append([]byte{9}, id)[1:]
	if len(p) != 96 || p[4] != 91 || p[5] != 0x18 || p[6] != 0x10 || !bytes.Equal(p[8:36], []byte("ASHLAR  A product that i1   ")) {
		t.Errorf("% X", p)
	}
}

// TestIdentificationIsAList: whatever the names, the designators follow each other to the end.
func TestIdentificationIsAList(t *testing.T) {
	for n := range 256 {
		port := Port{Name: strings.Repeat("x", n), Protocol: 5}
		p := AppendIdentification(nil, Identity{Serial: strings.Repeat("s", n%32+1)}, port)
		count := 0
		for len(p) > 0 {
			if len(p) < 4+int(p[3]) {
				t.Fatalf("%d: a designator is cut", n)
			}
			p = p[4+int(p[3]):]
			count++
		}
		if count != 5 {
			t.Fatalf("%d: %d designators", n, count)
		}
	}
}

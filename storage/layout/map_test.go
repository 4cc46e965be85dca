package layout

import (
	"math/rand/v2"
	"testing"
)

func testMap() *Map {
	return &Map{
		Volume: 9, Size: 100 << 20, ChunkSize: 16 << 20, StripeUnit: 16 << 20, StripeCount: 1,
		Ranges: []Range{{0, 3, []CopysetID{7, 3}}, {3, 4, []CopysetID{5}}},
	}
}

func TestLocate(t *testing.T) {
	m := testMap()
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off, length int64
		want        Extent
		ok          bool
	}{
		{0, 4096, Extent{ChunkID{9, 0}, 7, 0, 4096}, true},
		{16<<20 - 512, 4096, Extent{ChunkID{9, 0}, 7, 16<<20 - 512, 512}, true},
		{16 << 20, 1, Extent{ChunkID{9, 1}, 3, 0, 1}, true},
		{32 << 20, 1, Extent{ChunkID{9, 2}, 7, 0, 1}, true},
		{48 << 20, 1, Extent{ChunkID{9, 3}, 5, 0, 1}, true},
		{100<<20 - 1, 1, Extent{ChunkID{9, 6}, 5, 4<<20 - 1, 1}, true},
		{100<<20 - 1, 2, Extent{}, false},
		{-1, 1, Extent{}, false},
		{0, 0, Extent{}, false},
		{0, -5, Extent{}, false},
		{1<<63 - 1, 1<<63 - 1, Extent{}, false},
	} {
		if got, ok := m.Locate(c.off, c.length); got != c.want || ok != c.ok {
			t.Errorf("Locate(%d, %d) = %+v, %v; want %+v, %v", c.off, c.length, got, ok, c.want, c.ok)
		}
	}
}

// TestStripingIsABijection checks that no two bytes of a striped volume share a place.
func TestStripingIsABijection(t *testing.T) {
	m := &Map{
		Volume: 1, Size: 8 * 64 << 10, ChunkSize: 64 << 10, StripeUnit: 8 << 10, StripeCount: 4,
		Ranges: []Range{{0, 8, []CopysetID{1, 2, 3}}},
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	seen := map[[2]uint32]bool{}
	for off := int64(0); off < m.Size; off += BlockSize {
		e, ok := m.Locate(off, BlockSize)
		if !ok || e.Length != BlockSize || seen[[2]uint32{e.Chunk.Index, e.Offset}] || e.Offset+e.Length > m.ChunkSize {
			t.Fatalf("byte %d lies at %+v, %v", off, e, ok)
		}
		seen[[2]uint32{e.Chunk.Index, e.Offset}] = true
	}
}

func TestSplitCoversTheRange(t *testing.T) {
	m := testMap()
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		off := rnd.Int64N(m.Size)
		length := 1 + rnd.Int64N(m.Size-off)
		extents, ok := m.Split(nil, off, length)
		if !ok {
			t.Fatalf("Split(%d, %d) failed", off, length)
		}
		var sum int64
		for _, e := range extents {
			want, _ := m.Locate(off+sum, length-sum)
			if e != want {
				t.Fatalf("extent %+v, want %+v", e, want)
			}
			sum += int64(e.Length)
		}
		if sum != length {
			t.Fatalf("extents hold %d of %d bytes", sum, length)
		}
	}
	if got, ok := m.Split(nil, m.Size-1, 2); ok || got != nil {
		t.Fatal("a range beyond the end was split")
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Map){
		"no volume":      func(m *Map) { m.Volume = 0 },
		"no size":        func(m *Map) { m.Size = 0 },
		"chunk size":     func(m *Map) { m.ChunkSize = 1000 },
		"stripe unit":    func(m *Map) { m.StripeUnit = 3 << 20 },
		"stripe count":   func(m *Map) { m.StripeCount = 0 },
		"gap":            func(m *Map) { m.Ranges[1].First++ },
		"no copysets":    func(m *Map) { m.Ranges[0].Copysets = nil },
		"too short":      func(m *Map) { m.Size = 1 << 40 },
		"broken stripe":  func(m *Map) { m.StripeCount = 2; m.StripeUnit = 1 << 20 },
		"too many":       func(m *Map) { m.Ranges = append(m.Ranges, Range{7, 1<<32 - 1, []CopysetID{1}}) },
		"no chunks left": func(m *Map) { m.Ranges = nil },
	} {
		m := testMap()
		change(m)
		if m.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFenceCompare(t *testing.T) {
	order := []Fence{{0, 0}, {0, 9}, {1, 0}, {1, 1}, {2, 0}}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("%v.Compare(%v) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestVerifyBlocks(t *testing.T) {
	p := make([]byte, 3*BlockSize)
	for i := range p {
		p[i] = byte(i * 7)
	}
	crcs := AppendCRCs(nil, p, 0)
	if got := VerifyBlocks(p, crcs); got != -1 {
		t.Fatalf("good blocks: %d", got)
	}
	p[BlockSize] ^= 1
	if got := VerifyBlocks(p, crcs); got != 1 {
		t.Fatalf("bad block 1: %d", got)
	}
	if got := VerifyBlocks(p, crcs[:2]); got != 2 {
		t.Fatalf("a checksum is missing: %d", got)
	}
	if got := AppendCRCs(nil, p[:BlockSize+100], 100); len(got) != 1 || got[0] != CRC(p[100:BlockSize+100]) {
		t.Fatalf("skip: %v", got)
	}
}

package extent

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

func randLeaf(rng *rand.Rand) *Leaf {
	l := NewLeaf(0, 0)
	at := Addr(1 + rng.Uint64N(1<<40))
	for i := range uint32(LeafBlocks) {
		switch rng.IntN(4) {
		case 0:
			continue
		case 1:
			at = Addr(1 + rng.Uint64N(1<<40))
		}
		l.Set(i, Entry{Addr: at, CRC: rng.Uint32()})
		at++
	}
	if rng.IntN(2) == 0 {
		l.Born, l.Shared = rng.Uint64(), rng.Uint64()&l.Allocated
	}
	return l
}

func TestLeafRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	full := NewLeaf(0, 0)
	for i := range uint32(LeafBlocks) {
		full.Set(i, Entry{Addr: 100 + Addr(i), CRC: i})
	}
	leaves := []*Leaf{NewLeaf(0, 0), full}
	for range 200 {
		leaves = append(leaves, randLeaf(rng))
	}
	var got Leaf
	for _, l := range leaves {
		b := l.AppendTo([]byte("x"))[1:]
		if err := got.Parse(b); err != nil {
			t.Fatal(err)
		}
		if got.Addr != l.Addr || got.CRC != l.CRC || got.Allocated != l.Allocated || got.Born != l.Born || got.Shared != l.Shared {
			t.Fatalf("%v came back as %v", l.Addr, got.Addr)
		}
	}
	if n := len(full.AppendTo(nil)); n != leafHeader+3+4*LeafBlocks {
		t.Fatalf("a leaf of one run takes %d bytes", n)
	}
}

func TestLeafCut(t *testing.T) {
	b := randLeaf(rand.New(rand.NewPCG(2, 2))).AppendTo(nil)
	var l Leaf
	var bad *CorruptError
	for i := range b {
		if err := l.Parse(b[:i]); !errors.As(err, &bad) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if err := l.Parse(append(b, 0)); !errors.As(err, &bad) {
		t.Fatalf("a byte more: %v", err)
	}
}

func TestLeafOfNewerFormat(t *testing.T) {
	l := NewLeaf(0, 0)
	l.Set(3, Entry{Addr: 9, CRC: 1})
	var newer *VersionError
	for _, i := range []int{0, 1, leafHeader} { // version, flags, the run's flags
		b := l.AppendTo(nil)
		b[i] = 9
		if err := new(Leaf).Parse(b); !errors.As(err, &newer) || newer.Have == newer.Knows {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

func FuzzLeaf(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 5 {
		f.Add(randLeaf(rng).AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var l, again Leaf
		if l.Parse(b) != nil {
			return
		}
		if err := again.Parse(l.AppendTo(nil)); err != nil || again.Addr != l.Addr || again.CRC != l.CRC || again.Shared != l.Shared || again.Born != l.Born {
			t.Fatalf("not the same again: %v", err)
		}
	})
}

func TestRecord(t *testing.T) {
	for _, r := range []Record{{}, {Incarnation: 1, Index: 2, Term: 3}, {Incarnation: 9, State: []byte("state")}} {
		b := r.AppendTo(nil)
		got, err := ParseRecord(b)
		if err != nil || got.Incarnation != r.Incarnation || got.Index != r.Index || got.Term != r.Term ||
			!bytes.Equal(got.State, r.State) {
			t.Fatalf("%+v came back as %+v, %v", r, got, err)
		}
		var bad *CorruptError
		for i := range recordHeader {
			if _, err := ParseRecord(b[:i]); !errors.As(err, &bad) {
				t.Fatalf("cut at %d: %v", i, err)
			}
		}
		b[0]++
		var newer *VersionError
		if _, err := ParseRecord(b); !errors.As(err, &newer) {
			t.Fatal(err)
		}
	}
}

// TestKeysSort: the keys sort as the leaves do.
func TestKeysSort(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	id := func() LeafID {
		return LeafID{
			Chunk: layout.ChunkID{Volume: layout.VolumeID(rng.Uint64N(3) << (8 * rng.IntN(8))), Index: rng.Uint32N(3) << 8},
			Index: rng.Uint32N(3) << (8 * rng.IntN(4)), Version: rng.Uint64N(3),
		}
	}
	for range 1000 {
		a, b := id(), id()
		ka, kb := AppendLeafKey(nil, 5, a), AppendLeafKey(nil, 5, b)
		if bytes.Compare(ka, kb) != a.Compare(b) {
			t.Fatalf("%v and %v", a, b)
		}
		if inc, got, err := ParseLeafKey(ka); err != nil || inc != 5 || got != a {
			t.Fatalf("%v came back as %v, %v", a, got, err)
		}
		if !bytes.HasPrefix(ka, AppendVolumeKey(nil, 5, a.Chunk.Volume)) || len(ka) != LeafKeyLen {
			t.Fatal("prefix")
		}
	}
	var bad *CorruptError
	if _, _, err := ParseLeafKey([]byte{KeyLeaf, 1}); !errors.As(err, &bad) {
		t.Fatal(err)
	}
}

func TestAppendRun(t *testing.T) {
	var runs []Run
	for _, r := range []Run{{5, 1}, {6, 2}, {9, 1}, {3, 1}, {4, 1<<32 - 1}} {
		runs = AppendRun(runs, r.Start, r.N)
	}
	want := []Run{{5, 3}, {9, 1}, {3, 1}, {4, 1<<32 - 1}} // the last would not fit a run's length
	if len(runs) != len(want) {
		t.Fatalf("%v", runs)
	}
	for i := range want {
		if runs[i] != want[i] {
			t.Fatalf("%v", runs)
		}
	}
}

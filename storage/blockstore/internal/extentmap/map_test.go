package extentmap

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

var at = layout.ChunkID{Volume: 1, Index: 2}

// write maps blocks of leaf 0 to n blocks of the file from addr on, and returns what that freed.
func write(t *testing.T, m *Map, first, n uint32, addr extent.Addr) (freed []extent.Run) {
	t.Helper()
	ents := make([]extent.Entry, n)
	for i := range ents {
		ents[i] = extent.Entry{Addr: addr + extent.Addr(i), CRC: uint32(addr) + uint32(i)}
	}
	if missing, ok := m.Prepare(at, first, n, ents); !ok {
		t.Fatalf("leaf %d is not in memory", missing)
	}
	before := len(m.Active.Overwritten)
	m.Switch(Change{Chunk: at, First: first, N: n, Entries: ents})
	return slices.Clone(m.Active.Overwritten[before:])
}

func expectRuns(t *testing.T, what string, got []extent.Run, want ...extent.Run) {
	t.Helper()
	if got = extent.JoinRuns(got); !slices.Equal(got, want) {
		t.Errorf("%s: freed %v, want %v", what, got, want)
	}
}

// TestVersionsFree follows the blocks of one leaf through two versions.
func TestVersionsFree(t *testing.T) {
	var c Counters
	m := New(&c)
	expectRuns(t, "first", write(t, &m, 0, 10, 100))
	expectRuns(t, "again", write(t, &m, 0, 2, 200), extent.Run{Start: 100, N: 2})
	m.TakeVersion(1, 3) // 200 201 102 … 109
	expectRuns(t, "shared", write(t, &m, 1, 2, 300))
	expectRuns(t, "shared no more", write(t, &m, 1, 1, 400), extent.Run{Start: 300, N: 1})
	m.TakeVersion(1, 7) // 200 400 301 103 … 109
	expectRuns(t, "of two", write(t, &m, 0, 3, 500))
	if m.Usage[1] != 10 || m.Kept[1] != 5 {
		t.Errorf("%d blocks and %d", m.Usage[1], m.Kept[1])
	}
	id := extent.LeafID{Chunk: at}
	aside := func(n uint64) (extent.LeafID, *extent.Leaf) {
		x := id
		x.Version = n
		return x, m.Active.Leaves[x]
	}
	three, old := aside(3)
	seven, young := aside(7)
	if old == nil || young == nil || young.Born != 3 || bits.OnesCount64(young.Own()) != 2 {
		t.Fatalf("%+v, %+v", old, young)
	}
	// Version 3 alone has 201 and 102; 200 it shares with version 7, the rest with all.
	if n := m.DropVersion(1, 3, []Old{{ID: three, Leaf: old, NextID: seven, Next: young}}); n != 2 {
		t.Errorf("%d blocks were freed", n)
	}
	expectRuns(t, "version 3", m.Active.Discarded, extent.Run{Start: 102, N: 1}, extent.Run{Start: 201, N: 1})
	m.Active.Discarded = nil
	_, young = aside(7)
	if young.Own() != young.Allocated || m.Kept[1] != 3 {
		t.Errorf("%b is not all its own, %d are kept", young.Own(), m.Kept[1])
	}
	head := m.Chunks[at].Leaf(0)
	m.DropVersion(1, 7, []Old{{ID: seven, Leaf: young, NextID: id, Next: head}})
	expectRuns(t, "version 7", m.Active.Discarded, extent.Run{Start: 200, N: 1}, extent.Run{Start: 301, N: 1}, extent.Run{Start: 400, N: 1})
	if head = m.Chunks[at].Leaf(0); head.Shared != 0 || len(m.Kept) != 0 || m.Versions[1].Last != 7 {
		t.Errorf("%+v, kept %v, versions %+v", head, m.Kept, m.Versions[1])
	}
}

// TestRename: a leaf that an older version has too becomes that one's when its own version goes.
func TestRename(t *testing.T) {
	var c Counters
	m := New(&c)
	write(t, &m, 0, 4, 100)
	m.TakeVersion(1, 1)
	m.TakeVersion(1, 2)
	write(t, &m, 0, 4, 200)
	two := extent.LeafID{Chunk: at, Version: 2}
	if n := m.DropVersion(1, 2, []Old{{ID: two, Leaf: m.Active.Leaves[two], NextID: two.Head(), Next: m.Chunks[at].Leaf(0)}}); n != 0 {
		t.Errorf("%d blocks were freed", n)
	}
	one := two
	one.Version = 1
	if l := m.Active.Leaves[one]; l == nil || l.Addr[3] != 103 || m.Active.Leaves[two].Allocated != 0 || m.Kept[1] != 4 {
		t.Errorf("%+v, kept %v", l, m.Kept)
	}
}

// TestCounters: what is in memory is counted, the leaves of versions too, and nothing is left when the overlay is durable and all
// was evicted.
func TestCounters(t *testing.T) {
	var c Counters
	m := New(&c)
	write(t, &m, 0, 4, 100)
	m.TakeVersion(1, 1)
	write(t, &m, 0, 4, 200)
	if c.Resident.Load() != 2 || c.Overlay.Load() != 2 {
		t.Errorf("%d in memory, %d in overlays", c.Resident.Load(), c.Overlay.Load())
	}
	seq := m.Seq
	o := m.Freeze()
	m.Forget(&o)
	for range 2 { // the first round finds a leaf that was used
		m.Sweep(0, 10, seq)
	}
	if c.Resident.Load() != 0 || c.Overlay.Load() != 0 || !m.Chunks[at].Has(0) || len(m.Cached) != 0 {
		t.Errorf("%d in memory, %d in overlays", c.Resident.Load(), c.Overlay.Load())
	}
	if _, ok := m.Prepare(at, 0, 1, nil); ok {
		t.Error("a leaf that is not in memory can be changed")
	}
}

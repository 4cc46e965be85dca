package version

import (
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var place = extent.LeafID{Chunk: layout.ChunkID{Volume: 1, Index: 2}, Index: 3}

const incarnation = 9

// leaf returns a leaf whose block 0 is at addr; 0: none.
func leaf(addr extent.Addr, born uint64) *extent.Leaf {
	l := extent.NewLeaf(1, 1)
	l.Born = born
	if addr != 0 {
		l.Set(0, extent.Entry{Addr: addr, CRC: uint32(addr)})
	}
	return l
}

// leaves are those of the place, by version.
type leaves map[uint64]*extent.Leaf

func (m leaves) overlay() *extentmap.Overlay {
	o := &extentmap.Overlay{Leaves: map[extent.LeafID]*extent.Leaf{}}
	for n, l := range m {
		id := place
		id.Version = n
		o.Leaves[id] = l
	}
	return o
}

func index(t *testing.T, m leaves) *disk.Index {
	t.Helper()
	x, err := disk.OpenIndex("index", pebblevfs.NewMem(), 1<<20, true, disk.NewPoison(zap.NewNop()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	b := x.DB.NewBatch()
	set := func(inc uint64, id extent.LeafID, l *extent.Leaf) {
		if err := b.Set(extent.AppendLeafKey(nil, inc, id), l.AppendTo(nil), nil); err != nil {
			t.Fatal(err)
		}
	}
	for n, l := range m {
		id := place
		id.Version = n
		set(incarnation, id, l)
	}
	// What is beside it does not count.
	after, other := place, place
	after.Index++
	other.Chunk.Index++
	set(incarnation, after, leaf(99, 0))
	set(incarnation, other, leaf(99, 0))
	set(incarnation+1, place, leaf(99, 0))
	if err := x.Commit(b); err != nil {
		t.Fatal(err)
	}
	return x
}

// TestView says where block 0 of the versions 3, 5 and 8 is found.
func TestView(t *testing.T) {
	for _, c := range []struct {
		what     string
		index    leaves
		overlays []leaves
		want     [3]extent.Addr // in version 3, 5 and 8
	}{
		{"nothing was ever there", nil, nil, [3]extent.Addr{}},
		{"nothing has changed", leaves{0: leaf(10, 0)}, nil, [3]extent.Addr{10, 10, 10}},
		{"it is younger than all", leaves{0: leaf(10, 8)}, nil, [3]extent.Addr{}},
		{"it is younger than some", leaves{0: leaf(10, 3)}, nil, [3]extent.Addr{0, 10, 10}},
		{"one of each", leaves{3: leaf(10, 0), 5: leaf(20, 3), 8: leaf(30, 5), 0: leaf(40, 8)}, nil, [3]extent.Addr{10, 20, 30}},
		{"one for two", leaves{5: leaf(20, 0), 0: leaf(40, 5)}, nil, [3]extent.Addr{20, 20, 40}},
		{"a hole between", leaves{3: leaf(10, 0), 0: leaf(40, 5)}, nil, [3]extent.Addr{10, 0, 40}},
		{"set aside, not durable", leaves{0: leaf(10, 0)}, []leaves{{8: leaf(10, 0), 0: leaf(40, 8)}}, [3]extent.Addr{10, 10, 10}},
		{"discarded since", leaves{0: leaf(10, 0)}, []leaves{{8: leaf(10, 0), 0: leaf(0, 8)}}, [3]extent.Addr{10, 10, 10}},
		{"the newest overlay counts", leaves{0: leaf(10, 5)}, []leaves{{0: leaf(20, 5)}, {0: leaf(30, 5)}}, [3]extent.Addr{0, 0, 30}},
		{"of a version that was deleted, not durable", leaves{4: leaf(10, 0), 0: leaf(40, 4)}, []leaves{{4: leaf(0, 0), 3: leaf(10, 0)}}, [3]extent.Addr{10, 40, 40}},
		{"of a version that goes to none", leaves{4: leaf(10, 3), 0: leaf(40, 4)}, []leaves{{4: leaf(0, 0)}}, [3]extent.Addr{0, 40, 40}},
		{"of a volume that was deleted, not durable", leaves{4: leaf(10, 0)}, []leaves{{4: leaf(0, 0), 0: leaf(40, 0)}}, [3]extent.Addr{40, 40, 40}},
		{"durable and not", leaves{5: leaf(20, 0)}, []leaves{{8: leaf(30, 5)}}, [3]extent.Addr{20, 20, 30}},
	} {
		src := &Source{Maps: index(t, c.index), Incarnation: incarnation, Versions: extent.Versions{Last: 8, Numbers: []uint64{3, 5, 8}}}
		for _, o := range c.overlays {
			src.Overlays = append(src.Overlays, o.overlay())
		}
		for i, n := range src.Versions.Numbers {
			const before = 2 // blocks of the leaf before it
			first := place.Index*extent.LeafBlocks - before
			ents := make([]extent.Entry, before+extent.LeafBlocks)
			v := New(src, n, place.Chunk, first, uint32(len(ents)))
			if err := v.Fill(first, ents); err != nil {
				t.Fatal(err)
			}
			for j, e := range ents {
				if want := c.want[i]; j == before && e.Addr != want || j != before && e.Addr != 0 {
					t.Errorf("%s: version %d: entry %d is %+v, want %d", c.what, n, j, e, want)
				}
			}
		}
	}
}

// TestStill: what was found is right as long as no version from the view's on goes and the content is the same.
func TestStill(t *testing.T) {
	have := extent.Versions{Last: 8, Numbers: []uint64{3, 5, 8}}
	v := New(&Source{Incarnation: incarnation, Versions: have}, 5, place.Chunk, 0, 1)
	for what, c := range map[string]struct {
		now         extent.Versions
		incarnation uint64
		still       bool
	}{
		"nothing":         {have, incarnation, true},
		"one more":        {have.Take(9), incarnation, true},
		"an older goes":   {have.Drop(3), incarnation, true},
		"a younger goes":  {have.Drop(8), incarnation, false},
		"it goes":         {have.Drop(5), incarnation, false},
		"all go":          {extent.Versions{}, incarnation, false},
		"another content": {have, incarnation + 1, false},
	} {
		if got := v.Still(&Source{Incarnation: c.incarnation, Versions: c.now}); got != c.still {
			t.Errorf("%s: %v", what, got)
		}
	}
}

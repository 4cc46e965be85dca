package image

import (
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// newSource returns a source on an empty data file and an empty index.
func newSource(t *testing.T) Source {
	t.Helper()
	f := disk.NewFile(vfs.NewMem(), "/", 0, 0, 1<<20, 1)
	if err := errors.Join(f.Format([16]byte{1}), f.Open([16]byte{1})); err != nil {
		t.Fatal(err)
	}
	x, err := disk.OpenIndex("/", pebblevfs.NewMem(), 1<<20, true, disk.NewPoison(zap.NewNop()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(x.Close(), f.Close()); err != nil {
			t.Error(err)
		}
	})
	return Source{Copyset: 7, Index: 5, Term: 2, State: []byte("state"), Incarnation: 3, File: f, Maps: x, Changed: map[extent.LeafID]*extent.Leaf{}}
}

// leaf returns a leaf whose block b is a block of the file that is filled with v.
func leaf(t *testing.T, src Source, b uint32, v byte) *extent.Leaf {
	t.Helper()
	runs, err := src.File.Allocate(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, layout.BlockSize)
	for i := range p {
		p[i] = v
	}
	if err := src.File.Write(runs[0].Start, p); err != nil {
		t.Fatal(err)
	}
	l := new(extent.Leaf)
	l.Set(b, extent.Entry{Addr: runs[0].Start, CRC: extent.Checksum(p)})
	return l
}

func place(chunk, index uint32) extent.LeafID {
	return extent.LeafID{Chunk: layout.ChunkID{Volume: 1, Index: chunk}, Index: index}
}

// TestMerge: a leaf that had changed stands for the one of the index, one without blocks hides it, and what came into the
// index later, or is of another incarnation, is not seen.
func TestMerge(t *testing.T) {
	src := newSource(t)
	put := func(inc uint64, id extent.LeafID, l *extent.Leaf) {
		t.Helper()
		if err := src.Maps.DB.Set(extent.AppendLeafKey(nil, inc, id), l.AppendTo(nil), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	put(3, place(0, 0), leaf(t, src, 1, 'a'))
	put(3, place(0, 2), leaf(t, src, 9, 'x'))
	put(3, place(4, 0), leaf(t, src, 0, 'x'))
	put(4, place(0, 1), leaf(t, src, 0, 'x'))
	src.Changed[place(0, 2)] = leaf(t, src, 2, 'b')
	src.Changed[place(3, 1)] = leaf(t, src, 3, 'c')
	src.Changed[place(4, 0)] = new(extent.Leaf)
	r, err := New(src)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	put(3, place(5, 0), leaf(t, src, 0, 'x'))
	for _, want := range []struct {
		chunk, first uint32
		v            byte
	}{{0, 1, 'a'}, {0, 2*extent.LeafBlocks + 2, 'b'}, {3, extent.LeafBlocks + 3, 'c'}} {
		run, err := r.NextRun()
		if err != nil || run.Chunk.Index != want.chunk || run.First != want.first || len(run.Data) != layout.BlockSize || run.Data[0] != want.v {
			t.Fatalf("got chunk %v block %d of %d bytes, %v; want %+v", run.Chunk, run.First, len(run.Data), err, want)
		}
	}
	if _, err := r.NextRun(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

// TestDamagedIsSkipped: a bad block is told, and the blocks around it are given.
func TestDamagedIsSkipped(t *testing.T) {
	src := newSource(t)
	l := leaf(t, src, 0, 'a')
	for b := uint32(1); b < 3; b++ {
		o := leaf(t, src, b, 'a'+byte(b))
		l.Set(b, extent.Entry{Addr: o.Addr[b], CRC: o.CRC[b]})
	}
	l.CRC[1]++
	src.Changed[place(0, 0)] = l
	r, err := New(src)
	if err != nil {
		t.Fatal(err)
	}
	var bad *extent.ChecksumError
	if run, err := r.NextRun(); err != nil || run.First != 0 || len(run.CRCs) != 1 {
		t.Errorf("before it: %v, %v", run.First, err)
	}
	if _, err := r.NextRun(); !errors.As(err, &bad) || bad.Block != 1 || bad.Copyset != 7 {
		t.Errorf("the bad block: %v", err)
	}
	if run, err := r.NextRun(); err != nil || run.First != 2 || run.Data[0] != 'c' {
		t.Errorf("behind it: %v, %v", run.First, err)
	}
	r.Close()
	r.Close()
	if _, err := r.NextSums(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := r.Next(nil); err != nil { // the header needs nothing that was closed
		t.Errorf("the header: %v", err)
	}
}

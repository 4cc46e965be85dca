package raftlog

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// TestInspect: what Inspect tells of a closed log is what Open makes of it.
func TestInspect(t *testing.T) {
	sides := 0
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 8))
		fs := vfs.NewMem()
		l, _ := openSide(t, fs)
		m := model{}
		for range 80 {
			us := randomUpdates(rng, m, 4)
			mustAppend(t, l, us...)
			m, _ = m.with(us)
		}
		dir := l.dir
		mustClose(t, l)
		in, err := Inspect(fs, dir, testOptions().Identity)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		l, _ = openSide(t, fs)
		var ids []layout.CopysetID
		for _, g := range in.Groups {
			ids = append(ids, g.Copyset)
			got, ok := l.Group(g.Copyset)
			if !ok {
				t.Fatalf("seed %d: copyset %d is not in the log", seed, g.Copyset)
			}
			first, _ := got.FirstIndex()
			last, _ := got.LastIndex()
			if g.Behind != first-1 || g.Last != last || g.Commit != got.HardState().GetCommit() {
				t.Errorf("seed %d: %+v, but the log has %d to %d", seed, g, first, last)
			}
			for _, e := range g.Side {
				sides++
				blocks := uint32(0)
				for _, x := range e.Extents {
					blocks += x.Blocks
				}
				term, _ := got.Term(e.Index)
				if !slices.Equal(got.Extents(e.Index, term), e.Extents) || int(blocks)*fakeBlock != e.Bytes {
					t.Errorf("seed %d: %+v", seed, e)
				}
			}
		}
		if slices.Sort(ids); !slices.Equal(ids, l.Copysets()) {
			t.Errorf("seed %d: copysets %v, want %v", seed, ids, l.Copysets())
		}
		mustClose(t, l)
	}
	if sides == 0 {
		t.Error("there was no sideloaded entry")
	}
}

func TestInspectRefuses(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, testOptions())
	dir := l.dir
	mustClose(t, l)
	if _, err := Inspect(fs, dir, [16]byte{0xee}); !errors.As(err, new(*ForeignError)) {
		t.Errorf("of another log: %v", err)
	}
	if err := fs.MkdirAll("empty"); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(fs, "empty", testOptions().Identity); !errors.Is(err, ErrNoLog) {
		t.Errorf("of none: %v", err)
	}
	f, err := fs.Open(dir+"/"+segmentName(1), vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 30); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(fs, dir, testOptions().Identity); !errors.As(err, new(*CorruptError)) {
		t.Errorf("of a damaged one: %v", err)
	}
}

package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// fakeSide is a sidecar in one file. It gives a block that was released last out first, so that one released too early
// is overwritten at once.
type fakeSide struct {
	f    vfs.File
	held map[uint64]bool
	free []uint64
	next uint64
	// failing are the errors of the next calls.
	store, sync error
}

const fakeBlock = 64

func newFakeSide(t testing.TB, fs vfs.FS) *fakeSide {
	t.Helper()
	f, err := fs.Open("side", vfs.CreateMissing)
	if err != nil {
		t.Fatal(err)
	}
	if err := vfs.SyncDir(fs, "/"); err != nil {
		t.Fatal(err)
	}
	return &fakeSide{f: f, held: map[uint64]bool{}}
}

// hold keeps the blocks of a retained entry; the blocks in between are free.
func (s *fakeSide) hold(xs []Extent) error {
	for _, x := range xs {
		for b := x.Start; b < x.Start+uint64(x.Blocks); b++ {
			if s.held[b] {
				return fmt.Errorf("block %d is held twice", b)
			}
			s.held[b] = true
			for ; s.next <= b; s.next++ {
				if s.next != b {
					s.free = append(s.free, s.next)
				}
			}
			s.free = slices.DeleteFunc(s.free, func(f uint64) bool { return f == b })
		}
	}
	return nil
}

func (s *fakeSide) Tail(e *raftpb.Entry) (int, uint32) {
	if n := len(e.GetData()); n > 200 {
		tail := e.GetData()[n-n/fakeBlock*fakeBlock:]
		return len(tail), layout.CRC(tail)
	}
	return 0, 0
}

func (s *fakeSide) Store(tail []byte) ([]Extent, error) {
	if s.store != nil {
		return nil, s.store
	}
	var xs []Extent
	for len(tail) > 0 {
		b := s.next
		if k := len(s.free) - 1; k >= 0 {
			b, s.free = s.free[k], s.free[:k]
		} else {
			s.next++
		}
		if _, err := s.f.WriteAt(tail[:fakeBlock], int64(b)*fakeBlock); err != nil {
			return nil, err
		}
		s.held[b] = true
		tail = tail[fakeBlock:]
		xs = append(xs, Extent{b, 1})
	}
	return xs, nil
}

func (s *fakeSide) Sync() error {
	if s.sync != nil {
		return s.sync
	}
	return s.f.Sync()
}

func (s *fakeSide) Load(xs []Extent, tail []byte) error {
	for _, x := range xs {
		for i := range x.Blocks {
			if _, err := s.f.ReadAt(tail[:fakeBlock], int64(x.Start+uint64(i))*fakeBlock); err != nil {
				return err
			}
			tail = tail[fakeBlock:]
		}
	}
	return nil
}

func (s *fakeSide) Release(xs []Extent) {
	for _, x := range xs {
		for b := x.Start; b < x.Start+uint64(x.Blocks); b++ {
			if !s.held[b] {
				panic("a block is released twice")
			}
			delete(s.held, b)
			s.free = append(s.free, b)
		}
	}
}

// openSide opens a log with a fake sidecar.
func openSide(t testing.TB, fs vfs.FS) (*Log, *fakeSide) {
	t.Helper()
	l := mustOpen(t, fs, testOptions())
	s := newFakeSide(t, fs)
	if err := l.Attach(s, s.hold); err != nil {
		t.Fatal(err)
	}
	return l, s
}

// heldBy returns the number of blocks that the retained entries hold.
func heldBy(l *Log) (n int) {
	for _, g := range l.groups() {
		for i := range g.mu.slots {
			if r := g.mu.slots[i].side; r != nil {
				n += len(r.extents)
			}
		}
	}
	return n
}

func TestSideModel(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 5))
		fs := vfs.NewMem()
		l, side := openSide(t, fs)
		m := model{}
		for i := range 150 {
			us := randomUpdates(rng, m, 4)
			mustAppend(t, l, us...)
			m, _ = m.with(us)
			if rng.IntN(5) == 0 {
				if _, err := l.Compact(); err != nil {
					t.Fatalf("seed %d: compact: %v", seed, err)
				}
			}
			if rng.IntN(20) == 0 {
				mustClose(t, l)
				l, side = openSide(t, fs)
			}
			if err := m.diff(l); err != nil {
				t.Fatalf("seed %d, append %d: %v", seed, i, err)
			}
		}
		mustAppend(t, l, Update{Copyset: 9, MustSync: true}) // now every drop is durable
		if n := heldBy(l); n != len(side.held) {
			t.Fatalf("seed %d: %d blocks are held, the entries have %d", seed, len(side.held), n)
		}
		mustClose(t, l)
	}
}

// TestSideWrittenOnce: the tail is not in the log, is read back from the sidecar, and what it reads is checked.
func TestSideWrittenOnce(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := openSide(t, fs)
	es := run(1, 3, 1, 10000)
	mustAppend(t, l, Update{Copyset: 1, Entries: es})
	if l.off > 8192+headerBlock {
		t.Fatalf("the log has %d bytes of 30000", l.off)
	}
	g, _ := l.Group(1)
	if n := len(g.Extents(2, 1)); n != 10000/fakeBlock {
		t.Fatalf("%d extents", n)
	}
	if g.Extents(2, 2) != nil || g.Extents(4, 1) != nil || g.Extents(0, 1) != nil {
		t.Fatal("extents of an entry that is not there")
	}
	mustClose(t, l)
	l, side := openSide(t, fs)
	g, _ = l.Group(1)
	got, err := g.Entries(1, 4, 1<<30)
	if err != nil || len(got) != 3 || !bytes.Equal(got[2].GetData(), es[2].GetData()) {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	if got, err := g.Entries(1, 4, 15000); err != nil || len(got) != 1 {
		t.Fatalf("%d entries in 15000 bytes, %v", len(got), err)
	}
	if _, err := side.f.WriteAt([]byte{0xff}, int64(g.Extents(2, 1)[3].Start)*fakeBlock); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Entries(2, 3, 1<<30); !errors.As(err, new(*CorruptError)) {
		t.Fatalf("a damaged tail: %v", err)
	}
	mustClose(t, l)
}

// TestSideFails: without room the entry goes into the log; a sync that fails ends the log.
func TestSideFails(t *testing.T) {
	l, side := openSide(t, vfs.NewMem())
	side.store = syscall.ENOSPC
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 1, 1, 5000)})
	g, _ := l.Group(1)
	if g.Extents(1, 1) != nil {
		t.Fatal("it was sideloaded")
	}
	side.store, side.sync = nil, syscall.EIO
	if err := l.Append([]Update{{Copyset: 1, Entries: run(2, 2, 1, 5000)}}); !errors.As(err, new(*FailedError)) {
		t.Fatalf("append: %v", err)
	}
	if last, _ := g.LastIndex(); last != 1 {
		t.Fatalf("the last entry is %d", last)
	}
	_ = l.Close()
}

// TestSideNoRoom gives the blocks back when the log has no room for the record.
func TestSideNoRoom(t *testing.T) {
	fs := vfs.NewMem()
	l, side := openSide(t, fs)
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 1, 1, 10)})
	fs.SetCapacity(200 << 10)
	for i := uint64(2); ; i++ {
		err := l.Append([]Update{{Copyset: 1, Entries: append(run(i, i, 1, 150), run(i+1, i+1, 1, 300)...)}})
		i++
		if errors.As(err, new(*NoSpaceError)) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := heldBy(l); n != len(side.held) || n == 0 {
		t.Fatalf("%d blocks are held, the entries have %d", len(side.held), n)
	}
	mustClose(t, l)
}

func FuzzParseSide(f *testing.F) {
	r := &sideRef{size: 300, tail: 256, crc: 7, extents: []Extent{{5, 1}, {9, 3}}}
	good := r.appendTo(nil, make([]byte, 300))
	f.Add(good)
	for i := range good {
		f.Add(good[:i])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		r, head, ok := parseSide(p)
		if ok && !bytes.Equal(r.appendTo(nil, append(slices.Clone(head), make([]byte, r.tail)...)), p) {
			t.Fatal("it encodes to something else")
		}
	})
}

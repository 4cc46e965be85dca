package blockstore

import (
	"errors"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func mustStore(t *testing.T, s *Store, data []byte) []Blocks {
	t.Helper()
	runs, err := s.StoreBlocks(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SyncBlocks(); err != nil {
		t.Fatal(err)
	}
	return runs
}

// TestAdoptWritesOnce: the data of a log entry becomes content without another write, and its blocks are free when
// neither the log nor the content has them, whichever lets go first.
func TestAdoptWritesOnce(t *testing.T) {
	for _, logFirst := range []bool{true, false} {
		s, writes, _ := written(t, newDisk(t))
		c := create(t, s, 1)
		want := pattern(1, 128<<10)
		runs := mustStore(t, s, want)
		if u := s.Usage(); u.PendingFree != int64(len(want)) || u.Used != layout.BlockSize {
			t.Fatalf("usage %+v", u)
		}
		n := writes.Load()
		if err := c.Adopt(chunk0, 4096, want, blockCRCs(want), runs); err != nil {
			t.Fatal(err)
		}
		mustRead(t, c, chunk0, 4096, want)
		mustCommit(t, s, c.Freeze(nil))
		if writes.Load() != n {
			t.Fatalf("%d more writes", writes.Load()-n)
		}
		if u := s.Usage(); u.PendingFree != 0 || u.Used != int64(len(want))+layout.BlockSize {
			t.Fatalf("usage %+v", u)
		}
		drop := func() { s.ReleaseBlocks(runs) }
		overwrite := func() {
			mustWrite(t, c, chunk0, 4096, pattern(2, 128<<10))
			mustCommit(t, s, c.Freeze(nil))
		}
		if logFirst {
			drop()
			overwrite()
		} else {
			overwrite()
			if u := s.Usage(); u.PendingFree != int64(len(want)) {
				t.Fatalf("usage %+v: the log holds the blocks", u)
			}
			drop()
		}
		if u := s.Usage(); u.PendingFree != 0 || u.Used != int64(len(want))+layout.BlockSize {
			t.Fatalf("usage %+v", u)
		}
		mustRead(t, c, chunk0, 4096, pattern(2, 128<<10))
	}
}

// TestAdoptOfOthers: blocks that are not the log's alone are not adopted; the data is written instead.
func TestAdoptOfOthers(t *testing.T) {
	s, writes, _ := written(t, newDisk(t))
	c := create(t, s, 1)
	want := pattern(1, 128<<10)
	runs := mustStore(t, s, want)
	for i := range 2 {
		n := writes.Load()
		if err := c.Adopt(chunk0, uint32(i)<<20, want, nil, runs); err != nil {
			t.Fatal(err)
		}
		if again := writes.Load() > n; again != (i > 0) {
			t.Fatalf("adoption %d: written again %v", i, again)
		}
		mustRead(t, c, chunk0, uint32(i)<<20, want)
	}
	for _, bad := range []error{
		c.Adopt(chunk0, 512, want, nil, runs), c.Adopt(chunk0, 0, want[:4096], nil, runs),
		c.Adopt(chunk0, 0, want, []uint32{1}, runs),
	} {
		if !errors.Is(bad, ErrRange) {
			t.Fatal(bad)
		}
	}
}

// TestHoldBlocks: after a restart nothing takes the blocks of the log's entries, and blocks that no entry has are free.
func TestHoldBlocks(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	kept, lost := pattern(1, 2<<20), pattern(2, 2<<20)
	runs := mustStore(t, s, kept)
	mustStore(t, s, lost)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t)
	if err := s.HoldBlocks(runs); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]Blocks{runs, {{Start: 0, N: 1}}, {{Start: 1 << 40, N: 1}}} {
		if err := s.HoldBlocks(bad); !errors.As(err, new(*CorruptError)) {
			t.Fatalf("hold %v: %v", bad, err)
		}
	}
	if u := s.Usage(); u.PendingFree != int64(len(kept)) || u.Used != layout.BlockSize {
		t.Fatalf("usage %+v", u)
	}
	c := create(t, s, 1)
	for i := range uint32(4) {
		mustWrite(t, c, chunk0, i<<20, pattern(uint64(i), 1<<20))
	}
	got := make([]byte, len(kept))
	if err := s.LoadBlocks(runs, got); err != nil || string(got) != string(kept) {
		t.Fatalf("the entry's blocks were overwritten, %v", err)
	}
	s.ReleaseBlocks(runs)
	if u := s.Usage(); u.PendingFree != 0 {
		t.Fatalf("usage %+v", u)
	}
}

// TestStoreBlocksFails: a failed store leaves no block behind, a failed sync poisons.
func TestStoreBlocksFails(t *testing.T) {
	cause := errors.New("broken")
	s, on := faulty(t, newDisk(t), vfs.OpWriteAt, cause)
	before := s.Usage().Used
	on.Store(true)
	if _, err := s.StoreBlocks(pattern(1, 64<<10)); !errors.Is(err, cause) {
		t.Fatal(err)
	}
	if u := s.Usage(); u.Used != before || u.PendingFree != 0 {
		t.Fatalf("usage %+v", u)
	}
	if _, err := s.StoreBlocks(make([]byte, 100)); !errors.Is(err, ErrRange) {
		t.Fatal(err)
	}
	s, on = faulty(t, newDisk(t), vfs.OpSync, cause)
	if _, err := s.StoreBlocks(pattern(1, 64<<10)); err != nil {
		t.Fatal(err)
	}
	on.Store(true)
	if err := s.SyncBlocks(); !errors.As(err, new(*PoisonedError)) || s.Err() == nil {
		t.Fatal(err)
	}
}

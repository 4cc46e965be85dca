package blockstore

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestVersionSpace: what a version costs is what was changed since, and to delete it gives back what it alone has, in bytes.
func TestVersionSpace(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	const n, all = 10, 100 // blocks that change, of how many
	base, first, second := pattern(1, all*layout.BlockSize), pattern(2, n*layout.BlockSize), pattern(3, n*layout.BlockSize)
	expect := func(what string, content, versions int64) {
		t.Helper()
		mustCommit(t, s, c.Freeze(nil))
		u := s.Space()
		if got := u.Volumes[1]; got.Content != content*layout.BlockSize || got.Versions != versions*layout.BlockSize || u.Reclaimable != 0 {
			t.Errorf("%s: %+v, want %d and %d blocks", what, u, content, versions)
		}
	}
	mustWrite(t, c, chunk0, 0, base)
	if err := c.TakeVersion(1, 5); err != nil {
		t.Fatal(err)
	}
	expect("taken", all, 0)
	mustWrite(t, c, chunk0, 0, first)
	expect("overwritten", all, n)
	mustWrite(t, c, chunk0, 0, first)
	expect("overwritten again", all, n)
	if err := c.TakeVersion(1, 6); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, chunk0, n/2*layout.BlockSize, second)
	expect("overwritten after the next", all, n+n)
	if err := c.Discard(chunk0, all/2*layout.BlockSize, all/2*layout.BlockSize); err != nil {
		t.Fatal(err)
	}
	expect("discarded", all/2, n+n+all/2)
	mustReadVersion(t, c, 5, chunk0, base)
	mustReadVersion(t, c, 6, chunk0, append(bytes.Clone(first), base[n*layout.BlockSize:]...))
	if err := c.DeleteVersion(1, 5); err != nil {
		t.Fatal(err)
	}
	expect("the older is deleted", all/2, n+all/2)
	if _, err := c.ReadVersion(5, chunk0, 0, make([]byte, layout.BlockSize), nil); !errors.Is(err, ErrNoVersion) {
		t.Error(err)
	}
	if err := c.DeleteVersion(1, 6); err != nil {
		t.Fatal(err)
	}
	expect("both are deleted", all/2, 0)
	if err := errors.Join(c.TakeVersion(1, 7), c.DeleteVolume(1)); err != nil {
		t.Fatal(err)
	}
	expect("the volume is deleted", 0, 0)
	if u := s.Usage(); u.Used != layout.BlockSize || len(c.Versions(1)) != 0 {
		t.Errorf("%+v, versions %v", u, c.Versions(1))
	}
}

func mustReadVersion(t *testing.T, c *Copyset, n uint64, ch layout.ChunkID, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := c.ReadVersion(n, ch, 0, got, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("wrong bytes in version %d", n)
	}
	// A part of a block in the middle, which is read through another path.
	if _, err := c.ReadVersion(n, ch, 3*layout.BlockSize+512, got[:1024], nil); err != nil || !bytes.Equal(got[:1024], want[3*layout.BlockSize+512:][:1024]) {
		t.Errorf("wrong bytes in a part of version %d: %v", n, err)
	}
}

// TestVersionReaders: a version reads the same while the content is overwritten, versions around it come and go, leaves are
// evicted and checkpoints are made.
func TestVersionReaders(t *testing.T) {
	d := newDisk(t)
	d.opts.CacheSize = 1
	s := d.open(t)
	c := create(t, s, 1)
	const blocks, rounds = 200, 150
	for _, n := range []uint64{1, 2, 3} {
		mustWrite(t, c, chunk0, 0, pattern(n, blocks*layout.BlockSize))
		if err := c.TakeVersion(1, n); err != nil {
			t.Fatal(err)
		}
	}
	want := pattern(2, blocks*layout.BlockSize)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			got := make([]byte, len(want))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.ReadVersion(2, chunk0, 0, got, nil); err != nil || !bytes.Equal(got, want) {
					t.Errorf("version 2: %v", err)
					return
				}
			}
		})
	}
	rng := newRNG(1)
	for i := range uint64(rounds) {
		mustWrite(t, c, chunk0, rng.Uint32N(blocks)*layout.BlockSize, pattern(i, layout.BlockSize))
		switch rng.IntN(5) {
		case 0:
			if err := c.TakeVersion(1, 10+i); err != nil {
				t.Error(err)
			}
		case 1:
			have := c.Versions(1)
			if n := have[rng.IntN(len(have))]; n != 2 {
				if err := c.DeleteVersion(1, n); err != nil {
					t.Error(err)
				}
			}
		case 2:
			mustCommit(t, s, c.Freeze(nil))
		}
	}
	close(stop)
	readers.Wait()
}

// TestVersionsAreBounded: a volume has so many versions, and their numbers rise.
func TestVersionsAreBounded(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	for n := range uint64(VersionsMax) {
		if err := c.TakeVersion(1, n+1); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []uint64{0, 7, VersionsMax, VersionsMax + 1} {
		if err := c.TakeVersion(1, n); !errors.Is(err, ErrRange) {
			t.Errorf("version %d: %v", n, err)
		}
	}
	if err := errors.Join(c.DeleteVersion(1, 7), c.TakeVersion(1, VersionsMax+1)); err != nil {
		t.Error(err)
	}
	if err := c.TakeVersion(2, 3); err != nil {
		t.Error(err)
	}
}

// TestReadVersionWhileOthersGo reads a version while those around it are deleted as fast as that goes: it is there all the time.
func TestReadVersionWhileOthersGo(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	const others = 2000
	want := pattern(1, 16<<20)
	mustWrite(t, c, chunk0, 0, want)
	if err := errors.Join(c.TakeVersion(1, 1), c.TakeVersion(1, 2)); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, chunk0, 0, pattern(2, len(want))) // so that the leaves are set aside, and looked for
	mustCommit(t, s, c.Freeze(nil))
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		got := make([]byte, len(want))
		for {
			if _, err := c.ReadVersion(1, chunk0, 0, got, nil); err != nil || !bytes.Equal(got, want) {
				t.Errorf("version 1: %v", err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for n := uint64(2); n < others; n++ {
		if err := errors.Join(c.TakeVersion(1, n+1), c.DeleteVersion(1, n)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	reader.Wait()
}

// TestViewOfAnotherContent: what a reader of a version found is not right if an image took the place of the content meanwhile, which
// has a version of the same number.
func TestViewOfAnotherContent(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	source := create(t, newDisk(t).open(t), 1)
	for i, c := range []*Copyset{c, source} {
		mustWrite(t, c, chunk0, 0, pattern(uint64(i), 16*layout.BlockSize))
		if err := c.TakeVersion(1, 5); err != nil {
			t.Fatal(err)
		}
	}
	mustCommit(t, s, c.Freeze(nil))
	w, err := c.view(5, chunk0, 0, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer c.unpin(w.slot)
	if !c.still(1, w) {
		t.Error("nothing has changed")
	}
	in, err := s.NewInstaller(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(imageOf(t, source, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	if c.still(1, w) {
		t.Error("a view of the old content is taken for one of the new")
	}
	mustReadVersion(t, c, 5, chunk0, pattern(1, 16*layout.BlockSize))
}

package blockstore

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// imageOf returns the stream of a copyset's image.
func imageOf(t testing.TB, c *Copyset, state []byte) []byte {
	t.Helper()
	im, err := c.Snapshot(state)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	var b bytes.Buffer
	if n, err := im.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("image: %d, %v", n, err)
	}
	if _, err := im.Next(nil); !errors.Is(err, io.EOF) {
		t.Fatalf("after the end: %v", err)
	}
	return b.Bytes()
}

// sample returns a store with a copyset of a few blocks, some in the index and some in the overlay.
func sample(t testing.TB) (*Store, *Copyset) {
	t.Helper()
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 12288))
	mustWrite(t, c, layout.ChunkID{Volume: 9, Index: 4}, 1<<20, pattern(2, 4096))
	mustCommit(t, s, c.Freeze(nil))
	mustWrite(t, c, chunk0, 4096, pattern(3, 4096))
	if err := c.Discard(chunk0, 0, 4096); err != nil {
		t.Fatal(err)
	}
	c.SetApplied(77, 3)
	return s, c
}

func TestInstallOnAnotherStore(t *testing.T) {
	_, c := sample(t)
	state := pattern(4, FrameMax+1000)
	stream := imageOf(t, c, state)
	d := newDisk(t)
	s := d.open(t)
	in, err := s.NewInstaller(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(stream); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Copyset(1); !errors.Is(err, ErrNotFound) {
		t.Fatalf("before the end: %v", err)
	}
	if _, err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	in.Abort()
	if _, err := in.Finish(); err == nil {
		t.Fatal("finished twice")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t)
	got, err := s.Copyset(1)
	if err != nil {
		t.Fatal(err)
	}
	if i, term := got.Applied(); i != 77 || term != 3 || !bytes.Equal(got.State(), state) {
		t.Fatalf("applied %d.%d", i, term)
	}
	want := pattern(1, 12288)
	clear(want[:4096])
	copy(want[4096:], pattern(3, 4096))
	mustRead(t, got, chunk0, 0, want)
	mustRead(t, got, layout.ChunkID{Volume: 9, Index: 4}, 1<<20, pattern(2, 4096))
	if !bytes.Equal(imageOf(t, got, state), stream) {
		t.Fatal("the image of the copy is another")
	}
}

// TestStreamDamage flips every byte of a stream (of the data of blocks, some) and cuts it everywhere: it is never
// installed, and what was there stays.
func TestStreamDamage(t *testing.T) {
	s, c := sample(t)
	stream := imageOf(t, c, []byte("the state"))
	before := s.Usage()
	try := func(b []byte) error {
		in, err := s.NewInstaller(1)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Abort()
		if _, err := in.Write(b); err != nil {
			return err
		}
		_, err = in.Finish()
		return err
	}
	for i := range stream {
		if i > 300 && i%97 != 0 && i < len(stream)-100 {
			continue
		}
		var image *ImageError
		var version *VersionError
		if err := try(stream[:i]); !errors.As(err, &image) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		b := bytes.Clone(stream)
		b[i] ^= 0x10
		if err := try(b); !errors.As(err, &image) && !errors.As(err, &version) {
			t.Fatalf("flipped at %d: %v", i, err)
		}
	}
	var image *ImageError
	if err := try(append(bytes.Clone(stream), stream...)); !errors.As(err, &image) {
		t.Fatalf("twice: %v", err)
	}
	if after := s.Usage(); after != before {
		t.Fatalf("usage %+v, was %+v", after, before)
	}
	if i, _ := c.Applied(); i != 77 {
		t.Fatal("the copyset was changed")
	}
}

func TestInstallOfAnotherCopyset(t *testing.T) {
	s, c := sample(t)
	in, err := s.NewInstaller(2)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Abort()
	var image *ImageError
	if _, err := in.Write(imageOf(t, c, nil)); !errors.As(err, &image) {
		t.Fatal(err)
	}
}

// TestInstallCutByCrash: the leaves of an installation that did not end are gone after a reopen, and its blocks free.
func TestInstallCutByCrash(t *testing.T) {
	_, c := sample(t)
	stream := imageOf(t, c, nil)
	d := newDisk(t)
	s := d.open(t)
	other := create(t, s, 2)
	in, err := s.NewInstaller(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(stream); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, other.Freeze(nil)) // flushes the leaves
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = d.open(t)
		if ids := s.Copysets(); len(ids) != 1 || ids[0] != 2 {
			t.Fatalf("copysets %v", ids)
		}
		if u := s.Usage(); u.Used != layout.BlockSize {
			t.Fatalf("usage %+v", u)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImageOutlivesCopyset(t *testing.T) {
	s, c := sample(t)
	im, err := c.Snapshot(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(chunk0, 0, make([]byte, 512), nil); !errors.Is(err, ErrRemoved) {
		t.Fatalf("read: %v", err)
	}
	if err := c.Write(chunk0, 0, make([]byte, 512), nil); !errors.Is(err, ErrRemoved) {
		t.Fatalf("write: %v", err)
	}
	create(t, s, 1)
	if n, err := im.WriteTo(io.Discard); err != nil || n < 3*4096 {
		t.Fatalf("image: %d %v", n, err)
	}
	if u := s.Usage(); u.PendingFree == 0 {
		t.Fatal("the image holds nothing")
	}
	im.Close()
	im.Close()
	if _, err := im.NextRun(); !errors.Is(err, ErrImageClosed) {
		t.Fatal(err)
	}
	if u := s.Usage(); u.PendingFree != 0 || u.Used != layout.BlockSize {
		t.Fatalf("usage %+v", u)
	}
}

func FuzzInstall(f *testing.F) {
	s, c := sample(f)
	stream := imageOf(f, c, []byte("state"))
	f.Add(stream)
	f.Add(stream[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := s.NewInstaller(1)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Abort()
		if _, err := in.Write(b); err == nil && len(b) > FrameMax && !in.begun {
			t.Fatal("more than a frame was kept")
		}
	})
}

// TestStreamOrder sends frames that are whole, but not a stream.
func TestStreamOrder(t *testing.T) {
	s := newDisk(t).open(t)
	blocks := func(ch layout.ChunkID, first uint32, n int) []byte {
		p := pattern(1, n*layout.BlockSize)
		return frame.AppendBlocks(nil, BlockRun{Chunk: ch, First: first, CRCs: blockCRCs(p), Data: p})
	}
	header := frame.AppendHeader(nil, 1, 5, 5, 3, true)
	state := func(p string) []byte { return frame.End(append(frame.Begin(nil, frame.KindState), p...), 0) }
	end := func(n byte) []byte {
		return frame.End(append(frame.Begin(nil, frame.KindEnd), n, 0, 0, 0, 0, 0, 0, 0), 0)
	}
	ch1 := layout.ChunkID{Volume: 1, Index: 1}
	for name, x := range map[string]struct {
		frames [][]byte
		good   bool
	}{
		"good":               {[][]byte{header, state("a"), state("bc"), blocks(chunk0, 63, 1), blocks(ch1, 0, 64), end(65)}, true},
		"two runs of a leaf": {[][]byte{header, state("abc"), blocks(ch1, 1, 2), blocks(ch1, 3, 1), end(3)}, true},
		"no header":          {[][]byte{state("abc"), end(0)}, false},
		"two headers":        {[][]byte{header, header, state("abc"), end(0)}, false},
		"state too long":     {[][]byte{header, state("abcd"), end(0)}, false},
		"state too short":    {[][]byte{header, state("ab"), end(0)}, false},
		"state late":         {[][]byte{header, state("abc"), blocks(ch1, 1, 1), state("d"), end(1)}, false},
		"block twice":        {[][]byte{header, state("abc"), blocks(ch1, 1, 2), blocks(ch1, 2, 1), end(3)}, false},
		"block before":       {[][]byte{header, state("abc"), blocks(ch1, 5, 1), blocks(ch1, 3, 1), end(2)}, false},
		"leaf before":        {[][]byte{header, state("abc"), blocks(ch1, 64, 1), blocks(ch1, 3, 1), end(2)}, false},
		"chunk before":       {[][]byte{header, state("abc"), blocks(ch1, 64, 1), blocks(chunk0, 99, 1), end(2)}, false},
		"across a leaf":      {[][]byte{header, state("abc"), blocks(ch1, 63, 2), end(2)}, false},
		"beyond a chunk":     {[][]byte{header, state("abc"), blocks(ch1, 1<<20, 1), end(1)}, false},
		"wrong count":        {[][]byte{header, state("abc"), blocks(ch1, 1, 1), end(2)}, false},
		"after the end":      {[][]byte{header, state("abc"), end(0), blocks(ch1, 1, 1)}, false},
		"no end":             {[][]byte{header, state("abc"), blocks(ch1, 1, 1)}, false},
		"unknown":            {[][]byte{header, state("abc"), frame.End(frame.Begin(nil, 9), 0), end(0)}, false},
	} {
		in, err := s.NewInstaller(1)
		if err != nil {
			t.Fatal(err)
		}
		_, err = in.Write(bytes.Join(x.frames, nil))
		if err == nil {
			_, err = in.Finish()
		}
		in.Abort()
		var image *ImageError
		if x.good != (err == nil) || err != nil && !errors.As(err, &image) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

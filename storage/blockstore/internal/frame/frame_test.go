package frame

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// sample returns an older and a younger leaf of one place, which share blocks 0 and 2.
func sample() (older, younger *extent.Leaf, before, id extent.LeafID) {
	older = extent.NewLeaf(0, 0)
	for i := range uint32(3) {
		older.Set(i, extent.Entry{Addr: extent.Addr(10 + i), CRC: i})
	}
	younger = older.Clone(0, 0)
	younger.Shared, younger.Born = older.Allocated, 4
	younger.Set(1, extent.Entry{Addr: 99, CRC: 5})
	id = extent.LeafID{Chunk: layout.ChunkID{Volume: 7, Index: 8}, Index: 9}
	before = id
	before.Version = 4
	return older, younger, before, id
}

// TestLeaf: a leaf comes back with what it shares, and only if the leaf before it has that.
func TestLeaf(t *testing.T) {
	older, younger, before, id := sample()
	kind, p, err := Parse(AppendLeaf(nil, id, younger))
	if err != nil || kind != KindLeaf {
		t.Fatal(kind, err)
	}
	gotID, l, err := ParseLeaf(p, before, older)
	if err != nil || gotID != id || l.Born != 4 || l.Shared != 5 || l.Allocated != 5 || l.Addr[2] != 12 || l.CRC[2] != 2 {
		t.Errorf("%v %+v, %v", gotID, l, err)
	}
	elsewhere := before
	elsewhere.Index++
	less := older.Clone(0, 0)
	less.Set(2, extent.Entry{})
	var bad *Error
	for name, c := range map[string]struct {
		p      []byte
		before extent.LeafID
		older  *extent.Leaf
	}{
		"first leaf": {p, extent.LeafID{}, nil}, "another place": {p, elsewhere, older}, "not there": {p, before, less},
		"cut": {p[:len(p)-1], before, older}, "longer": {append(bytes.Clone(p), 0), before, older},
	} {
		if _, _, err := ParseLeaf(c.p, c.before, c.older); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVersions(t *testing.T) {
	want := extent.Versions{}.Take(3).Take(9)
	kind, p, err := Parse(AppendVersions(nil, 7, want))
	if err != nil || kind != KindVersions {
		t.Fatal(kind, err)
	}
	if v, n, err := ParseVersions(p); err != nil || v != 7 || n.Last != 9 || !slices.Equal(n.Numbers, want.Numbers) {
		t.Errorf("%d %+v, %v", v, n, err)
	}
	var bad *Error
	for _, n := range []int{0, 7, 8, 17, len(p) - 1} {
		if _, _, err := ParseVersions(p[:n]); !errors.As(err, &bad) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

// TestFlips flips every bit of frames: each is found.
func TestFlips(t *testing.T) {
	_, younger, _, id := sample()
	for _, b := range [][]byte{AppendLeaf(nil, id, younger), AppendVersions(nil, 7, extent.Versions{}.Take(3)), AppendHeader(nil, 1, 2, 3, 4, false)} {
		for i := range 8 * len(b) {
			c := bytes.Clone(b)
			c[i/8] ^= 1 << (i % 8)
			if n, err := Len(c); err == nil && n == len(c) {
				if _, _, err := Parse(c); err == nil {
					t.Fatalf("bit %d of a frame of kind %d can flip", i, b[4])
				}
			}
		}
	}
}

// TestCutter: a stream that is cut anywhere gives the same frames, and says whether it ends within one.
func TestCutter(t *testing.T) {
	_, younger, _, id := sample()
	frames := [][]byte{AppendHeader(nil, 1, 2, 3, 4, false), AppendVersions(nil, 7, extent.Versions{}.Take(3)), AppendLeaf(nil, id, younger)}
	stream := slices.Concat(frames...)
	for at := range stream {
		var c Cutter
		var got [][]byte
		take := func(b []byte) error { got = append(got, bytes.Clone(b)); return nil }
		whole := at == 0 || at == len(frames[0]) || at == len(frames[0])+len(frames[1])
		if err := c.Write(stream[:at], take); err != nil || c.Inside() == whole {
			t.Fatalf("cut at %d: %v, inside %v", at, err, c.Inside())
		}
		if err := c.Write(stream[at:], take); err != nil || c.Inside() || !slices.EqualFunc(got, frames, bytes.Equal) {
			t.Fatalf("cut at %d: %d frames, %v", at, len(got), err)
		}
	}
	stop := errors.New("stop")
	if err := new(Cutter).Write(stream, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// TestHeader: an image without versions has the format that earlier releases take; others have one that they refuse.
func TestHeader(t *testing.T) {
	for plain, version := range map[bool]byte{true: plainVersion, false: imageVersion} {
		_, p, err := Parse(AppendHeader(nil, 1, 2, 3, 4, plain))
		if err != nil || p[8] != version {
			t.Errorf("plain %v: version %d, %v", plain, p[8], err)
		}
		if id, r, state, err := ParseHeader(p); err != nil || id != 1 || r.Index != 2 || r.Term != 3 || state != 4 {
			t.Errorf("plain %v: %d %+v %d, %v", plain, id, r, state, err)
		}
		p[8] = 3
		var newer *extent.VersionError
		if _, _, _, err := ParseHeader(p); !errors.As(err, &newer) {
			t.Error(err)
		}
	}
}

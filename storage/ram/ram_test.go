package ram

import (
	"bytes"
	"errors"
	"testing"
)

func TestStore(t *testing.T) {
	s := New(4 << 20)
	b := make([]byte, 3<<20)
	for i := range b {
		b[i] = byte(i * 7)
	}
	const off = lockSpan/2 + 5
	if err := s.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(b))
	if err := s.ReadAt(got, off); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("read back: %v", err)
	}
	if err := s.Zero(off+1, 2<<20); err != nil {
		t.Fatal(err)
	}
	clear(b[1 : 1+2<<20])
	if err := s.ReadAt(got, off); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("after Zero: %v", err)
	}
	if err := s.Update(0, 4, func(p []byte) { copy(p, "abcd") }); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadAt(got[:4], 0); err != nil || string(got[:4]) != "abcd" {
		t.Errorf("after Update: %q, %v", got[:4], err)
	}
}

func TestRange(t *testing.T) {
	s := New(2 << 20)
	b := make([]byte, 2)
	nop := func([]byte) {}
	for i, err := range []error{
		s.ReadAt(b, -1), s.ReadAt(b, 2<<20-1), s.WriteAt(b, 1<<62), s.WriteAt(make([]byte, 2<<20+1), 0),
		s.Update(lockSpan-1, 2, nop), s.Update(-1, 1, nop), s.Zero(1, 2<<20), s.Zero(0, -1),
	} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := errors.Join(s.ReadAt(b, 2<<20-2), s.Update(2<<20, 0, nop), s.Zero(2<<20, 0)); err != nil {
		t.Error(err)
	}
}

package leasefile

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var sample = Note{Etcd: 0xcdf818194e3a8c32, Prefix: "/ashlar/main/election", Lease: 0x694d9a1f2b3c4d5e, Instance: Instance{1, 2, 15: 9}}

func open(t *testing.T, dir string) *File {
	t.Helper()
	f, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestNoteStays: the next one on the directory gets the last note, whatever their lengths.
func TestNoteStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	f := open(t, dir)
	if n, ok := f.Former(); ok {
		t.Errorf("a new directory has the note %v", n)
	}
	short := sample
	short.Prefix = "/p"
	for _, n := range []Note{sample, short} {
		if err := f.Keep(n); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f = open(t, dir)
		if got, ok := f.Former(); !ok || got != n {
			t.Errorf("got %v %v, want %v", got, ok, n)
		}
	}
	defer f.Close()
	long := sample
	long.Prefix = strings.Repeat("x", prefixMax+1)
	if err := f.Keep(long); err == nil {
		t.Error("a prefix beyond the limit was kept")
	}
}

// TestLocked: while one has the directory nobody else gets it, and waits no longer than its context.
func TestLocked(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one got the directory: %v", err)
	}
	// Killed processes let go a moment later.
	time.AfterFunc(100*time.Millisecond, func() { f.Close() })
	open(t, dir).Close()
}

func TestInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := open(t, dir)
	defer f.Close()
	var used *InUseError
	if _, err := Open(t.Context(), dir); !errors.As(err, &used) || used.Dir != dir {
		t.Errorf("a second one got the directory: %v", err)
	}
}

// TestNotTrusted: notes that are damaged or about another file or boot count as missing.
func TestNotTrusted(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	if err := f.Keep(sample); err != nil {
		t.Fatal(err)
	}
	here := f.here
	f.Close()
	good, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	other := func(change func(*place)) []byte {
		p := here
		change(&p)
		b, err := encode(p, sample)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		what string
		data []byte
		want bool
	}{
		{"as it was", good, true},
		{"empty", nil, false},
		{"no note", []byte("lease 12345\n"), false},
		{"cut", good[:len(good)-1], false},
		{"longer", append(bytes.Clone(good), 0), false},
		{"very long", bytes.Repeat([]byte("x"), 1<<20), false},
		{"another boot", other(func(p *place) { p.boot[3]++ }), false},
		{"another device", other(func(p *place) { p.dev++ }), false},
		{"another inode", other(func(p *place) { p.inode++ }), false},
	} {
		// Written in place, the file keeps its inode.
		if err := os.WriteFile(filepath.Join(dir, name), c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		f := open(t, dir)
		if _, ok := f.Former(); ok != c.want {
			t.Errorf("%s: trusted %v, want %v", c.what, ok, c.want)
		}
		f.Close()
	}
	copied := t.TempDir()
	if err := os.WriteFile(filepath.Join(copied, name), good, 0o600); err != nil {
		t.Fatal(err)
	}
	f = open(t, copied)
	defer f.Close()
	if n, ok := f.Former(); ok {
		t.Errorf("a copied directory has the note %v", n)
	}
}

// TestEveryByte: a note that is cut anywhere, or of which a bit is wrong, is none.
func TestEveryByte(t *testing.T) {
	b, err := encode(place{[16]byte{7}, 1, 2}, sample)
	if err != nil {
		t.Fatal(err)
	}
	if _, n, err := decode(b); err != nil || n != sample {
		t.Fatalf("decoded %v %v", n, err)
	}
	for i := range b {
		if _, _, err := decode(b[:i]); err == nil {
			t.Errorf("cut at %d is taken for a note", i)
		}
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		if _, _, err := decode(bad); err == nil {
			t.Errorf("a wrong bit in byte %d is not seen", i)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := encode(place{[16]byte{7}, 1, 2}, sample)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:fixed])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, n, err := decode(b)
		if err != nil {
			return
		}
		if again, err := encode(p, n); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is decoded and encoded as %x %v", b, again, err)
		}
	})
}

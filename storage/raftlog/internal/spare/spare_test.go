package spare

import (
	"errors"
	"syscall"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const size = 64 << 10

// TestPool: spares are made up to the limit, given out but for the reserve, and come back; no name is used twice.
func TestPool(t *testing.T) {
	fs := vfs.NewMem()
	p := NewPool(fs, ".")
	p.Saw(7)
	for i := range 3 {
		if made, err := p.Prepare(size, 2); made != (i < 2) || err != nil {
			t.Fatal(i, made, err)
		}
	}
	if n, bytes := p.Count(); n != 2 || bytes != 2*size {
		t.Error(n, bytes)
	}
	first, ok := p.Take(false)
	if _, again := p.Take(false); !ok || again {
		t.Error("the last spare was given out, or none")
	}
	last, ok := p.Take(true)
	if _, again := p.Take(true); !ok || again || last.Name == first.Name {
		t.Error(first, last, ok, again)
	}
	for _, sp := range []File{first, last} {
		number, ok := ParseName(sp.Name, Suffix)
		if info, err := fs.Stat(sp.Name); err != nil || info.Size != size || !ok || number <= 7 {
			t.Error(sp, info, number, err)
		}
	}
	p.Put(first)
	if sp, ok := p.Take(true); !ok || sp != first || p.Next() == first.Name {
		t.Error(sp, ok)
	}
}

// TestFull: a disk that is full leaves neither a file nor a place that is taken.
func TestFull(t *testing.T) {
	full := true
	fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
		if full && op.Kind == vfs.OpWriteAt {
			return vfs.Fault{Err: syscall.ENOSPC}
		}
		return vfs.Fault{}
	})
	p := NewPool(fs, ".")
	if made, err := p.Prepare(size, 1); made || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(made, err)
	}
	if names, err := fs.List("."); err != nil || len(names) != 0 {
		t.Error(names, err)
	}
	full = false
	if made, err := p.Prepare(size, 1); !made || err != nil {
		t.Error(made, err)
	}
}

// TestNames: only what Name makes is a name.
func TestNames(t *testing.T) {
	if n, ok := ParseName(Name(0xabc, ".log"), ".log"); !ok || n != 0xabc {
		t.Error(n, ok)
	}
	for _, name := range []string{"", ".log", "abc.log", Name(0xabc, ".spare"), "0000000000000ABC.log", "00000000000000000abc.log", "000000000000000g.log"} {
		if n, ok := ParseName(name, ".log"); ok {
			t.Errorf("%q is %x", name, n)
		}
	}
}

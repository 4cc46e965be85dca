package pages

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const fileSize = 4 << 20

// TestWriter appends pieces of all lengths, goes on after a reopen now and then, and compares the file with what was
// written: with direct I/O, without, and where it is refused at the first write only.
func TestWriter(t *testing.T) {
	for name, refuse := range map[string]vfs.OpKind{"direct": 0, "none": vfs.OpOpen, "refused": vfs.OpWriteAt} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			// Only what the writer opens itself is refused.
			fs := vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
				if op.Kind == vfs.OpWriteAt && (op.Length%Size != 0 || op.Offset%Size != 0) {
					t.Errorf("a write of %d bytes at %d", op.Length, op.Offset)
				}
				if op.Kind == refuse {
					return vfs.Fault{Err: syscall.EINVAL}
				}
				return vfs.Fault{}
			})
			f := newFile(t, mem)
			rng := rand.New(rand.NewPCG(1, 2))
			var w Writer
			defer func() {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}()
			want := bytes.Repeat([]byte{0xee}, fileSize)
			for off := 100; off < fileSize; {
				if off == 100 || rng.IntN(8) == 0 {
					if err := w.Open(fs, "file", f, int64(off)); err != nil {
						t.Fatal(err)
					}
				}
				n := min(1+rng.IntN(1<<(1+rng.IntN(21))), fileSize-off)
				p := make([]byte, n)
				for i := range p {
					p[i] = byte(rng.Uint32())
				}
				if err := w.Write(p); err != nil {
					t.Fatal(err)
				}
				copy(want[off:], p)
				off += n
				clear(want[off : (off+Size-1)&^(Size-1)])
				got := make([]byte, fileSize)
				if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("wrong bytes after %d at %d: %v", n, off-n, err)
				}
			}
		})
	}
}

func newFile(t *testing.T, fs vfs.FS) vfs.File {
	t.Helper()
	f, err := fs.Create("file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xee}, fileSize), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestErrors: what the file system says is the caller's.
func TestErrors(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpOpen, vfs.OpWriteAt} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			mem := vfs.NewMem()
			f := newFile(t, mem)
			fs := vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
				if op.Kind == kind {
					return vfs.Fault{Err: syscall.EIO}
				}
				return vfs.Fault{}
			})
			var w Writer
			err := w.Open(fs, "file", f, 0)
			if err == nil {
				err = w.Write([]byte("x"))
			}
			if !errors.Is(err, syscall.EIO) {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

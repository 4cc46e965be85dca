package disk

import (
	"errors"
	"syscall"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// TestSpreadFailsOnce: what the file system refused is asked for again after a while, not for each area.
func TestSpreadFailsOnce(t *testing.T) {
	const areas, spare = 16, areaBlocks / 4 // free blocks in each area
	mem := vfs.NewMem()
	mem.SetCapacity(1 << 30)
	refused, refuse := 0, false
	b := NewFile(vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpPreallocate && refuse {
			refused++
			return vfs.Fault{Err: syscall.ENOSPC}
		}
		return vfs.Fault{}
	}), "/", 0, 0, areaBlocks*layout.BlockSize, 1)
	if err := errors.Join(b.Format([16]byte{1}), b.Open([16]byte{1})); err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // a test's
	must := func(n uint32) {
		t.Helper()
		if _, err := b.Allocate(n, nil); err != nil {
			t.Fatal(err)
		}
	}
	must(areas*areaBlocks - 1)
	for i := range extent.Addr(areas) {
		b.TakeBack([]extent.Run{{Start: i*areaBlocks + 1, N: spare}})
	}
	size := b.alloc.size()
	refuse = true
	must(1)
	first := refused
	for range 3 * spare { // three areas more
		must(1)
	}
	if first == 0 || refused != first || b.alloc.size() != size {
		t.Errorf("asked %d times, then %d times; %d blocks became %d", first, refused-first, size, b.alloc.size())
	}
	refuse = false
	b.tight.Store(1) // tightBlocks later
	for range spare {
		must(1)
	}
	if b.alloc.size() <= size {
		t.Error("the file did not grow when it could")
	}
}

// TestUsageWhileGrowing: while a file system gives disk space to the file, which takes a while, no less is free than before.
func TestUsageWhileGrowing(t *testing.T) {
	const capacity, step = 64 << 20, 8 << 20
	mem := vfs.NewMem()
	mem.SetCapacity(capacity)
	var b *File
	least, looks := int64(capacity), 0
	b = NewFile(vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpPreallocate && op.Offset > 0 {
			mem.SetCapacity(capacity - step/2) // half of it is done
			_, room := b.Usage()
			least, looks = min(least, room), looks+1
			mem.SetCapacity(capacity)
		}
		return vfs.Fault{}
	}), "/", 0, 0, step, 1)
	if err := errors.Join(b.Format([16]byte{1}), b.Open([16]byte{1})); err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // a test's
	n, before := b.Usage()
	if _, err := b.Allocate(1, nil); err != nil {
		t.Fatal(err)
	}
	if looks == 0 || least < before {
		t.Errorf("%d bytes are free before the file grows, %d at least in the %d times meanwhile (%+v)", before, least, looks, n)
	}
	if _, after := b.Usage(); after < before-2*layout.BlockSize || after > before {
		t.Errorf("%d bytes are free before the file grows, %d afterwards", before, after)
	}
}

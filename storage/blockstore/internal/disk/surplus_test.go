package disk

import (
	"errors"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// TestGiveBack: empty areas behind what the streams may have go back to the file system, those with a block stay, and what was
// given back can be had again.
func TestGiveBack(t *testing.T) {
	const areas = 64
	mem := vfs.NewMem()
	mem.SetCapacity(1 << 30)
	refuse := false
	b := NewFile(vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpPunchHole && refuse {
			return vfs.Fault{Err: errors.New("not now")}
		}
		return vfs.Fault{}
	}), "/", 0, 0, areaBlocks*layout.BlockSize, 1)
	if err := errors.Join(b.Format([16]byte{1}), b.Open([16]byte{1})); err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // a test's
	if _, err := b.Allocate(areas*areaBlocks-1, nil); err != nil {
		t.Fatal(err)
	}
	free := func() int64 {
		s, err := mem.Space("/")
		if err != nil {
			t.Fatal(err)
		}
		return s.Free
	}
	if n := b.GiveBack(); n != 0 {
		t.Errorf("of a full file %d blocks went back", n)
	}
	// All is free but block 5 of area 40 and the first eight areas.
	b.TakeBack([]extent.Run{
		{Start: 8 * areaBlocks, N: 32*areaBlocks + 5}, {Start: 40*areaBlocks + 6, N: 24*areaBlocks - 6},
	})
	had, before := b.Counts(), free()
	refuse = true
	if n := b.GiveBack(); n != 0 || b.Counts() != had || free() != before {
		t.Errorf("what the file system refused: %d blocks, %+v became %+v", n, had, b.Counts())
	}
	refuse = false
	n := b.GiveBack()
	c := b.Counts()
	keep := 2 * c.Used
	if n < areas*areaBlocks-c.Used-keep-2*areaBlocks || c.Free < keep || free()-before != n*layout.BlockSize || c.Holes != n ||
		c.Free+c.Holes+c.Used != c.File {
		t.Errorf("%d blocks went back, %d bytes are free more: %+v", n, free()-before, c)
	}
	if again := b.GiveBack(); again != 0 {
		t.Errorf("then %d blocks more", again)
	}
	if _, err := b.Allocate(uint32(c.Free+c.Holes), nil); err != nil || b.Counts().File != c.File {
		t.Errorf("all of it: %v, %+v", err, b.Counts())
	}
}

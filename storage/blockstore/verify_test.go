package blockstore

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// addrOf returns where a block is in the data file.
func addrOf(t *testing.T, c *Copyset, ch layout.ChunkID, block uint32) Addr {
	t.Helper()
	var e [1]extent.Entry
	slot, err := c.lookup(ch, block, e[:])
	if err != nil {
		t.Fatal(err)
	}
	c.unpin(slot)
	return e[0].Addr
}

// flip changes a bit of a block in the data file.
func (d *testDisk) flip(t *testing.T, at Addr) {
	t.Helper()
	f, err := d.fs.Open(testDir+"/"+disk.BlocksName, vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	var b [1]byte
	off := int64(at)*layout.BlockSize + 1000
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// verifyAll verifies all chunks and returns the number of blocks and the damaged ones.
func verifyAll(t *testing.T, c *Copyset) (blocks int, bad []ChecksumError) {
	t.Helper()
	for _, ch := range c.Chunks() {
		for next := uint32(0); ; {
			v, err := c.Verify(ch, next)
			if err != nil {
				t.Fatal(err)
			}
			blocks += v.Blocks
			for _, e := range v.Damaged {
				bad = append(bad, *e)
			}
			if v.Next == 0 {
				break
			}
			if v.Next <= next || v.Blocks*layout.BlockSize > verifyMax {
				t.Fatalf("from block %d: %+v", next, v)
			}
			next = v.Next
		}
	}
	return blocks, bad
}

// TestVerify damages blocks of large and small writes, in the file and out of reach: exactly those are told.
func TestVerify(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	far := layout.ChunkID{Volume: 9, Index: 4}
	mustWrite(t, c, chunk0, 0, pattern(1, 5<<20))
	mustWrite(t, c, far, 900<<20, pattern(2, layout.BlockSize))
	mustWrite(t, c, far, 3*layout.BlockSize, pattern(3, layout.BlockSize))
	if n, bad := verifyAll(t, c); n != 5<<20/layout.BlockSize+2 || bad != nil {
		t.Fatalf("of blocks some of which are in memory only: %d, %v", n, bad)
	}
	mustCommit(t, s, c.Freeze(nil))
	s.trim()
	resident := s.leaves.Resident.Load()
	if n, bad := verifyAll(t, c); n != 5<<20/layout.BlockSize+2 || bad != nil {
		t.Fatalf("%d, %v", n, bad)
	}
	if got := s.leaves.Resident.Load(); got != resident || resident > cacheMin {
		t.Errorf("%d leaves in memory, there were %d", got, resident)
	}
	want := []ChecksumError{
		{Copyset: 1, Chunk: chunk0, Block: 0},
		{Copyset: 1, Chunk: chunk0, Block: 700},
		{Copyset: 1, Chunk: chunk0, Block: 701},
		{Copyset: 1, Chunk: far, Block: 900 << 20 / layout.BlockSize},
	}
	for _, e := range want {
		d.flip(t, addrOf(t, c, e.Chunk, e.Block))
	}
	if _, bad := verifyAll(t, c); !slices.Equal(bad, want) {
		t.Fatalf("found %v", bad)
	}
	if v, err := c.Verify(chunk0, 701); err != nil || len(v.Damaged) != 1 || v.Damaged[0].Block != 701 {
		t.Errorf("from the last damaged block on: %+v, %v", v, err)
	}
	if v, err := c.Verify(layout.ChunkID{Volume: 77}, 0); err != nil || v.Blocks != 0 || v.Next != 0 {
		t.Errorf("a chunk that is not there: %+v, %v", v, err)
	}
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(chunk0, 0); !errors.Is(err, ErrRemoved) {
		t.Errorf("a copyset that is not there: %v", err)
	}
}

// TestVerifyUnreadable: of a run that can not be read, the one block is told that is why.
func TestVerifyUnreadable(t *testing.T) {
	d := newDisk(t)
	var at Addr
	s, err := d.tryOpen(vfs.NewFault(d.fs, func(op vfs.Op) vfs.Fault {
		from := int64(at) * layout.BlockSize
		if at != 0 && op.Kind == vfs.OpReadAt && op.Base() == disk.BlocksName && op.Offset <= from && op.Offset+op.Length > from {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 1<<20))
	at = addrOf(t, c, chunk0, 77)
	_, bad := verifyAll(t, c)
	if len(bad) != 1 || bad[0].Block != 77 || !errors.Is(bad[0].Err, syscall.EIO) {
		t.Fatalf("found %v", bad)
	}
}

// TestVerifyAmongWrites verifies while blocks are overwritten, discarded, checkpointed and reused: nothing is damaged.
func TestVerifyAmongWrites(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	mustWrite(t, c, chunk0, 0, pattern(1, 2<<20))
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for next := uint32(0); ; {
					v, err := c.Verify(chunk0, next)
					if err != nil || len(v.Damaged) > 0 {
						t.Errorf("%v, %v", v.Damaged, err)
						return
					}
					if next = v.Next; next == 0 {
						break
					}
				}
			}
		})
	}
	for i := range 300 {
		off := uint32(i*7%32) << 16
		switch i % 5 {
		case 4:
			if err := c.Discard(chunk0, off, 1<<16); err != nil {
				t.Error(err)
			}
		case 3:
			mustWrite(t, c, chunk0, off, pattern(uint64(i), layout.BlockSize))
		default:
			mustWrite(t, c, chunk0, off, pattern(uint64(i), 1<<16))
		}
		if i%10 == 9 {
			mustCommit(t, s, c.Freeze(nil))
			s.trim()
		}
	}
	close(done)
	wg.Wait()
}

// verifyVersions verifies what only versions have, and returns the number of blocks and the damaged ones.
func verifyVersions(t *testing.T, c *Copyset) (blocks int, bad []ChecksumError) {
	t.Helper()
	var from VersionLeaf
	for {
		v, next, err := c.VerifyVersions(from)
		if err != nil {
			t.Fatal(err)
		}
		blocks += v.Blocks
		for _, e := range v.Damaged {
			bad = append(bad, *e)
		}
		if next == (VersionLeaf{}) {
			return blocks, bad
		}
		if from.Compare(next) >= 0 && from != (VersionLeaf{}) || v.Blocks*layout.BlockSize > verifyMax {
			t.Fatalf("from %+v: %+v, then %+v", from, v, next)
		}
		from = next
	}
}

// TestVerifyVersions: blocks that only versions have are read, each once, damage is told with a version that has it, and a copy
// of what the block should hold repairs it for all who have it.
func TestVerifyVersions(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	c := create(t, s, 1)
	// All leaves but the last, of five blocks, are changed and so set aside for the versions; the content shares some of their blocks.
	const blocks, aside, shared = 3*stretchBlocks + 5, 3 * stretchBlocks, 3*stretchBlocks - 2
	gone := layout.ChunkID{Volume: 5, Index: 9} // a chunk that only versions have
	first := pattern(1, blocks*layout.BlockSize)
	mustWrite(t, c, chunk0, 0, first)
	mustWrite(t, c, gone, 0, first[:layout.BlockSize])
	if n, bad := verifyVersions(t, c); n != 0 || bad != nil {
		t.Fatalf("without versions: %d, %v", n, bad)
	}
	for _, v := range []layout.VolumeID{chunk0.Volume, gone.Volume} {
		if err := errors.Join(c.TakeVersion(v, 1), c.TakeVersion(v, 2)); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, c, chunk0, 0, pattern(2, (shared-1)*layout.BlockSize))
	if err := c.Discard(gone, 0, layout.BlockSize); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, c.Freeze(nil))
	if n, bad := verifyVersions(t, c); n != aside+1 || bad != nil {
		t.Fatalf("%d blocks, %v", n, bad)
	}
	at := func(ch layout.ChunkID, block uint32) Addr {
		var e [1]extent.Entry
		slot, err := c.lookupVersion(1, ch, block, e[:])
		if err != nil {
			t.Fatal(err)
		}
		c.unpin(slot)
		return e[0].Addr
	}
	want := []ChecksumError{
		{Copyset: 1, Chunk: gone, Block: 0, Version: 2},
		{Copyset: 1, Chunk: chunk0, Block: 3, Version: 2},
		{Copyset: 1, Chunk: chunk0, Block: shared, Version: 2},
	}
	slices.SortFunc(want, func(a, b ChecksumError) int {
		return cmp.Or(cmp.Compare(a.Chunk.Volume, b.Chunk.Volume), cmp.Compare(a.Block, b.Block))
	})
	for _, e := range want {
		d.flip(t, at(e.Chunk, e.Block))
	}
	if _, bad := verifyVersions(t, c); !slices.Equal(bad, want) {
		t.Fatalf("found %v", bad)
	}
	var damaged *ChecksumError
	if err := c.RepairVersion(2, chunk0, 3*layout.BlockSize, first[:layout.BlockSize]); !errors.As(err, &damaged) || damaged.Version != 2 {
		t.Errorf("by another block: %v", err)
	}
	if err := c.RepairVersion(3, chunk0, 0, first[:layout.BlockSize]); !errors.Is(err, ErrNoVersion) {
		t.Errorf("of a version that is not there: %v", err)
	}
	if err := c.RepairVersion(2, chunk0, 512, first[:layout.BlockSize]); !errors.Is(err, ErrRange) {
		t.Errorf("of a part of a block: %v", err)
	}
	for _, e := range want {
		p := first[e.Block*layout.BlockSize:][:layout.BlockSize]
		if err := c.RepairVersion(e.Version, e.Chunk, e.Block*layout.BlockSize, p); err != nil {
			t.Errorf("%v: %v", &e, err)
		}
	}
	if _, bad := verifyVersions(t, c); bad != nil {
		t.Errorf("after the repair: %v", bad)
	}
	if _, bad := verifyAll(t, c); bad != nil {
		t.Errorf("of the content: %v", bad)
	}
	got := make([]byte, len(first))
	if _, err := c.ReadVersion(1, chunk0, 0, got, nil); err != nil || !bytes.Equal(got, first) {
		t.Errorf("version 1: %v", err)
	}
	if err := c.DeleteVersion(chunk0.Volume, 2); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, c.Freeze(nil))
	if n, bad := verifyVersions(t, c); n != aside+1 || bad != nil {
		t.Errorf("with one version less: %d, %v", n, bad)
	}
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.VerifyVersions(VersionLeaf{}); !errors.Is(err, ErrRemoved) {
		t.Errorf("of a copyset that is not there: %v", err)
	}
}

// TestVerifyVersionsLooks: among many leaves of the content the few of versions are found, a part of the leaves at a time.
func TestVerifyVersionsLooks(t *testing.T) {
	s := newDisk(t).open(t)
	c := create(t, s, 1)
	last := layout.ChunkID{Volume: chunk0.Volume, Index: 7}
	mustWrite(t, c, last, 0, pattern(1, layout.BlockSize))
	if err := c.TakeVersion(chunk0.Volume, 1); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, c, last, 0, pattern(2, layout.BlockSize))
	for i := range uint32(lookedMax + 10) {
		mustWrite(t, c, chunk0, i*extent.LeafBlocks*layout.BlockSize, pattern(3, 512))
	}
	mustCommit(t, s, c.Freeze(nil))
	v, next, err := c.VerifyVersions(VersionLeaf{})
	if err != nil || v.Blocks != 0 || next == (VersionLeaf{}) {
		t.Errorf("at first %+v, %+v, %v", v, next, err)
	}
	if n, bad := verifyVersions(t, c); n != 1 || bad != nil {
		t.Errorf("%d, %v", n, bad)
	}
}

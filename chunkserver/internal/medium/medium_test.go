package medium

import (
	"bytes"
	"errors"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// TestAhead: a block that another peer gave is newer than what is applied until the last entry that it may hold is.
func TestAhead(t *testing.T) {
	st, err := blockstore.Open(vfs.NewMem(), "store", blockstore.Identity{Cluster: [16]byte{1}, Chunkserver: 1},
		blockstore.Options{IndexFS: pebblevfs.NewMem(), GrowStep: 1 << 20, Capacity: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	cs, err := st.Create(7)
	if err != nil {
		t.Fatal(err)
	}
	m, ch, block := New(cs), layout.ChunkID{Volume: 3, Index: 1}, bytes.Repeat([]byte{9}, layout.BlockSize)
	if m.Content() != cs || m.Ahead() {
		t.Fatal("a new medium")
	}
	cs.SetApplied(10, 1)
	barred := 0
	for i, through := range []uint64{14, 12} {
		if err := m.Replace(ch, uint32(i)*layout.BlockSize, block, 10, through, func() { barred++ }); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Replace(ch, 0, block, 9, 14, func() { barred++ }); !errors.Is(err, ErrOldCopy) || barred != 2 {
		t.Errorf("a copy without an entry that is applied: %v, readers were barred %d times", err, barred)
	}
	dst := make([]byte, layout.BlockSize)
	for index := uint64(11); index <= 15; index++ {
		m.Begin(index, nil)
		for i, through := range []uint64{14, 12} {
			err := m.Read(ch, uint32(i)*layout.BlockSize, dst)
			if ahead := index <= through; errors.Is(err, ErrAhead) != ahead || !ahead && (err != nil || !bytes.Equal(dst, block)) {
				t.Errorf("entry %d compares block %d: %v", index, i, err)
			}
		}
		if err := m.Write(ch, 8*layout.BlockSize, block, nil); err != nil {
			t.Errorf("entry %d writes another block: %v", index, err)
		}
		if m.End(index, 1); m.Ahead() != (index < 14) {
			t.Errorf("after entry %d: ahead %v", index, m.Ahead())
		}
		if at, _ := cs.Applied(); at != index {
			t.Errorf("the store is at %d after entry %d", at, index)
		}
	}
}

package peernet

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream/streamtest"
)

// writing is a MsgApp with an entry that writes blocks of value fill and a little more at both ends.
func writing(i uint64, fill byte) multiraft.Message {
	const skip = 512
	data := bytes.Repeat([]byte{fill}, 2*skip+lendMin)
	c := copyset.Command{
		Op: copyset.OpWrite, Chunk: layout.ChunkID{Volume: 1}, Initiator: 1, Fence: layout.Fence{Epoch: 1}, Seq: 1, LowWater: 1,
		Offset: layout.BlockSize - skip, Length: uint32(len(data)), Payload: data, CRCs: layout.AppendCRCs(nil, data, skip),
	}
	m := entries(i, 0)
	m.Raft.Entries[0].Data = c.AppendTo(nil)
	return m
}

// TestDamagedEntry: an entry whose blocks changed on their way is not delivered.
func TestDamagedEntry(t *testing.T) {
	const fill = 0xa7
	want := writing(7, fill)
	noise := &streamtest.Noise{Mark: bytes.Repeat([]byte{fill}, layout.BlockSize)}
	a, b := start(t, 1, 9, "127.0.0.1:0"), start(t, 2, 9, "127.0.0.1:0")
	a.SetAddresses(map[layout.ChunkserverID]string{2: noise.Listen(t, b.addr), 1: a.addr})
	until(t, "the entry", func() bool {
		a.Send(2, []multiraft.Message{want})
		n, _ := b.sink.count()
		return n > 0
	})
	if !noise.There.Load() {
		t.Error("nothing was changed")
	}
	b.sink.mu.Lock()
	defer b.sink.mu.Unlock()
	for _, m := range b.sink.got {
		if !bytes.Equal(m.Raft.GetEntries()[0].GetData(), want.Raft.GetEntries()[0].GetData()) {
			t.Error("another entry was delivered")
		}
	}
}

// TestParseCompares: blocks that have checksums in their entry are compared with them.
func TestParseCompares(t *testing.T) {
	const fill = 0xa7
	out := &outgoing{}
	out.reset()
	m := writing(7, fill)
	if !out.add(&m) {
		t.Fatal("an empty batch takes no message")
	}
	b := out.frame.Payload(nil)
	in := &incoming{}
	if err := in.parse(b); err != nil || len(in.messages) != 1 {
		t.Fatal(err)
	}
	b[bytes.Index(b, bytes.Repeat([]byte{fill}, layout.BlockSize))+1000]++
	in.reset()
	if err := in.parse(b); !errors.Is(err, copyset.ErrDamaged) {
		t.Errorf("blocks that differ: %v", err)
	}
}

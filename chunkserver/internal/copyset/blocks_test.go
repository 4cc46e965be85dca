package copyset

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestEntryBlocks: the whole blocks of a write are found in its entry, and any change of them or of their checksums is.
func TestEntryBlocks(t *testing.T) {
	for _, c := range []struct{ offset, length uint32 }{
		{0, 3 * layout.BlockSize},
		{layout.BlockSize - 512, 512 + 2*layout.BlockSize + 1024},
		{7 * layout.BlockSize, layout.BlockSize + 512},
	} {
		payload := make([]byte, c.length)
		for i := range payload {
			payload[i] = byte(i * 7 >> 3)
		}
		skip := int(-c.offset % layout.BlockSize)
		cmd := Command{
			Op: OpWrite, Chunk: layout.ChunkID{Volume: 1}, Initiator: 1, Seq: 1, LowWater: 1, Fence: layout.Fence{Epoch: 1}, Offset: c.offset,
			Length: c.length, Payload: payload, CRCs: layout.AppendCRCs(nil, payload, skip),
		}
		data := cmd.AppendTo(nil)
		if err := new(Command).Decode(data, nil); err != nil {
			t.Fatal(err)
		}
		blocks, at := EntryBlocks(data)
		if want := payload[skip : skip+len(cmd.CRCs)*layout.BlockSize]; !bytes.Equal(blocks, want) || !bytes.Equal(data[at:at+len(blocks)], want) {
			t.Fatalf("%d bytes at %d: %d blocks at %d", c.length, c.offset, len(blocks)/layout.BlockSize, at)
		}
		if err := VerifyEntry(data); err != nil {
			t.Error(err)
		}
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 1
			inside := i >= commandHeader && i < commandHeader+4*len(cmd.CRCs) || i >= at && i < at+len(blocks)
			if err := VerifyEntry(bad); inside != errors.Is(err, ErrDamaged) && i >= commandHeader {
				t.Fatalf("byte %d of %d: %v", i, len(data), err)
			}
		}
	}
	for _, c := range []Command{
		{Op: OpDiscard, Chunk: layout.ChunkID{Volume: 1}, Length: layout.BlockSize},
		{Op: OpWrite, Chunk: layout.ChunkID{Volume: 1}, Length: layout.BlockSize, Payload: make([]byte, layout.BlockSize)},
	} {
		if blocks, _ := EntryBlocks(c.AppendTo(nil)); blocks != nil {
			t.Errorf("%v has %d bytes of blocks with checksums", c.Op, len(blocks))
		}
	}
}

// FuzzEntryBlocks: any data is safe to look at.
func FuzzEntryBlocks(f *testing.F) {
	payload := make([]byte, layout.BlockSize+512)
	c := Command{Op: OpWrite, Offset: layout.BlockSize - 512, Length: layout.BlockSize + 512, Payload: payload, CRCs: []uint32{layout.CRC(payload[512:])}}
	f.Add(c.AppendTo(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, at := EntryBlocks(data)
		if len(blocks)%layout.BlockSize != 0 || !bytes.Equal(blocks, data[at:at+len(blocks)]) {
			t.Errorf("%d bytes at %d", len(blocks), at)
		}
		_ = VerifyEntry(data)
	})
}

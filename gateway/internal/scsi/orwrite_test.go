package scsi

import (
	"bytes"
	"context"
	"sync"
	"testing"
)

func TestORWrite(t *testing.T) {
	r := disk512(t)
	before := pattern(len(r.mem.data), 3)
	copy(r.mem.data, before)
	for _, e := range []struct{ lba, n int }{{0, 1}, {1, 1}, {7, 2}, {3, 4000}, {8196, 1}, {8195, 2}} {
		data := pattern(e.n*512, byte(e.lba))
		c := r.run(cdb(0x8B, 16, uint64(e.lba), uint32(e.n)), data...)
		wantGood(t, c)
		if c.Transfer != uint64(len(data)) {
			t.Errorf("transfer %d", c.Transfer)
		}
		for i, b := range data {
			before[e.lba*512+i] |= b
		}
		if !bytes.Equal(r.mem.data, before) {
			t.Fatalf("%d+%d: wrong bytes", e.lba, e.n)
		}
	}
	r.good(cdb(0x8B, 16, 8197, 0))
	r.good("8B 1A 0000000000000000 00000001 3F 00", fill(512, 0)...) // DPO, FUA, FUA_NV of old, group
	for _, n := range []int{0, 511, 1023} {
		r.sense(InvalidFieldInCommandIU, cdb(0x8B, 16, 0, 2), fill(n, 0)...)
	}
	r.sense(LBAOutOfRange, cdb(0x8B, 16, 8197, 1), fill(512, 0)...)
	r.sense(LBAOutOfRange, cdb(0x8B, 16, 8198, 0))
	r.sense(InvalidFieldInCDB, "8B 20 0000000000000000 00000001 00 00", fill(512, 0)...) // ORPROTECT
	if !bytes.Equal(r.mem.data, before) {
		t.Fatal("a refused one wrote")
	}
}

// busy is a memory that somebody else writes between any read and what follows.
type busy struct {
	*memory
	meddle func(m *memory)
	left   int
}

func (b *busy) Read(ctx context.Context, p []byte, off int64) error {
	err := b.memory.Read(ctx, p, off)
	if b.left > 0 {
		b.left--
		b.meddle(b.memory)
	}
	return err
}

// TestORWriteLosesNothing: what others write while it runs stays.
func TestORWriteLosesNothing(t *testing.T) {
	r := disk512(t)
	b := &busy{memory: r.mem, left: 3, meddle: func(m *memory) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.data[700] <<= 1
		m.data[700] |= 1
	}}
	if err := r.luns.Update(Mapping{Unit: r.unit, Backend: b}); err != nil {
		t.Fatal(err)
	}
	r.good(cdb(0x8B, 16, 1, 2), fill(1024, 0x80)...)
	if got := r.mem.data[700]; got != 0x87 {
		t.Errorf("%02X, want the bits of both", got)
	}
}

// Many at once on the same blocks: all bits are there in the end.
func TestORWriteConcurrent(t *testing.T) {
	r := disk512(t)
	var wg sync.WaitGroup
	for bit := range 8 {
		wg.Go(func() {
			n := r.login(NoSense)
			defer n.Close()
			c := &Command{CDB: fromHex(t, cdb(0x8B, 16, 3, 40)), DataOut: fill(40*512, 1<<bit)}
			if err := n.Execute(t.Context(), c); err != nil || c.Status != StatusGood {
				t.Error(err, c.Status, c.SenseCode())
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(r.mem.data[3*512:43*512], fill(40*512, 0xFF)) {
		t.Error("bits are lost")
	}
}

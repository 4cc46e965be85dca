package scsi

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
)

// Many commands on one logical unit, from several nexuses, while LUNs, capacity and unit attentions change.
func TestConcurrent(t *testing.T) {
	const workers, rounds = 8, 200
	r := newRig(t, testConfig(8192, 512))
	var work, churn sync.WaitGroup
	stop := make(chan struct{})
	churn.Go(func() {
		size := int64(8192)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			m := Mapping{Unit: r.unit, Backend: r.mem}
			other := m
			other.LUN = uint16(1 + i%3)
			if err := r.luns.Update(m, other); err != nil {
				t.Error(err)
				return
			}
			size++
			if err := r.unit.SetCapacity(size * 512); err != nil {
				t.Error(err)
				return
			}
			n := r.login(AttentionPowerOn)
			n.ResetLogicalUnit(0, func() {})
			n.Close()
		}
	})
	for w := range workers {
		work.Go(func() {
			n := r.login(NoSense)
			defer n.Close()
			for i := range rounds {
				if err := turn(n, w, i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	close(stop)
	churn.Wait()
	r.nexus.Close()
	if r.unit.Listeners() != 0 || len(r.luns.mu.nexuses) != 0 {
		t.Errorf("%d listeners, %d nexuses are left", r.unit.Listeners(), len(r.luns.mu.nexuses))
	}
}

// turn writes a block of the worker's own and reads it back, past any unit attentions.
func turn(n *Nexus, worker, round int) error {
	block := pattern(512, byte(worker*31+round))
	lba := uint64(worker*100 + round%100)
	write := &Command{CDB: lbaCDB(0x2A, lba), DataOut: block}
	read := &Command{CDB: lbaCDB(0x28, lba), MaxDataIn: 512}
	report := &Command{CDB: []byte{0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, MaxDataIn: 256}
	for _, c := range []*Command{write, report, read} {
		for tries := 0; ; tries++ {
			if err := n.Execute(context.Background(), c); err != nil {
				return err
			}
			if c.Status == StatusGood {
				break
			}
			if c.SenseCode().Key() != 6 || tries > 10000 {
				return fmt.Errorf("% X: %v %v", c.CDB, c.Status, c.SenseCode())
			}
		}
	}
	if !bytes.Equal(read.DataIn, block) {
		return fmt.Errorf("worker %d, round %d reads something else", worker, round)
	}
	return nil
}

func lbaCDB(opcode byte, lba uint64) []byte {
	return []byte{opcode, 0, 0, 0, byte(lba >> 8), byte(lba), 0, 0, 1, 0}
}

// The steady state of READ and WRITE allocates nothing.
func TestDataPathAllocates(t *testing.T) {
	r := disk4096(t)
	lease := make([]byte, 4096)
	ctx := t.Context()
	read := &Command{CDB: lbaCDB(0x28, 3), MaxDataIn: 4096, Alloc: func(n int) []byte { return lease[:n] }}
	write := &Command{CDB: lbaCDB(0x2A, 3), DataOut: pattern(4096, 1)}
	backend := &nowhere{}
	if err := r.luns.Update(Mapping{Unit: r.unit, Backend: backend}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Command{read, write} {
		n := testing.AllocsPerRun(100, func() {
			if err := r.nexus.Execute(ctx, c); err != nil || c.Status != StatusGood {
				t.Fatal(err, c.Status, c.SenseCode())
			}
		})
		if n != 0 {
			t.Errorf("% X: %v allocations", c.CDB, n)
		}
	}
}

// nowhere is a Backend that does nothing.
type nowhere struct{ _ int }

func (*nowhere) Read(context.Context, []byte, int64) error  { return nil }
func (*nowhere) Write(context.Context, []byte, int64) error { return nil }
func (*nowhere) Unmap(context.Context, int64, int64) error  { return nil }
func (*nowhere) CompareAndWrite(context.Context, int64, []byte, []byte) (int, error) {
	return -1, nil
}

func (*nowhere) Allocated(_ context.Context, _, length int64) (bool, int64, error) {
	return true, length, nil
}

func BenchmarkExecute(b *testing.B) {
	unit, err := NewLogicalUnit(testConfig(1<<20, 512))
	if err != nil {
		b.Fatal(err)
	}
	luns, err := NewLUNMap(Mapping{Unit: unit, Backend: &nowhere{}})
	if err != nil {
		b.Fatal(err)
	}
	n := NewNexus(NexusConfig{}, luns)
	defer n.Close()
	lease := make([]byte, 4096)
	for name, c := range map[string]*Command{
		"READ":  {CDB: fromHex(b, "28 00 00000010 00 0008 00"), MaxDataIn: 4096, Alloc: func(n int) []byte { return lease[:n] }},
		"WRITE": {CDB: fromHex(b, "2A 00 00000010 00 0008 00"), DataOut: lease},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := n.Execute(b.Context(), c); err != nil || c.Status != StatusGood {
					b.Fatal(err, c.Status)
				}
			}
		})
	}
}

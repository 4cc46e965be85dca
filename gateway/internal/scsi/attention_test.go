package scsi

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestAttentionReported(t *testing.T) {
	r := disk512(t)
	n := r.login(AttentionPowerOn)
	defer n.Close()
	// These run with it pending and leave it.
	wantGood(t, at(t, n, 0, cdbInquiry))
	wantGood(t, at(t, n, 0, cdbReportLUNs))
	// An unknown command is refused at once and leaves it too.
	wantSense(t, at(t, n, 0, "FF0000000000"), InvalidOperationCode)
	c := at(t, n, 0, "28 00 00000000 00 0001 00")
	wantSense(t, c, AttentionPowerOn)
	wantBytes(t, c.Sense(), "70 00 06 00000000 0A 00000000 2900 00 000000")
	wantGood(t, at(t, n, 0, "28 00 00000000 00 0001 00"))
	if r.mem.reads.Load() != 1 {
		t.Errorf("%d reads", r.mem.reads.Load())
	}
	// REQUEST SENSE returns it as data and clears it.
	r.unit.Attention(AttentionSpaceThreshold, nil)
	wantBytes(t, at(t, n, 0, cdbRequestSense).DataIn, "70 00 06 00000000 0A 00000000 3807 00 000000")
	wantBytes(t, at(t, n, 0, cdbRequestSense).DataIn, "70 00 00 00000000 0A 00000000 0000 00 000000")
	wantBytes(t, at(t, n, 0, "03 01 00 00 FF 00").DataIn, "72 00 0000 000000 00")
	wantBytes(t, at(t, n, 0, "03 00 00 00 03 00").DataIn, "70 00 00")
	wantGood(t, at(t, n, 0, cdbTestUnitReady))
	// REPORT LUNS clears only its own.
	r.unit.Attention(AttentionLUNsChanged, nil)
	r.unit.Attention(AttentionCapacityChanged, &r.nexus.peer)
	wantGood(t, at(t, n, 0, cdbReportLUNs))
	wantSense(t, at(t, n, 0, cdbTestUnitReady), AttentionCapacityChanged)
	wantGood(t, at(t, n, 0, cdbTestUnitReady))
	wantSense(t, at(t, r.nexus, 0, cdbTestUnitReady), AttentionSpaceThreshold)
	wantSense(t, at(t, r.nexus, 0, cdbTestUnitReady), AttentionLUNsChanged)
	wantGood(t, at(t, r.nexus, 0, cdbTestUnitReady))
}

// soon is a context that ends when it has been looked at a number of times.
type soon struct {
	context.Context
	looks int
}

func (c *soon) Err() error {
	if c.looks--; c.looks < 0 {
		return context.Canceled
	}
	return nil
}

// TestAttentionOfACancelledCommand: whenever a command is cancelled, it has not consumed a unit attention.
func TestAttentionOfACancelledCommand(t *testing.T) {
	for _, cdb := range []string{
		cdbTestUnitReady, "28 00 00000000 00 0001 00", cdbRequestSense, "03 01 00 00 FF 00", "03 00 00 00 00 00", cdbReportLUNs,
	} {
		for _, descriptor := range []bool{false, true} {
			config := testConfig(8197, 512)
			config.DescriptorSense = descriptor
			r := newRig(t, config)
			cancelled := 0
			for looks := range 3 {
				r.unit.Attention(AttentionLUNsChanged, nil)
				r.unit.Attention(AttentionSpaceThreshold, nil)
				c := &Command{CDB: fromHex(t, cdb), MaxDataIn: 512}
				if err := r.nexus.Execute(&soon{t.Context(), looks}, c); err == nil {
					break
				} else if !errors.Is(err, context.Canceled) || c.Status != StatusGood || c.DataIn != nil || c.Sense() != nil {
					t.Fatalf("%s, %d looks: %v, %v", cdb, looks, err, c.Status)
				}
				cancelled++
				r.sense(AttentionLUNsChanged, cdbTestUnitReady)
				r.sense(AttentionSpaceThreshold, cdbTestUnitReady)
				r.good(cdbTestUnitReady)
			}
			if want := 2; cdb != cdbReportLUNs && cancelled != want {
				t.Errorf("%s was cancelled at %d places, want %d", cdb, cancelled, want)
			}
		}
	}
}

// A command that is used again has nothing left of the unit attention that it told.
func TestAttentionOfAReusedCommand(t *testing.T) {
	r := disk512(t)
	r.unit.Attention(AttentionCapacityChanged, nil)
	c := &Command{CDB: fromHex(t, cdbTestUnitReady)}
	if err := r.nexus.Execute(t.Context(), c); err != nil || c.SenseCode() != AttentionCapacityChanged {
		t.Fatal(err, c.SenseCode())
	}
	if err := r.nexus.Execute(&soon{t.Context(), 1}, c); err != nil {
		t.Fatal(err)
	}
	r.good(cdbTestUnitReady)
}

// TestAttentionIsToldOnce cancels commands at any moment: each unit attention is told once, by a command that was not.
func TestAttentionIsToldOnce(t *testing.T) {
	r := disk512(t)
	cdb := fromHex(t, cdbTestUnitReady)
	for range 2000 {
		ctx, cancel := context.WithCancel(t.Context())
		var told atomic.Int64
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				c := &Command{CDB: cdb}
				if r.nexus.Execute(ctx, c) == nil && c.SenseCode() == AttentionDeviceReset {
					told.Add(1)
				}
			})
		}
		wg.Go(func() {
			cancel()
			r.nexus.ResetLogicalUnit(0, func() {})
		})
		wg.Wait()
		if told.Load() != 0 {
			t.Fatal("told by a command that was cancelled before the reset")
		}
		r.sense(AttentionDeviceReset, cdbTestUnitReady)
		r.good(cdbTestUnitReady)
	}
}

func TestReset(t *testing.T) {
	r := disk512(t)
	var mu sync.Mutex
	told := map[string]int{}
	join := func(name string) *Nexus {
		return NewNexus(NexusConfig{Attention: AttentionPowerOn, Aborted: func(lun LUN) {
			mu.Lock()
			defer mu.Unlock()
			told[name+" "+lun.String()]++
		}}, r.luns)
	}
	a, b := join("a"), join("b")
	defer a.Close()
	defer b.Close()
	done := 0
	if !a.ResetLogicalUnit(0, func() { done++ }) || done != 1 {
		t.Fatal("LUN 0 is absent, or there is somebody else to tell")
	}
	if told["a 0"] != 0 || told["b 0"] != 1 {
		t.Errorf("told %v", told)
	}
	for _, n := range []*Nexus{a, b, r.nexus} { // 29/03 in place of 29/00
		wantSense(t, at(t, n, 0, cdbTestUnitReady), AttentionDeviceReset)
		wantGood(t, at(t, n, 0, cdbTestUnitReady))
	}
	if b.ResetTarget(func() { done++ }); done != 2 {
		t.Error("somebody else is told")
	}
	if told["a 0"] != 1 {
		t.Errorf("told %v", told)
	}
	for _, n := range []*Nexus{a, b} {
		wantSense(t, at(t, n, 0, cdbTestUnitReady), AttentionTargetReset)
		wantGood(t, at(t, n, 0, cdbTestUnitReady))
	}
}

func TestSetCapacity(t *testing.T) {
	r := disk512(t)
	before := r.unit.Blocks()
	for _, bad := range []int64{0, -512, 513, int64(before-1) * 512} {
		if err := r.unit.SetCapacity(bad); err == nil {
			t.Errorf("capacity %d is accepted", bad)
		}
	}
	if err := r.unit.SetCapacity(int64(before) * 512); err != nil {
		t.Error(err)
	}
	r.good(cdbTestUnitReady)
	if err := r.unit.SetCapacity(16384 * 512); err != nil {
		t.Fatal(err)
	}
	r.sense(AttentionCapacityChanged, cdbTestUnitReady)
	wantBytes(t, r.good("25 00 00000000 0000 00 00"), "00003FFF 00000200")
}

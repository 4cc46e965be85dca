package volume_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

const (
	chunkSize  = 64 << 10
	volumeSize = 1 << 20
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func placement(striped bool) *layout.Map {
	m := &layout.Map{
		Volume: 1, Size: volumeSize, ChunkSize: chunkSize, StripeUnit: chunkSize, StripeCount: 1,
		Ranges: []layout.Range{{First: 0, Chunks: volumeSize / chunkSize, Copysets: []layout.CopysetID{1, 2, 3}}},
	}
	if striped {
		m.StripeUnit, m.StripeCount = 8<<10, 4
	}
	return m
}

func open(f *fakeCluster, striped bool) (*volume.Handle, func()) {
	r := f.router()
	h := volume.New(r, f, 1<<20, nil).Open(placement(striped), "iqn.2026-11.test:host", 0, alwaysWanted)
	return h, func() {
		r.Close()
		f.wg.Wait()
	}
}

// TestAgainstModel runs random operations of concurrent workers, each on a part of its own, over links that lose,
// delay and repeat, and leaders that move; every read must show what the worker last did.
func TestAgainstModel(t *testing.T) {
	seed := seedBase(t)
	for _, striped := range []bool{false, true} {
		f := newFakeCluster(42+seed, 3, 3)
		f.faults = true
		h, done := open(f, striped)
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() { modelWorker(t, h, w, seed) })
		}
		wg.Wait()
		done()
	}
}

func modelWorker(t *testing.T, h *volume.Handle, w int, seed uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	rnd := rand.New(rand.NewPCG(uint64(w)+seed, 2))
	const part = volumeSize / 4
	base := int64(w) * part
	model := make([]byte, part)
	for range 150 {
		off := rnd.Int64N(part/512) * 512
		length := min((1+rnd.Int64N(256))*512, part-off)
		p := make([]byte, length)
		var err error
		switch rnd.IntN(5) {
		case 0, 1:
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			err = h.WriteAt(ctx, p, base+off)
			copy(model[off:], p)
		case 2:
			err = h.WriteZeroes(ctx, base+off, length)
			clear(model[off : off+length])
		case 3:
			off = off / layout.BlockSize * layout.BlockSize
			length = length / layout.BlockSize * layout.BlockSize
			if off+length > part {
				continue
			}
			err = h.Discard(ctx, base+off, length)
			clear(model[off : off+length])
		case 4:
			if err = h.ReadAt(ctx, p, base+off); err == nil && !bytes.Equal(p, model[off:off+length]) {
				t.Errorf("worker %d: %d bytes at %d differ", w, length, off)
				return
			}
		}
		if err != nil {
			t.Errorf("worker %d: %v", w, err)
			return
		}
	}
}

// TestCompareAndWriteTakesEffectOnce counts to 200 through a lossy network: a repetition that took effect twice, or
// whose first answer was lost, would show as a miscompare.
func TestCompareAndWriteTakesEffectOnce(t *testing.T) {
	f := newFakeCluster(7+seedBase(t), 3, 3)
	f.faults = true
	h, done := open(f, false)
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	old, next := make([]byte, 512), make([]byte, 512)
	for i := range 200 {
		next[0] = byte(i + 1)
		if err := h.CompareAndWrite(ctx, old, next, 4096); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		copy(old, next)
	}
	next[0]++
	next[3]++
	var mis *volume.MiscompareError
	if err := h.CompareAndWrite(ctx, next, next, 4096); !errors.As(err, &mis) || mis.Offset != 0 {
		t.Fatalf("got %v, want a miscompare at 0", err)
	}
}

// TestNewerEpochEndsAHandleWithoutProof: nobody can be asked whether its operations are still wanted.
func TestNewerEpochEndsAHandleWithoutProof(t *testing.T) {
	f := newFakeCluster(1, 3, 3)
	r := f.router()
	defer r.Close()
	c := volume.New(r, f, 1<<20, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	first, second := c.Open(placement(false), "iqn.a", 0, nil), c.Open(placement(false), "iqn.a", 0, nil)
	block := make([]byte, 4096)
	must(t, first.WriteAt(ctx, block, 0))
	block[0] = 2
	must(t, second.WriteAt(ctx, block, 0))
	block[0] = 1
	if err := first.WriteAt(ctx, block, 0); !errors.Is(err, volume.ErrStaleEpoch) {
		t.Fatalf("got %v, want ErrStaleEpoch", err)
	}
	if err := first.Err(); !errors.Is(err, volume.ErrStaleEpoch) {
		t.Fatalf("the handle goes on: %v", err)
	}
	// A copyset that the second has not touched would still take the first's epoch: the handle itself must refuse.
	if err := first.WriteAt(ctx, block, chunkSize); !errors.Is(err, volume.ErrStaleEpoch) {
		t.Fatalf("got %v, want ErrStaleEpoch", err)
	}
	must(t, second.ReadAt(ctx, block, 0))
	if block[0] != 2 {
		t.Fatalf("block holds %d", block[0])
	}
}

// TestAbortedWriteIsFenced cancels a write that the store has not applied yet, raises the generation, and touches the
// copyset again: the late write must not take effect, and one that was not cancelled must.
func TestAbortedWriteIsFenced(t *testing.T) {
	f := newFakeCluster(1, 3, 3)
	h, done := open(f, false)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	block := bytes.Repeat([]byte{1}, 4096)
	must(t, h.WriteAt(ctx, block, 0))
	hold := make(chan struct{})
	f.Lock()
	f.hold = hold
	f.Unlock()
	abort, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.WriteAt(abort, bytes.Repeat([]byte{2}, 4096), 0); !errors.Is(err, context.Canceled) {
			t.Errorf("the aborted write: %v", err)
		}
	})
	wg.Go(func() {
		if err := h.WriteAt(ctx, bytes.Repeat([]byte{3}, 4096), 4096); err != nil {
			t.Errorf("the other write: %v", err)
		}
	})
	time.Sleep(5 * time.Millisecond)
	stop()
	h.Fence()
	must(t, h.ReadAt(ctx, block, 0))
	f.Lock()
	f.hold = nil
	f.Unlock()
	close(hold)
	wg.Wait()
	f.wg.Wait()
	got := make([]byte, 8192)
	must(t, h.ReadAt(ctx, got, 0))
	if got[0] != 1 || got[4096] != 3 {
		t.Fatalf("blocks hold %d and %d, want 1 and 3", got[0], got[4096])
	}
	done()
}

func TestAccessIsJudgedAgain(t *testing.T) {
	f := newFakeCluster(1, 3, 3)
	h, done := open(f, false)
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f.access[1] = 5
	result := make(chan error, 1)
	go func() { result <- h.WriteAt(ctx, make([]byte, 4096), 0) }()
	select {
	case err := <-result:
		t.Fatalf("done before access was judged: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	h.SetAccess(5)
	must(t, <-result)
	f.Lock()
	f.access[1] = 6
	f.Unlock()
	go func() { result <- h.WriteAt(ctx, make([]byte, 4096), 0) }()
	time.Sleep(5 * time.Millisecond)
	h.Revoke(volume.ErrAccessRevoked)
	if err := <-result; !errors.Is(err, volume.ErrAccessRevoked) {
		t.Fatalf("got %v, want ErrAccessRevoked", err)
	}
}

// TestReservedVolume: what was judged by older reservations ends; what is not bound to them waits.
func TestReservedVolume(t *testing.T) {
	f := newFakeCluster(1, 3, 3)
	h, done := open(f, false)
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	block := make([]byte, 4096)
	must(t, h.WriteAt(ctx, block, 0))
	h.SetAccess(5)
	f.Lock()
	f.access[1] = 5
	f.Unlock()
	must(t, h.WriteAt(reservation.WithAccess(ctx, 5), block, 0))
	if err := h.WriteAt(reservation.WithAccess(ctx, 4), block, 0); !errors.Is(err, volume.ErrAccessChanged) {
		t.Fatalf("bound to an older generation: %v", err)
	}
	f.Lock()
	f.access[1] = 6
	f.Unlock()
	if err := h.WriteAt(reservation.WithAccess(ctx, 6), block, 0); !errors.Is(err, volume.ErrAccessChanged) {
		t.Fatalf("bound to one that the initiator has not been judged for: %v", err)
	}
	result := make(chan error, 1)
	h.SetAccess(6)
	f.Lock()
	f.access[1] = 7
	f.Unlock()
	go func() { result <- h.WriteAt(reservation.Exempt(reservation.WithAccess(ctx, 6)), block, 0) }()
	time.Sleep(5 * time.Millisecond)
	h.SetAccess(7)
	must(t, <-result)
}

func TestStallEndsWithTheContextOnly(t *testing.T) {
	f := newFakeCluster(1, 3, 3)
	h, done := open(f, false)
	defer done()
	must(t, h.WriteAt(context.Background(), make([]byte, 512), 0))
	f.Lock()
	for c := range f.leaders {
		f.leaders[c] = 99 // nobody leads
	}
	f.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := h.WriteAt(ctx, make([]byte, 512), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Fatalf("gave up after %v", took)
	}
}

func TestOutOfRange(t *testing.T) {
	f := newFakeCluster(1, 3, 3)
	h, done := open(f, false)
	defer done()
	ctx := context.Background()
	for _, c := range []struct{ off, length int64 }{{-512, 512}, {volumeSize, 512}, {volumeSize - 512, 1024}, {1, 512}, {0, 100}} {
		if err := h.WriteAt(ctx, make([]byte, c.length), c.off); !errors.Is(err, volume.ErrOutOfRange) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAllocationJoinsRuns(t *testing.T) {
	f := newFakeCluster(1, 3, 3)
	h, done := open(f, false)
	defer done()
	ctx := context.Background()
	must(t, h.WriteAt(ctx, make([]byte, 512), chunkSize))
	runs, err := h.Allocation(ctx, 0, 4*chunkSize)
	must(t, err)
	want := []volume.Run{{0, chunkSize, false}, {chunkSize, chunkSize, true}, {2 * chunkSize, 2 * chunkSize, false}}
	if len(runs) != len(want) {
		t.Fatalf("got %v", runs)
	}
	for i := range runs {
		if runs[i] != want[i] {
			t.Fatalf("got %v, want %v", runs, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

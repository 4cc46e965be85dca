package session

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// TestReservationsLeaveHalfForLeases: sessions that come can not take the memory that those which are there work with.
func TestReservationsLeaveHalfForLeases(t *testing.T) {
	p := NewPool(1 << 20)
	for i := range 8 {
		if err := p.Reserve(64 << 10); err != nil {
			t.Fatalf("reservation %d: %v", i, err)
		}
	}
	if err := p.Reserve(1); !errors.Is(err, ErrLimit) {
		t.Fatalf("more than a half is reserved: %v", err)
	}
	b := p.Lease(512 << 10)
	if b == nil {
		t.Fatal("the other half can not be leased")
	}
	b.Release()
	p.Unreserve(64 << 10)
	if err := p.Reserve(64 << 10); err != nil {
		t.Fatalf("what was given back can not be reserved: %v", err)
	}
}

func TestPoolLimits(t *testing.T) {
	p := NewPool(1 << 20)
	if err := p.Reserve(512 << 10); err != nil {
		t.Fatal(err)
	}
	a := p.Lease(256<<10 - 5)
	b := p.Lease(256 << 10)
	if a == nil || b == nil || a.Len() != 256<<10-5 {
		t.Fatal("leases within the limit fail")
	}
	if p.Lease(1) != nil {
		t.Fatal("a lease beyond the limit succeeds")
	}
	if err := p.Reserve(1); !errors.Is(err, ErrLimit) {
		t.Fatalf("reservation beyond the limit: %v", err)
	}
	r := p.LeaseReserved(4096) // paid already
	r.Release()
	woken := 0
	w, v := Waiter{Wake: func() { woken++ }}, Waiter{Wake: func() { woken += 10 }}
	p.Await(&w, 200<<10)
	p.Await(&v, 4096)
	if p.Granted(&w) != nil || p.Granted(&v) != nil || woken != 0 {
		t.Fatal("granted too early, or out of order")
	}
	a.Release()
	if woken != 1 {
		t.Fatalf("woken %d", woken)
	}
	if p.Lease(1) != nil {
		t.Fatal("a lease overtakes one that waits")
	}
	g := p.Granted(&w)
	if g == nil || g.Len() != 200<<10 {
		t.Fatal("not granted")
	}
	p.Withdraw(&v)
	p.Withdraw(&v)
	b.Release()
	g.Release()
	p.Await(&w, 4096)
	p.Withdraw(&w) // after it was granted
	p.Unreserve(512 << 10)
	if used, _ := p.Used(); used != 0 || p.Waiting() != 0 {
		t.Fatalf("%d bytes, %d waiters left", used, p.Waiting())
	}
}

func TestPoolCounts(t *testing.T) {
	p := NewPool(1 << 20)
	b := p.Lease(100)
	b.Bytes()[0] = 1
	b.Retain()
	b.Release()
	b.Release()
	if poison && b.mem[0] != poisonByte {
		t.Error("a free buffer is not poisoned")
	}
	for name, f := range map[string]func(){
		"release": func() { c := NewPool(1 << 20).Lease(1); c.Release(); c.Release() },
		"retain":  func() { c := NewPool(1 << 20).Lease(1); c.Release(); c.Retain() },
		"size":    func() { p.LeaseReserved(BufferMax + 1) },
		"zero":    func() { p.LeaseReserved(0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			f()
		}()
	}
}

func TestPoolClasses(t *testing.T) {
	for _, c := range []struct {
		n    int
		size int64
	}{{1, 4096}, {4096, 4096}, {4097, 8192}, {65536, 65536}, {65537, 131072}, {BufferMax, BufferMax}} {
		if got := classSize(c.n); got != c.size {
			t.Errorf("class of %d: %d, want %d", c.n, got, c.size)
		}
	}
}

// TestPoolConcurrent has many goroutines wait for little memory: each gets some, and the limit holds all the time.
func TestPoolConcurrent(t *testing.T) {
	p := NewPool(64 << 10)
	var held atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			wake := make(chan struct{}, 1)
			w := Waiter{Wake: func() { wake <- struct{}{} }}
			for i := range 300 {
				n := 4096 << (i % 4)
				b := p.Lease(n)
				if b == nil {
					p.Await(&w, n)
					<-wake
					if b = p.Granted(&w); b == nil {
						t.Error("woken without memory")
						return
					}
				}
				if now := held.Add(int64(len(b.mem))); now > 64<<10 {
					t.Errorf("%d bytes are out", now)
				}
				held.Add(-int64(len(b.mem)))
				b.Release()
			}
		})
	}
	all.Wait()
	if used, _ := p.Used(); used != 0 {
		t.Errorf("%d bytes left", used)
	}
}

package disk

import (
	"math/rand/v2"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
)

// modelAlloc is an allocator of one byte per block.
type modelAlloc struct{ state []byte }

const (
	blockFree = iota
	blockUsed
	blockPending
	blockHole
)

func (m *modelAlloc) set(t *testing.T, r extent.Run, from, to byte) {
	t.Helper()
	for i := range extent.Addr(r.N) {
		if m.state[r.Start+i] != from {
			t.Fatalf("block %d is %d, not %d", r.Start+i, m.state[r.Start+i], from)
		}
		m.state[r.Start+i] = to
	}
}

func (m *modelAlloc) counts() (c Counts) {
	c.File = int64(len(m.state))
	for _, s := range m.state {
		switch s {
		case blockFree:
			c.Free++
		case blockUsed:
			c.Used++
		case blockPending:
			c.Pending++
		case blockHole:
			c.Holes++
		}
	}
	return c
}

// TestAllocatorModel runs random calls on the allocator and on the model.
func TestAllocatorModel(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 5))
		a := &allocator{limit: 90000}
		m := &modelAlloc{}
		var used, pending []extent.Run
		pick := func(from *[]extent.Run) (extent.Run, bool) {
			if len(*from) == 0 {
				return extent.Run{}, false
			}
			i, k := rng.IntN(len(*from)), len(*from)-1
			r := (*from)[i]
			(*from)[i] = (*from)[k]
			*from = (*from)[:k]
			return r, true
		}
		for range 3000 {
			switch k := rng.IntN(100); {
			case k < 50:
				n := 1 + rng.Uint32N(1+rng.Uint32N(600))
				c := m.counts()
				runs, res := a.take(n, true, nil)
				if (res == allocLimit) != (uint64(c.Used+c.Pending)+uint64(n) > a.limit) ||
					res != allocLimit && (res == allocGrow) != (c.Free < int64(n)) {
					t.Fatalf("take %d of %+v: %d", n, c, res)
				}
				var got uint32
				for _, r := range runs {
					m.set(t, r, blockFree, blockUsed)
					got += r.N
				}
				if res == allocDone && got != n || res != allocDone && got != 0 {
					t.Fatalf("took %d, not %d", got, n)
				}
				used = append(used, runs...)
			case k < 80:
				if r, ok := pick(&used); ok {
					m.set(t, r, blockUsed, blockPending)
					a.retire(uint64(r.N))
					pending = append(pending, r)
				}
			case k < 83:
				if r, ok := pick(&used); ok {
					m.set(t, r, blockUsed, blockFree)
					a.release([]extent.Run{r}, false)
				}
			case k < 93:
				if r, ok := pick(&pending); ok {
					m.set(t, r, blockPending, blockFree)
					a.release([]extent.Run{r}, true)
				}
			case k < 96:
				if r, ok := pick(&pending); ok {
					m.set(t, r, blockPending, blockHole)
					a.releaseHole(r)
				}
			case k < 98:
				if r, ok := a.takeHole(1 + rng.Uint32N(300)); ok {
					if rng.IntN(2) == 0 {
						a.putHole(r)
						continue
					}
					m.set(t, r, blockHole, blockFree)
					a.fillHole(r)
				}
			case k < 99:
				n := len(m.state) + rng.IntN(3000)
				a.extend(extent.Addr(n))
				m.state = append(m.state, make([]byte, n-len(m.state))...)
			}
		}
		a.digHoles(100)
		for i := 0; i < len(m.state); {
			n := 0
			for i+n < len(m.state) && m.state[i+n] == blockFree {
				n++
			}
			for j := range n {
				if n >= 100 {
					m.state[i+j] = blockHole
				}
			}
			i += max(n, 1)
		}
		if got, want := a.counts(), m.counts(); got != want {
			t.Fatalf("counts %+v, want %+v", got, want)
		}
	}
}

// TestAllocatorContiguous: as long as there are free areas, a large write gets one run when there is one.
func TestAllocatorContiguous(t *testing.T) {
	a := &allocator{limit: ^uint64(0)}
	a.extend(1 << 16)
	for i := extent.Addr(1); i < 4000; i += 2 { // fragments at the front
		if !a.reserve(i, 1) {
			t.Fatal("reserve")
		}
	}
	for range 20 {
		runs, res := a.take(256, false, nil)
		if res != allocDone || len(runs) != 1 {
			t.Fatalf("%v %v", runs, res)
		}
	}
	if a.reserve(1, 1) || a.reserve(1<<16, 1) || a.reserve(1<<16-1, 2) {
		t.Fatal("a block was reserved twice or beyond the end")
	}
}

func TestDoubleFreePanics(t *testing.T) {
	a := &allocator{limit: 100}
	a.extend(100)
	runs, _ := a.take(3, true, nil)
	a.release(runs, false)
	defer func() {
		if recover() == nil {
			t.Fatal("a block was freed twice")
		}
	}()
	a.release(runs, false)
}

func BenchmarkAllocate4K(b *testing.B) {
	a := &allocator{limit: ^uint64(0)}
	a.extend(1 << 20)
	var few [1]extent.Run
	for b.Loop() {
		runs, _ := a.take(1, true, few[:0])
		a.release(runs, false)
	}
}

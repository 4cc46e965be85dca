package load

import (
	"strings"
	"testing"
	"time"
)

func TestBlock(t *testing.T) {
	b := make([]byte, BlockLen)
	fill(b, 7, 42, 3)
	if v, err := version(b, 7, 42); v != 3 || err != nil {
		t.Fatalf("version %d, %v", v, err)
	}
	for _, at := range []int{0, 9, 17, 25, headerLen, BlockLen / 2, BlockLen - 1} {
		b[at] ^= 0x10
		if v, err := version(b, 7, 42); err == nil && v == 3 {
			t.Errorf("a bit flip at %d was not found", at)
		}
		b[at] ^= 0x10
	}
	if _, err := version(b, 7, 43); err == nil {
		t.Error("a block in the wrong place was not found")
	}
	if _, err := version(b, 8, 42); err == nil {
		t.Error("a block of another run was not found")
	}
	clear(b)
	if v, err := version(b, 7, 42); v != 0 || err != nil {
		t.Errorf("zero block: version %d, %v", v, err)
	}
	b[4000] = 1
	if _, err := version(b, 7, 42); err == nil {
		t.Error("a zero block with one byte was not found")
	}
}

// state makes a load of 64 blocks without a target, with version 1 everywhere.
func state() *Load {
	l := New(nil, Config{Blocks: 64, MaxBlocks: 8, Seed: 1})
	for i := range l.mu.want {
		l.mu.want[i] = 1
	}
	return l
}

// content makes the blocks of o with the given versions.
func content(o op, versions ...uint64) []byte {
	buf := make([]byte, o.n*BlockLen)
	for i, v := range versions {
		fill(buf[i*BlockLen:], 1, o.base+uint64(i), v)
	}
	return buf
}

func TestViolations(t *testing.T) {
	r := op{kind: 'r', base: 8, n: 3}
	for _, c := range []struct {
		name     string
		versions []uint64
		want     string
	}{
		{"as written", []uint64{1, 1, 1}, ""},
		{"lost write", []uint64{1, 0, 1}, "block 9: version 0, want 1"},
		{"stale write", []uint64{1, 1, 5}, "block 10: version 5, want 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := state()
			l.settle(r, content(r, c.versions...))
			got := strings.Join(l.Report().Violations, "\n")
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestHist(t *testing.T) {
	var h, other Hist
	for i := 1; i <= 1000; i++ {
		h.Add(time.Duration(i) * time.Millisecond)
	}
	other.Add(5 * time.Second)
	h.Merge(&other)
	if h.N() != 1001 || h.Max() != 5*time.Second {
		t.Errorf("n %d, max %v", h.N(), h.Max())
	}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0.5, 500 * time.Millisecond}, {0.99, 990 * time.Millisecond}, {1, 5 * time.Second}} {
		got := h.Quantile(c.q)
		if diff := (got - c.want).Abs(); diff > c.want/50 {
			t.Errorf("quantile %v: %v, want about %v", c.q, got, c.want)
		}
	}
	var zero Hist
	if zero.Mean() != 0 || zero.Quantile(0.5) != 0 {
		t.Error("an empty histogram has values")
	}
}

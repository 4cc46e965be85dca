package load

import (
	"math/bits"
	"time"
)

// Hist counts durations in log-linear buckets: 64 steps per power of two, so a value is off by less than 1.6 %.
// The zero value is ready. It is not safe for concurrent use.
type Hist struct {
	n, sum int64
	max    time.Duration
	b      [(64 - subBits) << subBits]uint32
}

const subBits = 6

// Add counts one duration.
func (h *Hist) Add(d time.Duration) {
	d = max(d, 0)
	h.n++
	h.sum += int64(d)
	h.max = max(h.max, d)
	h.b[bucket(uint64(d))]++
}

// Merge adds the counts of another histogram.
func (h *Hist) Merge(o *Hist) {
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
	for i, c := range o.b {
		h.b[i] += c
	}
}

// N is how many durations were counted.
func (h *Hist) N() int64 { return h.n }

// Max is the longest one, exactly.
func (h *Hist) Max() time.Duration { return h.max }

// Mean is their mean; zero without any.
func (h *Hist) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / h.n)
}

// Quantile is the duration that a share q of them does not exceed.
func (h *Hist) Quantile(q float64) time.Duration {
	rank := int64(q*float64(h.n) + 0.999999)
	seen := int64(0)
	for i, c := range h.b {
		if seen += int64(c); seen >= rank && c > 0 {
			return min(time.Duration(middle(i)), h.max)
		}
	}
	return h.max
}

func bucket(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := 63 - bits.LeadingZeros64(v) - subBits
	return (shift+1)<<subBits + int(v>>shift&(1<<subBits-1))
}

func middle(i int) uint64 {
	if i < 1<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (1<<subBits+uint64(i&(1<<subBits-1)))<<shift + 1<<shift/2
}

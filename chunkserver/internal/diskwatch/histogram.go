package diskwatch

import (
	"iter"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram has four buckets for each doubling of the time, from 1 µs to 2^31 µs (36 minutes): a quantile is at most a
// quarter too high.
const (
	steps   = 4
	buckets = 32 * steps
)

// usualDecay is what a Tick leaves of the weight of what was before.
var usualDecay = math.Pow(0.5, 1.0/usualLife)

// counts is a histogram's content.
type counts [buckets]uint32

// histogram counts operations by how long they took, from any goroutine.
type histogram [buckets]atomic.Uint32

func (h *histogram) add(d time.Duration) { h[bucket(d)].Add(1) }

// take returns the content and begins anew.
func (h *histogram) take() (c counts) {
	for i := range h {
		if h[i].Load() != 0 {
			c[i] = h[i].Swap(0)
		}
	}
	return c
}

// bucket returns the bucket of a time.
func bucket(d time.Duration) int {
	us := uint64(max(d/time.Microsecond, 1))
	octave := bits.Len64(us) - 1
	step := (us << 2 >> octave) & (steps - 1) // the two bits behind the first
	return min(octave*steps+int(step), buckets-1)
}

// upper returns the time at which a bucket ends.
func upper(i int) time.Duration {
	octave, step := i/steps, i%steps
	return time.Duration((uint64(steps+step+1)<<octave)/steps) * time.Microsecond
}

// latency sums spans up.
func latency(all iter.Seq[counts]) Latency {
	var sum [buckets]float64
	l := Latency{}
	for c := range all {
		for i, n := range c {
			sum[i] += float64(n)
			l.Count += int(n)
		}
	}
	l.P50, l.P99 = quantile(sum[:], 0.5), quantile(sum[:], 0.99)
	return l
}

// quantile returns the time that a share q of the operations did not exceed, 0 when there are none.
func quantile(counts []float64, q float64) time.Duration {
	total := 0.0
	for _, n := range counts {
		total += n
	}
	if total < 0.5 { // faded away
		return 0
	}
	below := 0.0
	for i, n := range counts {
		if below += n; below >= total*q && n > 0 {
			return upper(i)
		}
	}
	return upper(len(counts) - 1)
}

// Package logtail decides how much of a group's log stays in front of a checkpoint, for followers that lag.
//
//	log   |<-- cut -->|<------------ tail ------------>| checkpoint … last
//	                   at most so many entries or bytes
//
// Bytes are known by samples, one for each sampleBytes appended.
package logtail

import "sync"

// sampleBytes is how far apart in the log the samples are.
const sampleBytes = 256 << 10

// shortEntries and shortBytes are a short tail: one that saves those an image that are a moment behind.
const shortEntries, shortBytes = 64, 1 << 20

// Short returns how many entries, or bytes, are to stay when space is to be reclaimed, where entries and bytes stay otherwise.
func Short(entries uint64, bytes int64) (uint64, int64) {
	return min(entries, shortEntries), min(bytes, shortBytes)
}

// Tail knows how many bytes of log are behind an index, and which images still need the log behind theirs. The zero Tail
// is that of an empty log; it is safe for use by several goroutines.
type Tail struct {
	mu struct {
		sync.Mutex
		total   int64
		samples []sample
		holds   map[uint64]int
	}
}

type sample struct {
	index uint64
	total int64
}

// Add notes that entries up to index, of that many bytes, were appended.
func (t *Tail) Add(index uint64, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.total += bytes
	if n := len(t.mu.samples); n == 0 || t.mu.total-t.mu.samples[n-1].total >= sampleBytes {
		t.mu.samples = append(t.mu.samples, sample{index, t.mu.total})
	}
}

// Cut returns up to where the log may go when entries, or bytes if they are fewer, are to stay in front of applied.
func (t *Tail) Cut(applied, entries uint64, bytes int64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var index uint64
	if applied > entries {
		index = applied - entries
	}
	keep := 0
	for i, s := range t.mu.samples {
		if t.mu.total-s.total < bytes || s.index > applied {
			break
		}
		index, keep = max(index, s.index), i
	}
	t.mu.samples = append(t.mu.samples[:0], t.mu.samples[keep:]...)
	return min(index, applied)
}

// Hold keeps the log behind index until Release.
func (t *Tail) Hold(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.holds == nil {
		t.mu.holds = map[uint64]int{}
	}
	t.mu.holds[index]++
}

// Release ends a Hold.
func (t *Tail) Release(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.holds[index]--; t.mu.holds[index] <= 0 {
		delete(t.mu.holds, index)
	}
}

// Held returns index, or the lowest held one if that is lower.
func (t *Tail) Held(index uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at := range t.mu.holds {
		index = min(index, at)
	}
	return index
}

package copyset

import "github.com/ashlar-storage/ashlar/storage/layout"

// Window is how many sequence numbers above the low-water mark have a place for an outcome. A client keeps fewer
// mutations than that in flight.
const Window = 8192

// window holds the outcomes of one (volume, initiator, epoch) above the low-water mark. Nearly all are OK, which costs
// a bit; the others are in a map.
type window struct {
	low   layout.Seq
	done  []uint64 // bit seq%Window; nil while none is set
	other map[layout.Seq]Outcome
}

// inside tells whether seq has a place.
func (w *window) inside(seq layout.Seq) bool { return seq >= w.low && seq-w.low < Window }

// lookup returns the stored outcome of seq.
func (w *window) lookup(seq layout.Seq) (Outcome, bool) {
	if !w.inside(seq) || w.done == nil {
		return Outcome{}, false
	}
	i := seq % Window
	if w.done[i/64]&(1<<(i%64)) == 0 {
		return Outcome{}, false
	}
	if o, ok := w.other[seq]; ok {
		return o, true
	}
	return Outcome{Code: OK}, true
}

// store keeps the outcome of seq, which is inside.
func (w *window) store(seq layout.Seq, o Outcome) {
	if w.done == nil {
		w.done = make([]uint64, Window/64)
	}
	i := seq % Window
	w.done[i/64] |= 1 << (i % 64)
	if o == (Outcome{Code: OK}) {
		return
	}
	if w.other == nil {
		w.other = map[layout.Seq]Outcome{}
	}
	w.other[seq] = o
}

// raise moves the low-water mark up to low, if that is higher, and forgets what is below.
func (w *window) raise(low layout.Seq) {
	if low <= w.low {
		return
	}
	switch {
	case w.done == nil:
	case low-w.low >= Window:
		clear(w.done)
		clear(w.other)
	default:
		for seq := w.low; seq < low; {
			i := seq % Window
			if i%64 == 0 && low-seq >= 64 {
				w.done[i/64] = 0
				seq += 64
				continue
			}
			w.done[i/64] &^= 1 << (i % 64)
			seq++
		}
		for seq := range w.other {
			if seq < low {
				delete(w.other, seq)
			}
		}
	}
	w.low = low
}

// each calls f for each stored outcome, by rising seq.
func (w *window) each(f func(layout.Seq, Outcome)) {
	if w.done == nil {
		return
	}
	for seq := w.low; seq-w.low < Window; seq++ {
		if i := seq % Window; i%64 == 0 && w.done[i/64] == 0 {
			seq += 63 // none of these, and most are so
			continue
		}
		if o, ok := w.lookup(seq); ok {
			f(seq, o)
		}
	}
}

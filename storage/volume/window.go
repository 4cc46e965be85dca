package volume

import (
	"context"
	"sync"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// windowSize is how many sequence numbers may be unsettled, counted from the lowest; a copyset keeps at most this many
// outcomes for a handle. It is a multiple of 64.
const windowSize = 4096

// window gives out the sequence numbers of mutations and knows the low-water mark: next is the next number, low the
// lowest that is unsettled; settled marks those between that are.
type window struct {
	cond    *sync.Cond
	next    layout.Seq
	low     layout.Seq
	settled [windowSize / 64]uint64
}

func (w *window) init(l sync.Locker) { w.cond, w.next, w.low = sync.NewCond(l), 1, 1 }

// take gives out a number; it waits while the window is full.
func (h *Handle) take(ctx context.Context) (layout.Seq, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &h.mu.window
	if w.next-w.low >= windowSize && ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			w.cond.Broadcast()
		})
		defer stop()
	}
	for w.next-w.low >= windowSize {
		if h.mu.dead != nil {
			return 0, h.mu.dead
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		w.cond.Wait()
	}
	seq := w.next
	w.next++
	return seq, nil
}

// settle says that nobody will ask about seq again.
func (h *Handle) settle(seq layout.Seq) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &h.mu.window
	full := w.next-w.low >= windowSize
	w.settled[seq%windowSize/64] |= 1 << (seq % 64)
	for w.low < w.next && w.settled[w.low%windowSize/64]&(1<<(w.low%64)) != 0 {
		w.settled[w.low%windowSize/64] &^= 1 << (w.low % 64)
		w.low++
	}
	if full && w.next-w.low < windowSize {
		w.cond.Broadcast()
	}
}

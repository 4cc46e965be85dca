// Package diskwatch tells how a disk does, from what is done on it anyway: how long the operations take, and for how long
// those take that have not come back.
//
//	raftlog ────► FS(log) ─┐                                ┌─► Health   median and p99 of the last seconds,
//	              │        ├─ slots: what is under way ─────┤             the median of the last hours
//	blockstore ─► FS(data)─┘  counts: how long what has     └─► Stalled  the oldest operation of a class
//	              │           come back took
//	              ▼
//	           vfs.FS
//
// An operation takes and gives back a slot and counts itself, without a lock, so a disk that does not answer keeps nobody
// waiting who asks for its health.
//
// The time of all this is the one in which the process ran: the clock may go on by stepMax at most between two Ticks. A process
// that was stopped with an operation under way does not know whether the disk has kept it waiting, and that operation may have
// come back long ago when somebody looks at its slot before it is given back.
package diskwatch

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Class says who waits for an operation.
type Class uint8

// The classes.
const (
	// Log: a write of a host waits, for a record of the raft log.
	Log Class = iota
	// Read: a read of a host waits, for data.
	Read
	// Background: what is prepared ahead or made durable in the background (spares of the log, checkpoints, holes, scrubs),
	// which takes its time on a good disk too. The data of large writes is among it, for it goes the same way.
	Background
	classes
)

func (c Class) String() string {
	return [...]string{"write to the log", "read", "write in the background"}[c]
}

const (
	// slotsMax bounds the operations under way that are followed; there are seldom more, and those above only count when
	// they have come back.
	slotsMax = 64
	// pace is the time between two Ticks of Run; spans of them are what Health is made of.
	pace  = 500 * time.Millisecond
	spans = 4
	// stepMax is by how much the clock goes on between two Ticks at most.
	stepMax = 2 * pace
	// usualLife is after how many Ticks a sample has lost half of its weight in what is usual: half an hour.
	usualLife = 3600
)

// Health is what the last seconds were like.
type Health struct {
	// Syncs are those of the raft log, Reads those of data.
	Syncs, Reads Latency
	// UsualSync is the median of the log's syncs in the last hours, 0 when there was none.
	UsualSync time.Duration
}

// Latency is how long operations took.
type Latency struct {
	// Count is the number of operations; without any the times are 0.
	Count    int
	P50, P99 time.Duration
}

// Watch watches one disk. Run it.
type Watch struct {
	start  time.Time
	beat   atomic.Pointer[beat]
	slots  [slotsMax]atomic.Uint64 // begin in µs × classes + class; 0: free
	turn   atomic.Uint32
	syncs  histogram
	reads  histogram
	health atomic.Pointer[Health]

	// Owned by Run.
	last, lastReads [spans]counts
	at              int
	usual           [buckets]float64
}

// beat is the last Tick: when it was after start, and for how long the process had not run until then.
type beat struct{ at, lost time.Duration }

// New returns a Watch that has seen nothing.
func New() *Watch {
	w := &Watch{start: time.Now()}
	w.beat.Store(&beat{})
	w.health.Store(&Health{})
	return w
}

// Run keeps Health until ctx ends. It touches no disk.
func (w *Watch) Run(ctx context.Context) {
	t := time.NewTicker(pace)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.tick()
		case <-ctx.Done():
			return
		}
	}
}

// Health returns what the last seconds were like.
func (w *Watch) Health() Health { return *w.health.Load() }

// Stalled returns for how long the oldest operation of a class has been under way, 0 when there is none.
func (w *Watch) Stalled(c Class) time.Duration {
	var oldest uint64
	for i := range w.slots {
		if v := w.slots[i].Load(); v != 0 && Class(v%uint64(classes)) == c && (oldest == 0 || v < oldest) {
			oldest = v
		}
	}
	if oldest == 0 {
		return 0
	}
	return max(0, w.now()-time.Duration(oldest/uint64(classes))*time.Microsecond)
}

// now returns for how long the process has run, which is never less than 1 µs.
func (w *Watch) now() time.Duration {
	b := w.beat.Load()
	return min(time.Since(w.start), b.at+stepMax) - b.lost + time.Microsecond
}

// operation is one that is under way.
type operation struct {
	begin time.Duration
	slot  *atomic.Uint64 // nil: all were taken
}

// enter begins an operation.
func (w *Watch) enter(c Class) operation {
	op := operation{begin: w.now()}
	v := uint64(op.begin/time.Microsecond)*uint64(classes) + uint64(c)
	first := w.turn.Add(1)
	for i := range uint32(slotsMax) {
		if s := &w.slots[(first+i)%slotsMax]; s.Load() == 0 && s.CompareAndSwap(0, v) {
			op.slot = s
			break
		}
	}
	return op
}

// leave ends an operation, and counts it in h unless that is nil.
func (w *Watch) leave(op operation, h *histogram) {
	if op.slot != nil {
		op.slot.Store(0)
	}
	if h != nil {
		h.add(w.now() - op.begin)
	}
}

// tick ends a span. What the clock went on by since the last one, beyond stepMax, is lost.
func (w *Watch) tick() {
	b, at := w.beat.Load(), time.Since(w.start)
	w.beat.Store(&beat{at: at, lost: b.lost + max(0, at-b.at-stepMax)})
	w.last[w.at], w.lastReads[w.at] = w.syncs.take(), w.reads.take()
	for i, n := range w.last[w.at] {
		w.usual[i] = w.usual[i]*usualDecay + float64(n)
	}
	w.at = (w.at + 1) % spans
	w.health.Store(&Health{
		Syncs: latency(slices.Values(w.last[:])), Reads: latency(slices.Values(w.lastReads[:])),
		UsualSync: quantile(w.usual[:], 0.5),
	})
}

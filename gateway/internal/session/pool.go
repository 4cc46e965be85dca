package session

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Size classes of leased buffers: powers of two from bufferMin to BufferMax.
const (
	bufferMinShift = 12 // 4 KiB
	bufferMaxShift = 24 // 16 MiB
	bufferClasses  = bufferMaxShift - bufferMinShift + 1

	// BufferMax is the largest buffer that a Pool leases, in bytes.
	BufferMax = 1 << bufferMaxShift
)

// Pool is the memory for the data of all sessions of a gateway. It bounds what is leased, not what is free: an unused
// buffer belongs to the garbage collector sooner or later.
//
// The limit has two parts. Reserve sets some of one half aside for a session: memory for data that its initiator may send
// without being asked. Leases with LeaseReserved are paid from there, and never fail. The rest is for leases made when
// the gateway chooses, before it asks for data (R2T) or reads a medium; there Lease fails when the limit is reached, and
// Await queues for what is given back, first come first served.
//
// Safe for concurrent use. A lease that is not at the limit takes no lock.
type Pool struct {
	limit    int64
	used     atomic.Int64 // reserved + leased with Lease, in bytes
	reserved atomic.Int64 // of used, at most half of limit
	free     [bufferClasses]sync.Pool

	waiting atomic.Int32 // len(mu.queue), readable without the lock
	mu      struct {
		sync.Mutex
		queue []*Waiter
	}
}

// ErrLimit says that a reservation does not fit what the pool has left.
var ErrLimit = errors.New("session: memory limit of the gateway reached")

// NewPool returns a pool that leases at most limit bytes at a time, counted in whole size classes.
func NewPool(limit int64) *Pool { return &Pool{limit: limit} }

// Used returns the bytes reserved and leased at this moment, and the limit.
func (p *Pool) Used() (used, limit int64) { return p.used.Load(), p.limit }

// Waiting returns how many sessions queue for memory.
func (p *Pool) Waiting() int { return int(p.waiting.Load()) }

// classOf returns the size class for n bytes, 1 to BufferMax.
func classOf(n int) int {
	if n <= 1<<bufferMinShift {
		return 0
	}
	return bits.Len(uint(n-1)) - bufferMinShift
}

// classSize returns the bytes of a buffer for n bytes.
func classSize(n int) int64 { return 1 << (classOf(n) + bufferMinShift) }

// charge takes n bytes from the limit and reports whether they were there.
func (p *Pool) charge(n int64) bool {
	if p.used.Add(n) <= p.limit {
		return true
	}
	p.used.Add(-n)
	return false
}

// refund gives n bytes back and serves those who wait.
func (p *Pool) refund(n int64) {
	p.used.Add(-n)
	if p.waiting.Load() > 0 {
		p.serve()
	}
}

// Reserve sets n bytes aside, or returns ErrLimit. At most half of the limit can be reserved: the rest is for leases, so
// that sessions which are there already can go on.
func (p *Pool) Reserve(n int64) error {
	if p.reserved.Add(n) > p.limit/2 || !p.charge(n) {
		p.reserved.Add(-n)
		return ErrLimit
	}
	return nil
}

// Unreserve gives back what Reserve took.
func (p *Pool) Unreserve(n int64) {
	p.reserved.Add(-n)
	p.refund(n)
}

// Lease returns a buffer of n bytes, 1 to BufferMax, with one reference, or nil if the limit is reached or others wait.
// Its bytes are what the last user left.
func (p *Pool) Lease(n int) *Buffer {
	if p.waiting.Load() > 0 || !p.charge(classSize(n)) {
		return nil
	}
	return p.take(n, true)
}

// LeaseReserved is Lease for memory that the caller reserved; it counts against no limit here.
func (p *Pool) LeaseReserved(n int) *Buffer { return p.take(n, false) }

// take gets a buffer from the class or makes one.
func (p *Pool) take(n int, charged bool) *Buffer {
	if n < 1 || n > BufferMax {
		panic(fmt.Sprintf("session: lease of %d bytes", n))
	}
	c := classOf(n)
	b, _ := p.free[c].Get().(*Buffer)
	if b == nil {
		b = &Buffer{pool: p, class: uint8(c), mem: make([]byte, 1<<(c+bufferMinShift))}
	}
	b.charged = charged
	b.len = n
	if !b.refs.CompareAndSwap(0, 1) {
		panic("session: leased buffer that is in use")
	}
	return b
}

// Waiter is one session's place in the queue for memory. Its zero value with Wake set is ready for use.
type Waiter struct {
	// Wake is called once when the memory is there. It runs on the goroutine that gave memory back, under no lock of
	// the pool; it must not block and must not call into a Session.
	Wake func()

	need   int
	state  waiterState // guarded by Pool.mu
	queued *Pool
}

// waiterState is where a Waiter stands.
type waiterState uint8

const (
	waiterIdle waiterState = iota
	waiterQueued
	waiterGranted
)

// Await queues w for n bytes. When they are there they are kept for w, and Wake is called, perhaps before Await returns.
func (p *Pool) Await(w *Waiter, n int) {
	p.mu.Lock()
	if w.state != waiterIdle {
		p.mu.Unlock()
		panic("session: waiter queued twice")
	}
	w.need, w.state, w.queued = n, waiterQueued, p
	p.mu.queue = append(p.mu.queue, w)
	p.waiting.Store(int32(len(p.mu.queue)))
	p.mu.Unlock()
	p.serve()
}

// Granted returns the buffer that w waited for, or nil if it is not there yet.
func (p *Pool) Granted(w *Waiter) *Buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state != waiterGranted {
		return nil
	}
	w.state = waiterIdle
	return p.take(w.need, true)
}

// Withdraw ends the wait of w and gives back what was granted. It does nothing if w does not wait.
func (p *Pool) Withdraw(w *Waiter) {
	p.mu.Lock()
	was := w.state
	w.state = waiterIdle
	for i, q := range p.mu.queue {
		if q == w {
			p.mu.queue = append(p.mu.queue[:i], p.mu.queue[i+1:]...)
			p.waiting.Store(int32(len(p.mu.queue)))
			break
		}
	}
	p.mu.Unlock()
	switch was {
	case waiterGranted:
		p.refund(classSize(w.need))
	case waiterQueued:
		p.serve()
	}
}

// serve grants memory to the head of the queue as long as there is enough.
func (p *Pool) serve() {
	for {
		p.mu.Lock()
		if len(p.mu.queue) == 0 || !p.charge(classSize(p.mu.queue[0].need)) {
			p.mu.Unlock()
			return
		}
		w := p.mu.queue[0]
		p.mu.queue = append(p.mu.queue[:0], p.mu.queue[1:]...)
		p.waiting.Store(int32(len(p.mu.queue)))
		w.state = waiterGranted
		p.mu.Unlock()
		w.Wake()
	}
}

// Buffer is leased memory with a count of its users. Whoever holds a reference may read it; it is written only by the
// one party that the protocol allows at that time: the reader of the connection while data comes in, the executor of
// the task while a medium is read.
type Buffer struct {
	refs    atomic.Int32
	pool    *Pool
	class   uint8
	charged bool
	len     int
	mem     []byte
}

// Bytes returns the leased bytes. They are valid until the caller's reference is released.
func (b *Buffer) Bytes() []byte { return b.mem[:b.len:b.len] }

// Len returns the number of leased bytes.
func (b *Buffer) Len() int { return b.len }

// Retain adds a reference. It panics if there is none.
func (b *Buffer) Retain() *Buffer {
	if b.refs.Add(1) <= 1 {
		panic("session: retained a buffer that is free")
	}
	return b
}

// Release drops a reference; the last one gives the memory back. It panics if there is none.
func (b *Buffer) Release() {
	n := b.refs.Add(-1)
	if n > 0 {
		return
	}
	if n < 0 {
		panic("session: released a buffer too often")
	}
	if poison {
		b.mem[0] = poisonByte
		for n := 1; n < len(b.mem); n *= 2 {
			copy(b.mem[n:], b.mem[:n])
		}
	}
	size, charged, pool := int64(len(b.mem)), b.charged, b.pool
	pool.free[b.class].Put(b)
	if charged {
		pool.refund(size)
	}
}

// poisonByte fills buffers that nobody holds, in builds with the tag invariants.
const poisonByte = 0xdb

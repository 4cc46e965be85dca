package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// Config says what a load does.
type Config struct {
	Base, Blocks uint64 // region of the logical unit, in blocks of BlockLen
	Depth        int    // operations in flight
	MaxBlocks    int    // an operation touches 1..MaxBlocks blocks
	ReadPct      int    // share of reads in percent
	UnmapPct     int    // share of UNMAPs in percent; the rest writes
	Seed         uint64
	// Pause is how long each of the Depth workers waits between two operations; zero: not at all.
	Pause time.Duration
}

// findingsMax bounds the texts that a report keeps.
const findingsMax = 20

// Report is what a load saw. Latencies are from the first attempt to the last, reconnects included.
type Report struct {
	Reads, Writes, Unmaps int64
	Busy                  int64 // answers that asked for a repetition
	Unknown               int64 // operations whose connection ended, or that the target gave up
	Aborted               int64 // the latter of them
	Latency               Hist
	SlowestAt             time.Time
	Errors                []string // SCSI errors: none is allowed
	Violations            []string // blocks that held what they must not: none is allowed
}

func (r *Report) String() string {
	return fmt.Sprintf("%d reads, %d writes, %d unmaps, %d busy, %d unknown outcomes (%d aborted), latency p50 %v p99 %v max %v, %d errors, %d violations",
		r.Reads, r.Writes, r.Unmaps, r.Busy, r.Unknown, r.Aborted, r.Latency.Quantile(0.50), r.Latency.Quantile(0.99), r.Latency.Max(),
		len(r.Errors), len(r.Violations))
}

// op is one operation on blocks [base, base+n).
type op struct {
	kind    byte // 'r', 'w', 'u'
	base    uint64
	n       int
	version uint64
}

// Load is a verified load on one client. Run and Verify may be called one after the other, any number of times.
type Load struct {
	cfg     Config
	c       *Client
	version atomic.Uint64
	busy    atomic.Int64

	mu struct {
		sync.Mutex
		want    []uint64 // version that each block holds
		locked  []bool
		pending []op // unknown outcomes; their blocks stay locked
		report  Report
	}
}

// New prepares a load over a region whose present content is all zero.
func New(c *Client, cfg Config) *Load {
	l := &Load{cfg: cfg, c: c}
	l.mu.want = make([]uint64, cfg.Blocks)
	l.mu.locked = make([]bool, cfg.Blocks)
	return l
}

// Report returns a copy of what was seen so far and begins a new one.
func (l *Load) Report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.mu.report
	r.Busy = l.busy.Swap(0)
	l.mu.report = Report{}
	return r
}

// Done is how many operations have ended since the last report.
func (l *Load) Done() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.report.Reads + l.mu.report.Writes + l.mu.report.Unmaps
}

// Run loads the region until ctx ends, then waits for the operations in flight, at most CommandTimeout.
// Operations that have not ended by then stay pending.
func (l *Load) Run(ctx context.Context) {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(CommandTimeout, cancel) })
	defer stop()
	var wg sync.WaitGroup
	for i := range l.cfg.Depth {
		wg.Go(func() { l.worker(ctx, hard, uint64(i)) })
	}
	wg.Wait()
}

// RunUntilCut is Run without grace: when ctx ends, operations in flight are given up and stay pending, and the
// session is dropped.
func (l *Load) RunUntilCut(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range l.cfg.Depth {
		wg.Go(func() { l.worker(ctx, ctx, uint64(i)) })
	}
	wg.Wait()
	l.c.Close()
}

// worker issues operations one after the other until ctx ends; each may go on until hard ends.
func (l *Load) worker(ctx, hard context.Context, id uint64) {
	rnd := rand.New(rand.NewPCG(l.cfg.Seed+l.version.Load(), id))
	buf := make([]byte, l.cfg.MaxBlocks*BlockLen)
	for ctx.Err() == nil {
		o, ok := l.take(rnd)
		if !ok {
			time.Sleep(time.Millisecond) // every block is locked
			continue
		}
		start := time.Now()
		if !l.complete(hard, o, buf) {
			return
		}
		l.count(o, start)
		if l.cfg.Pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(l.cfg.Pause):
			}
		}
	}
}

// take chooses an operation and locks its blocks.
func (l *Load) take(rnd *rand.Rand) (op, bool) {
	o := op{n: 1 + rnd.IntN(l.cfg.MaxBlocks), kind: 'w'}
	switch p := rnd.IntN(100); {
	case p < l.cfg.ReadPct:
		o.kind = 'r'
	case p < l.cfg.ReadPct+l.cfg.UnmapPct:
		o.kind = 'u'
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for range 16 {
		o.base = rnd.Uint64N(l.cfg.Blocks - uint64(o.n) + 1)
		if !l.anyLocked(o) {
			l.lockLocked(o, true)
			return o, true
		}
	}
	return op{}, false
}

// anyLocked tells whether a block of o is in use; the caller holds mu.
func (l *Load) anyLocked(o op) bool {
	for i := range uint64(o.n) {
		if l.mu.locked[o.base+i] {
			return true
		}
	}
	return false
}

func (l *Load) lockLocked(o op, on bool) {
	for i := range uint64(o.n) {
		l.mu.locked[o.base+i] = on
	}
}

// complete executes o until it is acknowledged; false means that hard ended first. An attempt with an unknown
// outcome is looked at, and the operation is done again with a version of its own.
func (l *Load) complete(hard context.Context, o op, buf []byte) bool {
	for {
		if o.kind == 'w' {
			o.version = l.version.Add(1)
		}
		err := l.attempt(hard, o, buf)
		if err == nil {
			l.settle(o, buf)
			return true
		}
		l.note(err)
		if o.kind != 'r' && errors.Is(err, errUnknown) {
			if !l.look(hard, o, buf) {
				l.mu.Lock()
				l.mu.pending = append(l.mu.pending, o)
				l.mu.Unlock()
				return false
			}
		}
		if !pause(hard) {
			l.mu.Lock()
			l.lockLocked(o, false)
			l.mu.Unlock()
			return false
		}
	}
}

// attempt sends o once.
func (l *Load) attempt(ctx context.Context, o op, buf []byte) error {
	data := buf[:o.n*BlockLen]
	base := l.cfg.Base + o.base
	if o.kind == 'w' {
		for i := range o.n {
			fill(data[i*BlockLen:], l.cfg.Seed, base+uint64(i), o.version)
		}
	}
	return l.c.try(ctx, &l.busy, func(ctx context.Context, s *initiator.Session, lb int) error {
		per := uint64(BlockLen / lb)
		switch o.kind {
		case 'w':
			return s.Write(ctx, base*per, lb, data)
		case 'u':
			return s.Unmap(ctx, base*per, uint32(o.n)*uint32(per))
		default:
			return s.Read(ctx, base*per, lb, data)
		}
	})
}

// settle takes the result of an acknowledged operation and unlocks its blocks.
func (l *Load) settle(o op, buf []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range uint64(o.n) {
		switch o.kind {
		case 'w', 'u':
			l.mu.want[o.base+i] = o.version
		default:
			l.checkLocked(o.base+i, buf[i*BlockLen:])
		}
	}
	l.lockLocked(o, false)
}

// checkLocked compares one block that was read with what it must hold.
func (l *Load) checkLocked(i uint64, b []byte) {
	v, err := version(b, l.cfg.Seed, l.cfg.Base+i)
	switch want := l.mu.want[i]; {
	case err != nil:
		l.violationLocked(fmt.Sprintf("%v (want version %d)", err, want))
	case v != want:
		l.violationLocked(fmt.Sprintf("block %d: version %d, want %d", l.cfg.Base+i, v, want))
	}
}

// look reads the blocks of an operation with an unknown outcome and takes what they hold as the truth; false
// means that ctx ended first.
func (l *Load) look(ctx context.Context, o op, buf []byte) bool {
	r := op{kind: 'r', base: o.base, n: o.n}
	start := time.Now()
	for {
		err := l.attempt(ctx, r, buf)
		if err == nil {
			break
		}
		if l.note(err); !pause(ctx) {
			return false
		}
	}
	l.count(r, start)
	l.mu.Lock()
	defer l.mu.Unlock()
	made := 0
	for i := range uint64(o.n) {
		v, err := version(buf[i*BlockLen:], l.cfg.Seed, l.cfg.Base+o.base+i)
		switch {
		case err != nil:
			l.violationLocked(err.Error())
		case v == o.version:
			made++
			l.mu.want[o.base+i] = v
		case v != l.mu.want[o.base+i]:
			l.violationLocked(fmt.Sprintf("block %d: version %d after an unknown outcome, want %d or %d",
				l.cfg.Base+o.base+i, v, l.mu.want[o.base+i], o.version))
		}
	}
	first, last := (l.cfg.Base+o.base)/chunkBlocks, (l.cfg.Base+o.base+uint64(o.n)-1)/chunkBlocks
	if o.kind == 'w' && made != 0 && made != o.n && first == last {
		l.violationLocked(fmt.Sprintf("blocks %d+%d: %d of them hold version %d: a torn write", l.cfg.Base+o.base, o.n, made, o.version))
	}
	return true
}

// pause waits a moment before the next attempt; false means that ctx ended.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(5 * time.Millisecond):
		return ctx.Err() == nil
	}
}

// note records why an attempt failed. A lost connection or an aborted command is what the tests provoke; any other
// SCSI error is not.
func (l *Load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, errUnknown) {
		l.mu.report.Unknown++
	}
	if initiator.Aborted(err) {
		l.mu.report.Aborted++
		return
	}
	var st *initiator.StatusError
	if errors.As(err, &st) && len(l.mu.report.Errors) < findingsMax {
		l.mu.report.Errors = append(l.mu.report.Errors, err.Error())
	}
}

func (l *Load) violationLocked(s string) {
	if len(l.mu.report.Violations) < findingsMax {
		l.mu.report.Violations = append(l.mu.report.Violations, s)
	}
}

func (l *Load) count(o op, start time.Time) {
	d := time.Since(start)
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.mu.report
	switch o.kind {
	case 'r':
		r.Reads++
	case 'w':
		r.Writes++
	default:
		r.Unmaps++
	}
	if d > r.Latency.Max() {
		r.SlowestAt = start
	}
	r.Latency.Add(d)
}

// verifyBlocks is how many blocks one read of Verify covers (1 MiB).
const verifyBlocks = 256

// Verify resolves the operations that are still pending, then reads the whole region. What it finds is in the
// report; an error means that it could not finish before ctx ended.
func (l *Load) Verify(ctx context.Context) error {
	buf := make([]byte, max(verifyBlocks, l.cfg.MaxBlocks)*BlockLen)
	l.mu.Lock()
	pending := l.mu.pending
	l.mu.pending = nil
	l.mu.Unlock()
	for _, o := range pending {
		if !l.look(ctx, o, buf) {
			return fmt.Errorf("verify: %w", ctx.Err())
		}
		l.mu.Lock()
		l.lockLocked(o, false)
		l.mu.Unlock()
	}
	for at := uint64(0); at < l.cfg.Blocks; at += verifyBlocks {
		o := op{kind: 'r', base: at, n: int(min(verifyBlocks, l.cfg.Blocks-at))}
		start := time.Now()
		for {
			err := l.attempt(ctx, o, buf)
			if err == nil {
				break
			}
			if l.note(err); !pause(ctx) {
				return fmt.Errorf("verify: %w", err)
			}
		}
		l.settle(o, buf)
		l.count(o, start)
	}
	return nil
}

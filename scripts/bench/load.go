package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
	"github.com/ashlar-storage/ashlar/scripts/e2e/load"
)

// workload is one pattern of access.
type workload struct {
	name     string
	write    bool
	random   bool
	block    int
	depth    int
	sessions int
}

// workloads are all that exist, in the order in which they run.
var workloads = []workload{
	{"rw4k-q1", true, true, 4 << 10, 1, 1},
	{"rr4k-q1", false, true, 4 << 10, 1, 1},
	{"rw4k-q32", true, true, 4 << 10, 32, 1},
	{"rr4k-q32", false, true, 4 << 10, 32, 1},
	{"rw4k-s4q32", true, true, 4 << 10, 32, 4},
	{"rr4k-s4q32", false, true, 4 << 10, 32, 4},
	{"sw1m-q8", true, false, 1 << 20, 8, 1},
	{"sr1m-q8", false, false, 1 << 20, 8, 1},
}

// engineWorkloads are those for targets over memory.
var engineWorkloads = []workload{
	{"rw4k-q1", true, true, 4 << 10, 1, 1},
	{"rr4k-q1", false, true, 4 << 10, 1, 1},
	{"rw4k-q32", true, true, 4 << 10, 32, 1},
	{"rr4k-q32", false, true, 4 << 10, 32, 1},
	{"rw4k-q128", true, true, 4 << 10, 128, 1},
	{"rr4k-q128", false, true, 4 << 10, 128, 1},
	{"rw4k-s4q32", true, true, 4 << 10, 32, 4},
	{"rr4k-s4q32", false, true, 4 << 10, 32, 4},
	{"sw128k-q16", true, false, 128 << 10, 16, 1},
	{"sr128k-q16", false, false, 128 << 10, 16, 1},
	{"sw1m-q8", true, false, 1 << 20, 8, 1},
	{"sr1m-q8", false, false, 1 << 20, 8, 1},
	{"sw1m-s4q8", true, false, 1 << 20, 8, 4},
	{"sr1m-s4q8", false, false, 1 << 20, 8, 4},
}

// choose picks workloads by name; none is all of them.
func choose(names string, all []workload) ([]workload, error) {
	if names == "" {
		return all, nil
	}
	var out []workload
	for n := range strings.SplitSeq(names, ",") {
		found := false
		for _, w := range all {
			if w.name == n {
				out, found = append(out, w), true
			}
		}
		if !found {
			return nil, fmt.Errorf("unknown workload %q", n)
		}
	}
	return out, nil
}

const (
	stampEvery = 4096
	stampMagic = 0x6173686c62656e63 // "ashlbenc"
	retriesMax = 100
	errorsKept = 3
)

// stamp writes its place into every 4 KiB of a block.
func stamp(b []byte, at int64) {
	for o := 0; o < len(b); o += stampEvery {
		binary.BigEndian.PutUint64(b[o:], stampMagic)
		binary.BigEndian.PutUint64(b[o+8:], uint64(at)+uint64(o))
	}
}

// stamped checks it.
func stamped(b []byte, at int64) error {
	for o := 0; o < len(b); o += stampEvery {
		m, p := binary.BigEndian.Uint64(b[o:]), binary.BigEndian.Uint64(b[o+8:])
		if m != stampMagic || p != uint64(at)+uint64(o) {
			return fmt.Errorf("read of byte %d: holds magic %x, place %d", at+int64(o), m, p)
		}
	}
	return nil
}

// dial opens a session that is ready, and tells the length of a logical block.
func dial(ctx context.Context, unit initiator.Config, n int, size int64) (*initiator.Session, int, error) {
	unit.Name = fmt.Sprintf("%s-%d", unit.Name, n)
	s, err := initiator.Dial(ctx, unit)
	if err != nil {
		return nil, 0, err
	}
	if err := s.Ready(ctx); err != nil {
		s.Close()
		return nil, 0, err
	}
	blocks, lb, err := s.Capacity(ctx)
	if err == nil && int64(blocks)*int64(lb) < size {
		err = fmt.Errorf("the unit has %d bytes, -mib asks for %d", int64(blocks)*int64(lb), size)
	}
	if err != nil {
		s.Close()
		return nil, 0, err
	}
	return s, lb, nil
}

// fill writes the whole range once, so that no target pays for first allocation later, with the generator that was asked
// for.
func fill(ctx context.Context, opt options, tg target) error {
	if opt.load != "" {
		return fillWith(ctx, opt, tg)
	}
	return fillHere(ctx, tg.unit, opt.size)
}

// fillHere fills with the generator in this process.
func fillHere(ctx context.Context, unit initiator.Config, size int64) error {
	s, lb, err := dial(ctx, unit, 0, size)
	if err != nil {
		return err
	}
	defer s.Close()
	var next atomic.Int64
	var first atomic.Pointer[error]
	var wg sync.WaitGroup
	const block, depth = 1 << 20, 8
	for i := range depth {
		wg.Go(func() {
			buf := noise(block, uint64(i))
			for first.Load() == nil {
				at := next.Add(block) - block
				if at+block > size {
					return
				}
				stamp(buf, at)
				if err := again(ctx, func() error { return s.Write(ctx, uint64(at)/uint64(lb), lb, buf) }); err != nil {
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if p := first.Load(); p != nil {
		return *p
	}
	return nil
}

// noise is data that neither compresses nor repeats.
func noise(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0x62656e6368))
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

// again repeats what the target asks to repeat.
func again(ctx context.Context, f func() error) error {
	var err error
	for range retriesMax {
		if err = f(); err == nil || !initiator.Retryable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Millisecond):
		}
	}
	return err
}

// worker is one of the outstanding commands of a session.
type worker struct {
	s      *initiator.Session
	lb     int
	wl     workload
	id     int
	base   int64 // of the session's range
	length int64
	cursor *atomic.Int64
	hist   load.Hist
	errs   []string
	failed int64
}

// run issues commands until the window ends; only those that end within it are counted.
func (w *worker) run(ctx context.Context, begin, end time.Time) {
	buf := noise(w.wl.block, uint64(w.id))
	rnd := rand.New(rand.NewPCG(uint64(w.id), uint64(begin.UnixNano())))
	slots := w.length / int64(w.wl.block)
	for ctx.Err() == nil {
		slot := (w.cursor.Add(1) - 1) % slots
		if w.wl.random {
			slot = rnd.Int64N(slots)
		}
		at := w.base + slot*int64(w.wl.block)
		if w.wl.write {
			stamp(buf, at)
		}
		start := time.Now()
		if !start.Before(end) {
			return
		}
		err := again(ctx, func() error {
			if w.wl.write {
				return w.s.Write(ctx, uint64(at)/uint64(w.lb), w.lb, buf)
			}
			return w.s.Read(ctx, uint64(at)/uint64(w.lb), w.lb, buf)
		})
		done := time.Now()
		if err == nil && !w.wl.write {
			err = stamped(buf, at)
		}
		if err != nil {
			w.failed++
			if len(w.errs) < errorsKept {
				w.errs = append(w.errs, err.Error())
			}
			if errors.Is(err, initiator.ErrClosed) {
				return
			}
			continue
		}
		if done.After(begin) && done.Before(end) {
			w.hist.Add(done.Sub(start))
		}
	}
}

// measure runs one workload with the generator that was asked for.
func measure(ctx context.Context, opt options, tg target, wl workload) (result, error) {
	if opt.load != "" {
		return measureWith(ctx, opt, tg, wl)
	}
	return measureHere(ctx, opt, tg, wl)
}

// measureHere runs one workload with the generator in this process.
func measureHere(ctx context.Context, opt options, tg target, wl workload) (result, error) {
	var ws []*worker
	for i := range wl.sessions {
		s, lb, err := dial(ctx, tg.unit, i, opt.size)
		if err != nil {
			return result{}, err
		}
		defer s.Close()
		base, length := int64(0), opt.size
		if !wl.random {
			length = opt.size / int64(wl.sessions) / int64(wl.block) * int64(wl.block)
			base = int64(i) * length
		}
		cursor := new(atomic.Int64)
		for j := range wl.depth {
			ws = append(ws, &worker{s: s, lb: lb, wl: wl, id: i<<16 | j, base: base, length: length, cursor: cursor})
		}
	}
	begin := time.Now().Add(opt.ramp)
	end := begin.Add(opt.seconds)
	var wg sync.WaitGroup
	for _, w := range ws {
		wg.Go(func() { w.run(ctx, begin, end) })
	}
	time.Sleep(time.Until(begin))
	before, err := snapshot(tg)
	time.Sleep(time.Until(end))
	after, err2 := snapshot(tg)
	wg.Wait()
	if err := errors.Join(err, err2, ctx.Err()); err != nil {
		return result{}, err
	}
	return sum(ws, wl, opt.seconds, before, after), nil
}

// cpuTimes are the processor times of the target's roles and of this process.
type cpuTimes struct {
	roles map[string]time.Duration
	own   time.Duration
}

func snapshot(tg target) (cpuTimes, error) {
	roles, err := tg.cpu()
	own, err2 := cluster.CPU([]int{os.Getpid()})
	return cpuTimes{roles, own}, errors.Join(err, err2)
}

// sum makes the result out of the workers' counts.
func sum(ws []*worker, wl workload, window time.Duration, before, after cpuTimes) result {
	var h load.Hist
	r := result{Seconds: window.Seconds(), RoleMicros: map[string]float64{}}
	for _, w := range ws {
		h.Merge(&w.hist)
		r.Errors += w.failed
		if len(r.FirstErrors) < errorsKept {
			r.FirstErrors = append(r.FirstErrors, w.errs...)
		}
	}
	n := max(float64(h.N()), 1)
	r.IOPS = float64(h.N()) / window.Seconds()
	r.MBps = r.IOPS * float64(wl.block) / 1e6
	r.MeanMicros, r.P50Micros = micros(h.Mean()), micros(h.Quantile(0.50))
	r.P99Micros, r.MaxMicros = micros(h.Quantile(0.99)), micros(h.Max())
	for role, d := range after.roles {
		us := micros(d-before.roles[role]) / n
		r.RoleMicros[role] = us
		r.CPUMicros += us
	}
	r.OwnMicros = micros(after.own-before.own) / n
	return r
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

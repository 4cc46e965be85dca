package raftlog

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// crashRun drives one log and looks at what a crash leaves behind at every operation on the file system.
type crashRun struct {
	t       *testing.T
	seed    uint64
	side    bool // large entries are sideloaded
	rng     *rand.Rand
	history []model // history[i] is the state after i Appends; the last may be under way
	durable int     // the highest i that must survive
	inside  bool    // a crash image is being looked at
	points  int
	torn    int // images that hold less than was written
}

// TestCrashEverywhere crashes at every write, sync and directory operation, recovers, appends once more, crashes
// again and recovers again.
func TestCrashEverywhere(t *testing.T) {
	points, torn := 0, 0
	for seed := range uint64(20) {
		p, n := crashOnce(t, seed, seed%2 == 1)
		points, torn = points+p, torn+n
	}
	t.Logf("%d crash points, %d of them lost something", points, torn)
	if torn == 0 {
		t.Fatal("no crash lost anything: the test can not fail")
	}
}

func crashOnce(t *testing.T, seed uint64, side bool) (points, torn int) {
	rng := rand.New(rand.NewPCG(seed, 2))
	c := &crashRun{t: t, seed: seed, side: side, rng: rng, history: []model{{}}}
	mem := vfs.NewMem()
	fs := vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
		switch op.Kind {
		case vfs.OpReadAt, vfs.OpSize, vfs.OpStat, vfs.OpList, vfs.OpLock, vfs.OpOpen, vfs.OpOpenDir, vfs.OpClose:
		default:
			c.look(mem, op.Kind.String()+" "+op.Base())
		}
		return vfs.Fault{}
	})
	l := c.open(fs)
	for i := 0; i < 60; i++ {
		m := c.history[len(c.history)-1]
		us := randomUpdates(rng, m, 3)
		next, synced := m.with(us)
		c.history = append(c.history, next)
		mustAppend(t, l, us...)
		if synced {
			c.durable = len(c.history) - 1
		}
		if rng.IntN(4) == 0 {
			if _, err := l.Compact(); err != nil {
				t.Fatalf("seed %d: compact: %v", seed, err)
			}
		}
		if rng.IntN(15) == 0 {
			mustClose(t, l)
			c.durable = len(c.history) - 1
			l = c.open(fs)
		}
		if rng.IntN(15) == 0 { // kill the process: what Open reads from the page cache must last
			_ = l.lock.Close()
			l = c.open(fs)
			c.durable = len(c.history) - 1
		}
	}
	mustClose(t, l)
	return c.points, c.torn
}

// open opens the log, with a sidecar if the run has one.
func (c *crashRun) open(fs vfs.FS) *Log {
	l := mustOpen(c.t, fs, testOptions())
	c.attach(fs, l)
	return l
}

func (c *crashRun) attach(fs vfs.FS, l *Log) {
	if !c.side {
		return
	}
	s := newFakeSide(c.t, fs)
	if err := l.Attach(s, s.hold); err != nil {
		c.t.Fatalf("seed %d: attach: %v", c.seed, err)
	}
}

// look recovers from a crash at this moment.
func (c *crashRun) look(mem *vfs.Mem, at string) {
	if c.inside {
		return
	}
	c.inside = true
	defer func() { c.inside = false }()
	c.points++
	var rng *rand.Rand
	if c.rng.IntN(8) != 0 {
		rng = c.rng
	}
	image := mem.Crash(rng)
	l, err := Open(image, "log", testOptions())
	if err != nil {
		c.t.Fatalf("seed %d, crash %d before %s: open: %v", c.seed, c.points, at, err)
	}
	c.attach(image, l)
	k, err := c.match(l)
	if err != nil {
		c.t.Fatalf("seed %d, crash %d before %s: %v", c.seed, c.points, at, err)
	}
	if k < len(c.history)-1 {
		c.torn++
	}
	c.again(image, l, c.history[k], at)
}

// match returns which state of the history the log is in: one that is not older than what was durable.
func (c *crashRun) match(l *Log) (int, error) {
	var first error
	for k := len(c.history) - 1; k >= c.durable; k-- {
		err := c.history[k].diff(l)
		if err == nil {
			return k, nil
		}
		if first == nil {
			first = err
		}
	}
	return 0, fmt.Errorf("no state in [%d, %d]; against the last: %w", c.durable, len(c.history)-1, first)
}

// again appends to the recovered log twice, crashes before the second sync and recovers.
func (c *crashRun) again(image *vfs.Mem, l *Log, m model, at string) {
	us := randomUpdates(c.rng, m, 3)
	if err := l.Append(us); err != nil {
		c.t.Fatalf("seed %d, crash %d before %s: append: %v", c.seed, c.points, at, err)
	}
	one, synced := m.with(us)
	states := []model{m, one}
	if synced {
		states = states[1:]
	}
	image = image.Crash(c.rng)
	l2, err := Open(image, "log", testOptions())
	if err != nil {
		c.t.Fatalf("seed %d, crash %d before %s and again: open: %v", c.seed, c.points, at, err)
	}
	c.attach(image, l2)
	for _, s := range states {
		if err = s.diff(l2); err == nil {
			return
		}
	}
	c.t.Fatalf("seed %d, crash %d before %s and again: %v", c.seed, c.points, at, err)
}

package raftlog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/spare"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// report adds percentiles of the latencies to a benchmark.
func report(b *testing.B, d []time.Duration) {
	b.Helper()
	slices.Sort(d)
	b.ReportMetric(float64(d[len(d)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(d[len(d)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkSync measures a write of one 4 KiB record and a sync, in the three states that a file can be in.
func BenchmarkSync(b *testing.B) {
	const size, segment = 4096 + batchHeader + recordHeader, 64 << 20
	for _, state := range []string{"growing", "fallocated", "written-before"} {
		b.Run(state, func(b *testing.B) {
			name := b.TempDir() + "/f"
			f, err := vfs.OS().Create(name)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			switch state {
			case "fallocated":
				err = f.Preallocate(0, segment, false)
			case "written-before":
				err = spare.FillZero(vfs.OS(), name, segment)
			}
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, size)
			for i := range buf {
				buf[i] = byte(i)
			}
			var d []time.Duration
			off := int64(0)
			for b.Loop() {
				start := time.Now()
				if _, err := f.WriteAt(buf, off); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				d = append(d, time.Since(start))
				if off += size; off+size > segment {
					off = 0
				}
			}
			report(b, d)
		})
	}
}

func benchOptions() Options { return Options{Identity: testID} }

// appender makes Appends of entries in groups that truncate themselves.
type appender struct {
	l       *Log
	groups  int
	per     int
	data    []byte
	next    []uint64
	updates []Update
}

func newAppender(l *Log, groups, per, size int) *appender {
	a := &appender{l: l, groups: groups, per: per, data: make([]byte, size), next: make([]uint64, groups)}
	for i := range a.next {
		a.next[i] = 1
	}
	return a
}

// step appends per entries to each of the groups in one Append. keep entries stay in each group.
func (a *appender) step(keep uint64) error {
	a.updates = a.updates[:0]
	for g := range a.groups {
		u := Update{Copyset: layout.CopysetID(g + 1)}
		for range a.per {
			e := &storedEntry{term: 1, index: a.next[g]}
			e.Term, e.Index, e.Type, e.Data = &e.term, &e.index, &e.typ, a.data
			u.Entries = append(u.Entries, &e.Entry)
			a.next[g]++
		}
		commit, vote := a.next[g]-1, uint64(1)
		u.HardState = &raftpb.HardState{Term: &vote, Vote: &vote, Commit: &commit}
		if last := a.next[g] - 1 - uint64(a.per); last > keep {
			u.TruncateTo = last - keep
		}
		a.updates = append(a.updates, u)
	}
	if err := a.l.Append(a.updates); err != nil {
		return err
	}
	if a.l.Segments() > 3 {
		_, err := a.l.Compact()
		return err
	}
	return nil
}

// BenchmarkAppend appends 4 KiB entries of 1, 16 and 64 groups at once to a real disk.
func BenchmarkAppend(b *testing.B) {
	for _, groups := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) {
			l, err := Open(vfs.OS(), b.TempDir()+"/log", benchOptions())
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			for more := true; more && err == nil; {
				more, err = l.PrepareSpare()
			}
			a := newAppender(l, groups, 1, 4096)
			var d []time.Duration
			b.SetBytes(int64(groups) * 4096)
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				if err := a.step(100); err != nil {
					b.Fatal(err)
				}
				d = append(d, time.Since(start))
			}
			report(b, d)
		})
	}
}

// nullFS makes writes and syncs free, to show what Append itself costs.
type nullFS struct{ vfs.FS }

type nullFile struct{ vfs.File }

func (n nullFS) Open(name string, flags vfs.OpenFlags) (vfs.File, error) {
	f, err := n.FS.Open(name, flags)
	return nullFile{f}, err
}

func (nullFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nullFile) Sync() error                            { return nil }

func BenchmarkAppendCPU(b *testing.B) {
	for _, size := range []int{128, 4096} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			l, err := Open(nullFS{vfs.NewMem()}, "log", benchOptions())
			if err != nil {
				b.Fatal(err)
			}
			a := newAppender(l, 16, 1, size)
			b.SetBytes(int64(16 * size))
			b.ReportAllocs()
			for b.Loop() {
				if err := a.step(0); err != nil { // so Compact has no entry to read back
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEntries(b *testing.B) {
	for _, cached := range []int64{64 << 20, -1} {
		b.Run(fmt.Sprintf("cache=%d", cached), func(b *testing.B) {
			opts := benchOptions()
			opts.CacheBytes = cached
			l, err := Open(vfs.OS(), b.TempDir()+"/log", opts)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			if err := newAppender(l, 1, 64, 4096).step(0); err != nil {
				b.Fatal(err)
			}
			g, _ := l.Group(1)
			b.SetBytes(64 * 4096)
			b.ReportAllocs()
			for b.Loop() {
				if es, err := g.Entries(1, 65, 1<<20); err != nil || len(es) != 64 {
					b.Fatal(len(es), err)
				}
			}
		})
	}
}

const (
	openGroups = 300
	// openLimit is how long it may take to open a log of a million entries.
	openLimit = 5 * time.Second
)

// fillLog makes a log of about as many entries, of openGroups copysets, and returns how many there are in each.
func fillLog(tb testing.TB, fs vfs.FS, dir string, entries int) (each uint64) {
	tb.Helper()
	l, err := Open(fs, dir, benchOptions())
	if err != nil {
		tb.Fatal(err)
	}
	a := newAppender(l, openGroups, 34, 256)
	for n := 0; n < entries; n += openGroups * a.per {
		if err := a.step(uint64(entries)); err != nil {
			tb.Fatal(err)
		}
		each += uint64(a.per)
	}
	mustClose(tb, l)
	return each
}

// TestOpenManyEntries opens a log whose segments hold entries of many copysets side by side: all are there, and no segment is
// read more than once, so that the time it takes grows with the length of the log alone.
func TestOpenManyEntries(t *testing.T) {
	read := map[string]int64{}
	fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpReadAt {
			read[op.Base()] += op.Length
		}
		return vfs.Fault{}
	})
	each := fillLog(t, fs, "log", 100_000)
	clear(read)
	l, err := Open(fs, "log", benchOptions())
	if err != nil {
		t.Fatal(err)
	}
	if u := l.Usage(); u.Entries != openGroups*int(each) || len(l.Copysets()) != openGroups {
		t.Errorf("%+v, want %d entries in each of %d copysets", u, each, openGroups)
	}
	for _, id := range l.Copysets() {
		g, _ := l.Group(id)
		if last, err := g.LastIndex(); err != nil || last != each {
			t.Errorf("copyset %d ends at %d, want %d: %v", id, last, each, err)
		}
	}
	size := benchOptions().withDefaults().SegmentSize
	if len(read) != l.Segments() {
		t.Errorf("%d of %d segments were read", len(read), l.Segments())
	}
	for name, n := range read {
		if n > size+2*headerBlock {
			t.Errorf("%d bytes were read of %s, which has %d", n, name, size)
		}
	}
	mustClose(t, l)
}

// BenchmarkOpen opens a log of a million entries of 300 copysets.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir() + "/log"
	each := fillLog(b, vfs.OS(), dir, 1_000_000)
	for b.Loop() {
		start := time.Now()
		l, err := Open(vfs.OS(), dir, benchOptions())
		if err != nil {
			b.Fatal(err)
		}
		if took := time.Since(start); took > openLimit {
			b.Errorf("it took %v, the limit is %v", took, openLimit)
		}
		b.StopTimer()
		if n := l.Usage().Entries; n != openGroups*int(each) {
			b.Errorf("%d entries of %d", n, openGroups*each)
		}
		mustClose(b, l)
		b.StartTimer()
	}
	b.ReportMetric(float64(openGroups*each), "entries")
}

// appendAllocsMax is how many objects an Append of 16 groups may make on the heap, on average: the appender of the test makes
// four for each group and entry, and the lists of the groups grow.
const appendAllocsMax = 16*5 + 4

// TestAppendAllocations bounds what an Append leaves to the garbage collector.
func TestAppendAllocations(t *testing.T) {
	l, err := Open(nullFS{vfs.NewMem()}, "log", benchOptions())
	if err != nil {
		t.Fatal(err)
	}
	a := newAppender(l, 16, 1, 4096)
	got := testing.AllocsPerRun(500, func() {
		if err := a.step(0); err != nil {
			t.Fatal(err)
		}
	})
	if got > appendAllocsMax {
		t.Errorf("an Append makes %v objects, at most %d are allowed", got, appendAllocsMax)
	}
}

package raftlog

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/pages"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWritesPages: segments are written in whole pages, past the page cache, and only a page that was not full again.
func TestWritesPages(t *testing.T) {
	var writes, again int
	var end int64
	fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
		if op.Kind != vfs.OpWriteAt || !strings.HasSuffix(op.Path, segmentSuffix) {
			return vfs.Fault{}
		}
		writes++
		if op.Offset%pages.Size != 0 || op.Length%pages.Size != 0 || op.Offset < end-pages.Size {
			t.Errorf("a write of %d bytes at %d, behind one up to %d", op.Length, op.Offset, end)
		}
		if op.Offset < end {
			again++
		}
		end = op.Offset + op.Length
		return vfs.Fault{}
	})
	opts := testOptions()
	opts.SegmentSize = 1 << 20
	l := mustOpen(t, fs, opts)
	defer l.Close()
	for i := range uint64(40) {
		mustAppend(t, l, Update{Copyset: 1, Entries: run(i+1, i+1, 1, int(i)*300)})
	}
	if writes != 40 || again < 10 || l.Segments() != 1 {
		t.Errorf("%d writes, %d of them behind a batch in the same page, %d segments", writes, again, l.Segments())
	}
}

// TestRefusedUpdates checks that an Append with one bad update changes nothing at all.
func TestRefusedUpdates(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), testOptions())
	defer l.Close()
	base := []Update{{Copyset: 1, HardState: hard(2, 1, 1), Entries: run(1, 10, 2, 10)}}
	mustAppend(t, l, base...)
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: 4})
	m, _ := model{}.with(base)
	m, _ = m.with([]Update{{Copyset: 1, TruncateTo: 4}})
	gap := run(11, 13, 2, 1)
	gap[1] = entry(20, 2, "")
	old := run(11, 13, 2, 1)
	old[2] = entry(13, 1, "")
	strange := entry(11, 2, "")
	strange.Type = raftpb.EntryType(300).Enum()
	for _, c := range []struct {
		want    string
		updates []Update
	}{
		{"copyset 0", []Update{{}}},
		{"the log has (4, 10]", []Update{{Copyset: 1, Entries: run(12, 13, 2, 1)}}},
		{"the log has (4, 10]", []Update{{Copyset: 1, Entries: run(4, 5, 2, 1)}}},
		{"the log has (0, 0]", []Update{{Copyset: 2, Entries: run(2, 3, 2, 1)}}},
		{"the log has (7, 7]", []Update{{Copyset: 2, Reset: &SnapshotMeta{7, 7}, Entries: run(7, 9, 7, 1)}}},
		{"entry 20 where 12 is due", []Update{{Copyset: 1, Entries: gap}}},
		{"term 1 after term 2", []Update{{Copyset: 1, Entries: old}}},
		{"has type 300", []Update{{Copyset: 1, Entries: []*raftpb.Entry{strange}}}},
		{"no earlier Append wrote", []Update{{Copyset: 1, TruncateTo: 11}}},
		{"no earlier Append wrote", []Update{{Copyset: 1, Entries: run(11, 12, 2, 1), TruncateTo: 11}}},
		{"no earlier Append wrote", []Update{{Copyset: 1, Entries: run(8, 12, 3, 1)}, {Copyset: 1, TruncateTo: 8}}},
		{"no earlier Append wrote", []Update{{Copyset: 1, Reset: &SnapshotMeta{5, 2}, TruncateTo: 6}}},
		{"a removal with other changes", []Update{{Copyset: 1, Remove: true, TruncateTo: 5}}},
		{"removes the copyset", []Update{{Copyset: 1, Remove: true}, {Copyset: 1, HardState: hard(3, 3, 3)}}},
		{"larger than", []Update{{Copyset: 1, Entries: []*raftpb.Entry{huge(11, 40<<20)}}, {Copyset: 2, Entries: hugeRun(26, 40<<20)}}},
		{"the limit is", []Update{{Copyset: 1, Entries: []*raftpb.Entry{huge(11, MaxEntryBytes+1)}}}},
	} {
		us := append([]Update{{Copyset: 9, HardState: hard(1, 1, 1)}}, c.updates...)
		err := l.Append(us)
		var refused *UpdateError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if err := m.diff(l); err != nil {
			t.Fatalf("after %q: %v", c.want, err)
		}
	}
	mustAppend(t, l, Update{Copyset: 1, Entries: run(11, 12, 2, 1)})
}

// hugeData is shared by all huge entries.
var hugeData = sync.OnceValue(func() []byte { return make([]byte, MaxEntryBytes+1) })

func huge(index uint64, size int) *raftpb.Entry {
	e := entry(index, 2, "")
	e.Data = hugeData()[:size]
	return e
}

func hugeRun(n, size int) []*raftpb.Entry {
	var es []*raftpb.Entry
	for i := range n {
		es = append(es, huge(uint64(i+1), size))
	}
	return es
}

func TestOptionsLimits(t *testing.T) {
	for want, o := range map[string]Options{
		"Identity":    {},
		"SegmentSize": {Identity: testID, SegmentSize: 100},
		"Spares":      {Identity: testID, Spares: MaxSpares + 1},
	} {
		if _, err := Open(vfs.NewMem(), "log", o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	d := DefaultOptions()
	d.Identity = testID
	if err := d.Validate(); err != nil || (Options{Identity: testID}).withDefaults() != d {
		t.Errorf("defaults: %v", err)
	}
}

// TestOneWriteOneSync counts what an Append does to the disk.
func TestOneWriteOneSync(t *testing.T) {
	var ops []vfs.OpKind
	fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
		ops = append(ops, op.Kind)
		return vfs.Fault{}
	})
	opts := testOptions()
	opts.SegmentSize = 1 << 20
	l := mustOpen(t, fs, opts)
	for _, c := range []struct {
		name    string
		updates []Update
		want    []vfs.OpKind
	}{
		{"new copyset", []Update{{Copyset: 1}, {Copyset: 2}}, []vfs.OpKind{vfs.OpWriteAt, vfs.OpSync}},
		{"entries", []Update{{Copyset: 1, Entries: run(1, 50, 1, 99)}, {Copyset: 2, Entries: run(1, 50, 1, 99)}}, []vfs.OpKind{vfs.OpWriteAt, vfs.OpSync}},
		{"term", []Update{{Copyset: 1, HardState: hard(1, 0, 0)}}, []vfs.OpKind{vfs.OpWriteAt, vfs.OpSync}},
		{"vote", []Update{{Copyset: 1, HardState: hard(1, 2, 0)}}, []vfs.OpKind{vfs.OpWriteAt, vfs.OpSync}},
		{"commit", []Update{{Copyset: 1, HardState: hard(1, 2, 5)}}, []vfs.OpKind{vfs.OpWriteAt}},
		{"nothing but a sync", []Update{{Copyset: 1, MustSync: true}}, []vfs.OpKind{vfs.OpSync}},
		{"nothing at all", []Update{{Copyset: 1, MustSync: true}}, nil},
		{"truncation", []Update{{Copyset: 1, TruncateTo: 9}}, []vfs.OpKind{vfs.OpWriteAt}},
		{"truncation again", []Update{{Copyset: 1, TruncateTo: 9}}, nil},
		{"same state", []Update{{Copyset: 1, HardState: hard(1, 2, 5)}}, nil},
		{"reset", []Update{{Copyset: 1, Reset: &SnapshotMeta{90, 1}, HardState: hard(1, 2, 90)}}, []vfs.OpKind{vfs.OpWriteAt, vfs.OpSync}},
		{"remove", []Update{{Copyset: 1, Remove: true}}, []vfs.OpKind{vfs.OpWriteAt, vfs.OpSync}},
		{"remove again", []Update{{Copyset: 1, Remove: true}}, nil},
		{"come and go", []Update{{Copyset: 5}, {Copyset: 5, Remove: true}}, []vfs.OpKind{vfs.OpWriteAt, vfs.OpSync}},
	} {
		ops = nil
		mustAppend(t, l, c.updates...)
		if !slices.Equal(ops, c.want) {
			t.Errorf("%s: %v, want %v", c.name, ops, c.want)
		}
	}
	mustClose(t, l)
	for name, err := range map[string]error{"append": l.Append(nil), "close": l.Close()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
}

func TestRemovedGroup(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), testOptions())
	defer l.Close()
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 3, 1, 10)})
	g, _ := l.Group(1)
	if g.Copyset() != 1 {
		t.Errorf("copyset %d", g.Copyset())
	}
	mustAppend(t, l, Update{Copyset: 1, Remove: true})
	_, firstErr := g.FirstIndex()
	_, lastErr := g.LastIndex()
	_, termErr := g.Term(1)
	_, entriesErr := g.Entries(1, 2, 100)
	for _, err := range []error{firstErr, lastErr, termErr, entriesErr} {
		if !errors.Is(err, ErrNoGroup) {
			t.Errorf("%v", err)
		}
	}
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 1, 5, 10)})
	g2, ok := l.Group(1)
	if n, _ := g2.LastIndex(); !ok || g2 == g || n != 1 {
		t.Errorf("the copyset that came back has %d entries", n)
	}
}

// TestLargeBatch writes more than a segment at once.
func TestLargeBatch(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, testOptions())
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 40, 1, 5000)})
	mustAppend(t, l, Update{Copyset: 1, Entries: run(41, 41, 1, 50)})
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: 39})
	mustClose(t, l)
	l = mustOpen(t, fs, testOptions())
	g, _ := l.Group(1)
	if es, err := g.Entries(40, 42, 1<<20); err != nil || len(es) != 2 || len(es[0].GetData()) != 5000 {
		t.Fatalf("%d entries, %v", len(es), err)
	}
	mustAppend(t, l, Update{Copyset: 1, Entries: run(42, 42, 1, 11000)})
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: 41})
	for range 3 {
		if _, err := l.Compact(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range func() []string { n, _ := fs.List("log"); return n }() {
		if info, _ := fs.Stat("log/" + name); info.Size > MinSegmentSize {
			t.Errorf("%s of %d bytes is still there", name, info.Size)
		}
	}
}

// TestCompactMovesOnce follows the entries of a copyset that lags.
func TestCompactMovesOnce(t *testing.T) {
	fs, opts := vfs.NewMem(), testOptions()
	opts.CacheBytes = 1 << 20
	l := mustOpen(t, fs, opts)
	mustAppend(t, l, Update{Copyset: 1, HardState: hard(1, 1, 0), Entries: run(1, 3, 1, 100)})
	i := uint64(0)
	fill := func(segments int) { // lets copyset 2 fill segments and truncate itself
		for stop := l.lastNumber() + uint64(segments); l.lastNumber() < stop; {
			i++
			mustAppend(t, l, Update{Copyset: 2, Entries: run(i, i, 1, 3000), HardState: hard(1, 1, i)})
		}
		mustAppend(t, l, Update{Copyset: 2, TruncateTo: i})
	}
	fill(3)
	if u := l.Usage(); !slices.Equal(u.Pinning, []layout.CopysetID{1}) || u.Segments != 4 || u.Oldest != 1 {
		t.Errorf("usage %+v", u)
	}
	c, err := l.Compact()
	if err != nil || c.Freed != 3 || c.Moved != int64(3*recordSize(100)+recordSize(statePayload)) || c.More || c.Pinning != nil {
		t.Fatalf("compact: %+v, %v", c, err)
	}
	if g, _ := l.Group(1); g.mu.slots[0].entry != nil || g.mu.slots[2].entry != nil {
		t.Error("a moved entry is in the cache, whose queue does not know it")
	}
	if c, err = l.Compact(); err != nil || c.Freed != 0 || c.Moved != 0 {
		t.Fatalf("compact with nothing to do: %+v, %v", c, err)
	}
	fill(3)
	if c, err = l.Compact(); err != nil || c.Freed != 0 || !slices.Equal(c.Pinning, []layout.CopysetID{1}) {
		t.Fatalf("compact: %+v, %v", c, err)
	}
	mustClose(t, l)
	l = mustOpen(t, fs, testOptions())
	if c, err = l.Compact(); err != nil || c.Freed != 0 || !slices.Equal(c.Pinning, []layout.CopysetID{1}) {
		t.Fatalf("compact after a restart: %+v, %v", c, err)
	}
	g, _ := l.Group(1)
	if es, err := g.Entries(1, 4, 1<<20); err != nil || len(es) != 3 {
		t.Fatalf("%d entries, %v", len(es), err)
	}
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: 2})
	if u := l.Usage(); len(u.Pinning) == 0 {
		t.Error("entry 3 does not pin")
	}
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: 3})
	if c, err = l.Compact(); err != nil || c.Freed != 3 || c.Pinning != nil {
		t.Fatalf("compact: %+v, %v", c, err)
	}
	checkCounters(t, l)
	mustClose(t, l)
}

// TestReaderHoldsSegment frees a segment while an entry in it is being read.
func TestReaderHoldsSegment(t *testing.T) {
	opts := testOptions()
	opts.CacheBytes = -1
	fs := vfs.NewMem()
	l := mustOpen(t, fs, opts)
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 3, 1, 3000)})
	g, _ := l.Group(1)
	es, absent, err := g.collect(1, 4, 1<<20)
	if err != nil || len(es) != 3 || len(absent) != 3 {
		t.Fatalf("%d, %d, %v", len(es), len(absent), err)
	}
	mustAppend(t, l, Update{Copyset: 1, Entries: run(4, 6, 1, 3000)})
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: 6})
	if c, err := l.Compact(); err != nil || c.Freed != 1 {
		t.Fatalf("compact: %+v, %v", c, err)
	}
	for i := range 20 { // would overwrite the segment if it were reused
		mustAppend(t, l, Update{Copyset: 2, Entries: run(uint64(i+1), uint64(i+1), 1, 3000)})
	}
	e, err := g.readEntry(2, &absent[1].slot)
	if err != nil || !bytes.Equal(e.GetData(), run(2, 2, 1, 3000)[0].GetData()) {
		t.Fatalf("read: %v", err)
	}
	for _, a := range absent {
		a.seg.readers.Add(-1)
	}
	if _, err := l.Compact(); err != nil || len(l.zombies) != 0 {
		t.Fatalf("%d segments are still held, %v", len(l.zombies), err)
	}
	mustClose(t, l)
}

// TestCacheQueue keeps one copyset's entries for long while another one appends and truncates.
func TestCacheQueue(t *testing.T) {
	opts := testOptions()
	opts.SegmentSize, opts.CacheBytes = 1<<20, 8<<10
	l := mustOpen(t, vfs.NewMem(), opts)
	defer l.Close()
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 2, 1, 10)})
	for i := uint64(1); i < 5000; i++ {
		us := []Update{{Copyset: 2, Entries: run(i, i, 1, 10)}}
		if i > 3 {
			us[0].TruncateTo = i - 3
		}
		mustAppend(t, l, us...)
	}
	if n := len(l.cache.queue); n > 3*ringSlack {
		t.Errorf("the queue has %d references for %d entries", n, l.cache.count.Load())
	}
	g1, _ := l.Group(1)
	if g1.mu.slots[0].entry == nil {
		t.Error("an old entry was evicted although there is room")
	}
	g2, _ := l.Group(2)
	if n := cap(g2.mu.slots); n > 4*cutWaste {
		t.Errorf("%d slots for %d entries", n, len(g2.mu.slots))
	}
	mustAppend(t, l, Update{Copyset: 2, Entries: run(5000, 5200, 1, 10)})
	checkCounters(t, l)
	if g1.mu.slots[0].entry != nil || g2.mu.slots[0].entry != nil {
		t.Error("the oldest entries are still in the cache")
	}
	if u := l.Usage(); u.CachedBytes < opts.CacheBytes/2 {
		t.Errorf("%d bytes in the cache, the limit is %d", u.CachedBytes, opts.CacheBytes)
	}
	mustAppend(t, l, Update{Copyset: 2, TruncateTo: 5190})
	if n := cap(g2.mu.slots); n > 10+cutWaste {
		t.Errorf("%d slots for %d entries", n, len(g2.mu.slots))
	}
	checkCounters(t, l)
}

// TestConcurrentReads reads from many goroutines while the log is appended to, truncated and compacted.
func TestConcurrentReads(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, testOptions())
	const copysets = 3
	for id := layout.CopysetID(1); id <= copysets; id++ {
		mustAppend(t, l, Update{Copyset: id, Entries: run(1, 5, 1, 300)})
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 3))
			for {
				select {
				case <-stop:
					return
				default:
				}
				g, _ := l.Group(layout.CopysetID(1 + rng.IntN(copysets)))
				first, _ := g.FirstIndex()
				last, _ := g.LastIndex()
				es, err := g.Entries(first, last+1, 2000)
				var corrupt *CorruptError
				if errors.As(err, &corrupt) {
					t.Error(err)
					return
				}
				for i, e := range es {
					if e.GetIndex() != first+uint64(i) || len(e.GetData()) != 300 || e.GetData()[0] != byte(e.GetIndex()+e.GetTerm()) {
						t.Errorf("entry %d/%d is not as written", e.GetTerm(), e.GetIndex())
						return
					}
				}
				_, _ = g.Term(first)
				_ = g.HardState()
				_ = l.Usage()
				_ = l.Copysets()
			}
		})
	}
	for i := uint64(6); i < 400; i++ {
		var us []Update
		for id := layout.CopysetID(1); id <= copysets; id++ {
			us = append(us, Update{Copyset: id, Entries: run(i, i, 1, 300), HardState: hard(1, 1, i-1), TruncateTo: i - 5})
		}
		mustAppend(t, l, us...)
		if i%7 == 0 {
			if _, err := l.Compact(); err != nil {
				t.Error(err)
			}
			if _, err := l.PrepareSpare(); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	mustClose(t, l)
}

// TestOnDisk runs random updates on the machine's file system.
func TestOnDisk(t *testing.T) {
	dir := t.TempDir() + "/deep/log"
	rng := rand.New(rand.NewPCG(1, 6))
	m := model{}
	for range 4 {
		l, err := Open(vfs.OS(), dir, testOptions())
		if err != nil {
			t.Fatal(err)
		}
		if err := m.diff(l); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			us := randomUpdates(rng, m, 4)
			mustAppend(t, l, us...)
			m, _ = m.with(us)
			if l.Segments() > 2 {
				if _, err := l.Compact(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := Open(vfs.OS(), dir, testOptions()); !errors.Is(err, vfs.ErrLocked) {
			t.Errorf("opened twice: %v", err)
		}
		mustClose(t, l)
	}
}

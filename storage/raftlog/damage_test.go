package raftlog

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/pages"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/spare"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// files returns the content of all files of the log but the lock.
func files(t testing.TB, fs vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, name := range names {
		if name != lockName {
			out[name] = readFile(t, fs, name)
		}
	}
	return out
}

func readFile(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open("log/"+name, vfs.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, _ := f.Size()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func patch(t testing.TB, fs vfs.FS, name string, off int64, b []byte) {
	t.Helper()
	f, err := fs.Open("log/"+name, vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// refused opens a log that must be refused and checks that nothing was touched.
func refused[E error](t testing.TB, fs vfs.FS, opts Options) E {
	t.Helper()
	before := files(t, fs)
	l, err := Open(fs, "log", opts)
	var want E
	if err == nil {
		_ = l.Close()
		t.Fatalf("opened, want %T", want)
	}
	if !errors.As(err, &want) {
		t.Fatalf("open: %v, want %T", err, want)
	}
	after := files(t, fs)
	for name, b := range before {
		if !bytes.Equal(after[name], b) {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	return want
}

// unpadded is a payload that leaves no padding, whose bytes mean nothing.
const unpadded = 904

// filled returns a file system with a log of three segments and where the batches of the last lie.
func filled(t testing.TB, clean bool) (fs *vfs.Mem, batches []int64) {
	t.Helper()
	fs = vfs.NewMem()
	l := mustOpen(t, fs, testOptions())
	for i := uint64(1); l.active.number < 3 || len(batches) < 4; i++ {
		mustAppend(t, l, Update{Copyset: 7, HardState: hard(1, 2, i-1), Entries: run(i, i, 1, unpadded)})
		if l.active.number == 3 {
			batches = append(batches, l.off-batchHeader-int64(recordSize(unpadded)+recordSize(statePayload)))
		}
	}
	if clean {
		mustClose(t, l)
	}
	return fs.Crash(nil), batches
}

// usedBytes returns where the batches of each segment of a closed log end, without the empty one that Close wrote.
func usedBytes(t testing.TB, fs vfs.FS) map[string]int64 {
	t.Helper()
	used := map[string]int64{}
	for name, b := range files(t, fs) {
		if h, ok := parseHeader(b); ok && strings.HasSuffix(name, segmentSuffix) {
			at := headerBlock
			for {
				n, ok := parseBatch(b, at, seedOf(testID, h.number))
				if !ok || n.records == 0 {
					break
				}
				at += int(n.length)
			}
			used[name] = int64(at)
		}
	}
	return used
}

// TestFlipAnyBit flips bits all over the segments of a log that was closed: each flip of a byte that means something
// is found and refused, and no other flip loses anything.
func TestFlipAnyBit(t *testing.T) {
	fs, _ := filled(t, true)
	rng := rand.New(rand.NewPCG(1, 2))
	g, _ := mustOpen(t, fs.Crash(nil), testOptions()).Group(7)
	last, _ := g.LastIndex()
	refusals := 0
	for name, used := range usedBytes(t, fs) {
		content := readFile(t, fs, name)
		for range 150 {
			at := int64(rng.IntN(len(content)))
			if rng.IntN(4) == 0 {
				at = int64(rng.IntN(headerBytes))
			}
			hurt := fs.Crash(nil)
			patch(t, hurt, name, at, []byte{content[at] ^ 1<<rng.IntN(8)})
			l, err := Open(hurt, "log", testOptions())
			if matters := at < headerBytes || at >= headerBlock && at < used; matters != (err != nil) {
				t.Fatalf("%s at %d of %d: %v", name, at, used, err)
			}
			if err != nil {
				var corrupt *CorruptError
				if !errors.As(err, &corrupt) || corrupt.Segment != name {
					t.Fatalf("%s at %d: %v", name, at, err)
				}
				refusals++
				continue
			}
			g, _ := l.Group(7)
			if n, _ := g.LastIndex(); n != last {
				t.Fatalf("%s at %d: flip lost entries up to %d, %d are left", name, at, last, n)
			}
		}
	}
	if refusals < 100 {
		t.Fatalf("only %d flips were refused", refusals)
	}
}

func TestCorruptMiddle(t *testing.T) {
	fs, batches := filled(t, false)
	patch(t, fs, segmentName(3), batches[1]+200, []byte("hurt"))
	err := refused[*CorruptError](t, fs, testOptions())
	if err.Offset != batches[1] || err.Segment != segmentName(3) {
		t.Errorf("%v, want offset %d", err, batches[1])
	}
}

// TestTornTail damages the last batch of a log that was not closed: that is a torn tail.
func TestTornTail(t *testing.T) {
	fs, batches := filled(t, false)
	patch(t, fs, segmentName(3), batches[len(batches)-1]+300, []byte("hurt"))
	l := mustOpen(t, fs, testOptions())
	if l.off != batches[len(batches)-1] {
		t.Fatalf("log ends at %d", l.off)
	}
	g, _ := l.Group(7)
	last, _ := g.LastIndex()
	mustAppend(t, l, Update{Copyset: 7, Entries: run(last+1, last+2, 3, 900)})
	fs2 := fs.Crash(nil)
	l2 := mustOpen(t, fs2, testOptions())
	g2, _ := l2.Group(7)
	if n, _ := g2.LastIndex(); n != last+2 {
		t.Fatalf("last index %d, want %d", n, last+2)
	}
}

// TestDroppedTailStaysDropped loses the first of two batches that no sync covers, in two runs one after the other,
// and writes another batch of the same length in its place: the second one must not join the chain again.
func TestDroppedTailStaysDropped(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, testOptions())
	mustAppend(t, l, Update{Copyset: 1, HardState: hard(1, 1, 0)})
	first := l.off
	for range 2 {
		mustAppend(t, l, Update{Copyset: 1, HardState: hard(1, 1, 5)})
		mustAppend(t, l, Update{Copyset: 1, HardState: hard(1, 1, 6)})
		patch(t, fs, segmentName(1), first, make([]byte, batchHeader))
		fs = fs.Crash(nil)
		l = mustOpen(t, fs, testOptions())
		g, _ := l.Group(1)
		if c := g.HardState().GetCommit(); c != 0 {
			t.Fatalf("commit %d behind a batch that is gone", c)
		}
	}
	mustAppend(t, l, Update{Copyset: 1, HardState: hard(1, 1, 3), MustSync: true})
	g, _ := mustOpen(t, fs.Crash(nil), testOptions()).Group(1)
	if c := g.HardState().GetCommit(); c != 3 {
		t.Fatalf("commit %d, want 3", c)
	}
}

func TestMissingSegment(t *testing.T) {
	for _, number := range []uint64{1, 2} {
		fs, _ := filled(t, true)
		if err := fs.Remove("log/" + segmentName(number)); err != nil {
			t.Fatal(err)
		}
		if err := refused[*CorruptError](t, fs, testOptions()); err.Segment != segmentName(number) {
			t.Errorf("%v, want segment %d", err, number)
		}
	}
}

func TestShortSegment(t *testing.T) {
	fs, _ := filled(t, true)
	f, _ := fs.Open("log/"+segmentName(2), vfs.ReadWrite)
	if err := f.Truncate(8192); err != nil {
		t.Fatal(err)
	}
	f.Close()
	refused[*CorruptError](t, fs, testOptions())
}

func TestForeignIdentity(t *testing.T) {
	fs, _ := filled(t, true)
	opts := testOptions()
	opts.Identity = [16]byte{9}
	if err := refused[*ForeignError](t, fs, opts); err.Got != testID || err.Want != opts.Identity {
		t.Errorf("%v", err)
	}
}

// TestForeignObsolete puts another log's segment below the floor, where recovery has no use for it.
func TestForeignObsolete(t *testing.T) {
	fs := freed(t)
	h := segmentHeader{version: 1, identity: [16]byte{9}, number: 1, size: MinSegmentSize}
	f, err := fs.Create("log/" + segmentName(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(MinSegmentSize); err != nil {
		t.Fatal(err)
	}
	f.Close()
	patch(t, fs, segmentName(1), 0, h.appendTo(nil))
	refused[*ForeignError](t, fs, testOptions())
}

// freed returns a log whose first segment was freed.
func freed(t testing.TB) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	l := mustOpen(t, fs, testOptions())
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 20, 1, 900)}, Update{Copyset: 2, HardState: hard(4, 4, 4)})
	mustAppend(t, l, Update{Copyset: 1, Entries: run(21, 22, 1, 900)})
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: 21})
	if c, err := l.Compact(); err != nil || c.Freed == 0 {
		t.Fatalf("compact: %+v, %v", c, err)
	}
	mustClose(t, l)
	return fs
}

// TestLeftoverSegment brings back a segment below the floor, as a crash may.
func TestLeftoverSegment(t *testing.T) {
	fs := freed(t)
	f, err := fs.Create("log/" + segmentName(1))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	l := mustOpen(t, fs, testOptions())
	defer l.Close()
	if names, _ := fs.List("log"); slices.Contains(names, segmentName(1)) {
		t.Error("the leftover is still there")
	}
}

func TestNewerVersion(t *testing.T) {
	header := func(edit func(h *segmentHeader)) func(t *testing.T, fs vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			h, ok := parseHeader(readFile(t, fs, segmentName(3)))
			if !ok {
				t.Fatal("bad header")
			}
			edit(&h)
			patch(t, fs, segmentName(3), 0, h.appendTo(nil))
		}
	}
	for name, hurt := range map[string]func(t *testing.T, fs vfs.FS){
		"segment": header(func(h *segmentHeader) { h.version++ }),
		"batch flags": func(t *testing.T, fs vfs.FS) {
			b := readFile(t, fs, segmentName(3))
			h, ok := parseBatch(b, headerBlock, seedOf(testID, 3))
			if !ok {
				t.Fatal("no batch")
			}
			h.flags = 2
			h.put(b[headerBlock:], seedOf(testID, 3))
			patch(t, fs, segmentName(3), 0, b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs, _ := filled(t, true)
			hurt(t, fs)
			if err := refused[*VersionError](t, fs, testOptions()); !strings.Contains(err.Error(), name) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestNewerRecord writes records that this release does not know into an otherwise good batch.
func TestNewerRecord(t *testing.T) {
	for _, r := range []record{{typ: 9}, {typ: recordState, flags: 4}} {
		fs := vfs.NewMem()
		l := mustOpen(t, fs, testOptions())
		l.begin()
		r.batch, r.copyset = uint32(l.nextSeq), 3
		l.buf = r.append(l.buf, make([]byte, statePayload), l.active.seed)
		if err := errors.Join(l.write(), l.sync()); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		refused[*VersionError](t, fs, testOptions())
	}
}

// TestReadBackDamage hurts an entry behind the back of an open log.
func TestReadBackDamage(t *testing.T) {
	fs := vfs.NewMem()
	opts := testOptions()
	opts.CacheBytes = -1
	l := mustOpen(t, fs, opts)
	mustAppend(t, l, Update{Copyset: 3, Entries: run(1, 4, 1, 100)})
	mustAppend(t, l, Update{Copyset: 4, Entries: run(1, 1, 1, 4000)}) // the page is full and will not be written again
	g, _ := l.Group(3)
	at := int64(g.mu.slots[2].off)
	patch(t, fs, segmentName(1), at+50, []byte{0xff})
	if _, err := g.Entries(1, 3, 1<<20); err != nil {
		t.Errorf("the good ones: %v", err)
	}
	_, err := g.Entries(1, 5, 1<<20)
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || corrupt.Copyset != 3 || corrupt.Offset != at {
		t.Fatalf("%v", err)
	}
	if n := l.active.readers.Load(); n != 0 {
		t.Errorf("%d readers are left", n)
	}
	// Compact can not move it either, and frees the segment when the entry is cut off.
	for i := uint64(2); l.active.number < 3; i++ {
		mustAppend(t, l, Update{Copyset: 4, Entries: run(i, i, 1, 4000)})
	}
	mustAppend(t, l, Update{Copyset: 4, TruncateTo: 4})
	for range 3 { // again and again
		c, err := l.Compact()
		if err != nil || c.Freed != 0 || c.Damaged == nil || c.Damaged.Copyset != 3 || c.Damaged.Offset != at || !slices.Equal(c.Pinning, []layout.CopysetID{3}) {
			t.Fatalf("compact: %+v, %v", c, err)
		}
	}
	if es, err := g.Entries(4, 5, 1<<20); err != nil || len(es) != 1 {
		t.Errorf("the one behind it: %v, %v", es, err)
	}
	mustAppend(t, l, Update{Copyset: 3, Entries: run(5, 5, 1, 100)}, Update{Copyset: 3, TruncateTo: 3})
	if c, err := l.Compact(); err != nil || c.Freed == 0 || c.Damaged != nil {
		t.Fatalf("compact: %+v, %v", c, err)
	}
	mustClose(t, l)
	l = mustOpen(t, fs, opts)
	if got := l.Copysets(); !slices.Equal(got, []layout.CopysetID{3, 4}) {
		t.Errorf("copysets %v", got)
	}
	g, _ = l.Group(3)
	if es, err := g.Entries(4, 6, 1<<20); err != nil || len(es) != 2 {
		t.Errorf("the rest after a reopen: %v, %v", es, err)
	}
}

// TestCompactUnreadable: a sector that can not be read keeps its segment, and not the empty ones before it.
func TestCompactUnreadable(t *testing.T) {
	mem := vfs.NewMem()
	bad := int64(-1)
	fs := vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpReadAt && bad >= 0 && op.Offset <= bad && bad < op.Offset+op.Length {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	opts := testOptions()
	opts.CacheBytes = -1
	l := mustOpen(t, fs, opts)
	defer mustClose(t, l)
	next := uint64(1)
	fill := func(until uint64) {
		for ; l.active.number < until; next++ {
			mustAppend(t, l, Update{Copyset: 4, Entries: run(next, next, 1, 4000)})
		}
	}
	fill(2)
	mustAppend(t, l, Update{Copyset: 3, Entries: run(1, 3, 1, 100)})
	g, _ := l.Group(3)
	if g.mu.slots[1].seg.number != 2 {
		t.Fatalf("it is in segment %d", g.mu.slots[1].seg.number)
	}
	bad = int64(g.mu.slots[1].off) + 10
	fill(4)
	mustAppend(t, l, Update{Copyset: 4, TruncateTo: next - 1})
	c, err := l.Compact()
	for i := 0; err == nil && c.More && i < 9; i++ {
		c, err = l.Compact()
	}
	if err != nil || c.Damaged == nil || c.Damaged.Segment != segmentName(2) || c.Damaged.Copyset != 3 {
		t.Fatalf("compact: %+v, %v", c, err)
	}
	if segs := l.segments(); segs[0].number != 2 {
		t.Errorf("the oldest segment is %d", segs[0].number)
	}
	mustAppend(t, l, Update{Copyset: 4, Entries: run(next, next, 1, 100)}) // the log goes on
	mustAppend(t, l, Update{Copyset: 3, Entries: run(4, 4, 1, 100)}, Update{Copyset: 3, TruncateTo: 2})
	if c, err := l.Compact(); err != nil || c.Damaged != nil || c.Freed == 0 {
		t.Errorf("compact: %+v, %v", c, err)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name string
		kind vfs.OpKind
		err  error
	}{
		{"write", vfs.OpWriteAt, syscall.EIO},
		{"write, full", vfs.OpWriteAt, syscall.ENOSPC},
		{"sync", vfs.OpSync, syscall.EIO},
		{"sync, full", vfs.OpSync, syscall.ENOSPC},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			fail, hits := false, 0
			fs := vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
				if fail && op.Kind == c.kind && op.Base() != distrustedName {
					if hits++; hits == 1 {
						return vfs.Fault{Err: c.err, Short: pages.Size}
					}
				}
				return vfs.Fault{}
			})
			l := mustOpen(t, fs, testOptions())
			mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 3, 1, 100)})
			fail = true
			err := l.Append([]Update{{Copyset: 1, Entries: run(4, 5, 1, 5000)}, {Copyset: 2}})
			var failed *FailedError
			if !errors.As(err, &failed) || !errors.Is(err, c.err) {
				t.Fatalf("append: %v", err)
			}
			_, compactErr := l.Compact()
			_, spareErr := l.PrepareSpare()
			for _, later := range []error{l.Append([]Update{{Copyset: 3}}), l.Append(nil), compactErr, spareErr, l.Usage().Failed} {
				if later != error(failed) {
					t.Errorf("later call: %v", later)
				}
			}
			g, _ := l.Group(1)
			if n, _ := g.LastIndex(); n != 3 {
				t.Errorf("last index %d, want 3", n)
			}
			if _, ok := l.Group(2); ok {
				t.Error("a copyset that was not answered")
			}
			if err := l.Close(); !errors.Is(err, failed) {
				t.Errorf("close: %v", err)
			}
			if c.kind == vfs.OpSync && hits != 1 {
				t.Errorf("%d syncs after the failed one", hits-1)
			}
			if err := refused[*FailedError](t, mem.Crash(nil), testOptions()); !strings.Contains(err.Error(), c.err.Error()) {
				t.Errorf("the next run: %v", err)
			}
		})
	}
}

// TestRotationFailures fails each step of the change to a new segment.
func TestRotationFailures(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpOpen, vfs.OpWriteAt, vfs.OpSync, vfs.OpRename, vfs.OpOpenDir, vfs.OpDirSync} {
		fail := false
		fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
			if fail && op.Kind == kind && (strings.HasSuffix(op.Path, spare.Suffix) || op.Path == "log") {
				return vfs.Fault{Err: syscall.EIO}
			}
			return vfs.Fault{}
		})
		opts := testOptions()
		opts.Spares = 4
		l := mustOpen(t, fs, opts)
		for range 3 {
			if _, err := l.PrepareSpare(); err != nil {
				t.Fatal(err)
			}
		}
		mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 1, 1, 9000)})
		fail = true
		var failed *FailedError
		if err := l.Append([]Update{{Copyset: 1, Entries: run(2, 2, 1, 9000)}}); !errors.As(err, &failed) {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

// TestKilledInRotation ends a run between the new name of a segment and the sync of the directory; the next run
// must not build on a name that is not durable.
func TestKilledInRotation(t *testing.T) {
	mem, dead := vfs.NewMem(), false
	fs := vfs.NewFault(mem, func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpRename && strings.HasSuffix(op.NewPath, segmentName(2)) {
			dead = true
			return vfs.Fault{}
		}
		if dead {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	l := mustOpen(t, fs, testOptions())
	mustAppend(t, l, Update{Copyset: 1, Entries: run(1, 1, 1, 9000)})
	if err := l.Append([]Update{{Copyset: 1, Entries: run(2, 2, 1, 9000)}}); err == nil {
		t.Fatal("appended on a dead disk")
	}
	_ = l.lock.Close()
	l = mustOpen(t, mem, testOptions())
	if l.active.number != 2 {
		t.Fatalf("segment %d is active", l.active.number)
	}
	mustAppend(t, l, Update{Copyset: 1, Entries: run(2, 2, 1, 9000)})
	g, _ := mustOpen(t, mem.Crash(nil), testOptions()).Group(1)
	if n, _ := g.LastIndex(); n != 2 {
		t.Errorf("last index %d, want 2", n)
	}
}

// TestFull fills the disk: entries are refused, nothing breaks, and the reserve lets a truncation and Compact make
// room again.
func TestFull(t *testing.T) {
	mem := vfs.NewMem()
	l := mustOpen(t, mem, testOptions())
	mem.SetCapacity(4 * MinSegmentSize)
	var full *NoSpaceError
	i := uint64(1)
	for ; ; i++ {
		err := l.Append([]Update{{Copyset: 1, Entries: run(i, i, 1, 1000)}})
		if errors.As(err, &full) {
			break
		}
		if err != nil || i > 1000 {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	if !errors.Is(full, syscall.ENOSPC) {
		t.Errorf("%v", full)
	}
	if ok, err := l.PrepareSpare(); ok || !errors.As(err, &full) {
		t.Errorf("prepare: %v, %v", ok, err)
	}
	// Votes still go in, far beyond the room of the active segment.
	for v := range uint64(60) {
		mustAppend(t, l, Update{Copyset: 1, HardState: hard(v+2, 1, 0)})
	}
	g, _ := l.Group(1)
	if n, _ := g.LastIndex(); n != i-1 {
		t.Fatalf("last index %d, want %d", n, i-1)
	}
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: i - 1})
	if c, err := l.Compact(); err != nil || c.Freed == 0 {
		t.Fatalf("compact: %+v, %v", c, err)
	}
	mustAppend(t, l, Update{Copyset: 1, Entries: run(i, i, 200, 1000)})
	mustClose(t, l)
	l = mustOpen(t, mem, testOptions())
	g, _ = l.Group(1)
	if n, _ := g.LastIndex(); n != i {
		t.Fatalf("last index %d, want %d", n, i)
	}
}

func TestOpenTwice(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, testOptions())
	if _, err := Open(fs, "log", testOptions()); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	mustClose(t, l)
	mustClose(t, mustOpen(t, fs, testOptions()))
}

func TestMustExist(t *testing.T) {
	fs := vfs.NewMem()
	opts := testOptions()
	opts.MustExist = true
	if _, err := Open(fs, "log", opts); !errors.Is(err, ErrNoLog) {
		t.Errorf("open: %v", err)
	}
	mustClose(t, mustOpen(t, fs, testOptions()))
	mustClose(t, mustOpen(t, fs, opts))
}

package digest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is a copyset on a store of its own.
type replica struct {
	s *blockstore.Store
	c *blockstore.Copyset
}

func newReplica(t testing.TB, n byte) *replica {
	t.Helper()
	s, err := blockstore.Open(vfs.NewMem(), "store", blockstore.Identity{Cluster: [16]byte{1}, Chunkserver: layout.ChunkserverID(n)},
		blockstore.Options{IndexFS: pebblevfs.NewMem(), GrowStep: 4 << 20, Capacity: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c, err := s.Create(7)
	if err != nil {
		t.Fatal(err)
	}
	return &replica{s, c}
}

func (r *replica) checkpoint(t testing.TB) {
	t.Helper()
	if err := r.s.Commit([]*blockstore.Frozen{r.c.Freeze([]byte("\x01state"))}); err != nil {
		t.Fatal(err)
	}
}

func (r *replica) digest(t testing.TB, peer layout.PeerID) *Result {
	t.Helper()
	im, err := r.c.Snapshot([]byte("\x01state"))
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	d, err := Compute(context.Background(), 7, peer, im)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestReplicas changes two stores in the same way at random, checkpoints them at different times, and lets a third one begin
// from an image: the digests are the same however the blocks lie, and another one as soon as anything differs.
func TestReplicas(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	all := []*replica{newReplica(t, 1), newReplica(t, 2)}
	index := uint64(1)
	for round := range 40 {
		for range 20 {
			ch := layout.ChunkID{Volume: layout.VolumeID(1 + rng.IntN(3)), Index: uint32(rng.IntN(4))}
			off := uint32(rng.IntN(600)) * 2048
			data := make([]byte, 2048*(1+rng.IntN(80)))
			data[0], data[len(data)-1] = byte(rng.IntN(256)), byte(round)
			op := rng.IntN(20)
			index++
			for _, r := range all {
				var err error
				switch {
				case op == 0:
					err = r.c.DeleteVolume(ch.Volume)
				case op < 4:
					err = r.c.Discard(ch, off, uint32(len(data)))
				case op < 7:
					err = r.c.WriteZeroes(ch, off, uint32(len(data)))
				default:
					err = r.c.Write(ch, off, data, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				r.c.SetApplied(index, 1)
				if rng.IntN(30) == 0 {
					r.checkpoint(t)
				}
			}
		}
		if round == 20 {
			all = append(all, imaged(t, all[0]))
		}
		want := all[0].digest(t, 1)
		for i, r := range all[1:] {
			if got := r.digest(t, 2); got.Sum != want.Sum || got.Blocks != want.Blocks || len(got.Chunks) != len(want.Chunks) {
				t.Fatalf("round %d: replica %d: %+v, want %+v", round, i+1, got, want)
			}
		}
	}
	chunk := all[0].c.Chunks()[0]
	var before *Result
	for i := range byte(2) {
		if err := all[0].c.Write(chunk, 4096, bytes.Repeat([]byte{0xe0 + i}, 4096), nil); err != nil {
			t.Fatal(err)
		}
		other := all[0].digest(t, 1)
		if before != nil && (other.Sum == before.Sum || other.Chunks[0].Sum == before.Chunks[0].Sum || other.Chunks[1] != before.Chunks[1]) {
			t.Errorf("a block of other bytes: %+v, before %+v", other, before)
		}
		before = other
	}
	odd := layout.ChunkID{Volume: 2, Index: 9}
	if err := all[0].c.Write(odd, 0, make([]byte, 4096), nil); err != nil {
		t.Fatal(err)
	}
	after := all[0].digest(t, 1)
	if after.Sum == before.Sum || len(after.Chunks) != len(before.Chunks)+1 {
		t.Errorf("a block of zeroes more: %+v, before %+v", after, before)
	}
	all[0].c.SetApplied(index+1, 1)
	if again := all[0].digest(t, 1); again.Sum == after.Sum {
		t.Error("the index is not in the sum")
	}
}

// imaged returns a replica that was filled by an image of r.
func imaged(t *testing.T, r *replica) *replica {
	t.Helper()
	n := newReplica(t, 3)
	im, err := r.c.Snapshot([]byte("\x01state"))
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	in, err := n.s.NewInstaller(7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.WriteTo(in); err != nil {
		t.Fatal(err)
	}
	if n.c, err = in.Finish(); err != nil {
		t.Fatal(err)
	}
	return n
}

// fake is a content that counts how often it is closed.
type fake struct {
	index  uint64
	err    error
	closed int
	begun  chan struct{}
	goOn   chan struct{}
	// runs are what NextSums returns, onClose is called by Close.
	runs    []blockstore.BlockRun
	onClose func()
}

func (f *fake) Applied() (index, term uint64) { return f.index, 1 }
func (f *fake) State() []byte                 { return []byte{1} }
func (f *fake) Close() {
	f.closed++
	if f.onClose != nil {
		f.onClose()
	}
}

func (f *fake) NextSums() (blockstore.BlockRun, error) {
	if f.begun != nil {
		close(f.begun)
		<-f.goOn
	}
	if f.err != nil {
		return blockstore.BlockRun{}, f.err
	}
	if len(f.runs) > 0 {
		run := f.runs[0]
		f.runs = f.runs[1:]
		return run, nil
	}
	return blockstore.BlockRun{}, io.EOF
}

// TestRunner: every content is closed once, what is too much is dropped, what fails leaves the last digest, and after the end
// nothing is kept.
func TestRunner(t *testing.T) {
	r := New(nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	slow := &fake{index: 1, begun: make(chan struct{}), goOn: make(chan struct{})}
	r.Take(1, 10, slow)
	<-slow.begun
	waiting := make([]*fake, queueMax+3)
	free := func() { // what closes a content, and waits for the disk, keeps nobody else waiting
		if !r.mu.TryLock() {
			t.Error("a content is closed under the lock")
			return
		}
		r.mu.Unlock()
	}
	for i := range waiting {
		waiting[i] = &fake{index: uint64(i + 2)}
		switch {
		case i == queueMax-1:
			waiting[i].err = errors.New("a leaf does not parse")
		case i >= queueMax:
			waiting[i].onClose = free
		}
		r.Take(1, 10, waiting[i])
	}
	if n := r.Counters().Dropped.Load(); n != 3 {
		t.Errorf("%d were dropped, want 3", n)
	}
	if last, asked := r.Last(1); last != nil || asked != queueMax+1 {
		t.Errorf("last %v, asked %d", last, asked)
	}
	end := &fake{begun: make(chan struct{}), goOn: make(chan struct{})}
	close(slow.goOn)
	for try := 0; len(r.jobs) > 0 && try < 5000; try++ {
		time.Sleep(time.Millisecond)
	}
	r.Take(2, 20, end)
	<-end.begun
	if last, asked := r.Last(1); last == nil || last.Index != queueMax || asked != queueMax+1 {
		t.Errorf("last %+v, asked %d", last, asked)
	}
	rest := &fake{onClose: free}
	r.Take(2, 20, rest)
	cancel()
	close(end.goOn)
	<-done
	late := &fake{onClose: free}
	r.Take(2, 20, late)
	for i, f := range slices.Concat(waiting, []*fake{slow, end, rest, late}) {
		if f.closed != 1 {
			t.Errorf("content %d was closed %d times", i, f.closed)
		}
	}
	if n := r.Counters().Computed.Load(); n < queueMax {
		t.Errorf("%d computed", n)
	}
}

// TestSum: releases that call their digests by the same version must have the same of the same content. Whoever has to change the
// sums here lets Version rise.
func TestSum(t *testing.T) {
	r := New(nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	at := layout.ChunkID{Volume: 0x0102030405060708, Index: 0x090a0b0c}
	r.Take(0x1112131415161718, 3, &fake{index: 0x2122232425262728, runs: []blockstore.BlockRun{
		{Chunk: at, First: 0x31323334, CRCs: []uint32{0x41424344, 0x51525354}},
		{Chunk: at, First: 0x61626364, CRCs: []uint32{0x71727374}},
		{Chunk: layout.ChunkID{Volume: at.Volume, Index: at.Index + 1}, CRCs: []uint32{1}},
	}})
	var got *Result
	for try := 0; got == nil && try < 5000; try++ {
		time.Sleep(time.Millisecond)
		got, _ = r.Last(0x1112131415161718)
	}
	cancel()
	<-done
	if got == nil || len(got.Chunks) != 2 {
		t.Fatalf("%+v", got)
	}
	for what, sum := range map[string][2]string{
		"format": {"101", strconv.FormatUint(uint64(got.Format), 16)},
		"state":  {"4bf5122f344554c53bde2ebb8cd2b7e3", hex.EncodeToString(got.State[:])},
		"chunk":  {"ce0a5f63ce4eff48", hex.EncodeToString(got.Chunks[0].Sum[:])},
		"next":   {"01acecb507abfe1a", hex.EncodeToString(got.Chunks[1].Sum[:])},
		"sum":    {"d6dbd33e951b9088497c467e1d577d77", hex.EncodeToString(got.Sum[:])},
	} {
		if sum[0] != sum[1] {
			t.Errorf("%s is %s, was %s", what, sum[1], sum[0])
		}
	}
}

// BenchmarkDigest computes the digest of a GiB whose maps are in the index, as they are when the scrub comes by.
func BenchmarkDigest(b *testing.B) {
	r := newReplica(b, 1)
	data := make([]byte, 16<<20)
	for i := range uint32(64) {
		if err := r.c.Write(layout.ChunkID{Volume: 1, Index: i}, 0, data, nil); err != nil {
			b.Fatal(err)
		}
	}
	r.c.SetApplied(2, 1)
	r.checkpoint(b)
	for b.Loop() {
		if d := r.digest(b, 1); d.Blocks != 1<<18 {
			b.Fatal(d.Blocks)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/GiB")
}

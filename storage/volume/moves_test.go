package volume_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// sent is a request as the copysets got it.
type sent struct {
	copyset layout.CopysetID
	epoch   layout.Epoch
	seq     layout.Seq
}

// twoGateways are two handles of one initiator, before one cluster; what the first one begins is noted.
func twoGateways(t *testing.T, f *fakeCluster, newProof func() volume.Proof) (one, two *volume.Handle, begun func() []sent) {
	t.Helper()
	var mu sync.Mutex
	var list []sent
	tap := func(r *chunkclient.Request) {
		mu.Lock()
		defer mu.Unlock()
		list = append(list, sent{r.Copyset, r.Fence.Epoch, r.Seq})
	}
	r := f.router()
	t.Cleanup(func() {
		r.Close()
		f.wg.Wait()
	})
	one = volume.New(&tappedDoer{r, tap}, f, 1<<20, nil).Open(placement(false), "iqn.a", 0, newProof)
	two = volume.New(r, f, 1<<20, nil).Open(placement(false), "iqn.a", 0, alwaysWanted)
	return one, two, func() []sent {
		mu.Lock()
		defer mu.Unlock()
		out := list
		list = nil
		return out
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestPathMovesInPlace: a path goes to and fro between two gateways. Of a write over three copysets the pieces that were refused
// are sent again, once, in the next epoch, and those that were answered are not.
func TestPathMovesInPlace(t *testing.T) {
	f := newFakeCluster(1, 3, 1)
	one, two, begun := twoGateways(t, f, alwaysWanted)
	ctx := within(t, 10*time.Second)
	fill := func(b byte, chunks int) []byte { return bytes.Repeat([]byte{b}, chunks*chunkSize) }
	must(t, one.WriteAt(ctx, fill(1, 3), 0))
	begun()
	must(t, two.WriteAt(ctx, fill(2, 1), chunkSize)) // in the second of three copysets
	must(t, one.WriteAt(ctx, fill(3, 3), 0))
	got := begun()
	if len(got) != 4 || got[3].copyset != got[1].copyset || got[3].seq != got[1].seq {
		t.Fatalf("sent %+v", got)
	}
	for i, want := range []layout.Epoch{1, 1, 1, 3} {
		if got[i].epoch != want {
			t.Errorf("request %d under epoch %d, want %d", i, got[i].epoch, want)
		}
	}
	must(t, two.WriteAt(ctx, fill(4, 1), 0))
	all := make([]byte, 3*chunkSize)
	must(t, one.ReadAt(ctx, all, 0))
	if want := slices.Concat(fill(4, 1), fill(3, 2)); !bytes.Equal(all, want) {
		t.Errorf("reads %d %d %d", all[0], all[chunkSize], all[2*chunkSize])
	}
	if one.Err() != nil || two.Err() != nil {
		t.Error(one.Err(), two.Err())
	}
}

// TestCompareAndWriteMoves: one that was refused compares with what the other gateway has written.
func TestCompareAndWriteMoves(t *testing.T) {
	f := newFakeCluster(1, 3, 1)
	one, two, _ := twoGateways(t, f, alwaysWanted)
	ctx := within(t, 10*time.Second)
	sector := func(b byte) []byte { return bytes.Repeat([]byte{b}, 512) }
	must(t, one.CompareAndWrite(ctx, sector(0), sector(1), 0))
	must(t, two.CompareAndWrite(ctx, sector(1), sector(2), 0))
	must(t, one.CompareAndWrite(ctx, sector(2), sector(3), 0))
	must(t, two.WriteAt(ctx, sector(4), 0))
	var mis *volume.MiscompareError
	if err := one.CompareAndWrite(ctx, sector(3), sector(5), 0); !errors.As(err, &mis) {
		t.Errorf("got %v, want a miscompare", err)
	}
}

// asked is a proof that waits for the test.
type asked struct {
	come, answer chan struct{}
}

func (a *asked) Await(ctx context.Context) error {
	a.come <- struct{}{}
	select {
	case <-a.answer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// TestProvenInEachTenancy: what was refused is not sent again before its initiator has shown, in the next epoch, that it wants
// it, and not at all when it is given up, whether or not it was fenced, while another operation is.
func TestProvenInEachTenancy(t *testing.T) {
	f := newFakeCluster(1, 3, 1)
	proofs := make(chan *asked, 4)
	one, two, begun := twoGateways(t, f, func() volume.Proof {
		a := &asked{make(chan struct{}, 8), make(chan struct{})}
		proofs <- a
		return a
	})
	ctx := within(t, 10*time.Second)
	block := make([]byte, 4096)
	first := make(chan error, 1)
	go func() { first <- one.WriteAt(ctx, block, 0) }()
	p := <-proofs
	<-p.come
	close(p.answer)
	must(t, <-first)
	must(t, two.WriteAt(ctx, block, 0))
	begun()

	given, giveUp := context.WithCancel(ctx)
	results := make(chan error, 2)
	go func() { results <- one.WriteAt(given, block, 0) }()
	p = <-proofs
	<-p.come
	go func() { results <- one.WriteAt(ctx, block, 4096) }()
	<-p.come
	if got := begun(); len(got) != 1 || got[0].epoch != 1 {
		t.Fatalf("before the answer: %+v", got)
	}
	giveUp()
	one.Fence()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	close(p.answer)
	must(t, <-results)
	if got := begun(); len(got) != 1 || got[0].epoch != 3 || got[0].seq != 3 {
		t.Errorf("sent %+v", got)
	}
}

// script is a link to the only chunkserver, whose answer to each request comes from the test; nil: none comes.
type script struct {
	mu   sync.Mutex
	seen []chunkclient.Request
	play func(n int, r *chunkclient.Request) *chunkclient.Response
}

func (s *script) Close() {}

func (s *script) Start(c *chunkclient.Call) {
	s.mu.Lock()
	n := len(s.seen)
	s.seen = append(s.seen, c.Request)
	resp := s.play(n, &c.Request)
	s.mu.Unlock()
	if resp != nil {
		c.Finish(nil, *resp, nil)
	}
}

// epochs are those of an Attacher that always issues the next one.
type epochs struct{ last atomic.Uint64 }

func (e *epochs) Attach(context.Context, layout.VolumeID, string, layout.Epoch) (volume.Attachment, error) {
	return volume.Attachment{Initiator: 7, Epoch: layout.Epoch(e.last.Add(1))}, nil
}

func stale(epoch layout.Epoch, generation layout.Generation) *chunkclient.Response {
	return &chunkclient.Response{Status: chunkclient.StaleFence, Fence: layout.Fence{Epoch: epoch, Generation: generation}}
}

// TestPieceThatMayBeDone: a piece that was sent before in an epoch which is over, and got no answer to that, may have been done, and is
// not sent again, unless it only reads, or a copyset has said in between that it was not done. The handle goes on.
func TestPieceThatMayBeDone(t *testing.T) {
	ok := &chunkclient.Response{Status: chunkclient.OK}
	lost := (*chunkclient.Response)(nil)
	elsewhere := &chunkclient.Response{Status: chunkclient.NotLeader, Leader: 1}
	left, busy := &chunkclient.Response{Status: chunkclient.NotReady}, &chunkclient.Response{Status: chunkclient.Busy}
	disk := &chunkclient.Response{Status: chunkclient.IO}
	changed := &chunkclient.Response{Status: chunkclient.StaleAccess, AccessGeneration: 9}
	write := func(ctx context.Context, h *volume.Handle) error { return h.WriteAt(ctx, make([]byte, 512), 0) }
	read := func(ctx context.Context, h *volume.Handle) error { return h.ReadAt(ctx, make([]byte, 512), 0) }
	swap := func(ctx context.Context, h *volume.Handle) error {
		return h.CompareAndWrite(ctx, make([]byte, 512), make([]byte, 512), 0)
	}
	for _, c := range []struct {
		name    string
		do      func(context.Context, *volume.Handle) error
		answers []*chunkclient.Response
		want    error
	}{
		{"refused", write, []*chunkclient.Response{stale(2, 0), ok}, nil},
		{"refused twice", write, []*chunkclient.Response{stale(4, 0), stale(4, 0), stale(4, 0), stale(4, 0), ok}, nil},
		{"no answer, refused", write, []*chunkclient.Response{lost, stale(2, 0)}, volume.ErrStaleEpoch},
		{"not the leader, refused", write, []*chunkclient.Response{elsewhere, stale(2, 0), ok}, nil},
		{"not the leader any more, refused", write, []*chunkclient.Response{left, stale(2, 0)}, volume.ErrStaleEpoch},
		{"busy, refused", write, []*chunkclient.Response{busy, stale(2, 0), ok}, nil},
		{"a failed disk, refused", write, []*chunkclient.Response{disk, stale(2, 0)}, volume.ErrStaleEpoch},
		{"refused, no answer, refused", write, []*chunkclient.Response{stale(2, 0), lost, stale(4, 0)}, volume.ErrStaleEpoch},
		{"no answer, done", write, []*chunkclient.Response{lost, ok}, nil},
		{"no answer, an older generation, refused", write, []*chunkclient.Response{lost, stale(1, 1), stale(2, 0), ok}, nil},
		{"no answer, older access, refused", write, []*chunkclient.Response{lost, changed, stale(2, 0), ok}, nil},
		{"compare and write, refused", swap, []*chunkclient.Response{stale(2, 0), ok}, nil},
		{"compare and write, no answer, refused", swap, []*chunkclient.Response{lost, stale(2, 0)}, volume.ErrStaleEpoch},
		{"read, no answer, refused", read, []*chunkclient.Response{lost, stale(2, 0), ok}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{}
			r := chunkclient.NewRouter(chunkclient.Options{
				Attempt: 5 * time.Millisecond, Dial: func(string) (chunkclient.Link, error) { return s, nil },
			})
			defer r.Close()
			r.SetDirectory(chunkclient.Directory{
				Members:   map[layout.CopysetID][]layout.ChunkserverID{1: {1}, 2: {1}, 3: {1}},
				Addresses: map[layout.ChunkserverID]string{1: "x"},
			})
			h := volume.New(r, &epochs{}, 1<<20, nil).Open(placement(false), "iqn.a", 0, alwaysWanted)
			s.play = func(n int, _ *chunkclient.Request) *chunkclient.Response {
				if n >= len(c.answers) {
					return ok
				}
				if c.answers[n] != nil && c.answers[n].Fence.Generation == 1 {
					go h.Fence()
					time.Sleep(2 * time.Millisecond)
				}
				if c.answers[n] == changed {
					go h.SetAccess(9)
				}
				return c.answers[n]
			}
			ctx := within(t, 10*time.Second)
			if err := c.do(ctx, h); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if len(s.seen) != len(c.answers) {
				t.Errorf("%d requests, want %d", len(s.seen), len(c.answers))
			}
			for i, r := range s.seen {
				if r.Seq != s.seen[0].Seq || i > 0 && r.Fence.Compare(s.seen[i-1].Fence) < 0 {
					t.Errorf("request %d has number %d and fence %v", i, r.Seq, r.Fence)
				}
			}
			must(t, write(ctx, h))
		})
	}
}

// TestDoubt: a handle that nobody used goes on with its epoch, under a new generation, if the path was not elsewhere or there is
// no answer, and with the next epoch else.
func TestDoubt(t *testing.T) {
	f := newFakeCluster(1, 3, 1)
	a := &silent{Attacher: f}
	r := f.router()
	defer r.Close()
	one := volume.New(r, a, 1<<20, nil).Open(placement(false), "iqn.a", 0, alwaysWanted)
	two := volume.New(r, f, 1<<20, nil).Open(placement(false), "iqn.a", 0, alwaysWanted)
	ctx := within(t, 10*time.Second)
	block := make([]byte, 4096)
	if one.Doubt() {
		t.Error("there is an epoch before the first operation")
	}
	fence := func() layout.Fence {
		t.Helper()
		must(t, one.WriteAt(ctx, block, 0))
		f.Lock()
		defer f.Unlock()
		return slices.MaxFunc([]layout.Fence{f.fences[1], f.fences[2], f.fences[3]}, layout.Fence.Compare)
	}
	want := func(when string, epoch layout.Epoch, generation layout.Generation) {
		t.Helper()
		if got := fence(); got != (layout.Fence{Epoch: epoch, Generation: generation}) {
			t.Errorf("%s: %v", when, got)
		}
	}
	want("first", 1, 0)
	one.Doubt()
	want("stayed", 1, 1)
	want("still there", 1, 1)
	a.silent.Store(true)
	one.Doubt()
	want("no answer", 1, 2)
	a.silent.Store(false)
	must(t, two.WriteAt(ctx, block, 0))
	one.Doubt()
	want("was away", 3, 0)
	a.during = func() { // one more leaves while the question is on its way
		a.during = nil
		one.Doubt()
		must(t, two.WriteAt(ctx, block, 0))
	}
	one.Doubt()
	want("left again", 5, 0)
}

// silent is an Attacher that may give no answer to questions about an epoch in doubt.
type silent struct {
	volume.Attacher
	silent atomic.Bool
	during func()
}

func (s *silent) Attach(ctx context.Context, v layout.VolumeID, initiator string, had layout.Epoch) (volume.Attachment, error) {
	if had != 0 && s.silent.Load() {
		return volume.Attachment{}, errors.New("no metaserver")
	}
	a, err := s.Attacher.Attach(ctx, v, initiator, had)
	if s.during != nil {
		s.during()
	}
	return a, err
}

// TestProvenAfterAHang: after a hang nothing is sent, nor repeated, before its initiator has shown that it still wants it, in the
// same epoch.
func TestProvenAfterAHang(t *testing.T) {
	f := newFakeCluster(1, 3, 1)
	proofs := make(chan *asked, 4)
	var mu sync.Mutex
	var fences []layout.Fence
	r := f.router()
	defer func() {
		r.Close()
		f.wg.Wait()
	}()
	c := volume.New(&tappedDoer{r, func(q *chunkclient.Request) {
		mu.Lock()
		defer mu.Unlock()
		fences = append(fences, q.Fence)
	}}, f, 1<<20, nil)
	h := c.Open(placement(false), "iqn.a", 0, func() volume.Proof {
		a := &asked{make(chan struct{}, 8), make(chan struct{})}
		proofs <- a
		return a
	})
	ctx := within(t, 10*time.Second)
	block := make([]byte, 4096)
	done := make(chan error, 2)
	write := func(ctx context.Context, off int64) { done <- h.WriteAt(ctx, block, off) }
	go write(ctx, 0)
	p := <-proofs
	<-p.come
	close(p.answer)
	must(t, <-done)

	f.Lock()
	for s := range f.leaders { // so that it is repeated for a while
		f.leaders[s] = 99
	}
	f.Unlock()
	go write(ctx, 0)
	time.Sleep(5 * time.Millisecond)
	c.Hang()
	p = <-proofs
	<-p.come // the one that is repeated
	given, giveUp := context.WithCancel(ctx)
	go write(given, 4096)
	<-p.come
	giveUp()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	f.Lock()
	for s := range f.leaders {
		f.leaders[s] = 1
	}
	f.Unlock()
	select {
	case err := <-done:
		t.Fatalf("done before the answer: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	close(p.answer)
	must(t, <-done)
	mu.Lock()
	defer mu.Unlock()
	if len(fences) != 2 || fences[1] != fences[0] { // what is repeated is not begun
		t.Errorf("begun under %v", fences)
	}
}

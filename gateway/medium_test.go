package gateway

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore answers for all chunkservers: it knows the fence of each initiator and one access generation, and nothing of
// data. It is the metaserver too.
type fakeStore struct {
	mu       sync.Mutex
	hosts    map[string]*fakeHost
	byID     map[layout.InitiatorID]*fakeHost
	access   layout.AccessGeneration
	requests []chunkclient.Request
	numbers  map[number]bool
	repeated int // requests that had the number of another one
	answer   chunkclient.Status
	keep     func(*chunkclient.Call) bool // see hold
}

// number names a mutation.
type number struct {
	initiator layout.InitiatorID
	epoch     layout.Epoch
	seq       layout.Seq
}

// fakeHost is an initiator: who owns its path, and the fence that the copysets have seen.
type fakeHost struct {
	id      layout.InitiatorID
	gateway uint64
	epoch   layout.Epoch
	fence   layout.Fence
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		hosts: map[string]*fakeHost{}, byID: map[layout.InitiatorID]*fakeHost{}, numbers: map[number]bool{},
	}
}

// fakeNode is the metaserver as one gateway reaches it.
type fakeNode struct {
	f       *fakeStore
	gateway uint64
}

// Attach implements volume.Attacher.
func (n fakeNode) Attach(_ context.Context, _ layout.VolumeID, initiator string, had layout.Epoch) (volume.Attachment, error) {
	f := n.f
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.hosts[initiator]
	if h == nil {
		h = &fakeHost{id: layout.InitiatorID(len(f.hosts) + 1)}
		f.hosts[initiator], f.byID[h.id] = h, h
	}
	if had == 0 || h.gateway != n.gateway || h.epoch != had {
		h.gateway = n.gateway
		h.epoch++
	}
	return volume.Attachment{Initiator: h.id, Epoch: h.epoch, Access: f.access}, nil
}

// serve judges a request as a copyset does.
func (f *fakeStore) serve(r *chunkclient.Request) chunkclient.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.byID[r.Initiator]
	switch {
	case r.Fence.Compare(h.fence) < 0:
		return chunkclient.Response{Status: chunkclient.StaleFence, Fence: h.fence}
	case r.AccessGeneration < f.access:
		return chunkclient.Response{Status: chunkclient.StaleAccess, AccessGeneration: f.access}
	}
	h.fence = r.Fence
	f.requests = append(f.requests, *r)
	if n := (number{r.Initiator, r.Fence.Epoch, r.Seq}); r.Seq != 0 && f.numbers[n] {
		f.repeated++
	} else {
		f.numbers[n] = true
	}
	if f.answer != 0 {
		return chunkclient.Response{Status: f.answer}
	}
	return chunkclient.Response{Status: chunkclient.OK}
}

// last returns the last request that was served.
func (f *fakeStore) last() chunkclient.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[len(f.requests)-1]
}

// Start implements chunkclient.Link.
func (f *fakeStore) Start(c *chunkclient.Call) {
	f.mu.Lock()
	kept := f.keep != nil && f.keep(c)
	f.mu.Unlock()
	if kept {
		return
	}
	resp := f.serve(&c.Request)
	var data []byte
	if c.Request.Op == chunkclient.Read {
		data = make([]byte, c.Request.Length)
		for i := range data {
			data[i] = byte((int(c.Request.Offset) + i) / sector)
		}
	}
	c.Finish(data, resp, nil)
}

// Close implements chunkclient.Link.
func (f *fakeStore) Close() {}

const testVolume layout.VolumeID = 5

// wanted is the proof of initiators that are there.
type wanted struct{}

// Await implements volume.Proof.
func (wanted) Await(context.Context) error { return nil }

// testMediums are the media of the first gateway before f.
func testMediums(t *testing.T, f *fakeStore) *mediums { return mediumsOf(t, f, fakeNode{f, 1}) }

// mediumsOf are the media of a gateway before f that asks node for epochs.
func mediumsOf(t *testing.T, f *fakeStore, node volume.Attacher) *mediums {
	t.Helper()
	r := chunkclient.NewRouter(chunkclient.Options{Dial: func(string) (chunkclient.Link, error) { return f, nil }})
	t.Cleanup(r.Close)
	r.SetDirectory(chunkclient.Directory{
		Members:   map[layout.CopysetID][]layout.ChunkserverID{1: {1}},
		Addresses: map[layout.ChunkserverID]string{1: "x"},
	})
	ms := newMediums(r, node, 1<<20)
	ms.newProof = func() volume.Proof { return wanted{} }
	ms.update(testVolumes(0), func(layout.VolumeID, string) bool { return true })
	return ms
}

func testVolumes(access layout.AccessGeneration) map[layout.VolumeID]volumeState {
	return map[layout.VolumeID]volumeState{testVolume: {reservations: unreserved(access), placement: &layout.Map{
		Volume: testVolume, Size: 1 << 20, ChunkSize: 1 << 20, StripeUnit: 1 << 20, StripeCount: 1,
		Ranges: []layout.Range{{Chunks: 1, Copysets: []layout.CopysetID{1}}},
	}}}
}

// TestPathMoves: the path goes to and fro between the media of two gateways. No command fails, one that has ended by then is not
// served, and the moves are counted.
func TestPathMoves(t *testing.T) {
	f := newFakeStore()
	ms := testMediums(t, f)
	m, other := ms.Open(testVolume, "iqn.a"), mediumsOf(t, f, fakeNode{f, 2}).Open(testVolume, "iqn.a")
	block := make([]byte, 4096)
	must(t, m.Write(t.Context(), block, 0))
	for i := range 3 {
		must(t, other.Write(t.Context(), block, 0))
		ended, end := context.WithCancel(t.Context())
		end()
		if err := m.Write(ended, block, 0); !errors.Is(err, context.Canceled) {
			t.Fatalf("a command that has ended: %v", err)
		}
		if epoch := f.last().Fence.Epoch; epoch != layout.Epoch(2+2*i) {
			t.Fatalf("move %d: epoch %d", i, epoch)
		}
		must(t, m.Write(t.Context(), block, 0))
		must(t, m.Read(t.Context(), block, 0))
		if epoch := f.last().Fence.Epoch; epoch != layout.Epoch(3+2*i) {
			t.Fatalf("move %d: epoch %d", i, epoch)
		}
	}
	if n := ms.moves.total.Load(); n != 3 {
		t.Errorf("%d moves", n)
	}
}

// TestAccessTakenAway: the medium of an initiator that lost its right fails for good, others go on under the new
// generation.
func TestAccessTakenAway(t *testing.T) {
	f := newFakeStore()
	ms := testMediums(t, f)
	denied, kept := ms.Open(testVolume, "iqn.a"), ms.Open(testVolume, "iqn.b")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	block := make([]byte, 512)
	must(t, denied.Write(ctx, block, 0))
	f.mu.Lock()
	f.access = 1
	f.mu.Unlock()
	results := make(chan error, 2)
	go func() { results <- denied.Write(ctx, block, 0) }()
	time.Sleep(10 * time.Millisecond)
	ms.update(testVolumes(1), func(_ layout.VolumeID, initiator string) bool { return initiator == "iqn.b" })
	if err := <-results; !errors.Is(err, scsi.ErrAccessRevoked) {
		t.Fatalf("got %v, want ErrAccessRevoked", err)
	}
	must(t, kept.Write(ctx, block, 0))
	if again := ms.Open(testVolume, "iqn.a"); again == denied {
		t.Fatal("the revoked medium is handed out again")
	}
}

// TestReadOfAPartOfASector: an initiator may expect less than the CDB asks for, also not a whole sector.
func TestReadOfAPartOfASector(t *testing.T) {
	m := testMediums(t, newFakeStore()).Open(testVolume, "iqn.a")
	for _, length := range []int{1, 511, 512, 513, 1000, 4096, 10000} {
		p := make([]byte, length)
		must(t, m.Read(context.Background(), p, 3*sector))
		for i := range p {
			if want := byte((3*sector + i) / sector); p[i] != want {
				t.Fatalf("%d bytes: byte %d is %d, want %d", length, i, p[i], want)
			}
		}
	}
}

func TestErrorsHaveTheirOwnMeaning(t *testing.T) {
	for answer, want := range map[chunkclient.Status]error{
		chunkclient.NoSpace: scsi.ErrNoSpace, chunkclient.Checksum: scsi.ErrMedium,
	} {
		f := newFakeStore()
		f.answer = answer
		m := testMediums(t, f).Open(testVolume, "iqn.a")
		if err := m.Write(context.Background(), make([]byte, 512), 0); !errors.Is(err, want) {
			t.Errorf("status %d: got %v, want %v", answer, err, want)
		}
	}
	f := newFakeStore()
	if m := testMediums(t, f).Open(99, "iqn.a"); m != nil {
		t.Error("a volume that is not exported has a medium")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

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

// fakeStore answers for all chunkservers: it knows one fence and one access generation, and nothing of data.
type fakeStore struct {
	mu       sync.Mutex
	fence    layout.Fence
	access   layout.AccessGeneration
	epoch    layout.Epoch
	requests []chunkclient.Request
	answer   chunkclient.Status
}

// Attach implements volume.Attacher.
func (f *fakeStore) Attach(context.Context, layout.VolumeID, string, layout.Epoch) (volume.Attachment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	return volume.Attachment{Initiator: 1, Epoch: f.epoch, Access: f.access}, nil
}

// Start implements chunkclient.Link.
func (f *fakeStore) Start(c *chunkclient.Call) {
	f.mu.Lock()
	resp := chunkclient.Response{Status: chunkclient.OK}
	switch {
	case c.Request.Fence.Compare(f.fence) < 0:
		resp = chunkclient.Response{Status: chunkclient.StaleFence, Fence: f.fence}
	case c.Request.AccessGeneration < f.access:
		resp = chunkclient.Response{Status: chunkclient.StaleAccess, AccessGeneration: f.access}
	default:
		f.fence = c.Request.Fence
		f.requests = append(f.requests, c.Request)
		if f.answer != 0 {
			resp.Status = f.answer
		}
	}
	f.mu.Unlock()
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

func testMediums(t *testing.T, f *fakeStore) *mediums {
	t.Helper()
	r := chunkclient.NewRouter(chunkclient.Options{Dial: func(string) (chunkclient.Link, error) { return f, nil }})
	t.Cleanup(r.Close)
	r.SetDirectory(chunkclient.Directory{
		Members:   map[layout.CopysetID][]layout.ChunkserverID{1: {1}},
		Addresses: map[layout.ChunkserverID]string{1: "x"},
	})
	ms := newMediums(volume.New(r, f, 1<<20))
	ms.update(testVolumes(0), func(layout.VolumeID, string) bool { return true })
	return ms
}

func testVolumes(access layout.AccessGeneration) map[layout.VolumeID]volumeState {
	return map[layout.VolumeID]volumeState{testVolume: {access: access, placement: &layout.Map{
		Volume: testVolume, Size: 1 << 20, ChunkSize: 1 << 20, StripeUnit: 1 << 20, StripeCount: 1,
		Ranges: []layout.Range{{Chunks: 1, Copysets: []layout.CopysetID{1}}},
	}}}
}

// TestLostTenancy: when another gateway took the path, commands fail until the sessions are closed, a command of a closed
// session never runs in the next tenancy, and a new session's does.
func TestLostTenancy(t *testing.T) {
	f := &fakeStore{}
	ms := testMediums(t, f)
	var closed func()
	losses := 0
	ms.lost = func(id layout.VolumeID, initiator string, c func()) {
		if id != testVolume || initiator != "iqn.a" {
			t.Errorf("lost %d of %s", id, initiator)
		}
		losses++
		closed = c
	}
	m := ms.Open(testVolume, "iqn.a")
	block := make([]byte, 4096)
	oldSession, closeOld := context.WithCancel(context.Background())
	must(t, m.Write(oldSession, block, 0))
	f.mu.Lock()
	f.fence = layout.Fence{Epoch: 9}
	f.epoch = 9
	f.mu.Unlock()
	for range 3 {
		if err := m.Write(oldSession, block, 0); !errors.Is(err, scsi.ErrStaleEpoch) {
			t.Fatalf("got %v, want ErrStaleEpoch", err)
		}
	}
	if losses != 1 {
		t.Fatalf("told %d times", losses)
	}
	closeOld()
	closed()
	if err := m.Write(oldSession, block, 0); !errors.Is(err, context.Canceled) {
		t.Fatalf("a command of a closed session: %v", err)
	}
	must(t, m.Write(context.Background(), block, 0))
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := f.requests[len(f.requests)-1]; last.Fence.Epoch != 10 || last.Seq != 1 {
		t.Fatalf("the new tenancy sent %+v", last)
	}
}

// TestAccessTakenAway: the medium of an initiator that lost its right fails for good, others go on under the new
// generation.
func TestAccessTakenAway(t *testing.T) {
	f := &fakeStore{}
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
	m := testMediums(t, &fakeStore{}).Open(testVolume, "iqn.a")
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
		f := &fakeStore{answer: answer}
		m := testMediums(t, f).Open(testVolume, "iqn.a")
		if err := m.Write(context.Background(), make([]byte, 512), 0); !errors.Is(err, want) {
			t.Errorf("status %d: got %v, want %v", answer, err, want)
		}
	}
	f := &fakeStore{}
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

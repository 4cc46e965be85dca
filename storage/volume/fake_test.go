package volume_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

var errLink = errors.New("the link broke")

// fakeCluster is a store of chunks in memory that behaves as chunkservers do: fences, numbers, leaders, and links that
// lose requests and answers.
type fakeCluster struct {
	sync.Mutex
	rand     *rand.Rand
	faults   bool
	leaders  map[layout.CopysetID]layout.ChunkserverID
	servers  int
	chunks   map[layout.ChunkID][]byte
	fences   map[layout.CopysetID]layout.Fence
	access   map[layout.CopysetID]layout.AccessGeneration
	outcomes map[layout.CopysetID]map[layout.Seq]chunkclient.Response
	marks    map[layout.CopysetID]layout.Seq
	applied  map[layout.Seq]int
	epoch    layout.Epoch
	// hold, if set, keeps writes from being applied until it is closed.
	hold chan struct{}
	wg   sync.WaitGroup
}

// seedBase is added to the seeds of the random tests: 0, or what the environment has as SIM_SEED (make sim).
func seedBase(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("SIM_SEED")
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SIM_SEED: %v", err)
	}
	t.Logf("SIM_SEED=%d", n)
	return n
}

func newFakeCluster(seed uint64, copysets, servers int) *fakeCluster {
	f := &fakeCluster{
		rand: rand.New(rand.NewPCG(seed, 1)), servers: servers,
		leaders: map[layout.CopysetID]layout.ChunkserverID{}, chunks: map[layout.ChunkID][]byte{},
		fences: map[layout.CopysetID]layout.Fence{}, access: map[layout.CopysetID]layout.AccessGeneration{},
		outcomes: map[layout.CopysetID]map[layout.Seq]chunkclient.Response{}, marks: map[layout.CopysetID]layout.Seq{},
		applied: map[layout.Seq]int{},
	}
	for c := 1; c <= copysets; c++ {
		f.leaders[layout.CopysetID(c)] = layout.ChunkserverID(1 + f.rand.IntN(servers))
	}
	return f
}

func (f *fakeCluster) directory() chunkclient.Directory {
	d := chunkclient.Directory{
		Members:   map[layout.CopysetID][]layout.ChunkserverID{},
		Addresses: map[layout.ChunkserverID]string{},
	}
	for s := 1; s <= f.servers; s++ {
		d.Addresses[layout.ChunkserverID(s)] = strconv.Itoa(s)
		for c := range f.leaders {
			d.Members[c] = append(d.Members[c], layout.ChunkserverID(s))
		}
	}
	return d
}

func (f *fakeCluster) router() *chunkclient.Router {
	r := chunkclient.NewRouter(chunkclient.Options{
		Attempt: 20 * time.Millisecond,
		Dial: func(address string) (chunkclient.Link, error) {
			id, err := strconv.Atoi(address)
			return &fakeLink{f, layout.ChunkserverID(id)}, err
		},
	})
	r.SetDirectory(f.directory())
	return r
}

// Attach implements volume.Attacher.
func (f *fakeCluster) Attach(_ context.Context, _ layout.VolumeID, _ string, had layout.Epoch) (volume.Attachment, error) {
	f.Lock()
	defer f.Unlock()
	if had == 0 || had != f.epoch {
		f.epoch++
	}
	return volume.Attachment{Initiator: 7, Epoch: f.epoch}, nil
}

// wanted is the proof of an initiator that wants everything.
type wanted struct{}

func (wanted) Await(context.Context) error { return nil }

func alwaysWanted() volume.Proof { return wanted{} }

type fakeLink struct {
	f  *fakeCluster
	id layout.ChunkserverID
}

func (l *fakeLink) Close() {}

func (l *fakeLink) Start(c *chunkclient.Call) {
	req := c.Request
	req.Data = bytes.Clone(req.Data)
	l.f.Lock()
	dice, times := 0, 1
	var delay time.Duration
	if l.f.faults {
		dice = l.f.rand.IntN(20)
		delay = time.Duration(l.f.rand.IntN(300)) * time.Microsecond
		if dice == 3 {
			times = 2
		}
		if dice == 4 {
			l.f.leaders[req.Copyset] = layout.ChunkserverID(1 + l.f.rand.IntN(l.f.servers))
		}
	}
	hold := l.f.hold
	l.f.Unlock()
	l.f.wg.Go(func() {
		time.Sleep(delay)
		if req.Op == chunkclient.Write && hold != nil {
			<-hold
		}
		if dice == 1 { // lost on its way there
			return
		}
		var data []byte
		var resp chunkclient.Response
		for range times {
			data, resp = l.f.serve(l.id, &req)
		}
		switch dice {
		case 2: // lost on its way back
		case 5:
			c.Finish(nil, chunkclient.Response{}, errLink)
		default:
			c.Finish(data, resp, nil)
		}
	})
}

// serve applies one request as a copyset would.
func (f *fakeCluster) serve(id layout.ChunkserverID, r *chunkclient.Request) ([]byte, chunkclient.Response) {
	f.Lock()
	defer f.Unlock()
	if f.leaders[r.Copyset] != id {
		hint := f.leaders[r.Copyset]
		if f.rand.IntN(2) == 0 {
			hint = 0
		}
		return nil, chunkclient.Response{Status: chunkclient.NotLeader, Leader: hint}
	}
	switch r.Fence.Compare(f.fences[r.Copyset]) {
	case -1:
		return nil, chunkclient.Response{Status: chunkclient.StaleFence, Fence: f.fences[r.Copyset]}
	case 1:
		if r.Fence.Epoch > f.fences[r.Copyset].Epoch {
			delete(f.outcomes, r.Copyset)
			delete(f.marks, r.Copyset)
		}
		f.fences[r.Copyset] = r.Fence
	}
	if r.AccessGeneration < f.access[r.Copyset] {
		return nil, chunkclient.Response{Status: chunkclient.StaleAccess, AccessGeneration: f.access[r.Copyset]}
	}
	if r.Seq != 0 {
		return nil, f.mutate(r)
	}
	if r.Op == chunkclient.Allocation {
		_, ok := f.chunks[r.Chunk]
		return nil, chunkclient.Response{Status: chunkclient.OK, Runs: []chunkclient.Run{{Offset: r.Offset, Length: r.Length, Allocated: ok}}}
	}
	return bytes.Clone(f.chunk(r.Chunk)[r.Offset : r.Offset+r.Length]), chunkclient.Response{Status: chunkclient.OK}
}

func (f *fakeCluster) chunk(id layout.ChunkID) []byte {
	if f.chunks[id] == nil {
		f.chunks[id] = make([]byte, chunkSize)
	}
	return f.chunks[id]
}

func (f *fakeCluster) mutate(r *chunkclient.Request) chunkclient.Response {
	if f.outcomes[r.Copyset] == nil {
		f.outcomes[r.Copyset] = map[layout.Seq]chunkclient.Response{}
	}
	if out, ok := f.outcomes[r.Copyset][r.Seq]; ok {
		return out
	}
	if r.Seq < f.marks[r.Copyset] {
		return chunkclient.Response{Status: chunkclient.Forgotten}
	}
	f.marks[r.Copyset] = max(f.marks[r.Copyset], r.LowWater)
	out := chunkclient.Response{Status: chunkclient.OK}
	part := f.chunk(r.Chunk)[r.Offset : r.Offset+r.Length]
	switch r.Op {
	case chunkclient.Write:
		copy(part, r.Data)
	case chunkclient.WriteZeroes:
		clear(part)
	case chunkclient.Discard:
		from := (r.Offset + layout.BlockSize - 1) / layout.BlockSize * layout.BlockSize
		to := (r.Offset + r.Length) / layout.BlockSize * layout.BlockSize
		if from < to {
			clear(f.chunk(r.Chunk)[from:to])
		}
	case chunkclient.CompareAndWrite:
		compare, write := r.Data[:r.Length], r.Data[r.Length:]
		if i := firstDifference(part, compare); i >= 0 {
			out = chunkclient.Response{Status: chunkclient.Miscompare, Offset: uint32(i)}
		} else {
			copy(part, write)
		}
	}
	f.applied[r.Seq]++
	f.outcomes[r.Copyset][r.Seq] = out
	return out
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

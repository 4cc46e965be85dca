package chunkclient

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/fieldnum"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/protofield"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

func sampleRequests() []Request {
	return []Request{
		{},
		{Op: Read, Copyset: 1, Length: 4096},
		{
			Op: Write, Copyset: 1 << 60, Chunk: layout.ChunkID{Volume: 300, Index: 1<<32 - 1}, Offset: 1<<32 - 512, Length: 127,
			Initiator: 128, Fence: layout.Fence{Epoch: 1<<64 - 1, Generation: 1}, AccessGeneration: 1 << 63, Seq: 1, LowWater: 16384,
			Data: bytes.Repeat([]byte("d"), 200), CRCs: []uint32{0, 1, 1<<32 - 1},
		},
		{Op: CompareAndWrite, Fence: layout.Fence{Generation: 7}, Data: []byte{0}},
	}
}

// generated is a request as the generated code has it.
func generated(r *Request, id uint64) *chunkv1.Request {
	return &chunkv1.Request{
		Id: id, Op: chunkv1.Op(r.Op), Copyset: uint64(r.Copyset), Volume: uint64(r.Chunk.Volume), Chunk: r.Chunk.Index,
		Offset: r.Offset, Length: r.Length, Initiator: uint64(r.Initiator),
		Fence:            &chunkv1.Fence{Epoch: uint64(r.Fence.Epoch), Generation: uint64(r.Fence.Generation)},
		AccessGeneration: uint64(r.AccessGeneration), Seq: uint64(r.Seq), LowWater: uint64(r.LowWater), Data: r.Data, Crcs: r.CRCs,
	}
}

// TestRequestsEncoding: generated code reads what is written here.
func TestRequestsEncoding(t *testing.T) {
	f := stream.NewFrame(0)
	want := &chunkv1.Requests{}
	for i, r := range sampleRequests() {
		id := uint64(1) << (20 * i)
		size := sizeRequest(&r)
		before := f.Len()
		appendRequest(f, &r, id, size)
		if n := f.Len() - before; n > size+requestOverhead-2 {
			t.Errorf("request %d: %d bytes, %d of content", i, n, size)
		}
		want.Requests = append(want.Requests, generated(&r, id))
	}
	got := &chunkv1.Requests{}
	if err := proto.Unmarshal(f.Payload(nil), got); err != nil || !proto.Equal(got, want) {
		t.Fatalf("%v:\ngot  %v\nwant %v", err, got, want)
	}
}

func sampleResponses() *chunkv1.Responses {
	return &chunkv1.Responses{Version: 1, Responses: []*chunkv1.Response{
		{},
		{Id: 1, Status: chunkv1.Status_STATUS_OK},
		{Id: 1 << 40, Status: chunkv1.Status_STATUS_OK, Data: []byte("data"), Crcs: []uint32{1, 1<<32 - 1}},
		{
			Id: 300, Status: chunkv1.Status_STATUS_STALE_FENCE, Leader: 7, Fence: &chunkv1.Fence{Epoch: 1 << 63, Generation: 2},
			AccessGeneration: 9, Offset: 1 << 31, Message: "why not: ü",
		},
		{Status: chunkv1.Status_STATUS_IO, Fence: &chunkv1.Fence{}, Runs: []*chunkv1.Run{{}, {Offset: 4096, Length: 1 << 30, Allocated: true}, {Length: 1}}},
	}}
}

// parseAll returns the answers of a batch as generated messages.
func parseAll(b []byte) ([]*chunkv1.Response, error) {
	var out []*chunkv1.Response
	in := &incoming{take: func(a *answer) {
		c := &Call{}
		a.fill(c)
		r := &c.Response
		p := &chunkv1.Response{
			Id: a.id, Status: chunkv1.Status(r.Status), Data: bytes.Clone(a.data), Leader: uint64(r.Leader), AccessGeneration: uint64(r.AccessGeneration),
			Fence:  &chunkv1.Fence{Epoch: uint64(r.Fence.Epoch), Generation: uint64(r.Fence.Generation)},
			Offset: r.Offset, Message: r.Message,
		}
		for crcs := a.crcs; len(crcs) > 0; crcs = crcs[4:] {
			p.Crcs = append(p.Crcs, binary.LittleEndian.Uint32(crcs))
		}
		for _, run := range r.Runs {
			p.Runs = append(p.Runs, &chunkv1.Run{Offset: run.Offset, Length: run.Length, Allocated: run.Allocated})
		}
		out = append(out, p)
	}}
	own := bytes.Clone(b)
	err := in.Parse(own)
	for i := range own {
		own[i] ^= 0xff // what was parsed has nothing left in it
	}
	return out, err
}

// sameResponses compares with the generated code. Of a message that is not UTF-8 only that code says that it is wrong.
func sameResponses(t *testing.T, b []byte) {
	t.Helper()
	want := &chunkv1.Responses{}
	werr := proto.Unmarshal(b, want)
	got, err := parseAll(b)
	if werr != nil && strings.Contains(werr.Error(), "UTF-8") {
		return
	}
	if (err == nil) != (werr == nil) {
		t.Fatalf("%x: error %v, the generated code says %v", b, err, werr)
	}
	if err != nil {
		return
	}
	if len(got) != len(want.GetResponses()) {
		t.Fatalf("%x: %d responses, want %d", b, len(got), len(want.GetResponses()))
	}
	for i, w := range want.GetResponses() {
		if w.Status < 0 || w.Status > chunkv1.Status_STATUS_IO {
			w.Status = 0
		}
		if w.Fence == nil {
			w.Fence = &chunkv1.Fence{}
		}
		w.ProtoReflect().SetUnknown(nil)
		w.Fence.ProtoReflect().SetUnknown(nil)
		for _, r := range w.Runs {
			r.ProtoReflect().SetUnknown(nil)
		}
		if !proto.Equal(got[i], w) {
			t.Fatalf("%x:\ngot  %v\nwant %v", b, got[i], w)
		}
	}
}

// strange are encodings that the generated code reads but does not write.
func strange() [][]byte {
	return [][]byte{
		{0x12, 10, 0x25, 1, 0, 0, 0, 0x25, 2, 0, 0, 0},                         // checksums not packed
		{0x12, 17, 0x22, 4, 1, 0, 0, 0, 0x25, 2, 0, 0, 0, 0x22, 4, 3, 0, 0, 0}, // both, and cut
		{0x12, 8, 0x32, 2, 8, 1, 0x32, 2, 16, 2},                               // a fence in two parts
		{0x12, 4, 8, 1, 8, 2},                                                  // the last id counts
		{0x12, 3, 0x22, 1, 0},                                                  // a part of a checksum
		{0x12, 2, 0x10, 0x4d},                                                  // a status that is not known
		{0x12, 4, 0x0a, 2, 8, 1},                                               // an id with a length
		{0x10, 1, 0x22, 1, 5, 0x12, 0},                                         // fields that are not known
		{0x12, 5, 0x4a, 3, 0xff, 'a', 0xfe},                                    // a message that is not UTF-8
	}
}

func TestResponsesParse(t *testing.T) {
	b, err := proto.Marshal(sampleResponses())
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(b) + 1 {
		sameResponses(t, b[:n])
	}
	for _, b := range strange() {
		sameResponses(t, b)
	}
}

func TestResponsesLimits(t *testing.T) {
	one := []byte{0x52, 0}
	inner := bytes.Repeat(one, runsMax)
	for n, ok := range map[int]bool{runsMax: true, runsMax + 1: false} {
		if n > runsMax {
			inner = append(inner, one...)
		}
		_, err := parseAll(append(protofield.AppendPrefix(nil, fieldnum.ResponsesResponses, len(inner)), inner...))
		if (err == nil) != ok {
			t.Errorf("%d runs: %v", n, err)
		}
		if !ok {
			break
		}
	}
}

func FuzzResponses(f *testing.F) {
	b, err := proto.Marshal(sampleResponses())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, b := range strange() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { sameResponses(t, b) })
}

// TestBatches: whatever waits is sent, once and in order, in messages that keep to the limits.
func TestBatches(t *testing.T) {
	l := &streamLink{}
	l.mu.flight = map[uint64]*Call{}
	rnd := rand.New(rand.NewPCG(1, 2))
	var want []*chunkv1.Request
	for i := range 1000 {
		r := Request{Op: Write, Copyset: 1, Seq: layout.Seq(i + 1), Data: make([]byte, rnd.IntN(600))}
		switch i % 100 {
		case 10:
			r.Data = make([]byte, batchBytes+rnd.IntN(100000))
		case 50, 51, 52, 53:
			for range batchRequests / 3 { // so small that their number is what counts
				c := &Call{done: make(chan struct{}, 1)}
				l.Start(c)
				want = append(want, generated(&c.Request, c.id))
			}
		case 20, 21, 22:
			r.Data = make([]byte, batchBytes-rnd.IntN(100))
		}
		c := &Call{Request: r, done: make(chan struct{}, 1)}
		l.Start(c)
		want = append(want, generated(&r, c.id))
	}
	var got []*chunkv1.Request
	for f := l.Next(); f != nil; f = l.Next() {
		m := &chunkv1.Requests{}
		if err := proto.Unmarshal(f.Payload(nil), m); err != nil {
			t.Fatal(err)
		}
		n, said := len(m.GetRequests()), l.taken[l.next-1].requests
		if m.GetVersion() != protocolVersion || n == 0 || n != said || n > batchRequests || f.Len() > batchBytes && n > 1 {
			t.Fatalf("version %d: %d requests, said %d, in %d bytes", m.GetVersion(), n, said, f.Len())
		}
		got = append(got, m.GetRequests()...)
	}
	if !slices.EqualFunc(got, want, func(a, b *chunkv1.Request) bool { return proto.Equal(a, b) }) {
		t.Fatal("other requests were sent")
	}
	if l.Next() != nil || l.mu.queued != 0 {
		t.Errorf("%d requests are left", l.mu.queued)
	}
}

func TestQueueBound(t *testing.T) {
	l := &streamLink{}
	l.mu.flight = map[uint64]*Call{}
	for range queuedMax {
		l.Start(&Call{done: make(chan struct{}, 1)})
	}
	c := &Call{done: make(chan struct{}, 1)}
	l.Start(c)
	<-c.Done()
	if c.Err == nil || len(l.mu.flight) != queuedMax {
		t.Errorf("%v, %d in flight", c.Err, len(l.mu.flight))
	}
}

// TestDataIsCopied: a caller may change its data when Start has returned, in however many requests are under way.
func TestDataIsCopied(t *testing.T) {
	const callers, each = 8, 100
	e := &echo{answer: func(*chunkv1.Request) *chunkv1.Response { return &chunkv1.Response{Status: chunkv1.Status_STATUS_OK} }}
	address, _ := serve(t, e, "127.0.0.1:0")
	r := NewRouter(Options{})
	defer r.Close()
	l, err := r.opts.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	for w := range byte(callers) {
		wg.Go(func() {
			data := make([]byte, 5000)
			for i := range each {
				fill := byte(int(w)*31 + i)
				for k := range data {
					data[k] = fill
				}
				c := NewCall()
				c.Request = Request{Op: Write, Copyset: 1, Seq: layout.Seq(fill), Data: data[:len(data)-i]}
				l.Start(c)
				clear(data)
				select {
				case <-c.Done():
				case <-time.After(20 * time.Second):
					t.Error("no answer")
					return
				}
				if c.Err != nil {
					t.Error(c.Err)
				}
				c.Release()
			}
		})
	}
	wg.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.seen) != callers*each {
		t.Errorf("%d requests", len(e.seen))
	}
	for _, q := range e.seen {
		if !bytes.Equal(q.GetData(), bytes.Repeat([]byte{byte(q.GetSeq())}, len(q.GetData()))) {
			t.Fatalf("the data of %d has changed", q.GetSeq())
		}
	}
}

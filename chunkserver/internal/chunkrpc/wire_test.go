package chunkrpc

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/fieldnum"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/protofield"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

func sampleRequests() *chunkv1.Requests {
	return &chunkv1.Requests{Version: 1, Requests: []*chunkv1.Request{
		{},
		{Id: 1, Op: chunkv1.Op_OP_READ, Copyset: 1, Length: 4096},
		{
			Id: 1 << 40, Op: chunkv1.Op_OP_WRITE, Copyset: 1 << 60, Volume: 300, Chunk: 1<<32 - 1, Offset: 1<<32 - 512, Length: 127,
			Initiator: 128, Fence: &chunkv1.Fence{Epoch: 1<<64 - 1, Generation: 1}, AccessGeneration: 1 << 63, Seq: 1, LowWater: 16384,
			Data: []byte("data"), Crcs: []uint32{0, 1, 1<<32 - 1},
		},
		{Id: 5, Op: 77, Fence: &chunkv1.Fence{}, Data: []byte{0}, Crcs: []uint32{9}},
	}}
}

// sameRequests compares with the generated code.
func sameRequests(t *testing.T, tb *batch, b []byte) {
	t.Helper()
	want := &chunkv1.Requests{}
	werr := proto.Unmarshal(b, want)
	err := tb.parse(b)
	defer tb.reset()
	if errors.Is(err, errBatch) && len(want.GetRequests()) > inflightMax {
		return
	}
	if (err == nil) != (werr == nil) {
		t.Fatalf("%x: error %v, the generated code says %v", b, err, werr)
	}
	if err != nil {
		return
	}
	if tb.version != want.GetVersion() || len(tb.reqs) != len(want.GetRequests()) {
		t.Fatalf("%x: got %+v\nwant %v", b, tb, want)
	}
	for i, w := range want.GetRequests() {
		r := &tb.reqs[i]
		c := &r.command
		got := &chunkv1.Request{
			Id: r.id, Op: r.op, Copyset: uint64(r.copyset), Volume: uint64(c.Chunk.Volume), Chunk: c.Chunk.Index, Offset: c.Offset,
			Length: c.Length, Initiator: uint64(c.Initiator),
			Fence:            &chunkv1.Fence{Epoch: uint64(c.Fence.Epoch), Generation: uint64(c.Fence.Generation)},
			AccessGeneration: uint64(c.Access), Seq: uint64(c.Seq), LowWater: uint64(c.LowWater), Data: r.data, Crcs: r.crcs,
		}
		if w.Fence == nil {
			w.Fence = &chunkv1.Fence{}
		}
		w.ProtoReflect().SetUnknown(nil)
		w.Fence.ProtoReflect().SetUnknown(nil)
		if !proto.Equal(got, w) {
			t.Fatalf("%x:\ngot  %v\nwant %v", b, got, w)
		}
	}
}

// strange are encodings that the generated code reads but does not write.
func strange() [][]byte {
	return [][]byte{
		{0x12, 10, 0x75, 1, 0, 0, 0, 0x75, 2, 0, 0, 0},                         // checksums not packed
		{0x12, 17, 0x72, 4, 1, 0, 0, 0, 0x75, 2, 0, 0, 0, 0x72, 4, 3, 0, 0, 0}, // both, and cut
		{0x12, 8, 0x4a, 2, 8, 1, 0x4a, 2, 16, 2},                               // a fence in two parts
		{0x12, 4, 8, 1, 8, 2, 8, 3, 0x1a, 1, 9},                                // the last one counts
		{0x12, 3, 0x72, 1, 0},                                                  // a part of a checksum
		{0x12, 4, 0x0a, 2, 8, 1},                                               // an id with a length
		{0x20, 1, 0x2a, 1, 5, 0x12, 4, 0x78, 1, 0x78, 2},                       // fields that are not known
		{0x12, 4, 0x4a, 2, 0x20, 1},
	}
}

func TestRequestsParse(t *testing.T) {
	var tb batch
	b, err := proto.Marshal(sampleRequests())
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(b) + 1 {
		sameRequests(t, &tb, b[:n])
	}
	for _, b := range strange() {
		sameRequests(t, &tb, b)
	}
}

func FuzzRequests(f *testing.F) {
	b, err := proto.Marshal(sampleRequests())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, b := range strange() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { sameRequests(t, &batch{}, b) })
}

func TestRequestsLimits(t *testing.T) {
	var tb batch
	b := bytes.Repeat([]byte{0x12, 0}, inflightMax)
	if err := tb.parse(b); err != nil || len(tb.reqs) != inflightMax {
		t.Errorf("%d requests: %v", len(tb.reqs), err)
	}
	tb.reset()
	if err := tb.parse(append(b, 0x12, 0)); !errors.Is(err, errBatch) {
		t.Errorf("one more: %v", err)
	}
	tb.reset()
	crcs := make([]byte, 4*(keepCRCs+1))
	inner := append(protofield.AppendPrefix(nil, fieldnum.RequestCRCs, len(crcs)), crcs...)
	if err := tb.parse(append(protofield.AppendPrefix(nil, fieldnum.RequestsRequests, len(inner)), inner...)); err != nil || len(tb.reqs[0].crcs) != keepCRCs+1 {
		t.Errorf("checksums: %v", err)
	}
	if tb.reset(); cap(tb.crcs) > keepCRCs {
		t.Errorf("space for %d checksums is kept", cap(tb.crcs))
	}
}

// TestResponsesEncoding: generated code reads what is written here, whether it is lent or copied.
func TestResponsesEncoding(t *testing.T) {
	bad := &response{}
	bad.say(errors.New("name \xff\xfe"))
	out := stream.NewFrame(batchBytes)
	for _, list := range [][]*response{
		nil,
		{{}},
		{
			{id: 1, status: chunkv1.Status_STATUS_OK},
			{id: 1 << 40, status: chunkv1.Status_STATUS_OK, data: bytes.Repeat([]byte("d"), 300), crcs: []uint32{0, 1<<32 - 1}},
			{
				id: 300, status: chunkv1.Status_STATUS_STALE_FENCE, leader: 7, fence: layout.Fence{Epoch: 1 << 63, Generation: 2},
				access: 1<<64 - 1, offset: 1 << 31, message: "why not: ü",
			},
			{status: chunkv1.Status_STATUS_OK, fence: layout.Fence{Generation: 1}, runs: []blockstore.Run{{}, {Offset: 4096, Length: 1 << 30, Allocated: true}, {Length: 1}}},
			bad,
			{id: 5, status: chunkv1.Status_STATUS_OK, data: bytes.Repeat([]byte("e"), lendMin), crcs: []uint32{7}},
			{id: 6, status: chunkv1.Status_STATUS_OK, data: bytes.Repeat([]byte("f"), lendMin)},
		},
	} {
		want := &chunkv1.Responses{Version: Version}
		for _, p := range list {
			w := &chunkv1.Response{
				Id: p.id, Status: p.status, Data: p.data, Crcs: p.crcs, Leader: uint64(p.leader), AccessGeneration: uint64(p.access),
				Offset: p.offset, Message: p.message,
			}
			if p.fence != (layout.Fence{}) {
				w.Fence = &chunkv1.Fence{Epoch: uint64(p.fence.Epoch), Generation: uint64(p.fence.Generation)}
			}
			for _, r := range p.runs {
				w.Runs = append(w.Runs, &chunkv1.Run{Offset: r.Offset, Length: r.Length, Allocated: r.Allocated})
			}
			want.Responses = append(want.Responses, w)
		}
		out.Reset()
		write(out, list)
		b := out.Payload(nil)
		got := &chunkv1.Responses{}
		if err := proto.Unmarshal(b, got); err != nil || !proto.Equal(got, want) {
			t.Fatalf("%v, %d bytes:\ngot  %v\nwant %v", err, len(b), got, want)
		}
	}
}

// TestFill: responses are cut into messages that keep to the limit, unless one alone is larger.
func TestFill(t *testing.T) {
	list := make([]*response, 200)
	for i := range list {
		list[i] = &response{id: 1 << 62, status: chunkv1.Status_STATUS_OK, data: make([]byte, i%70*1000), crcs: make([]uint32, i%70/4)}
	}
	out := stream.NewFrame(batchBytes)
	for rest := list; len(rest) > 0; {
		n := fill(rest)
		out.Reset()
		if write(out, rest[:n]); n == 0 || n > 1 && out.Len() > batchBytes {
			t.Fatalf("%d responses in %d bytes", n, out.Len())
		}
		rest = rest[n:]
	}
}

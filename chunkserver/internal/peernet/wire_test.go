package peernet

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	raftv1 "github.com/ashlar-storage/ashlar/api/raft/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

func samples() []*raftpb.Message {
	return []*raftpb.Message{
		{},
		heartbeat(7).Raft,
		entries(3, 1000).Raft,
		{
			Type: raftpb.MsgApp.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(3)), LogTerm: new(uint64(4)),
			Index: new(uint64(5)), Commit: new(uint64(6)), Reject: new(true), RejectHint: new(uint64(8)), Context: []byte("c"),
			Entries: []*raftpb.Entry{
				{}, {Data: []byte{}}, {Index: new(uint64(1)), Term: new(uint64(2)), Type: raftpb.EntryConfChangeV2.Enum(), Data: []byte("data")},
			},
			Snapshot: &raftpb.Snapshot{Data: []byte("s"), Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}},
		},
		{
			Type: raftpb.MsgAppResp.Enum(), To: new(uint64(0)), From: new(uint64(1<<64 - 1)), Term: new(uint64(1 << 63)), LogTerm: new(uint64(127)),
			Index: new(uint64(128)), Commit: new(uint64(16384)), Vote: new(uint64(3)), Reject: new(false), RejectHint: new(uint64(8)),
			Entries: []*raftpb.Entry{{Type: raftpb.EntryNormal.Enum(), Data: make([]byte, 200)}, {Index: new(uint64(0))}},
		},
		{Reject: new(true), Entries: []*raftpb.Entry{{}}},
		{Responses: []*raftpb.Message{{Commit: new(uint64(5))}}},
	}
}

// same compares with the general decoder.
func same(t *testing.T, b []byte) {
	t.Helper()
	want := &raftpb.Message{}
	werr := proto.Unmarshal(b, want)
	own := append([]byte(nil), b...)
	room := batchSpace()
	got, err := room.decode(own)
	for i := range own {
		own[i] ^= 0xff // the message has nothing left in it
	}
	if errors.Is(err, errTooMuch) && (len(b) > generalMax || len(want.GetEntries()) > entriesMax) {
		return
	}
	if (err == nil) != (werr == nil) {
		t.Fatalf("%x: error %v, the general decoder says %v", b, err, werr)
	}
	if err == nil && !proto.Equal(got, want) {
		t.Fatalf("%x:\ngot  %v\nwant %v", b, got, want)
	}
}

func TestDecode(t *testing.T) {
	for _, m := range samples() {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(b) + 1 {
			same(t, b[:n])
		}
	}
}

// newer are messages from a newer release: a field that is not known in a message, and in an entry.
func newer(t *testing.T) []*raftpb.Message {
	t.Helper()
	a, b := &raftpb.Message{}, &raftpb.Message{}
	if err := proto.Unmarshal([]byte{0x10, 5, 0xa0, 1, 7}, a); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal([]byte{0x10, 5, 0x3a, 5, 0x10, 1, 0xa0, 1, 7}, b); err != nil || len(b.Entries) != 1 {
		t.Fatal(err)
	}
	return []*raftpb.Message{a, b}
}

// TestBatchEncoding: generated code reads what is written here, of which Size tells the length, whether it is lent or
// appended, and parse reads it as well.
func TestBatchEncoding(t *testing.T) {
	var msgs []multiraft.Message
	for i, m := range append(append(samples(), newer(t)...), entries(1, lendMin).Raft, entries(2, 300<<10).Raft, entries(3, lendMin-1).Raft) {
		msgs = append(msgs, multiraft.Message{Copyset: layout.CopysetID(i * 100), Stamp: uint64(i) << 50, Raft: m})
	}
	out := &outgoing{}
	for i := range msgs {
		if added, err := out.add(&msgs[i]); !added || err != nil {
			appended, size := out.AppendTo(nil), out.Size()
			b := out.Lend().Materialize()
			if !bytes.Equal(b, appended) || size != len(b) || len(b) == 0 {
				t.Fatalf("lent %d bytes, appended %d, said %d", len(b), len(appended), size)
			}
			if added, err := out.add(&msgs[i]); !added || err != nil {
				t.Fatal(added, err)
			}
		}
		if out.count > 1 && out.Size() > batchBytes {
			t.Fatalf("%d messages of %d bytes", out.count, out.Size())
		}
		alone := &outgoing{}
		_, _ = alone.add(&msgs[i])
		size := alone.Size()
		check(t, alone.Lend().Materialize(), size, msgs[i])
	}
}

// check compares a batch of one message with the generated code and with what was meant.
func check(t *testing.T, b []byte, size int, want multiraft.Message) {
	t.Helper()
	g := &raftv1.Batch{}
	r := &raftpb.Message{}
	if err := proto.Unmarshal(b, g); err != nil || len(g.GetMessages()) != 1 || g.GetVersion() != Version || size != len(b) {
		t.Fatalf("%v: %d bytes, said %d: %v", err, len(b), size, g)
	}
	m := g.GetMessages()[0]
	if err := proto.Unmarshal(m.GetRaft(), r); err != nil || !proto.Equal(r, want.Raft) || m.GetCopyset() != uint64(want.Copyset) || m.GetStamp() != want.Stamp {
		t.Fatalf("%v: got %v, want %v", err, r, want.Raft)
	}
	in := &incoming{}
	if err := in.parse(b); err != nil || len(in.messages) != 1 || in.version != Version {
		t.Fatal(err)
	}
	if got := in.messages[0]; got.Copyset != want.Copyset || got.Stamp != want.Stamp || !proto.Equal(got.Raft, want.Raft) {
		t.Fatalf("parsed %v, want %v", got.Raft, want.Raft)
	}
}

func sampleBatch(t testing.TB) []byte {
	t.Helper()
	b := &raftv1.Batch{Version: 1, Cluster: []byte("sixteen bytes id"), From: 1 << 40, To: 3}
	for i, m := range samples() {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b.Messages = append(b.Messages, &raftv1.Message{Copyset: uint64(i), Raft: raw[:min(len(raw), 300)], Stamp: 1 << 60})
		if len(raw) > 300 {
			b.Messages[i].Raft = nil
		}
	}
	out, err := proto.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sameBatch compares with the generated code.
func sameBatch(t *testing.T, b []byte) {
	t.Helper()
	want := &raftv1.Batch{}
	werr := proto.Unmarshal(b, want)
	var msgs []*raftpb.Message
	for _, m := range want.GetMessages() {
		r := &raftpb.Message{}
		if err := proto.Unmarshal(m.GetRaft(), r); err != nil {
			werr = err
		}
		msgs = append(msgs, r)
	}
	in := &incoming{}
	err := in.parse(b)
	if errors.Is(err, errTooMuch) && len(b) > 2*messagesMax {
		return
	}
	if (err == nil) != (werr == nil) {
		t.Fatalf("%x: error %v, the generated code says %v", b, err, werr)
	}
	if werr != nil {
		return
	}
	if in.version != want.GetVersion() || !bytes.Equal(in.cluster, want.GetCluster()) || uint64(in.from) != want.GetFrom() || uint64(in.to) != want.GetTo() {
		t.Fatalf("%x: got %+v, want %v", b, in, want)
	}
	if !slices.EqualFunc(in.messages, msgs, func(a multiraft.Message, b *raftpb.Message) bool { return proto.Equal(a.Raft, b) }) {
		t.Fatalf("%x: got %+v, want %v", b, in.messages, msgs)
	}
	for i, m := range want.GetMessages() {
		if got := in.messages[i]; uint64(got.Copyset) != m.GetCopyset() || got.Stamp != m.GetStamp() {
			t.Fatalf("%x: got %+v, want %v", b, got, m)
		}
	}
}

func TestBatchParse(t *testing.T) {
	b := sampleBatch(t)
	for n := range len(b) + 1 {
		sameBatch(t, b[:n])
	}
}

// batch returns the encoding of a batch of messages whose raft messages are encoded as raw says.
func batch(raws ...[]byte) []byte {
	var b []byte
	for _, raw := range raws {
		b = frame.AppendPrefix(b, batchMessages, frame.SizeBytes(len(raw)))
		b = append(frame.AppendPrefix(b, messageRaft, len(raw)), raw...)
	}
	return b
}

// TestBatchLimits: what is small on the wire can not take much memory, whether it is in one message or in many, and
// whoever decodes it.
func TestBatchLimits(t *testing.T) {
	none := []byte{fieldEntries<<3 | 2, 0}
	voters := func(n int) []byte { // a snapshot whose configuration has n voters
		b := append(frame.AppendPrefix(nil, 1, n), make([]byte, n)...)
		for _, num := range []protowire.Number{1, 2, 9} { // ConfState, SnapshotMetadata, Snapshot
			b = append(frame.AppendPrefix(nil, num, len(b)), b...)
		}
		return b
	}
	full := bytes.Repeat(none, entriesMax)
	most := voters(generalMax - 16)
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"messages":               {bytes.Repeat([]byte{0x2a, 0}, messagesMax), true},
		"too many messages":      {bytes.Repeat([]byte{0x2a, 0}, messagesMax+1), false},
		"entries":                {batch(full), true},
		"too many entries":       {batch(append(none, full...)), false},
		"an entry elsewhere":     {batch(full, none), false},
		"entries with a context": {batch(append([]byte{12<<3 | 2, 0}, full...)), true},
		"too many with one":      {batch(append([]byte{12<<3 | 2, 0}, full...), none), false},
		"voters":                 {batch(most), true},
		"too many voters":        {batch(voters(generalMax)), false},
		"voters twice":           {batch(most, most), false},
		"messages in a message":  {batch(bytes.Repeat([]byte{14<<3 | 2, 0}, generalMax/2+1)), false},
		"numbers":                {batch(bytes.Repeat([]byte{fieldTo << 3, 1}, generalMax)), true},
	} {
		err := (&incoming{}).parse(c.b)
		if c.ok && err != nil || !c.ok && !errors.Is(err, errTooMuch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSmallBatchesHoldLittle: what waits in grpc holds memory by its length.
func TestSmallBatchesHoldLittle(t *testing.T) {
	for _, c := range []struct{ messages, most int }{{1, 256}, {10, 2 << 10}, {300, batchBytes}} {
		out := &outgoing{}
		for i := range c.messages {
			m := heartbeat(uint64(i))
			if added, err := out.add(&m); !added || err != nil {
				t.Fatal(added, err)
			}
		}
		sent, held := 0, 0
		for _, p := range out.Lend() {
			sent += p.Len()
			held += cap(p.ReadOnlyData())
			p.Free()
		}
		if sent < 10*c.messages || held > c.most {
			t.Errorf("%d messages: %d bytes hold %d", c.messages, sent, held)
		}
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(sampleBatch(f))
	f.Fuzz(func(t *testing.T, b []byte) { sameBatch(t, b) })
}

// rawBody is a message that is sent as it is.
type rawBody []byte

func (p rawBody) Size() int                  { return len(p) }
func (p rawBody) AppendTo(dst []byte) []byte { return append(dst, p...) }
func (p rawBody) Parse([]byte) error         { return nil }

// TestMalformedBatch: a batch that can not be parsed, or is not for us, ends its stream with an error that says so.
func TestMalformedBatch(t *testing.T) {
	a := start(t, 1, 9, "127.0.0.1:0")
	conn, err := grpc.NewClient("passthrough:///"+a.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	hello := func(version uint32, cluster byte, to uint64) []byte {
		c := [16]byte{cluster}
		b, err := proto.Marshal(&raftv1.Batch{Version: version, Cluster: c[:], From: 2, To: to})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := hello(1, 9, 1)
	for name, c := range map[string]struct {
		batches [][]byte
		want    codes.Code
		says    string
	}{
		"truncated": {[][]byte{good, {0x2a, 5, 8}}, codes.InvalidArgument, "EOF"},
		"raft":      {[][]byte{good, {0x2a, 4, 0x12, 2, 0x3a, 9}}, codes.InvalidArgument, "EOF"},
		"entry":     {[][]byte{good, {0x2a, 6, 0x12, 4, 0x3a, 2, 0x22, 9}}, codes.InvalidArgument, "EOF"},
		"at once":   {[][]byte{{0}}, codes.InvalidArgument, "field"},
		"version":   {[][]byte{hello(2, 9, 1)}, codes.FailedPrecondition, "version"},
		"cluster":   {[][]byte{hello(1, 8, 1)}, codes.FailedPrecondition, "cluster"},
		"to":        {[][]byte{hello(1, 9, 5)}, codes.FailedPrecondition, "not 5"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		st, err := raftv1.NewRaftClient(conn).Send(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range c.batches {
			if err := st.SendMsg(&frame.Message{Body: rawBody(b)}); err != nil {
				break // the answer says why
			}
		}
		err = st.RecvMsg(&raftv1.SendReply{})
		if cancel(); status.Code(err) != c.want || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, _ := a.sink.count(); got > 0 {
		t.Errorf("%d messages were taken", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { same(t, b) })
}

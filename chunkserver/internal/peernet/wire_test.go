package peernet

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	raftv1 "github.com/ashlar-storage/ashlar/api/raft/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/quiet"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/protofield"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
	"github.com/ashlar-storage/ashlar/storage/stream/streamtest"
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

// TestBatchEncoding: generated code reads what is written here, whether it is lent or copied, and parse reads it as well.
func TestBatchEncoding(t *testing.T) {
	var msgs []multiraft.Message
	for i, m := range append(append(samples(), newer(t)...), entries(1, lendMin).Raft, entries(2, 300<<10).Raft, entries(3, lendMin-1).Raft) {
		msgs = append(msgs, multiraft.Message{Copyset: layout.CopysetID(i * 100), Stamp: uint64(i) << 50, Quiet: quiet.Incarnation(i%2) << 63, Raft: m})
	}
	msgs = append(msgs, multiraft.Message{Quiet: 7}) // a beat
	out := &outgoing{}
	out.reset()
	for i := range msgs {
		if !out.add(&msgs[i]) {
			if out.reset(); !out.add(&msgs[i]) {
				t.Fatal("an empty batch takes no message")
			}
		}
		if out.count > 1 && out.frame.Len() > batchBytes {
			t.Fatalf("%d messages of %d bytes", out.count, out.frame.Len())
		}
		alone := &outgoing{}
		alone.reset()
		_ = alone.add(&msgs[i])
		check(t, alone.frame.Payload(nil), msgs[i])
	}
}

// check compares a batch of one message with the generated code and with what was meant.
func check(t *testing.T, b []byte, want multiraft.Message) {
	t.Helper()
	g := &raftv1.Batch{}
	r := &raftpb.Message{}
	if err := proto.Unmarshal(b, g); err != nil || len(g.GetMessages()) != 1 || g.GetVersion() != Version {
		t.Fatalf("%v: %d bytes: %v", err, len(b), g)
	}
	m := g.GetMessages()[0]
	if want.Raft == nil {
		want.Raft = &raftpb.Message{}
	}
	if err := proto.Unmarshal(m.GetRaft(), r); err != nil || !proto.Equal(r, want.Raft) || m.GetCopyset() != uint64(want.Copyset) || m.GetStamp() != want.Stamp || m.GetQuiet() != uint64(want.Quiet) {
		t.Fatalf("%v: got %v, want %v", err, r, want.Raft)
	}
	in := &incoming{}
	if err := in.parse(b); err != nil || len(in.messages) != 1 {
		t.Fatal(err)
	}
	if got := in.messages[0]; got.Copyset != want.Copyset || got.Stamp != want.Stamp || got.Quiet != want.Quiet || !proto.Equal(got.Raft, want.Raft) {
		t.Fatalf("parsed %v, want %v", got.Raft, want.Raft)
	}
}

func sampleBatch(t testing.TB) []byte {
	t.Helper()
	b := &raftv1.Batch{Version: 1}
	for i, m := range samples() {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b.Messages = append(b.Messages, &raftv1.Message{Copyset: uint64(i), Raft: raw[:min(len(raw), 300)], Stamp: 1 << 60, Quiet: uint64(i)})
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
	if werr == nil && want.GetVersion() != Version {
		werr = errors.New("another version")
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
	if !slices.EqualFunc(in.messages, msgs, func(a multiraft.Message, b *raftpb.Message) bool { return proto.Equal(a.Raft, b) }) {
		t.Fatalf("%x: got %+v, want %v", b, in.messages, msgs)
	}
	for i, m := range want.GetMessages() {
		if got := in.messages[i]; uint64(got.Copyset) != m.GetCopyset() || got.Stamp != m.GetStamp() || uint64(got.Quiet) != m.GetQuiet() {
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
	b := []byte{batchVersion << 3, Version}
	for _, raw := range raws {
		b = protofield.AppendPrefix(b, batchMessages, protofield.SizeBytes(len(raw)))
		b = append(protofield.AppendPrefix(b, messageRaft, len(raw)), raw...)
	}
	return b
}

// TestBatchLimits: what is small on the wire can not take much memory, whether it is in one message or in many, and
// whoever decodes it.
func TestBatchLimits(t *testing.T) {
	none := []byte{fieldEntries<<3 | 2, 0}
	voters := func(n int) []byte { // a snapshot whose configuration has n voters
		b := append(protofield.AppendPrefix(nil, 1, n), make([]byte, n)...)
		for _, num := range []protowire.Number{1, 2, 9} { // ConfState, SnapshotMetadata, Snapshot
			b = append(protofield.AppendPrefix(nil, num, len(b)), b...)
		}
		return b
	}
	full := bytes.Repeat(none, entriesMax)
	most := voters(generalMax - 16)
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"messages":               {append(batch(), bytes.Repeat([]byte{0x2a, 0}, messagesMax)...), true},
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

func FuzzBatch(f *testing.F) {
	f.Add(sampleBatch(f))
	f.Fuzz(func(t *testing.T, b []byte) { sameBatch(t, b) })
}

// TestMalformedBatch: a batch that can not be parsed ends its stream with an error that says so.
func TestMalformedBatch(t *testing.T) {
	a := start(t, 1, 9, "127.0.0.1:0")
	for name, c := range map[string]struct {
		batch []byte
		says  string
	}{
		"truncated": {[]byte{8, 1, 0x2a, 5, 8}, "EOF"},
		"raft":      {[]byte{8, 1, 0x2a, 4, 0x12, 2, 0x3a, 9}, "EOF"},
		"entry":     {[]byte{8, 1, 0x2a, 6, 0x12, 4, 0x3a, 2, 0x22, 9}, "EOF"},
		"at once":   {[]byte{0}, "field"},
		"version":   {[]byte{8, 2}, "version 2"},
		"none":      {[]byte{}, "version 0"},
	} {
		for _, purpose := range []stream.Purpose{stream.RaftControl, stream.RaftData} {
			p := streamtest.Dial(t, a.addr, stream.Hello{Purpose: purpose, Cluster: a.cfg.Cluster, From: 2, To: 1})
			p.Send(c.batch)
			var end *stream.EndError
			if _, err := p.Recv(); !errors.As(err, &end) || !strings.Contains(end.Reason, c.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if got, _ := a.sink.count(); got > 0 {
		t.Errorf("%d messages were taken", got)
	}
}

// TestRefused: a stream that is not for us is refused, with the reason.
func TestRefused(t *testing.T) {
	a := start(t, 1, 9, "127.0.0.1:0")
	good := stream.Hello{Purpose: stream.RaftData, Cluster: a.cfg.Cluster, From: 2, To: 1}
	for name, c := range map[string]struct {
		change func(*stream.Hello)
		want   stream.Code
	}{
		"cluster": {func(h *stream.Hello) { h.Cluster[3]++ }, stream.BadCluster},
		"to":      {func(h *stream.Hello) { h.To = 5 }, stream.BadChunkserver},
		"nobody":  {func(h *stream.Hello) { h.To = 0 }, stream.BadChunkserver},
		"from":    {func(h *stream.Hello) { h.From = 0 }, stream.BadChunkserver},
		"purpose": {func(h *stream.Hello) { h.Purpose = stream.Chunk }, stream.BadPurpose},
		"early":   {func(*stream.Hello) { a.host.Store(nil) }, stream.NotReady},
	} {
		h := good
		c.change(&h)
		_, err := stream.Dial(t.Context(), a.addr, h, 0)
		a.Bind(a.sink)
		var refused *stream.RefusedError
		if !errors.As(err, &refused) || refused.Code != c.want {
			t.Errorf("%s: %v", name, err)
		}
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

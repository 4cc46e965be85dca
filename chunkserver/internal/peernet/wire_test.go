package peernet

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
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
	}
}

// same compares with the general decoder.
func same(t *testing.T, b []byte) {
	t.Helper()
	want := &raftpb.Message{}
	werr := proto.Unmarshal(b, want)
	got, err := decode(append([]byte(nil), b...))
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

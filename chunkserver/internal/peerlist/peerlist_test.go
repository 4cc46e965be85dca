package peerlist

import (
	"maps"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

func TestList(t *testing.T) {
	fs := vfs.NewMem()
	l, err := Open(fs, ".")
	if err != nil {
		t.Fatal(err)
	}
	want := map[layout.CopysetID]Record{}
	for i := range layout.CopysetID(20) {
		want[i+1] = Record{Peer: layout.PeerID(i * 3), State: State(1 + i%4)}
		if err := l.Set(i+1, want[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	want[3] = Record{Peer: 99, State: Removed}
	if err := l.Set(3, want[3]); err != nil {
		t.Fatal(err)
	}
	again, err := Open(fs, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*List{l, again} {
		if got := x.All(); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if again.Peer(3) != want[3] || again.Peer(77) != (Record{}) {
		t.Error("Peer differs from All")
	}
}

func TestSetFails(t *testing.T) {
	fs := vfs.NewMem()
	l, err := Open(fs, ".")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Set(1, Record{Peer: 1, State: Live}); err != nil {
		t.Fatal(err)
	}
	fs.SetCapacity(1)
	if err := l.Set(2, Record{Peer: 2, State: Live}); err == nil {
		t.Fatal("a full disk took the list")
	}
	if len(l.All()) != 1 {
		t.Error("the list changed all the same")
	}
}

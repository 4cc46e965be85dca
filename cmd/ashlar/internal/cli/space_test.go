package cli

import (
	"strings"
	"testing"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// TestDiskSpace: each word of the message comes out under its own name, and a chunkserver that told nothing shows nothing.
func TestDiskSpace(t *testing.T) {
	const mib = 1 << 20
	o := newChunkserverOut(&metav1.Chunkserver{Id: 1, Space: &metav1.DiskSpace{
		DataFile: 100 * mib, Content: 1 * mib, Versions: 2 * mib, Incoming: 3 * mib, Logged: 4 * mib, Reclaimable: 5 * mib, Spare: 6 * mib,
		Holes: 7 * mib, RaftLog: 8 * mib, Index: 9 * mib, Blocks: 512, Pieces: 20, ScatteredChunks: 3, Moved: 10 * mib, GivenBack: 11 * mib, Reserved: 12 * mib,
	}})
	want := diskSpaceOut{
		DataFileBytes: 100 * mib, ContentBytes: 1 * mib, VersionsBytes: 2 * mib, IncomingBytes: 3 * mib, LoggedBytes: 4 * mib,
		ReclaimableBytes: 5 * mib, SpareBytes: 6 * mib, HolesBytes: 7 * mib, RaftLogBytes: 8 * mib, IndexBytes: 9 * mib, ReservedBytes: 12 * mib,
		PiecesPerMiB: 10, ScatteredChunks: 3, MovedBytes: 10 * mib, GivenBackBytes: 11 * mib,
	}
	if o.Space == nil || *o.Space != want {
		t.Errorf("%+v", o.Space)
	}
	var b strings.Builder
	o.table(&b)
	for _, s := range []string{
		"100MiB: content 1MiB, versions 2MiB, incoming 3MiB, logged 4MiB, reclaimable 5MiB, spare 6MiB, holes 7MiB",
		"raft log 8MiB, index 9MiB, reserved 12MiB", "10.0 pieces on average, 3 chunks are scattered, 10MiB gathered, 11MiB given back",
	} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("no %q in\n%s", s, b.String())
		}
	}
	b.Reset()
	o = newChunkserverOut(&metav1.Chunkserver{Id: 1})
	o.table(&b)
	if o.Space != nil || strings.Contains(b.String(), "Data file") {
		t.Errorf("of a chunkserver that told nothing: %+v\n%s", o.Space, b.String())
	}
}

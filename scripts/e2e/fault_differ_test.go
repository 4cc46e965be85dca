//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// forge writes a block into the replica of a copyset on a chunkserver that is down, with its checksum, as a fault of software
// might that no checksum shows.
func forge(t *testing.T, dir string, copyset layout.CopysetID) {
	t.Helper()
	id, err := os.ReadFile(filepath.Join(dir, "store", "IDENTITY"))
	must(t, err)
	var whose blockstore.Identity
	copy(whose.Cluster[:], id[16:])
	whose.Chunkserver = layout.ChunkserverID(binary.LittleEndian.Uint64(id[32:]))
	s, err := blockstore.Open(vfs.OS(), filepath.Join(dir, "store"), whose, blockstore.DefaultOptions())
	must(t, err)
	c, err := s.Copyset(copyset)
	must(t, err)
	must(t, c.Write(layout.ChunkID{Volume: 1, Index: 3}, 8*layout.BlockSize, bytes.Repeat([]byte("forged.."), layout.BlockSize/8), nil))
	must(t, s.Commit([]*blockstore.Frozen{c.Freeze(c.State())}))
	must(t, s.Close())
}

// TestFaultReplicaDiffers: a replica that holds something else than the others, with checksums that fit, is found by a
// comparison, named, ended, and replaced by a new peer.
func TestFaultReplicaDiffers(t *testing.T) {
	cl := startCluster(t, cluster.Options{})
	type shown struct {
		Peers []struct{ ID, Chunkserver uint64 }
		// Operation is not nil while a peer is being replaced.
		Operation *struct{}
	}
	show := func() (s shown) {
		must(t, json.Unmarshal([]byte(admin(t, cl, "copyset", "show", "1", "-o", "json")), &s))
		return s
	}
	if out := admin(t, cl, "copyset", "verify", "1"); !strings.Contains(out, "the replicas hold the same") {
		t.Fatal(out)
	}
	before := show()
	odd := before.Peers[0]
	role := places(t, cl)[odd.Chunkserver].role
	must(t, cl.Kill(role))
	forge(t, filepath.Join(cl.Dir(), role), 1)
	must(t, cl.StartRole(t.Context(), role))
	began := time.Now()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		// It fails while the chunkserver starts, and when replicas differ.
		out, _ := cl.Admin(t.Context(), "copyset", "verify", "1")
		now := show()
		gone := now.Operation == nil && len(now.Peers) == 3
		for _, p := range now.Peers {
			gone = gone && p.ID != odd.ID
		}
		if gone {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not replaced: %+v\n%s", now, out)
		}
	}
	t.Logf("found, ended and replaced within %v", time.Since(began).Round(time.Millisecond))
	log, err := os.ReadFile(filepath.Join(cl.Dir(), "log", "metaserver-1.log"))
	must(t, err)
	if named := fmt.Sprintf(`"copyset":1,"index":[0-9]+,"compared":\[[0-9,]+\],"odd":\[%d\]`, odd.ID); !regexp.MustCompile(named).Match(log) {
		t.Errorf("the log of the metaserver does not name peer %d", odd.ID)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		out, err := cl.Admin(t.Context(), "copyset", "verify", "1")
		if err == nil && strings.Count(string(out), "\nPeer ") == 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("afterwards: %v\n%s", err, out)
		}
	}
}

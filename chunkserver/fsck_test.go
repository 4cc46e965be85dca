package chunkserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// contents returns the checksums of all files below dir.
func contents(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	out := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// flipped changes a byte of a file until undo is called.
func flipped(t *testing.T, name string, off int64) (undo func()) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	write := func() {
		b[0] ^= 0x20
		if _, err := f.WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
	}
	write()
	return func() {
		write()
		_ = f.Close()
	}
}

// find returns where want begins in a file, from an offset on.
func find(t *testing.T, name string, want []byte) int64 {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, want)
	if at < 0 {
		t.Fatalf("%s does not hold it", name)
	}
	return int64(at)
}

// TestFsck checks the directory of a chunkserver that was stopped, whole and with damage of each kind.
func TestFsck(t *testing.T) {
	b := newTestbedOf(t, 3, 20*time.Millisecond)
	c := b.dial(b.leader())
	small, large := bytes.Repeat([]byte("smallone"), layout.BlockSize/8), bytes.Repeat([]byte("largeone"), 32*layout.BlockSize/8)
	copy(large[3*layout.BlockSize:], bytes.Repeat([]byte("the 4th "), layout.BlockSize/8))
	w := request(chunkv1.Op_OP_WRITE, 64, 1, large)
	w.Length = uint32(len(large))
	if r := c.do(w)[2]; r.GetStatus() != chunkv1.Status_STATUS_OK {
		t.Fatal(r)
	}
	if r := c.do(request(chunkv1.Op_OP_WRITE, 7, 2, small))[3]; r.GetStatus() != chunkv1.Status_STATUS_OK {
		t.Fatal(r)
	}
	c.close()
	dir := b.nodes[1].dir
	check := func(data bool) (*FsckReport, error) { return Fsck(t.Context(), dir, data, nil) }
	if _, err := check(true); err == nil || !strings.Contains(err.Error(), "stop its chunkserver first") {
		t.Fatalf("of a chunkserver that runs: %v", err)
	}
	var r *FsckReport
	for try := 0; ; try++ { // until a checkpoint has brought all to the index
		time.Sleep(500 * time.Millisecond)
		b.halt(1)
		var err error
		if r, err = check(false); err != nil || r.Total != 0 || try > 20 {
			t.Fatalf("%+v, %v", r, err)
		}
		if r.Blocks == 33 {
			break
		}
		b.start(1)
	}
	before := contents(t, dir)
	r, err := check(true)
	if err != nil || r.Total != 0 || r.Copysets != 3 || r.Chunkserver != 1 || r.Blocks != 33 || r.Sideloaded != 32 || r.Verified != 65 {
		t.Fatalf("%+v, %v", r, err)
	}
	after := contents(t, dir)
	for name, sum := range before {
		if after[name] != sum {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files instead of %d", len(after), len(before))
	}
	expect := func(what string, undo func(), data bool, want ...string) {
		t.Helper()
		defer undo()
		r, err := check(data)
		if err != nil || r.Total != len(want) || len(r.Findings) != len(want) {
			t.Errorf("%s: %v, %v", what, r, err)
			return
		}
		for i, f := range r.Findings {
			if !strings.Contains(f.String(), want[i]) {
				t.Errorf("%s: found %q, want %q", what, f, want[i])
			}
		}
	}
	blocks := dir + "/store/blocks"
	at := find(t, blocks, []byte("smallone"))
	expect("a small write", flipped(t, blocks, at+100), true, "data: copyset 1: volume 9 chunk 2 block 7 (address ")
	expect("a small write, unread", flipped(t, blocks, at+100), false)
	at = find(t, blocks, []byte("the 4th "))
	expect("a large write", flipped(t, blocks, at+100), true, "data: copyset 1: volume 9 chunk 2 block 67 (address ", "data: copyset 1: entry ")
	segments, err := filepath.Glob(dir + "/log/*.log")
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	at = find(t, segments[0], []byte("smallone"))
	expect("the log", flipped(t, segments[0], at+100), true, "log: raftlog: corrupt: "+filepath.Base(segments[0]))
	expect("the log's header", flipped(t, segments[0], 20), true, "log: raftlog: corrupt: "+filepath.Base(segments[0]))
	expect("the list of peers", flipped(t, dir+"/PEERS", 20), true, "identity: ")
	expect("the identity", flipped(t, dir+"/CHUNKSERVER", 20), true, "identity: ", "log: not checked")
	expect("the store's identity", flipped(t, dir+"/store/IDENTITY", 20), true, "index: ")
	expect("the data file's header", flipped(t, blocks, 20), true, "index: ")
	hidden := func(name string) func() {
		if err := os.Rename(name, name+"-away"); err != nil {
			t.Fatal(err)
		}
		return func() { _ = os.Rename(name+"-away", name) }
	}
	expect("no log", hidden(segments[0]), true, "log: ")
	expect("no peers", hidden(dir+"/PEERS"), true, "copyset 1: there is data of it, but no peer", "copyset 2: ", "copyset 3: ")
	if r, err := check(true); err != nil || r.Total != 0 {
		t.Errorf("at the end: %+v, %v", r, err)
	}
	if _, err := Fsck(context.Background(), t.TempDir(), true, nil); err == nil {
		t.Error("an empty directory was checked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fsck(ctx, dir, true, nil); err == nil {
		t.Error("a check that was ended is no error")
	}
}

//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// damaged is a test of blocks whose content is found in the data files and changed there, beneath running chunkservers.
type damaged struct {
	t  *testing.T
	cl *cluster.Cluster
	s  *initiator.Session
	lb int
	// files are the data files of the chunkservers that have the blocks, that of the leader first.
	files []string
}

// noise returns a block that no other is like.
func noise() []byte {
	b := make([]byte, layout.BlockSize)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func (d *damaged) write(block uint64, content []byte) {
	d.t.Helper()
	must(d.t, d.s.Write(d.t.Context(), block*uint64(layout.BlockSize/d.lb), d.lb, content))
}

func (d *damaged) read(block uint64) ([]byte, error) {
	b := make([]byte, layout.BlockSize)
	return b, d.s.Read(d.t.Context(), block*uint64(layout.BlockSize/d.lb), d.lb, b)
}

// offsets returns where in a data file each of the contents is; -1: nowhere.
func (d *damaged) offsets(file string, contents [][]byte) []int64 {
	d.t.Helper()
	f, err := os.Open(file)
	must(d.t, err)
	defer f.Close()
	out := slices.Repeat([]int64{-1}, len(contents))
	buf := make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(buf)) {
		n, err := io.ReadFull(f, buf)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			if errors.Is(err, io.EOF) {
				return out
			}
			d.t.Fatal(err)
		}
		for at := 0; at+layout.BlockSize <= n; at += layout.BlockSize {
			for i, c := range contents {
				if bytes.Equal(buf[at:at+layout.BlockSize], c) {
					out[i] = off + int64(at)
				}
			}
		}
	}
}

// settled waits until the contents are in all data files, which a checkpoint brings there, and returns where.
func (d *damaged) settled(contents ...[]byte) (at [][]int64) {
	d.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		at = at[:0]
		for _, f := range d.files {
			at = append(at, d.offsets(f, contents))
		}
		if !slices.ContainsFunc(at, func(o []int64) bool { return slices.Contains(o, -1) }) {
			return at
		}
		if time.Now().After(end) {
			d.t.Fatalf("not everything is in the data files: %v", at)
		}
	}
}

// put writes into a data file, as a disk might that lies.
func (d *damaged) put(file string, at int64, b []byte) {
	d.t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(d.t, err)
	_, err = f.WriteAt(b, at)
	must(d.t, errors.Join(err, f.Sync(), f.Close()))
}

// scrub has all chunkservers read everything and returns how many blocks they found damaged, repaired, and could not repair.
func (d *damaged) scrub() (found, repaired, left int) {
	d.t.Helper()
	out, err := d.cl.Admin(d.t.Context(), "chunkserver", "scrub", "--all", "--wait", "--timeout", "25s", "-o", "json")
	all := readScrubs(d.t, out)
	if all.chunkservers != 3 || (err == nil) != (all.left == 0) {
		d.t.Fatalf("scrub: %v, %s", err, out)
	}
	return all.damaged, all.repaired, all.left
}

// flipped is a block with one bit that is not what it was.
func flipped(b []byte) []byte {
	b = slices.Clone(b)
	b[1000] ^= 0x04
	return b
}

// TestFaultDamage damages blocks in the data files of two of three replicas, that of the leader among them: a flipped bit, a block
// that came to the wrong place, and a write that was lost. Each is read right, and repaired within one scrub. A block that is
// damaged on all three is MEDIUM ERROR, UNRECOVERED READ ERROR (03/11/00), is told, and is right again once it is written.
func TestFaultDamage(t *testing.T) {
	cl := startCluster(t, cluster.Options{Env: []string{"ASHLAR_CHECKPOINT_EVERY=200ms"}})
	awaitHealthy(t, cl, 30*time.Second)
	c := demo(cl, "damage", cl.Portals...)
	defer c.Close()
	s, err := c.Session(t.Context())
	must(t, err)
	d := &damaged{t: t, cl: cl, s: s, lb: c.LogicalBlock()}
	e, _ := placement(t, cl, "demo").Locate(0, layout.BlockSize)
	where, set := places(t, cl), copysets(t, cl)[uint64(e.Copyset)]
	for _, p := range set.Peers {
		file := filepath.Join(cl.Dir(), where[p.Chunkserver].role, "store", "blocks")
		if p.Chunkserver == set.Leader {
			d.files = slices.Insert(d.files, 0, file)
		} else {
			d.files = append(d.files, file)
		}
	}
	const first, flip, wrong, lost, gone = 100, 110, 120, 130, 140 // blocks
	old := noise()
	d.write(lost, old)
	d.settled(old)
	want := map[uint64][]byte{first: noise(), flip: noise(), wrong: noise(), lost: noise(), gone: noise()}
	for b, content := range want {
		d.write(b, content)
	}
	at := d.settled(want[flip], want[wrong], want[lost], want[gone])
	for i, f := range d.files[:2] {
		d.put(f, at[i][0], flipped(want[flip]))
		d.put(f, at[i][1], want[first])
		d.put(f, at[i][2], old)
	}
	for i, f := range d.files {
		d.put(f, at[i][3], flipped(want[gone]))
	}
	for _, b := range []uint64{flip, wrong, lost, first} {
		began := time.Now()
		if got, err := d.read(b); err != nil || !bytes.Equal(got, want[b]) {
			t.Errorf("block %d, damaged on two of three replicas: %v, right: %t", b, err, bytes.Equal(got, want[b]))
		}
		t.Logf("block %d read after %v", b, time.Since(began).Round(100*time.Microsecond))
	}
	var sense *initiator.StatusError
	if _, err := d.read(gone); !errors.As(err, &sense) || sense.Key != 0x03 || sense.ASC != 0x11 || sense.ASCQ != 0 {
		t.Errorf("a block that is damaged on all replicas: %v, want sense 03/11/00", err)
	}
	if _, err := d.read(gone + 1); err != nil {
		t.Errorf("the block behind it: %v", err)
	}
	found, repaired, left := d.scrub()
	t.Logf("first scrub: %d damaged, %d repaired, %d not repairable", found, repaired, left)
	if found != 6 || repaired != 3 || left != 3 { // the reads have mended the leader's
		t.Errorf("first scrub: %d damaged, %d repaired, %d not repairable; want 6, 3, 3", found, repaired, left)
	}
	if all := strings.Join(problems(t, cl), "\n"); strings.Count(all, "has damaged blocks that no replica could repair: 1") != 3 {
		t.Errorf("cluster status: %s", all)
	}
	want[gone] = noise()
	d.write(gone, want[gone])
	d.settled(want[gone])
	if found, _, left = d.scrub(); found != 0 || left != 0 {
		t.Errorf("second scrub: %d damaged, %d not repairable", found, left)
	}
	for b, content := range want {
		if got, err := d.read(b); err != nil || !bytes.Equal(got, content) {
			t.Errorf("block %d in the end: %v", b, err)
		}
	}
	if now := fmt.Sprint(problems(t, cl)); strings.Contains(now, "damaged") {
		t.Errorf("cluster status in the end: %s", now)
	}
}

//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
	"github.com/ashlar-storage/ashlar/scripts/e2e/load"
)

// A chunkserver on a disk of diskSize: the raft log has at most 256 MiB of it, and writes are refused below the reserve of
// 96 MiB and a margin, which is a sixteenth of the capacity that is configured.
const diskSize = 704 << 20

var smallDisk = []string{
	"ASHLAR_LOG_BYTES=268435456", "ASHLAR_RESERVE_BYTES=100663296", "ASHLAR_CAPACITY_BYTES=1073741824", "ASHLAR_CHECKPOINT_EVERY=1s",
}

// mountDisk mounts a file system of its own, in memory, of diskSize bytes; it skips the test where that is not allowed.
func mountDisk(t *testing.T, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	err := syscall.Mount("ashlar-e2e", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("a tmpfs can not be mounted here (it needs root and CAP_SYS_ADMIN): %v", err)
	}
	must(t, err)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: it was unmounted
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// onSmallDisks starts a cluster of three chunkservers, each on a file system of its own.
func onSmallDisks(t *testing.T, env ...string) *cluster.Cluster {
	t.Helper()
	skipForeign(t)
	dir := clusterDir(t)
	for i := range 3 {
		mountDisk(t, filepath.Join(dir, fmt.Sprintf("chunkserver-%d", i+1)))
	}
	return startCluster(t, cluster.Options{Dir: dir, Env: append(smallDisk, env...)})
}

// isFull tells whether a write was refused with SPACE ALLOCATION FAILED WRITE PROTECT.
func isFull(err error) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Key == 0x07 && s.ASC == 0x27 && s.ASCQ == 0x07
}

// pieceLen is what a filler writes at once, in bytes.
const pieceLen = 256 << 10

// filler writes a volume from its beginning, piece by piece, and knows what each holds.
type filler struct {
	t    *testing.T
	c    *load.Client
	next uint32
	held map[uint32]bool // by piece: it was written; the others are zero
}

func newFiller(t *testing.T, c *load.Client) *filler {
	t.Cleanup(c.Close)
	return &filler{t: t, c: c, held: map[uint32]bool{}}
}

func (f *filler) session() (*initiator.Session, int) {
	f.t.Helper()
	s, err := f.c.Session(f.t.Context())
	must(f.t, err)
	must(f.t, s.Ready(f.t.Context()))
	return s, f.c.LogicalBlock()
}

func piece(n uint32) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, uint64(n)+1), pieceLen/8)
}

// put writes a piece, again after a unit attention, of which one tells that space is short (SBC-3 4.7.3.8.2), and when the target is busy.
func (f *filler) put(s *initiator.Session, lb int, p uint32) error {
	for {
		err := s.Write(f.t.Context(), uint64(p)*uint64(pieceLen/lb), lb, piece(p))
		if !initiator.Retryable(err) {
			return err
		}
	}
}

// write writes the next n pieces, several at a time, or fewer when there is no space: then full is true.
func (f *filler) write(n int) (full bool) {
	f.t.Helper()
	const depth = 4
	s, lb := f.session()
	for ; n > 0 && !full; n -= depth {
		errs := make([]error, min(depth, n))
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				errs[i] = f.put(s, lb, f.next+uint32(i))
			})
		}
		wg.Wait()
		for i, err := range errs {
			switch {
			case err == nil:
				f.held[f.next+uint32(i)] = true
			case isFull(err):
				full = true
			default:
				f.t.Fatalf("write of piece %d: %v", f.next+uint32(i), err)
			}
		}
		f.next += uint32(len(errs))
	}
	return full
}

// refused writes pieces that must be refused, and returns how long the longest of them took.
func (f *filler) refused(n int) (longest time.Duration) {
	f.t.Helper()
	s, lb := f.session()
	for range n {
		began := time.Now()
		if err := f.put(s, lb, f.next); !isFull(err) {
			f.t.Fatalf("write to a full disk: %v", err)
		}
		longest = max(longest, time.Since(began))
	}
	return longest
}

// until writes n pieces, those that are refused again and again, and returns how long that took.
func (f *filler) until(n int, limit time.Duration) time.Duration {
	f.t.Helper()
	began := time.Now()
	for goal := len(f.held) + n; len(f.held) < goal; {
		if f.write(1) {
			f.next--
			time.Sleep(50 * time.Millisecond)
		}
		if time.Since(began) > limit {
			f.t.Fatalf("%d of %d pieces could not be written within %v", goal-len(f.held), n, limit)
		}
	}
	return time.Since(began)
}

// unmap gives back the first n pieces.
func (f *filler) unmap(n uint32) {
	f.t.Helper()
	s, lb := f.session()
	const step = 64
	for p := uint32(0); p < n; p += step {
		must(f.t, s.Unmap(f.t.Context(), uint64(p)*uint64(pieceLen/lb), step*uint32(pieceLen/lb)))
		for i := range uint32(step) {
			delete(f.held, p+i)
		}
	}
}

// verify reads all pieces up to the last one that was tried.
func (f *filler) verify(when string) {
	f.t.Helper()
	s, lb := f.session()
	got := make([]byte, pieceLen)
	for p := range f.next {
		must(f.t, s.Read(f.t.Context(), uint64(p)*uint64(pieceLen/lb), lb, got))
		want := make([]byte, pieceLen)
		if f.held[p] {
			want = piece(p)
		}
		if !bytes.Equal(got, want) {
			f.t.Errorf("%s: piece %d does not hold what was written (acknowledged: %t)", when, p, f.held[p])
			return
		}
	}
}

// daemons returns the processes of a cluster by their roles.
func daemons(t *testing.T, cl *cluster.Cluster) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, role := range cl.Roles("") {
		pid, err := cl.PID(role)
		must(t, err)
		if cluster.Running(pid) {
			out[role] = pid
		}
	}
	return out
}

// Limits of a full disk.
const (
	refusalMax = 5 * time.Second  // until a write is refused
	roomMax    = 20 * time.Second // until there is room again after something was deleted
)

// TestFaultFullDisk fills the disks through iSCSI until writes are refused. Reads go on, also after a restart on the full disks;
// the deletion of a volume and UNMAP give room to write again; nothing that was acknowledged is lost, and no daemon ends.
func TestFaultFullDisk(t *testing.T) {
	cl := onSmallDisks(t)
	extra := createUnit(t, cl, "64MiB")
	other := newFiller(t, client(extra, "extra"))
	if other.write(48 << 20 / pieceLen) {
		t.Fatal("writes were refused on disks that are not full")
	}
	f := newFiller(t, demo(cl, "fill", cl.Portals...))
	before, began := daemons(t, cl), time.Now()
	if !f.write(1 << 30 / pieceLen) {
		t.Fatal("1 GiB is written, and the disks are not full")
	}
	t.Logf("full with %d MiB after %v", len(f.held)*pieceLen>>20, time.Since(began).Round(time.Millisecond))
	longest := f.refused(20)
	t.Logf("20 more writes were refused within %v", longest.Round(time.Millisecond))
	if longest > refusalMax {
		t.Errorf("a write was refused only after %v", longest)
	}
	awaitProblem(t, cl, 10*time.Second, "is full: writes to the copysets on it are refused")
	f.verify("full")
	other.verify("full")
	if now := daemons(t, cl); !maps.Equal(now, before) {
		t.Fatalf("daemons: %v, before %v", now, before)
	}

	must(t, cl.KillAll())
	must(t, cl.Restart(t.Context()))
	t.Logf("killed on full disks: serves after %v", cl.ReadyIn.Round(time.Millisecond))
	before = daemons(t, cl)
	f.verify("restarted")
	f.write(1 << 30 / pieceLen) // what the restart gave back, if anything
	f.refused(1)

	other.c.Close()
	admin(t, cl, "target", "unmap", extra.target, "--lun", "0")
	admin(t, cl, "volume", "delete", extra.volume)
	t.Logf("a volume of 48 MiB deleted: 16 MiB written after %v", f.until(16<<20/pieceLen, roomMax).Round(time.Millisecond))
	if !f.write(1 << 30 / pieceLen) {
		t.Fatal("the disks did not become full again")
	}
	f.verify("full again")
	f.unmap(128 << 20 / pieceLen)
	t.Logf("128 MiB unmapped: 32 MiB written after %v", f.until(32<<20/pieceLen, roomMax).Round(time.Millisecond))
	f.verify("after the UNMAP")
	if now := daemons(t, cl); !maps.Equal(now, before) {
		t.Fatalf("daemons: %v, before %v", now, before)
	}
}

// TestFaultVanishedDisk takes the file system of the chunkserver that leads the most away under load. It says so, others lead, and no
// operation fails. Then the disk is replaced by an empty one: a new chunkserver comes up on it and takes the replicas.
func TestFaultVanishedDisk(t *testing.T) {
	cl := onSmallDisks(t)
	awaitHealthy(t, cl, 30*time.Second)
	r := startLoad(t, cl, mixed)
	before := places(t, cl)
	id := busiest(t, cl)
	dir := filepath.Join(cl.Dir(), before[id].role)
	r.check("before", 0)
	must(t, syscall.Unmount(dir, syscall.MNT_DETACH))
	told := awaitProblem(t, cl, 20*time.Second, fmt.Sprintf("The disk of chunkserver %d ", id), "has failed")
	r.flow(200)
	rep := r.check("disk away", chunkserverPause)
	t.Logf("told after %v, the longest operation took %v", told.Round(100*time.Millisecond), rep.Latency.Max().Round(time.Millisecond))
	if _, runs := daemons(t, cl)[before[id].role]; !runs {
		t.Errorf("%s has ended", before[id].role)
	}
	must(t, cl.Kill(before[id].role))
	mountDisk(t, dir)
	began := time.Now()
	must(t, cl.StartRole(t.Context(), before[id].role))
	admin(t, cl, "chunkserver", "drain", fmt.Sprint(id))
	for moved := false; !moved; time.Sleep(200 * time.Millisecond) {
		moved = true
		for _, c := range copysets(t, cl) {
			for _, p := range c.Peers {
				moved = moved && p.Up && p.Chunkserver != id && p.Role == "voter" && len(c.Peers) == 3
			}
		}
		if time.Since(began) > 60*time.Second {
			t.Fatalf("not everything is on others: %v", copysets(t, cl))
		}
	}
	t.Logf("three replicas of everything %v after the start on an empty disk", time.Since(began).Round(100*time.Millisecond))
	r.check("disk replaced", chunkserverPause)
	r.stop()
	r.verify("on the new disk")
	if n := r.client.Reconnects(); n != 0 {
		t.Errorf("the session ended %d times", n)
	}
}

// busiest returns the chunkserver that leads the most.
func busiest(t *testing.T, cl *cluster.Cluster) uint64 {
	t.Helper()
	var list []struct {
		ID      uint64
		Leaders int
	}
	must(t, json.Unmarshal([]byte(admin(t, cl, "chunkserver", "list", "-o", "json")), &list))
	return slices.MaxFunc(list, func(a, b struct {
		ID      uint64
		Leaders int
	},
	) int {
		return cmp.Compare(a.Leaders, b.Leaders)
	}).ID
}

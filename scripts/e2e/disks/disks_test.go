//go:build e2e

package disks

import (
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// changes tells whether an operation changes something on the disk.
func changes(op vfs.Op) bool {
	switch op.Kind {
	case vfs.OpReadAt, vfs.OpSize, vfs.OpStat, vfs.OpList, vfs.OpOpenDir, vfs.OpSpace, vfs.OpClose:
		return false
	}
	return true
}

// fails lets the operations fail that fit.
func fails(err error, fits func(vfs.Op) bool) vfs.Injector {
	return func(op vfs.Op) vfs.Fault {
		if fits(op) {
			return vfs.Fault{Err: err}
		}
		return vfs.Fault{}
	}
}

// failPause is the longest that I/O may stand still when a disk fails (reliability F9).
const failPause = 2 * time.Second

// TestFaultDiskFails breaks the disks of chunkservers, one after the other, each in another way, and each time the one of that
// which leads the most: the others lead within failPause and no operation fails; its peers are made anew on others, until
// there is nobody left who could take them; then that is told and nothing else happens.
func TestFaultDiskFails(t *testing.T) {
	s := newSite(t, "diskfails", 5)
	var failed []uint64
	for _, c := range []struct {
		name  string
		fault vfs.Injector
	}{
		{"syncs of the log fail", fails(syscall.EIO, func(op vfs.Op) bool {
			return op.Kind == vfs.OpSync && strings.HasSuffix(path.Dir(op.Path), "/log")
		})},
		{"read-only", fails(syscall.EROFS, changes)},
		{"gone, one too many", fails(syscall.EIO, func(vfs.Op) bool { return true })},
	} {
		n, copysets := s.busiest(), len(s.copysets())
		began := time.Now()
		n.breaks(c.fault)
		failed = append(failed, n.id)
		f := s.failover(n, copysets)
		eventually(t, c.name+": that it is told", func() bool { return s.chunkserver(n.id).GetDiskError() != "" })
		told := time.Since(began)
		last := len(failed) > len(s.nodes)-3
		if last {
			eventually(t, c.name+": that everything serves", func() bool {
				_, served := s.took(began, true)
				return served == len(s.copysets())
			})
			if got := strings.Join(s.problems(), "\n"); !strings.Contains(got, "no other chunkserver in a free zone") {
				t.Errorf("%s: %s", c.name, got)
			}
			for _, cs := range s.copysets() {
				if cs.GetOperation() != nil || len(cs.GetPeers()) != 3 {
					t.Errorf("%s: %v", c.name, cs)
				}
			}
		} else {
			eventually(t, c.name+": three replicas of everything on others", func() bool { return s.whole(failed...) })
			if got := strings.Join(s.problems(), "\n"); !strings.Contains(got, "All its copysets have been moved") {
				t.Errorf("%s: %s", c.name, got)
			}
		}
		took := time.Since(began)
		pause, later := s.between(f.refused, f.led), s.between(f.led, time.Now())
		t.Logf("%s: noticed after %v, others lead after %v more, the longest operation took %v; told after %v, whole again after %v (the "+
			"last: not), the longest operation meanwhile took %v", c.name, f.noticed, f.elected.Round(time.Millisecond), pause.Round(time.Millisecond),
			told.Round(time.Millisecond), took.Round(time.Millisecond), later.Round(time.Millisecond))
		if max(pause, later) > failPause {
			t.Errorf("%s: I/O stood still for %v and %v", c.name, pause, later)
		}
		if n.server.Ready() == nil {
			t.Errorf("%s: it says that it is ready", c.name)
		}
	}
}

// slowdown is within what time a slow disk must not be felt any more.
const slowdown = 10 * time.Second

// sample is for how long a p99 is measured: some thousand operations.
const sample = 4 * time.Second

// noise is by how much a p99 differs from one run to the next.
const noise = 20 * time.Millisecond

// TestFaultDiskSlow: the disk of who leads the most takes 300 ms for each write and sync. Within ten seconds nothing is led there,
// and the others are as quick as before. It leads nothing until it has been well for a while.
func TestFaultDiskSlow(t *testing.T) {
	s := newSite(t, "diskslow", 3)
	since := time.Now()
	time.Sleep(sample)
	quickest, before := s.times(since, true)
	n := s.busiest()
	began := time.Now()
	n.breaks(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpWriteAt || op.Kind == vfs.OpSync {
			time.Sleep(300 * time.Millisecond)
		}
		return vfs.Fault{}
	})
	eventually(t, "that it is slow, and leads nothing", func() bool {
		c := s.chunkserver(n.id)
		return c.GetDiskSlow() != "" && c.GetLeaders() == 0
	})
	took := time.Since(began)
	longest, _ := s.times(began, false)
	then := time.Now()
	time.Sleep(sample)
	slowest, after := s.times(then, true)
	c := s.chunkserver(n.id)
	all, _ := s.took(then, true)
	t.Logf("leads nothing after %v; the longest operation took %v; p99 %v (max %v) before, %v (max %v, %d operations) with a slow disk; %s",
		took.Round(time.Millisecond), longest.Round(time.Millisecond), before, quickest, after, slowest, len(all), c.GetDiskSlow())
	if took > slowdown || after > 2*before+noise || c.GetLeaders() != 0 {
		t.Errorf("p99 %v, before %v; leads nothing after %v; leads %d now", after, before, took, c.GetLeaders())
	}
	if p := strings.Join(s.problems(), "\n"); !strings.Contains(p, "is slow") || strings.Contains(p, "replica") {
		t.Errorf("status: %s", p)
	}
}

// TestFaultDiskStuck: nothing that changes the disk of who leads the most comes back. It tells so in its heartbeats, and others
// lead within ten seconds. When it answers again, everything goes on.
func TestFaultDiskStuck(t *testing.T) {
	s := newSite(t, "diskstuck", 3)
	n := s.busiest()
	release := make(chan struct{})
	began := time.Now()
	n.breaks(func(op vfs.Op) vfs.Fault {
		if changes(op) {
			<-release
		}
		return vfs.Fault{}
	})
	eventually(t, "that it is told, and leads nothing", func() bool {
		c := s.chunkserver(n.id)
		return c.GetDiskSlow() != "" && c.GetDisk().GetStalledMs() >= 2000 && c.GetLeaders() == 0
	})
	took := time.Since(began)
	longest, _ := s.times(began, false)
	then := time.Now()
	time.Sleep(2 * time.Second)
	_, after := s.times(then, true)
	c := s.chunkserver(n.id)
	t.Logf("leads nothing after %v; the longest operation took %v; p99 %v with a stuck disk", took.Round(time.Millisecond), longest.Round(time.Millisecond), after)
	if took > slowdown || longest > slowdown || c.GetState().String() != "CHUNKSERVER_STATE_UP" || c.GetDisk().GetStalledMs() < 3000 {
		t.Errorf("leads nothing after %v, the longest operation took %v, %v", took, longest, c)
	}
	n.breaks(nil)
	close(release)
	eventually(t, "that it answers, and has what it missed", func() bool {
		return s.chunkserver(n.id).GetDisk().GetStalledMs() == 0 && s.whole()
	})
}

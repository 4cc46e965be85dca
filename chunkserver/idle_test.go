package chunkserver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// idleChild is the environment variable that makes the test binary one chunkserver: an idleConfig in JSON.
const idleChild = "IDLE_CHILD"

type idleConfig struct {
	ID         layout.ChunkserverID
	Dir        string
	Addresses  map[layout.ChunkserverID]string
	Copysets   int
	QuietAfter time.Duration
}

// idleSets are the copysets, with a peer on each of the three chunkservers.
func idleSets(n int) map[layout.CopysetID]map[layout.PeerID]layout.ChunkserverID {
	sets := map[layout.CopysetID]map[layout.PeerID]layout.ChunkserverID{}
	for c := range n {
		m := map[layout.PeerID]layout.ChunkserverID{}
		for id := layout.ChunkserverID(1); id <= 3; id++ {
			m[layout.PeerID(c*10)+layout.PeerID(id)] = id
		}
		sets[layout.CopysetID(c+1)] = m
	}
	return sets
}

// runIdle is one chunkserver. It tells how many copysets are quiet, and how many it leads, each second, until it is killed.
func runIdle(text string) error {
	var c idleConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	cfg := Default()
	cfg.Dir, cfg.Listen, cfg.QuietAfter, cfg.Reserve = c.Dir, c.Addresses[c.ID], c.QuietAfter, 64<<20
	cfg.Scrub.Interval = 0 // it would read
	s, err := New(cfg, Options{Static: &Static{Cluster: testCluster, ID: c.ID, Addresses: c.Addresses, Copysets: idleSets(c.Copysets)}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for range time.Tick(time.Second) {
			s.mu.Lock()
			h := s.mu.host
			s.mu.Unlock()
			if h != nil {
				_, _ = fmt.Println(h.Quiet(), leads(h)) // who reads it is gone when it fails
			}
		}
	}()
	return s.Run(ctx)
}

// idleProcess is a chunkserver of its own process, as /proc has it.
type idleProcess struct {
	cmd          *exec.Cmd
	quiet, leads chan int
}

// usage returns the processor time in seconds, and the resident memory in MiB.
func (p *idleProcess) usage(t *testing.T) (cpu, rss float64) {
	t.Helper()
	stat, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	status, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	fields := strings.Fields(string(stat)[strings.LastIndex(string(stat), ")")+2:])
	for _, f := range fields[11:13] { // utime and stime, in 1/100 s
		v, _ := strconv.ParseFloat(f, 64)
		cpu += v / 100
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	v, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return cpu, v / 1024
}

// TestIdle measures what idle copysets cost: IDLE_COPYSETS=1000 go test -run 'TestIdle$' -v ./chunkserver. IDLE_QUIET=0s measures
// copysets that do not go quiet. Three chunkservers, each a process of its own on the file system, without a metaserver and a scrub.
func TestIdle(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("IDLE_COPYSETS"))
	if err != nil {
		t.Skip("IDLE_COPYSETS says how many")
	}
	after := 2 * time.Second
	if s := os.Getenv("IDLE_QUIET"); s != "" {
		if after, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	addresses := map[layout.ChunkserverID]string{}
	for id := layout.ChunkserverID(1); id <= 3; id++ {
		addresses[id] = freeAddress(t)
	}
	var all []*idleProcess
	for id := range addresses {
		all = append(all, startIdle(t, &idleConfig{ID: id, Dir: t.TempDir(), Addresses: addresses, Copysets: n, QuietAfter: after}))
	}
	want := n
	if after == 0 {
		want = 0
	}
	for end := time.Now().Add(3 * time.Minute); ; {
		quiet, led := 0, 0
		for _, p := range all {
			quiet, led = quiet+<-p.quiet, led+<-p.leads
		}
		if led == n && quiet == 3*want {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d have leaders, %d peers are quiet", led, n, quiet)
		}
	}
	const span = 20 * time.Second
	var before []float64
	for _, p := range all {
		cpu, _ := p.usage(t)
		before = append(before, cpu)
	}
	time.Sleep(span)
	for i, p := range all {
		cpu, rss := p.usage(t)
		share := (cpu - before[i]) / span.Seconds() * 100
		t.Logf("%d idle copysets, quiet after %v: %.2f %% of a core, RSS %.0f MiB", n, after, share, rss)
		if after > 0 && share >= 2 && n <= 1000 {
			t.Errorf("idle copysets take %.2f %% of a core, more than 2 %%", share)
		}
	}
}

// startIdle starts a chunkserver, which ends with the test.
func startIdle(t *testing.T, c *idleConfig) *idleProcess {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	p := &idleProcess{cmd: exec.Command(os.Args[0]), quiet: make(chan int, 1000), leads: make(chan int, 1000)}
	p.cmd.Env = append(os.Environ(), idleChild+"="+string(text))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var quiet, led int
			if _, err := fmt.Sscan(lines.Text(), &quiet, &led); err == nil {
				p.quiet <- quiet
				p.leads <- led
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-read
		_ = p.cmd.Wait()
	})
	return p
}

package metaserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// proxy stands between one metaserver and etcd.
type proxy struct {
	l  net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   bool
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.set(true)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	e, err := net.Dial("tcp", etcdURL())
	if err != nil {
		return
	}
	defer e.Close()
	p.mu.Lock()
	if p.cut {
		p.mu.Unlock()
		return
	}
	p.conns[c], p.conns[e] = true, true
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range [][2]net.Conn{{c, e}, {e, c}} {
		wg.Go(func() {
			_, _ = io.Copy(d[0], d[1])
			d[0].Close()
			d[1].Close()
		})
	}
	wg.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, e)
	p.mu.Unlock()
}

// set cuts the way to etcd, or opens it again.
func (p *proxy) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for c := range p.conns {
		if cut {
			c.Close()
		}
	}
}

// TestFailover cuts the active metaserver off from etcd: it must have stopped being active before the other one begins,
// come back as a standby, and take over when the other one ends.
func TestFailover(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	cfg := testConfig("failover")
	cfg.Etcd = []string{p.l.Addr().String()}
	a := start(t, cfg, Options{})
	eventually(t, "the first is active", a.Active)
	b := start(t, testConfig("failover"), Options{})
	eventually(t, "the second knows the first", func() bool { return b.Ready() == nil })
	client := dial(t, b.address)
	must(client.Admin().CreateTarget(t.Context(), &metav1.CreateTargetRequest{Iqn: "iqn.2026-11.com.example:one"}))(t)
	if got := client.Addresses(); len(got) != 2 || got[1] != a.address {
		t.Errorf("the client knows %v, want it to have been told %s", got, a.address)
	}
	p.set(true)
	begin, both := time.Now(), false
	eventually(t, "the second is active", func() bool {
		first := a.Active()
		second := b.Active()
		both = both || first && second
		return second
	})
	if both {
		t.Error("both were active at once")
	}
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("the failover took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	l := must(client.Admin().ListTargets(ctx, &metav1.ListTargetsRequest{}))(t)
	if len(l.GetTargets()) != 1 {
		t.Errorf("after the failover: %v", l)
	}
	p.set(false)
	eventually(t, "the first stands by", func() bool { return a.Ready() == nil && !a.Active() })
	b.stop2(t)
	eventually(t, "the first is active again", a.Active)
	must(client.Admin().ShowTarget(t.Context(), &metav1.ShowTargetRequest{Iqn: "iqn.2026-11.com.example:one"}))(t)
}

// TestEtcdOutage takes etcd away for longer than the lease; the only metaserver waits and goes on.
func TestEtcdOutage(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	cfg := testConfig("outage")
	cfg.Etcd = []string{p.l.Addr().String()}
	a := start(t, cfg, Options{})
	eventually(t, "it is active", a.Active)
	p.set(true)
	eventually(t, "it is not active", func() bool { return !a.Active() })
	if a.Ready() == nil {
		eventually(t, "it is not ready", func() bool { return a.Ready() != nil })
	}
	_, err := dial(t, a.address).Admin().ListVolumes(short(t), &metav1.ListVolumesRequest{})
	wantCode(t, err, codes.DeadlineExceeded, "is etcd reachable?")
	time.Sleep(time.Second)
	p.set(false)
	eventually(t, "it is active again", a.Active)
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// childEnv tells the test's program that it is to be a metaserver: "ETCD CLUSTER".
const childEnv = "METASERVER_TEST_CHILD"

// child runs a metaserver in a process of its own; it prints its address.
func child(env string) int {
	etcd, cluster, _ := strings.Cut(env, " ")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}
	etcdOf = etcd
	cfg := testConfig(cluster)
	cfg.Listen = l.Addr().String()
	s, err := New(cfg, Options{Listener: l})
	if err != nil {
		return 1
	}
	fmt.Println(l.Addr())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = s.Run(ctx)
	return 0
}

// TestStopped stops the process of the active metaserver, lets another one take over, gives the stopped one a change to
// make, and resumes it: it must find out that its time is over before it makes the change.
func TestStopped(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+etcdURL()+" stopped")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	old := dial(t, strings.TrimSpace(line))
	must(old.Admin().CreateTarget(t.Context(), &metav1.CreateTargetRequest{Iqn: "iqn.2026-11.com.example:before"}))(t)
	b := start(t, testConfig("stopped"), Options{})
	eventually(t, "the second stands by", func() bool { return b.Ready() == nil })
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second is active", b.Active)
	// One attempt that only the stopped process gets: it is answered when the process resumes.
	answer := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		_, err := onlyTo(t, strings.TrimSpace(line)).CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: "iqn.2026-11.com.example:late"})
		answer <- err
	}()
	time.Sleep(300 * time.Millisecond)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the resumed metaserver answered %v, want that it is not active", err)
	}
	l := must(dial(t, b.address).Admin().ListTargets(t.Context(), &metav1.ListTargetsRequest{}))(t)
	if len(l.GetTargets()) != 1 {
		t.Errorf("targets after all: %v", l.GetTargets())
	}
}

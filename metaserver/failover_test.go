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

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/leasefile"
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

// childEnv tells the test's program that it is to be a metaserver: "ETCD CLUSTER DIR LEASE".
const childEnv = "METASERVER_TEST_CHILD"

// child runs a metaserver in a process of its own; it prints its address.
func child(env string) int {
	var etcd, cluster, dir, lease string
	_, _ = fmt.Sscan(env, &etcd, &cluster, &dir, &lease) // DIR and LEASE may be missing
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}
	etcdOf = etcd
	cfg := testConfig(cluster)
	cfg.Listen, cfg.Dir = l.Addr().String(), dir
	if lease != "" {
		if cfg.Lease, err = time.ParseDuration(lease); err != nil {
			return 1
		}
	}
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

// process runs a metaserver as a process of its own and returns its address; args are CLUSTER DIR LEASE as in childEnv.
func process(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+etcdURL()+" "+strings.Join(args, " "))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

// TestStopped stops the process of the active metaserver, lets another one take over, gives the stopped one a change to
// make, and resumes it: it must find out that its time is over before it makes the change.
func TestStopped(t *testing.T) {
	t.Parallel()
	cmd, address := process(t, "stopped")
	old := dial(t, address)
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
		_, err := onlyTo(t, address).CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: "iqn.2026-11.com.example:late"})
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

// longLease is the lease of the tests below: nobody waits for its end.
const longLease = 30 * time.Second

// copyDir copies the files of a directory as cp does.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestKilled kills a metaserver. The next one on its directory is active at once; one on a copy of the directory, on a new
// one or without one waits for the lease.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, address := process(t, "killed", dir, longLease.String())
	must(dial(t, address).Admin().CreateTarget(t.Context(), &metav1.CreateTargetRequest{Iqn: "iqn.2026-11.com.example:k"}))(t)
	copied := copyDir(t, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	cfg := testConfig("killed")
	cfg.Lease = longLease
	for what, dir := range map[string]string{"without a directory": "", "on a copy": copied, "on a new directory": t.TempDir()} {
		cfg.Dir = dir
		d := start(t, cfg, Options{})
		time.Sleep(time.Second)
		if d.Active() {
			t.Errorf("a metaserver %s is active before the killed one's lease is over", what)
		}
		d.stop2(t)
	}
	cfg.Dir = dir
	begin := time.Now()
	d := start(t, cfg, Options{})
	eventually(t, "the next one on the directory is active", d.Active)
	if took := time.Since(begin); took > longLease/3 {
		t.Errorf("it took %v", took)
	}
	must(dial(t, d.address).Admin().ShowTarget(t.Context(), &metav1.ShowTargetRequest{Iqn: "iqn.2026-11.com.example:k"}))(t)
}

// TestForeignDirectory starts metaservers on copies of the directory of one that lives: it stays active. One on the
// directory itself is refused.
func TestForeignDirectory(t *testing.T) {
	t.Parallel()
	cfg := testConfig("foreign")
	cfg.Dir = t.TempDir()
	a := start(t, cfg, Options{})
	eventually(t, "the first is active", a.Active)
	was := candidateKey(t, "/ashlar/foreign/election")
	dir := cfg.Dir
	for _, cluster := range []string{"foreign", "foreign-other"} {
		cfg := testConfig(cluster)
		cfg.Dir = copyDir(t, dir)
		b := start(t, cfg, Options{})
		eventually(t, "the second is ready", func() bool { return b.Ready() == nil })
		if b.Active() != (cluster != "foreign") {
			t.Errorf("on a copy, in cluster %s: active %v", cluster, b.Active())
		}
		b.stop2(t)
	}
	cfg2 := testConfig("foreign")
	cfg2.Dir = wrongNote(t, "/ashlar/foreign/election")
	b := start(t, cfg2, Options{})
	eventually(t, "the one with a wrong note is ready", func() bool { return b.Ready() == nil })
	b.stop2(t)
	time.Sleep(cfg.Lease) // a lease that was taken away would be noticed by now
	if now := candidateKey(t, "/ashlar/foreign/election"); !a.Active() || now.CreateRevision != was.CreateRevision {
		t.Errorf("the first is not what it was: %v, then %v", was, now)
	}
	s, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is in use by another metaserver") {
		t.Errorf("a second one on the directory: %v", err)
	}
}

// candidateKey returns the key of the only candidate.
func candidateKey(t *testing.T, prefix string) *mvccpb.KeyValue {
	t.Helper()
	r := must(etcdClient(t).Get(t.Context(), prefix+"/", clientv3.WithPrefix()))(t)
	if len(r.Kvs) != 1 {
		t.Fatalf("%d candidates", len(r.Kvs))
	}
	return r.Kvs[0]
}

// wrongNote makes a directory with a note that names the lease of the active metaserver, but another instance.
func wrongNote(t *testing.T, prefix string) string {
	t.Helper()
	r := must(etcdClient(t).Get(t.Context(), prefix+"/", clientv3.WithPrefix()))(t)
	dir := t.TempDir()
	f, err := leasefile.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	note := leasefile.Note{Etcd: r.Header.GetClusterId(), Prefix: prefix, Lease: r.Kvs[0].Lease, Instance: leasefile.Instance{1}}
	if err := f.Keep(note); err != nil {
		t.Fatal(err)
	}
	return dir
}

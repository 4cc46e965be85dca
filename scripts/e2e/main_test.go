//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
)

// unit names a logical unit that a test may erase.
type unit struct {
	portal string
	target string
	lun    uint16
	volume string // its name, empty for an oracle
	cl     *cluster.Cluster
}

func (u unit) url() string { return fmt.Sprintf("iscsi://%s/%s/%d", u.portal, u.target, u.lun) }

// common is the cluster that the host and VM tests share; it is started by the first test that needs it.
var common struct {
	once sync.Once
	cl   *cluster.Cluster
	tgt  *cluster.TGT
	err  error
	dir  string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := stopCommon(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: stopping the shared cluster:", err)
		code = 1
	}
	os.Exit(code)
}

// stopCommon ends the shared cluster; that it stops cleanly is part of the tests.
func stopCommon() error {
	var err error
	if common.cl != nil {
		err = common.cl.Stop()
	}
	if common.tgt != nil {
		err = errors.Join(err, common.tgt.Stop())
	}
	if common.dir != "" && os.Getenv("E2E_KEEP") == "" {
		err = errors.Join(err, os.RemoveAll(common.dir))
	}
	return err
}

// underTest is the program under test.
func underTest(t testing.TB) string {
	t.Helper()
	name := os.Getenv("E2E_BINARY")
	if name == "" {
		name = filepath.Join("..", "..", "bin", "ashlar")
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// foreign tells whether the tests run against something else than ashlar.
func foreign() bool { return os.Getenv("E2E_ORACLE") != "" || os.Getenv("E2E_PORTAL") != "" }

// skipForeign skips a test that needs ashlar's own administration or processes.
func skipForeign(t *testing.T) {
	t.Helper()
	if foreign() {
		t.Skip("needs ashlar; the tests run against an oracle")
	}
}

// startCluster starts a cluster for one test and stops it at its end. A directory that opt names is the caller's to remove.
func startCluster(t *testing.T, opt cluster.Options) *cluster.Cluster {
	t.Helper()
	skipForeign(t)
	if opt.Dir == "" {
		opt.Dir = clusterDir(t)
	}
	opt.Binary = underTest(t)
	cl, err := cluster.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cluster ready in %v: %s", cl.ReadyIn.Round(time.Millisecond), cl.URL(0))
	t.Cleanup(func() {
		if t.Failed() {
			cl.DumpLogs(logWriter{t})
		}
		if err := cl.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cl
}

// clusterDir makes the directory of a cluster, which is removed at the end of the test.
func clusterDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ashlar-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("E2E_KEEP") != "" {
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

// logWriter prints into a test's log.
type logWriter struct{ t *testing.T }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// shared starts the shared cluster, or the oracle.
func shared(t *testing.T) *cluster.Cluster {
	t.Helper()
	common.once.Do(func() {
		if common.dir, common.err = os.MkdirTemp("", "ashlar-e2e-"); common.err != nil {
			return
		}
		switch os.Getenv("E2E_ORACLE") {
		case "":
			opt := cluster.Options{Binary: underTest(t), Dir: filepath.Join(common.dir, "data")}
			common.cl, common.err = cluster.Start(context.Background(), opt)
		case "tgt":
			common.tgt, common.err = cluster.StartTGT(context.Background(), cluster.TGTOptions{
				Dir: common.dir, Size: 1 << 30, WriteThrough: true,
			})
		default:
			common.err = errors.New("E2E_ORACLE: only tgt is known")
		}
	})
	if common.err != nil {
		t.Fatal(common.err)
	}
	return common.cl
}

// newUnit gives a test a logical unit of at least size bytes that no other test uses. With an oracle it is the
// same unit every time.
func newUnit(t *testing.T, size string, allow ...string) unit {
	t.Helper()
	if p := os.Getenv("E2E_PORTAL"); p != "" {
		lun, err := strconv.ParseUint(os.Getenv("E2E_LUN"), 10, 16)
		if err != nil {
			t.Fatalf("E2E_LUN: %v", err)
		}
		return unit{portal: p, target: os.Getenv("E2E_TARGET"), lun: uint16(lun)}
	}
	cl := shared(t)
	if cl == nil {
		return unit{portal: common.tgt.Portal, target: common.tgt.Target, lun: common.tgt.LUN}
	}
	return createUnit(t, cl, size, allow...)
}

// createUnit makes a volume and a target named after the test, and exports one with the other. allow are the
// arguments of "target allow" after the IQN; without any, every initiator may log in.
func createUnit(t *testing.T, cl *cluster.Cluster, size string, allow ...string) unit {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(t.Name(), "Test")))
	u := unit{portal: cl.Portals[0], target: "iqn.2026-11.dev.ashlar.test:" + name, volume: name, cl: cl}
	if len(allow) == 0 {
		allow = []string{"--initiator", "*"}
	}
	admin(t, cl, "volume", "create", name, "--size", size)
	admin(t, cl, "target", "create", u.target)
	admin(t, cl, "target", "map", u.target, "--lun", "0", "--volume", name)
	admin(t, cl, append([]string{"target", "allow", u.target}, allow...)...)
	return u
}

// admin runs an administrator's command that must succeed.
func admin(t *testing.T, cl *cluster.Cluster, args ...string) string {
	t.Helper()
	out, err := cl.Admin(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// tool runs a program of this host with a time limit and fails the test when it fails.
func tool(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	out, err := try(t, limit, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// try runs a program of this host with a time limit.
func try(t *testing.T, limit time.Duration, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: see the packages in .ci/run", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 2 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("killed after %v: %w", limit, err)
	}
	return string(out), err
}

// seconds is the length of a load phase: E2E_SECONDS, else the default.
func seconds(t *testing.T, def int) time.Duration {
	t.Helper()
	return time.Duration(number(t, "E2E_SECONDS", def)) * time.Second
}

// number reads a number from the environment.
func number(t *testing.T, name string, def int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a positive number", name, s)
	}
	return n
}

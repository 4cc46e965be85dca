//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
)

// Limits of one VM run under emulation on a busy machine, and of building the VM's image.
const (
	vmMax      = 240 * time.Second
	vmBuildMax = 4 * time.Minute
)

// guest runs a script in the VM and returns what its console said. The test fails when the script does.
func guest(t *testing.T, script string, args ...string) string {
	t.Helper()
	return guestWith(t, func(string) {}, script, args...)
}

// guestWith is guest that hands over each line of the console as it comes.
func guestWith(t *testing.T, line func(string), script string, args ...string) string {
	t.Helper()
	if out, err := try(t, vmBuildMax, "vm/build.sh"); err != nil {
		t.Fatalf("the VM can not be built: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vmMax+10*time.Second)
	defer cancel()
	limit := strconv.Itoa(int(vmMax.Seconds()))
	cmd := exec.CommandContext(ctx, "vm/run.sh", append([]string{"--timeout", limit, filepath.Join("vm", "guest", script)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	out := console{line: line}
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	t.Logf("%s: %v", script, time.Since(start).Round(time.Millisecond))
	if err != nil {
		t.Fatalf("%s %s in the VM: %v\n%s", script, strings.Join(args, " "), err, out.text.String())
	}
	return out.text.String()
}

// console keeps what is written, and hands over each line that is complete.
type console struct {
	text  bytes.Buffer
	begin int // of the line that is not complete
	line  func(string)
}

func (c *console) Write(b []byte) (int, error) {
	c.text.Write(b)
	for {
		rest := c.text.Bytes()[c.begin:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return len(b), nil
		}
		c.begin += end + 1
		c.line(strings.TrimRight(string(rest[:end]), "\r"))
	}
}

// TestVM attaches open-iscsi: a file system with files, fio with verify, discard; then the whole cluster is
// stopped and started, and the files are still there.
func TestVM(t *testing.T) {
	u := newUnit(t, "256MiB")
	watch := watchAllocated(t, u)
	out := guest(t, "basic.sh", u.portal, u.target, fmt.Sprint(u.lun))
	if !strings.Contains(out, "sums") && !strings.Contains(out, "file1: OK") {
		t.Errorf("no checksums in the output:\n%s", out)
	}
	if u.cl == nil {
		guest(t, "again.sh", u.portal, u.target, fmt.Sprint(u.lun))
		return
	}
	most := watch()
	awaitAllocated(t, u, func(n int64) bool { return n <= most-60<<20 },
		fmt.Sprintf("60 MiB less than the most (%d) after fstrim of 88 MiB", most))
	must(t, u.cl.Stop())
	must(t, u.cl.Restart(t.Context()))
	guest(t, "again.sh", u.portal, u.target, fmt.Sprint(u.lun))
}

// watchAllocated follows the allocated bytes of a volume; the returned function ends that and tells the most.
func watchAllocated(t *testing.T, u unit) func() int64 {
	if u.cl == nil {
		return func() int64 { return 0 }
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var most int64
	wg.Go(func() {
		for ctx.Err() == nil {
			if out, err := u.cl.Admin(ctx, "volume", "show", u.volume, "-o", "json"); err == nil {
				most = max(most, allocatedOf(t, string(out)))
			}
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return func() int64 { cancel(); wg.Wait(); return most }
}

// Secrets of the CHAP test: 12 to 16 bytes, one per direction.
const (
	chapUser, chapSecret     = "vm-user", "vm-secret-0001"
	mutualUser, mutualSecret = "target-user", "tg-secret-0002"
)

// TestVMChap logs in with open-iscsi: one-way and mutual CHAP, and every wrong combination is refused.
func TestVMChap(t *testing.T) {
	if os.Getenv("E2E_PORTAL") != "" {
		t.Skip("needs a target whose secrets are known")
	}
	if foreign() {
		tgt, err := cluster.StartTGT(t.Context(), cluster.TGTOptions{
			Dir: t.TempDir(), Size: 64 << 20, CHAPUser: chapUser, CHAPSecret: chapSecret,
		})
		must(t, err)
		t.Cleanup(func() { must(t, tgt.Stop()) })
		guest(t, "chap.sh", tgt.Portal, tgt.Target, "1", chapUser, chapSecret)
		return
	}
	secret := func(name, text string) string {
		file := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
		return file
	}
	u := newUnit(t, "64MiB", "--initiator", "iqn.2026-11.dev.ashlar.test:vm",
		"--chap-user", chapUser, "--chap-secret-file", secret("in", chapSecret),
		"--mutual-user", mutualUser, "--mutual-secret-file", secret("out", mutualSecret))
	guest(t, "chap.sh", u.portal, u.target, "0", chapUser, chapSecret, mutualUser, mutualSecret)
}

// TestVMMoved has open-iscsi in the middle of its I/O when its target is redirected to the other gateway: it is asked to log
// out, logs in again, is sent on, and its I/O goes on.
func TestVMMoved(t *testing.T) {
	const target = "iqn.2026-11.dev.ashlar.test:moved"
	cl := startCluster(t, cluster.Options{Gateways: 2})
	admin(t, cl, "volume", "create", "moved", "--size", "64MiB")
	admin(t, cl, "target", "create", target)
	admin(t, cl, "target", "map", target, "--lun", "0", "--volume", "moved")
	admin(t, cl, "target", "allow", target, "--initiator", "*")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			out, err := cl.Admin(ctx, "volume", "show", "moved", "-o", "json")
			if err == nil && strings.Contains(string(out), `"gateway": "gateway-1"`) { // the host has attached there
				if out, err := cl.Admin(ctx, "target", "redirect", target, "--to", cl.Portals[1]); err != nil {
					t.Errorf("%v: %s", err, out)
				}
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	if out := guest(t, "moved.sh", cl.Portals[0], target, "0", cl.Portals[1]); !strings.Contains(out, "moved to "+cl.Portals[1]) {
		t.Errorf("the host did not move:\n%s", out)
	}
}

// TestVMStopped has open-iscsi in the middle of its I/O when a LUN is mapped, its gateway is stopped and started again, and
// another LUN is mapped. It sees the LUNs without looking for them, and its I/O goes on.
func TestVMStopped(t *testing.T) {
	const target = "iqn.2026-11.dev.ashlar.test:stopped"
	cl := startCluster(t, cluster.Options{})
	admin(t, cl, "target", "create", target)
	admin(t, cl, "target", "allow", target, "--initiator", "*")
	mapped := func(lun string) error {
		if out, err := cl.Admin(t.Context(), "volume", "create", "stopped"+lun, "--size", "64MiB"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if out, err := cl.Admin(t.Context(), "target", "map", target, "--lun", lun, "--volume", "stopped"+lun); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	must(t, mapped("0"))
	ctx, cancel := context.WithCancel(t.Context())
	// busy waits until the host has sent some commands in a session that began after since.
	busy := func(since int64) (began int64) {
		for ctx.Err() == nil {
			var list []struct {
				SinceUnixMs int64 `json:"since_unix_ms"`
				Commands    int
			}
			out, err := cl.Admin(ctx, "session", "list", "--target", target, "-o", "json")
			if err == nil && json.Unmarshal(out, &list) == nil && len(list) == 1 && list[0].SinceUnixMs > since && list[0].Commands > 300 {
				return list[0].SinceUnixMs
			}
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
		}
		return 0
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		began := busy(0)
		if ctx.Err() != nil {
			return
		}
		err := mapped("1")
		pid, perr := cl.PID("gateway-1")
		if err = errors.Join(err, perr); err == nil {
			err = cl.Signal("gateway-1", syscall.SIGTERM)
		}
		for err == nil && cluster.Running(pid) && ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
		}
		if err == nil {
			err = cl.StartRole(ctx, "gateway-1")
		}
		if busy(began); err == nil && ctx.Err() == nil {
			err = mapped("2")
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	t.Log(guest(t, "stopped.sh", cl.Portals[0], target))
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// TGT is Debian's tgtd with one file-backed logical unit: the differential oracle of the tests and the
// yardstick of the benchmark.
type TGT struct {
	Portal string
	Target string
	LUN    uint16
	PID    int

	control int
	cmd     *exec.Cmd
	exit    chan struct{}
}

// TGTOptions say how tgtd stores what it is given.
type TGTOptions struct {
	Dir  string
	Size int64
	// WriteThrough turns the write cache off: tgtd calls fdatasync after each write, as a target must that
	// reports no volatile cache. Otherwise a write is done when it is in the page cache.
	WriteThrough bool
	// CHAPUser and CHAPSecret, when not empty, are required of initiators.
	CHAPUser, CHAPSecret string
}

// StartTGT starts tgtd in the foreground mode with a control port of its own.
func StartTGT(ctx context.Context, opt TGTOptions) (*TGT, error) {
	port, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opt.Dir, 0o750); err != nil {
		return nil, err
	}
	img := filepath.Join(opt.Dir, "tgt.img")
	f, err := os.OpenFile(img, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(opt.Size), f.Close(), os.MkdirAll("/var/run/tgtd", 0o755)); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(opt.Dir, "tgtd.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	t := &TGT{
		Portal: fmt.Sprintf("127.0.0.1:%d", port), Target: "iqn.2026-11.dev.ashlar.test:tgt", LUN: 1,
		control: port, exit: make(chan struct{}),
	}
	t.cmd = exec.Command("tgtd", "-f", "-C", strconv.Itoa(t.control), "--iscsi", "portal="+t.Portal) //nolint:noctx // stopped by Stop
	t.cmd.Stdout, t.cmd.Stderr = log, log
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	t.PID = t.cmd.Process.Pid
	go func() { defer close(t.exit); _ = t.cmd.Wait() }()
	if err := t.configure(ctx, opt, img); err != nil {
		return nil, errors.Join(err, t.Stop())
	}
	return t, nil
}

// configure makes the target through tgtadm.
func (t *TGT) configure(ctx context.Context, opt TGTOptions, img string) error {
	if err := AwaitPort(ctx, t.Portal, 10*time.Second); err != nil {
		return err
	}
	steps := [][]string{
		{"--mode", "target", "--op", "new", "--tid", "1", "-T", t.Target},
		{"--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", img},
		{"--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", "1", "--params", "thin_provisioning=1"},
	}
	if opt.WriteThrough {
		steps = append(steps, []string{
			"--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", "1", "--params",
			"mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0",
		})
	}
	if opt.CHAPUser != "" {
		steps = append(steps,
			[]string{"--mode", "account", "--op", "new", "--user", opt.CHAPUser, "--password", opt.CHAPSecret},
			[]string{"--mode", "account", "--op", "bind", "--tid", "1", "--user", opt.CHAPUser})
	}
	steps = append(steps, []string{"--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL"})
	for _, args := range steps {
		args = append([]string{"-C", strconv.Itoa(t.control), "--lld", "iscsi"}, args...)
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		out, err := exec.CommandContext(ctx, "tgtadm", args...).CombinedOutput()
		cancel()
		if err != nil {
			return fmt.Errorf("tgtadm %v: %w\n%s", args, err, out)
		}
	}
	return nil
}

// URL is the logical unit.
func (t *TGT) URL() string { return fmt.Sprintf("iscsi://%s/%s/%d", t.Portal, t.Target, t.LUN) }

// Stop ends tgtd. It refuses SIGTERM while it has a target, so it is killed.
func (t *TGT) Stop() error {
	_ = syscall.Kill(t.PID, syscall.SIGKILL)
	select {
	case <-t.exit:
		return nil
	case <-time.After(stopMax):
		return fmt.Errorf("tgtd (pid %d) still runs after %v", t.PID, stopMax)
	}
}

// Package cluster starts ashlar and, for comparison, Debian's tgtd on this machine, for the end-to-end tests
// and the benchmark. It uses what a user has: the command line, the files in the data directory, signals.
//
//	DIR/run/ROLE-N.pid   pid of a daemon      roles as "ashlar dev --separate" names them
//	DIR/log/ROLE-N.log   its log
//	DIR/dev.out          what "ashlar dev" printed
//
// Processes are stopped by pid, and only those that were started here. Every wait has a limit.
package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of the waits.
const (
	startMax = 60 * time.Second
	stopMax  = 20 * time.Second
	adminMax = 30 * time.Second
)

// metaPorts is how many ports from the meta port on "ashlar dev" uses.
const metaPorts = 100

// Options say what to start. Zero numbers mean the defaults of "ashlar dev".
type Options struct {
	Binary       string // path of bin/ashlar
	Dir          string // data directory
	Metaservers  int
	Chunkservers int
	Gateways     int
	Volume       string   // NAME=SIZE
	Args         []string // more arguments
	// Env is added to the environment of all daemons: ASHLAR_KEY=VALUE overrides a key of their configuration.
	Env []string
}

// Cluster is a running "ashlar dev --separate".
type Cluster struct {
	Portals []string // host:port, one per gateway
	Meta    []string // host:port, one per metaserver
	Target  string   // IQN of the demo target
	LUN     uint16
	// ReadyIn is how long the last start took until the ready line.
	ReadyIn time.Duration

	opt  Options
	args []string
	cmd  *exec.Cmd
	exit chan error // holds the result of cmd.Wait, once
}

// Start runs "ashlar dev --separate" and waits for its ready line.
func Start(ctx context.Context, opt Options) (*Cluster, error) {
	opt.Metaservers, opt.Gateways = max(opt.Metaservers, 1), max(opt.Gateways, 1)
	opt.Chunkservers = max(opt.Chunkservers, 3)
	if opt.Volume == "" {
		opt.Volume = "demo=1GiB"
	}
	if _, err := os.Stat(opt.Binary); err != nil {
		return nil, fmt.Errorf("no binary, run make build: %w", err)
	}
	portal, err := FreePorts(opt.Gateways)
	if err != nil {
		return nil, err
	}
	meta, err := FreePorts(metaPorts)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opt: opt}
	for i := range opt.Gateways {
		c.Portals = append(c.Portals, fmt.Sprintf("127.0.0.1:%d", portal+i))
	}
	for i := range opt.Metaservers {
		c.Meta = append(c.Meta, fmt.Sprintf("127.0.0.1:%d", meta+i))
	}
	c.args = append([]string{
		"dev", "--separate", "--dir", opt.Dir, "--portal", c.Portals[0], "--meta", c.Meta[0],
		"--metaservers", strconv.Itoa(opt.Metaservers), "--chunkservers", strconv.Itoa(opt.Chunkservers),
		"--gateways", strconv.Itoa(opt.Gateways), "--volume", opt.Volume,
	}, opt.Args...)
	if err := c.Restart(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Restart starts the cluster again on its directory with its addresses. It must be stopped.
func (c *Cluster) Restart(ctx context.Context) error {
	if err := os.MkdirAll(c.opt.Dir, 0o750); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(c.opt.Dir, "dev.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(c.opt.Binary, c.args...) //nolint:noctx // it outlives ctx and is stopped by Stop or Kill
	cmd.Stderr, cmd.Env = log, append(os.Environ(), c.opt.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout = w
	start := time.Now()
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return err
	}
	c.cmd, c.exit = cmd, make(chan error, 1)
	exit := c.exit
	go func() { exit <- cmd.Wait() }()
	ready := make(chan string, 1)
	go follow(r, filepath.Join(c.opt.Dir, "dev.out"), ready)
	url, err := c.awaitReady(ctx, ready)
	if err != nil {
		return errors.Join(fmt.Errorf("ashlar %s: %w", strings.Join(c.args, " "), err), c.KillAll())
	}
	c.ReadyIn = time.Since(start)
	return c.parseURL(url)
}

// follow passes the first "ready" line on and copies everything to the log until the writer is gone.
func follow(r *os.File, logName string, ready chan<- string) {
	defer r.Close()
	log, err := os.OpenFile(logName, os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		_, _ = io.Copy(io.Discard, r)
		return
	}
	defer log.Close()
	sc := bufio.NewScanner(r)
	once := false
	for sc.Scan() {
		fmt.Fprintln(log, sc.Text())
		if url, ok := strings.CutPrefix(sc.Text(), "ready "); ok && !once {
			once = true
			ready <- url
		}
	}
	if !once {
		close(ready)
	}
}

func (c *Cluster) awaitReady(ctx context.Context, ready <-chan string) (string, error) {
	select {
	case url, ok := <-ready:
		if !ok {
			return "", fmt.Errorf("ended without a ready line:\n%s", c.tail())
		}
		return url, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(startMax):
		return "", fmt.Errorf("no ready line within %v:\n%s", startMax, c.tail())
	}
}

// parseURL takes the target and LUN out of iscsi://HOST:PORT/IQN/LUN.
func (c *Cluster) parseURL(url string) error {
	parts := strings.Split(strings.TrimPrefix(strings.TrimSpace(url), "iscsi://"), "/")
	if len(parts) != 3 {
		return fmt.Errorf("ready line with the URL %q", url)
	}
	lun, err := strconv.ParseUint(parts[2], 10, 16)
	if err != nil {
		return fmt.Errorf("ready line with the URL %q: %w", url, err)
	}
	c.Target, c.LUN = parts[1], uint16(lun)
	return nil
}

// tail is the end of what the processes printed, for an error.
func (c *Cluster) tail() string {
	var out bytes.Buffer
	names, _ := filepath.Glob(filepath.Join(c.opt.Dir, "log", "*.log"))
	for _, name := range append([]string{filepath.Join(c.opt.Dir, "dev.out")}, names...) {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if len(b) > 2000 {
			b = b[len(b)-2000:]
		}
		fmt.Fprintf(&out, "--- %s\n%s\n", filepath.Base(name), b)
	}
	return out.String()
}

// Dir is the data directory.
func (c *Cluster) Dir() string { return c.opt.Dir }

// URL is the demo logical unit at gateway n (from 0).
func (c *Cluster) URL(n int) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", c.Portals[n], c.Target, c.LUN)
}

// Roles lists the daemons with a pid file whose name begins with prefix, in order.
func (c *Cluster) Roles(prefix string) []string {
	names, _ := filepath.Glob(filepath.Join(c.opt.Dir, "run", prefix+"*.pid"))
	var out []string
	for _, n := range names {
		out = append(out, strings.TrimSuffix(filepath.Base(n), ".pid"))
	}
	slices.Sort(out)
	return out
}

// PID reads the pid of a daemon.
func (c *Cluster) PID(role string) (int, error) {
	b, err := os.ReadFile(filepath.Join(c.opt.Dir, "run", role+".pid"))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("pid file of %s holds %q", role, b)
	}
	return pid, nil
}

// PIDs lists the pids of the running daemons whose role begins with prefix.
func (c *Cluster) PIDs(prefix string) []int {
	var out []int
	for _, r := range c.Roles(prefix) {
		if pid, err := c.PID(r); err == nil && Running(pid) {
			out = append(out, pid)
		}
	}
	return out
}

// Signal sends a signal to a daemon.
func (c *Cluster) Signal(role string, sig syscall.Signal) error {
	pid, err := c.PID(role)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("%v to %s: %w", sig, role, err)
	}
	return nil
}

// Kill sends SIGKILL to a daemon and waits until it is gone.
func (c *Cluster) Kill(role string) error {
	pid, err := c.PID(role)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", role, err)
	}
	return awaitGone([]int{pid}, stopMax)
}

// StartRole starts a daemon that died and waits until it has a new pid.
func (c *Cluster) StartRole(ctx context.Context, role string) error {
	old, _ := c.PID(role)
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.opt.Binary, "dev", "start", role, "--dir", c.opt.Dir)
	cmd.Env = append(os.Environ(), c.opt.Env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("dev start %s: %w\n%s", role, err, out)
	}
	for ctx.Err() == nil {
		if pid, err := c.PID(role); err == nil && pid != old && Running(pid) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("dev start %s: no new pid in %s", role, filepath.Join(c.opt.Dir, "run", role+".pid"))
}

// KillAll sends SIGKILL to every process of the cluster at once and waits until they are gone. Pid files are
// left as they are. "ashlar dev" comes last: its end would ask the daemons to stop.
func (c *Cluster) KillAll() error {
	pids := c.PIDs("")
	if c.cmd != nil && c.cmd.Process != nil {
		pids = append(pids, c.cmd.Process.Pid)
	}
	for _, pid := range pids {
		if Running(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return errors.Join(c.reap(), awaitGone(pids, stopMax))
}

// Stop ends the cluster with SIGTERM and reports what does not end within its limit, which is killed.
func (c *Cluster) Stop() error {
	if c.cmd == nil || c.cmd.Process == nil {
		return nil
	}
	pids := c.PIDs("")
	_ = syscall.Kill(c.cmd.Process.Pid, syscall.SIGTERM)
	err := c.reap()
	if err == nil {
		err = awaitGone(pids, stopMax)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("stop: %w", err), c.KillAll())
	}
	return nil
}

// reap waits for "ashlar dev" itself.
func (c *Cluster) reap() error {
	select {
	case err := <-c.exit:
		c.exit <- err
		return nil
	case <-time.After(stopMax):
		return fmt.Errorf("ashlar dev (pid %d) still runs after %v", c.cmd.Process.Pid, stopMax)
	}
}

// Admin runs an administrator's command against all metaservers and returns its stdout.
func (c *Cluster) Admin(ctx context.Context, args ...string) ([]byte, error) {
	return c.AdminAt(ctx, strings.Join(c.Meta, ","), args...)
}

// AdminAt is Admin against the given metaservers.
func (c *Cluster) AdminAt(ctx context.Context, meta string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, adminMax)
	defer cancel()
	return c.admin(ctx, meta, args...)
}

// AdminUntil is Admin for a command that may take as long as ctx allows.
func (c *Cluster) AdminUntil(ctx context.Context, args ...string) ([]byte, error) {
	return c.admin(ctx, strings.Join(c.Meta, ","), args...)
}

func (c *Cluster) admin(ctx context.Context, meta string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.opt.Binary, args...)
	cmd.Env = append(os.Environ(), "ASHLAR_META="+meta)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("ashlar %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out, nil
}

// logMu keeps two dumps apart.
var logMu sync.Mutex

// DumpLogs writes the end of each log, for a failed test.
func (c *Cluster) DumpLogs(w io.Writer) {
	logMu.Lock()
	defer logMu.Unlock()
	_, _ = io.WriteString(w, c.tail())
}

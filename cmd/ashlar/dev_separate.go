package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// restartPause is how long a daemon that died is left alone before --restart starts it again.
const restartPause = time.Second

// separate runs the daemons of a dev cluster as processes.
type separate struct {
	opts    *devOptions
	stderr  io.Writer
	endings chan endedInstance
	// spawn starts processes on one thread that lives as long as this: the kernel ties "end with your parent" to it.
	spawn chan func()
	waits sync.WaitGroup

	mu struct {
		sync.Mutex
		children map[*instance]*child
		stopping bool
	}
}

type child struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func newSeparate(o *devOptions, stderr io.Writer) *separate {
	r := &separate{opts: o, stderr: stderr, endings: make(chan endedInstance, 64), spawn: make(chan func())}
	r.mu.children = map[*instance]*child{}
	go func() {
		runtime.LockOSThread()
		for f := range r.spawn {
			f()
		}
	}()
	return r
}

// close waits for what watches the children, all of which have been stopped.
func (r *separate) close() {
	r.waits.Wait()
	close(r.spawn)
}

func (r *separate) start(inst *instance) error {
	cmd, out, err := daemonProcess(r.opts.binary, r.opts.dir, inst.role.name, inst.number)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // the child has it
	// A process group of its own: an interrupt of the terminal reaches us alone, and we stop the cluster in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	result := make(chan error)
	r.spawn <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		return fmt.Errorf("start %s: %w", inst.name(), err)
	}
	if err := os.WriteFile(inst.pidFile(r.opts.dir), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		return err
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	r.mu.Lock()
	r.mu.children[inst] = c
	r.mu.Unlock()
	r.waits.Go(func() { r.watch(inst, c) })
	return nil
}

// watch waits for the end of a child.
func (r *separate) watch(inst *instance, c *child) {
	err := c.cmd.Wait()
	close(c.done)
	r.mu.Lock()
	stopping := r.mu.stopping
	r.mu.Unlock()
	if stopping {
		return
	}
	select {
	case r.endings <- endedInstance{inst: inst, err: orClean(err)}:
	default:
	}
	if !r.opts.restart {
		return
	}
	time.Sleep(restartPause)
	r.mu.Lock()
	stopping = r.mu.stopping
	r.mu.Unlock()
	if _, alive := inst.running(r.opts.dir); stopping || alive {
		return
	}
	if err := r.start(inst); err != nil {
		fmt.Fprintf(r.stderr, "ashlar dev: %v\n", err)
	}
}

// stop ends whatever process runs the instance: our child, or one that "ashlar dev start" started.
func (r *separate) stop(inst *instance) error {
	r.mu.Lock()
	r.mu.stopping = true
	r.mu.Unlock()
	pid, alive := inst.running(r.opts.dir)
	if !alive {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", inst.name(), err)
	}
	// A stopped process acts on the signal only when it goes on.
	_ = syscall.Kill(pid, syscall.SIGCONT)
	deadline := time.Now().Add(devStop)
	for {
		if _, alive = inst.running(r.opts.dir); !alive {
			return os.Remove(inst.pidFile(r.opts.dir))
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return fmt.Errorf("%s did not stop within %v and was killed", inst.name(), devStop)
		}
		time.Sleep(devPoll / 5)
	}
}

func (r *separate) ended() <-chan endedInstance { return r.endings }

// daemonProcess returns the command of a daemon whose configuration is in dir, and its log, which the caller closes
// after the start.
func daemonProcess(binary, dir, roleName string, number int) (*exec.Cmd, *os.File, error) {
	name := fmt.Sprintf("%s-%d", roleName, number)
	out, err := os.OpenFile(filepath.Join(dir, "log", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	//nolint:noctx // the caller's stop order ends a daemon, by signals; "dev start" leaves it running
	cmd := exec.Command(binary, roleName, "--config", filepath.Join(dir, "conf", name+".yaml"))
	cmd.Stdout, cmd.Stderr = out, out
	if os.Getenv("GOMAXPROCS") == "" {
		cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", processors(runtime.GOMAXPROCS(0), len(daemonsOf(dir)))))
	}
	return cmd, out, nil
}

// processors returns how many processors each of the daemons that share a machine uses at once: twice its share, for they are
// not all busy at a time. One that uses more wakes processors which the next daemon on the way of a command needs.
func processors(machine, daemons int) int { return max(1, (2*machine+daemons-1)/daemons) }

// newDevStart returns "ashlar dev start".
func newDevStart(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "start ROLE-N",
		Short: "Start a daemon of a cluster that runs with --separate again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			abs, err := filepath.Abs(*dir)
			if err != nil {
				return err
			}
			pid, err := devStart(abs, args[0])
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s runs as process %d\n", args[0], pid)
			}
			return err
		},
	}
}

// devStart starts one daemon detached from this process.
func devStart(dir, name string) (pid int, err error) {
	roleName, num, ok := strings.Cut(name, "-")
	number, aerr := strconv.Atoi(num)
	inst := &instance{role: role{name: roleName}, number: number}
	if _, err := os.Stat(inst.configFile(dir)); !ok || aerr != nil || err != nil {
		return 0, fmt.Errorf("%s has no daemon %q; it has %s", dir, name, strings.Join(daemonsOf(dir), ", "))
	}
	if pid, alive := inst.running(dir); alive {
		return 0, fmt.Errorf("%s runs already, as process %d", name, pid)
	}
	binary, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd, out, err := daemonProcess(binary, dir, roleName, number)
	if err != nil {
		return 0, err
	}
	defer out.Close() //nolint:errcheck // the child has it
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	if err := os.WriteFile(inst.pidFile(dir), []byte(strconv.Itoa(pid)+"\n"), 0o600); err != nil {
		return 0, err
	}
	return pid, cmd.Process.Release()
}

func daemonsOf(dir string) []string {
	files, _ := filepath.Glob(filepath.Join(dir, "conf", "*-*.yaml"))
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".yaml")
	}
	if len(files) == 0 {
		return []string{"none (was it made with ashlar dev?)"}
	}
	return files
}

// running returns the process that runs the instance, and whether it lives.
func (i *instance) running(dir string) (pid int, alive bool) {
	text, err := os.ReadFile(i.pidFile(dir))
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0, false
	}
	// The number may have gone to another program since.
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(line), i.configFile(dir)) {
		return pid, false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return pid, false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return pid, !strings.HasPrefix(after, "Z")
}

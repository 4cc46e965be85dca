package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// stopMax is how long a target has to end.
const stopMax = 5 * time.Second

// startTGTRAM starts tgtd on a file in memory.
func startTGTRAM(ctx context.Context, opt options) (target, error) {
	dir, err := os.MkdirTemp(opt.shm, "ashlar-bench-")
	if err != nil {
		return target{}, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	t, err := cluster.StartTGT(ctx, cluster.TGTOptions{Dir: dir, Size: opt.size})
	if err != nil {
		return target{}, errors.Join(err, remove())
	}
	return target{
		unit: initiator.Config{Portal: t.Portal, Target: t.Target, LUN: t.LUN, Name: initiatorName},
		pids: map[string][]int{"tgtd": {t.PID}},
		stop: func() error { return errors.Join(t.Stop(), remove()) },
	}, nil
}

// startProgram starts a target that says on stdout when it is ready and where.
func startProgram(ctx context.Context, opt options, program string, args func(port string) []string) (target, error) {
	port, err := cluster.FreePorts(1)
	if err != nil {
		return target{}, err
	}
	all := append(args(strconv.Itoa(port)), "-mib", strconv.FormatInt(opt.size>>20, 10))
	cmd := exec.Command(program, all...) //nolint:noctx // stopped by stop
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(opt.dir, filepath.Base(program)+".log"))
	if err != nil {
		return target{}, err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return target{}, err
	}
	if err := cmd.Start(); err != nil {
		return target{}, fmt.Errorf("%w: build it first, as make bench-engine does", err)
	}
	stop := func() error { return end(cmd) }
	unit, err := readyUnit(ctx, out)
	if err != nil {
		return target{}, errors.Join(fmt.Errorf("%s is not ready: %w", program, err), stop())
	}
	return target{unit: unit, pids: map[string][]int{filepath.Base(program): {cmd.Process.Pid}}, stop: stop}, nil
}

// readyMax is how long a target has to be ready.
const readyMax = 10 * time.Second

// readyUnit reads the line that says where the unit is.
func readyUnit(ctx context.Context, out io.Reader) (initiator.Config, error) {
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		lines <- line
	}()
	select {
	case line := <-lines:
		url, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
		if !ok {
			return initiator.Config{}, fmt.Errorf("it said %q", line)
		}
		return parseURL(url)
	case <-ctx.Done():
		return initiator.Config{}, ctx.Err()
	case <-time.After(readyMax):
		return initiator.Config{}, fmt.Errorf("nothing said in %v", readyMax)
	}
}

// end stops a target, which may have ended by itself. How it ends is not looked at.
func end(cmd *exec.Cmd) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopMax, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			return err
		}
	}
	return nil
}

// loadReport is what another load generator prints.
type loadReport struct {
	Total struct {
		IOs  int64   `json:"ios"`
		IOPS float64 `json:"iops"`
		MBps float64 `json:"mb_s"`
		Lat  struct {
			Mean, P50, P99, Max float64
		} `json:"lat_us"`
	} `json:"total"`
	Errors  int64   `json:"errors"`
	Own     float64 `json:"client_cpu_s"`
	Servers []struct {
		PID int     `json:"pid"`
		CPU float64 `json:"cpu_s"`
	} `json:"servers"`
}

// fillWith writes the whole unit with another load generator, which marks blocks in a way of its own.
func fillWith(ctx context.Context, opt options, tg target) error {
	ctx, cancel := context.WithTimeout(ctx, fillMax)
	defer cancel()
	wl := workload{write: true, block: 1 << 20, depth: 8, sessions: 1}
	cmd := exec.CommandContext(ctx, opt.load, append(wl.loadArgs(opt, tg), "--once")...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// fillMax is how long that may take.
const fillMax = 10 * time.Minute

// measureWith runs one workload with another load generator.
func measureWith(ctx context.Context, opt options, tg target, wl workload) (result, error) {
	role := map[int]string{}
	var pids []string
	for name, ps := range tg.pids {
		for _, p := range ps {
			role[p] = name
			pids = append(pids, strconv.Itoa(p))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, opt.ramp+opt.seconds+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, opt.load, append(wl.loadArgs(opt, tg), "--pids", strings.Join(pids, ","))...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var rep loadReport
	if jerr := json.Unmarshal(out, &rep); jerr != nil {
		return result{}, errors.Join(err, jerr)
	}
	n := max(float64(rep.Total.IOs), 1)
	r := result{
		Seconds: opt.seconds.Seconds(), IOPS: rep.Total.IOPS, MBps: rep.Total.MBps, Errors: rep.Errors,
		MeanMicros: rep.Total.Lat.Mean, P50Micros: rep.Total.Lat.P50, P99Micros: rep.Total.Lat.P99,
		MaxMicros: rep.Total.Lat.Max, OwnMicros: rep.Own * 1e6 / n, RoleMicros: map[string]float64{},
	}
	for _, s := range rep.Servers {
		if s.CPU < 0 {
			return result{}, fmt.Errorf("the target (pid %d) has died", s.PID)
		}
		r.RoleMicros[role[s.PID]] += s.CPU * 1e6 / n
		r.CPUMicros += s.CPU * 1e6 / n
	}
	return r, nil
}

// loadArgs are the arguments of another load generator for a workload.
func (w workload) loadArgs(opt options, tg target) []string {
	rw := "read"
	if w.write {
		rw = "write"
	}
	if w.random {
		rw = "rand" + rw
	}
	return []string{
		"--url", fmt.Sprintf("iscsi://%s/%s/%d", tg.unit.Portal, tg.unit.Target, tg.unit.LUN), "--rw", rw,
		"--bs", strconv.Itoa(w.block), "--qd", strconv.Itoa(w.depth), "--sessions", strconv.Itoa(w.sessions),
		"--seconds", fmt.Sprint(opt.seconds.Seconds()), "--ramp", fmt.Sprint(opt.ramp.Seconds()),
		"--size", strconv.FormatInt(opt.size, 10), "--check",
	}
}

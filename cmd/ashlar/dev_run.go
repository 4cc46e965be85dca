package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// devReady bounds how long each daemon may take until it is ready, and the cluster until it serves.
	devReady = 60 * time.Second
	// devStop bounds how long a daemon may take to stop before it is killed.
	devStop = 20 * time.Second
	// devPoll is how often readiness is asked for.
	devPoll = 50 * time.Millisecond
)

// runner starts and stops the daemons of a dev cluster: in this process or as processes of their own.
type runner interface {
	// start starts an instance and returns at once.
	start(inst *instance) error
	// stop stops an instance, if it runs, and waits for it.
	stop(inst *instance) error
	// ended tells of instances that ended though nobody stopped them; cluster ends when fatal is true.
	ended() <-chan endedInstance
}

type endedInstance struct {
	inst  *instance
	err   error
	fatal bool
}

// runDev runs a cluster until ctx ends.
func runDev(ctx context.Context, o *devOptions, stdout, stderr io.Writer) (err error) {
	unlock, err := lockDir(o.dir)
	if err != nil {
		return err
	}
	defer unlock()
	instances, err := plan(o)
	if err != nil {
		return err
	}
	var r runner
	if o.separate {
		s := newSeparate(o, stderr)
		defer s.close()
		r = s
	} else {
		r = newInProcess(o)
	}
	if err := awaitGone(ctx, o.dir, instances); err != nil {
		return err
	}
	if err := portsFree(ctx, instances); err != nil {
		return err
	}
	defer func() {
		for _, inst := range slices.Backward(instances) {
			err = errors.Join(err, r.stop(inst))
		}
	}()
	if err := startCluster(ctx, o, r, instances); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	fmt.Fprintf(stdout, "ready iscsi://%s/%s/0\n", o.portal, devTarget(o.volumeName))
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-r.ended():
			fmt.Fprintf(stderr, "ashlar dev: %s ended: %v\n", e.inst.name(), e.err)
			if e.fatal {
				return fmt.Errorf("%s ended: %w (see %s)", e.inst.name(), e.err, e.inst.logFile(o.dir))
			}
		}
	}
}

// startCluster starts the daemons in order, each kind once the one below it is ready, and sets the volume up.
func startCluster(ctx context.Context, o *devOptions, r runner, instances []*instance) error {
	ctx, cancel := context.WithTimeoutCause(ctx, devReady, fmt.Errorf("the cluster did not get ready within %v; see the logs in %s", devReady, filepath.Join(o.dir, "log")))
	defer cancel()
	for _, kind := range []string{"etcd", "metaserver", "chunkserver", "gateway"} {
		if kind == "gateway" {
			if err := setUp(ctx, o); err != nil {
				return err
			}
		}
		var started []*instance
		for _, inst := range instances {
			if inst.role.name != kind {
				continue
			}
			fresh := kind == "chunkserver" && !exists(inst.dataDir(o.dir))
			if err := r.start(inst); err != nil {
				return err
			}
			// New chunkservers start one after the other, so that chunkserver-N gets the number N.
			if fresh {
				if err := awaitReady(ctx, o, r, inst); err != nil {
					return err
				}
			}
			started = append(started, inst)
		}
		for _, inst := range started {
			if err := awaitReady(ctx, o, r, inst); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitReady waits until an instance answers on /readyz.
func awaitReady(ctx context.Context, o *devOptions, r runner, inst *instance) error {
	client := &http.Client{Timeout: time.Second}
	last := errors.New("it does not answer")
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+inst.cfg.Base().AdminListen+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = errors.New(strings.TrimSpace(string(text)))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; %w", inst.name(), last, context.Cause(ctx))
		case e := <-r.ended():
			return fmt.Errorf("%s ended: %w (see %s)", e.inst.name(), e.err, e.inst.logFile(o.dir))
		case <-time.After(devPoll):
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lockDir makes the cluster's directory and keeps other "ashlar dev" out of it.
func lockDir(dir string) (unlock func(), err error) {
	for _, sub := range []string{"", "run", "log", "conf"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is in use by another ashlar dev: stop it, or choose another --dir", dir)
	}
	return func() { _ = f.Close() }, nil
}

// portsWait is how long a process that was killed may take to let go of its ports.
const portsWait = 5 * time.Second

// portsFree reports the first address that something else listens on: its answers would be taken for our daemon's.
func portsFree(ctx context.Context, instances []*instance) error {
	deadline := time.Now().Add(portsWait)
	for _, inst := range instances {
		for _, address := range inst.addresses() {
			for {
				l, err := net.Listen("tcp", address)
				if err == nil {
					_ = l.Close()
					break
				}
				if time.Now().After(deadline) || !errors.Is(err, syscall.EADDRINUSE) {
					return fmt.Errorf("%s of %s can not be used: %w (stop what listens there, or choose other addresses with --portal and --meta)",
						address, inst.name(), err)
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(devPoll):
				}
			}
		}
	}
	return nil
}

// awaitGone waits until the daemons of an earlier run, whose parent was killed, have ended.
func awaitGone(ctx context.Context, dir string, instances []*instance) error {
	deadline := time.Now().Add(devStop)
	for _, inst := range instances {
		for {
			pid, alive := inst.running(dir)
			if !alive {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s of an earlier run still runs as process %d: stop it first (kill %d)", inst.name(), pid, pid)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(devPoll):
			}
		}
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// inProcess runs the daemons of a dev cluster as parts of this process.
type inProcess struct {
	opts    *devOptions
	running map[*instance]*part
	endings chan endedInstance
}

type part struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func newInProcess(o *devOptions) *inProcess {
	return &inProcess{opts: o, running: map[*instance]*part{}, endings: make(chan endedInstance, 64)}
}

func (r *inProcess) start(inst *instance) error {
	out, err := os.OpenFile(inst.logFile(r.opts.dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	log, err := newLogger(out, inst.cfg.Base().LogLevel)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{cancel: cancel, done: make(chan struct{})}
	r.running[inst] = p
	go func() {
		defer close(p.done)
		defer out.Close() //nolint:errcheck // a log
		p.err = runDaemon(ctx, inst.role.name, inst.cfg, log)
		if ctx.Err() == nil {
			r.endings <- endedInstance{inst: inst, err: orClean(p.err), fatal: true}
		}
	}()
	return nil
}

func (r *inProcess) stop(inst *instance) error {
	p := r.running[inst]
	if p == nil {
		return nil
	}
	p.cancel()
	select {
	case <-p.done:
		return nil
	case <-time.After(devStop):
		return fmt.Errorf("%s did not stop within %v", inst.name(), devStop)
	}
}

func (r *inProcess) ended() <-chan endedInstance { return r.endings }

func orClean(err error) error {
	if err == nil {
		return fmt.Errorf("it stopped by itself")
	}
	return err
}

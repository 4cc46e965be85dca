package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// target is what is measured: a unit, the processes that serve it by role, and how to stop them.
type target struct {
	unit initiator.Config
	pids map[string][]int
	stop func() error
}

// initiatorName is the bench's own.
const initiatorName = "iqn.2026-11.dev.ashlar.bench:load"

// startTarget starts one of the known targets on its folder.
func startTarget(ctx context.Context, opt options, name string) (target, error) {
	dir, err := filepath.Abs(filepath.Join(opt.dir, name))
	if err != nil {
		return target{}, err
	}
	switch name {
	case "ashlar":
		return startAshlar(ctx, opt, dir)
	case "tgt-sync", "tgt-wb":
		t, err := cluster.StartTGT(ctx, cluster.TGTOptions{Dir: dir, Size: opt.size, WriteThrough: name == "tgt-sync"})
		if err != nil {
			return target{}, err
		}
		return target{
			unit: initiator.Config{Portal: t.Portal, Target: t.Target, LUN: t.LUN, Name: initiatorName},
			pids: map[string][]int{"tgtd": {t.PID}}, stop: t.Stop,
		}, nil
	case "tgt-ram":
		return startTGTRAM(ctx, opt)
	case "ram":
		return startProgram(ctx, opt, opt.ramtarget, func(port string) []string { return []string{"-listen", "127.0.0.1:" + port} })
	case "gotgt":
		return startProgram(ctx, opt, opt.gotgt, func(port string) []string { return []string{"-port", port} })
	case "url":
		unit, err := parseURL(opt.url)
		return target{unit: unit, pids: map[string][]int{"target": opt.pids}, stop: func() error { return nil }}, err
	}
	return target{}, fmt.Errorf("unknown target %q: use ashlar, tgt-sync, tgt-wb, ram, tgt-ram or gotgt", name)
}

// startAshlar starts a cluster of separate processes.
func startAshlar(ctx context.Context, opt options, dir string) (target, error) {
	bin, err := filepath.Abs(opt.binary)
	if err != nil {
		return target{}, err
	}
	c, err := cluster.Start(ctx, cluster.Options{
		Binary: bin, Dir: dir, Volume: fmt.Sprintf("demo=%dMiB", opt.size>>20),
	})
	if err != nil {
		return target{}, err
	}
	pids := map[string][]int{}
	for _, role := range c.Roles("") {
		kind, _, _ := strings.Cut(role, "-")
		pid, err := c.PID(role)
		if err != nil {
			return target{}, err
		}
		pids[kind] = append(pids[kind], pid)
	}
	return target{
		unit: initiator.Config{Portal: c.Portals[0], Target: c.Target, LUN: c.LUN, Name: initiatorName},
		pids: pids, stop: c.Stop,
	}, nil
}

// parseURL reads iscsi://HOST:PORT/IQN/LUN.
func parseURL(s string) (initiator.Config, error) {
	u, err := url.Parse(s)
	if err != nil {
		return initiator.Config{}, err
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if u.Scheme != "iscsi" || len(parts) != 2 {
		return initiator.Config{}, fmt.Errorf("%q is not iscsi://HOST:PORT/IQN/LUN", s)
	}
	lun, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil {
		return initiator.Config{}, fmt.Errorf("%q: %w", s, err)
	}
	return initiator.Config{Portal: u.Host, Target: parts[0], LUN: uint16(lun), Name: initiatorName}, nil
}

// cpu is the processor time of each role so far.
func (t target) cpu() (map[string]time.Duration, error) {
	out := map[string]time.Duration{}
	for role, pids := range t.pids {
		d, err := cluster.CPU(pids)
		if err != nil {
			return nil, err
		}
		out[role] = d
	}
	return out, nil
}

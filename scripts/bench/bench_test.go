package main

import (
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

func TestStamp(t *testing.T) {
	b := noise(16<<10, 1)
	stamp(b, 1<<20)
	if err := stamped(b, 1<<20); err != nil {
		t.Error(err)
	}
	if stamped(b, 1<<20+4096) == nil {
		t.Error("a block of another place was not found")
	}
	b[8192+15] ^= 1
	if stamped(b, 1<<20) == nil {
		t.Error("a wrong third block was not found")
	}
}

func TestParse(t *testing.T) {
	opt, err := parse([]string{"-workloads", "rw4k-q1,sr1m-q8", "-pids", "12,13", "-url", "iscsi://127.0.0.1:3260/iqn.x/2", "-seconds", "0.5"})
	if err != nil || len(opt.workloads) != 2 || len(opt.pids) != 2 || opt.targets[0] != "url" || opt.seconds != time.Second/2 {
		t.Errorf("%+v, %v", opt, err)
	}
	unit, err := parseURL(opt.url)
	want := initiator.Config{Portal: "127.0.0.1:3260", Target: "iqn.x", LUN: 2, Name: initiatorName}
	if err != nil || unit != want {
		t.Errorf("%+v, %v", unit, err)
	}
	for _, args := range [][]string{{"-workloads", "nope"}, {"-pids", "x"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestEngine(t *testing.T) {
	opt, err := parse([]string{"-engine", "-seconds", "2", "-ramp", "0.5", "-workloads", "rr4k-q128,sw1m-s4q8"})
	if err != nil || strings.Join(opt.targets, " ") != "ram tgt-ram gotgt" || opt.size != 256<<20 || len(opt.workloads) != 2 {
		t.Fatalf("%+v, %v", opt, err)
	}
	tg := target{unit: initiator.Config{Portal: "127.0.0.1:1", Target: "iqn.x", LUN: 2}}
	got := strings.Join(opt.workloads[1].loadArgs(opt, tg), " ")
	want := "--url iscsi://127.0.0.1:1/iqn.x/2 --rw write --bs 1048576 --qd 8 --sessions 4 --seconds 2 --ramp 0.5 --size 268435456 --check"
	if got != want {
		t.Errorf("arguments %q", got)
	}
	if _, err := parse([]string{"-workloads", "rr4k-q128"}); err == nil {
		t.Error("a workload of the engines without -engine")
	}
	if opt, _ := parse(nil); opt.size != 1<<30 || opt.targets[0] != "ashlar" {
		t.Errorf("defaults: %+v", opt)
	}
	for _, line := range []string{"", "ready\n", "no\n"} {
		if _, err := readyUnit(t.Context(), strings.NewReader(line)); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
	if u, err := readyUnit(t.Context(), strings.NewReader("ready iscsi://127.0.0.1:9/iqn.x/0\n")); err != nil || u.Target != "iqn.x" {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestSumAndTable(t *testing.T) {
	w := &worker{failed: 1, errs: []string{"e"}}
	for range 100 {
		w.hist.Add(time.Millisecond)
	}
	before := cpuTimes{roles: map[string]time.Duration{"a": 0, "b": time.Second}}
	after := cpuTimes{roles: map[string]time.Duration{"a": 10 * time.Millisecond, "b": time.Second}, own: time.Second}
	r := sum([]*worker{w}, workload{name: "x", block: 4096}, time.Second, before, after)
	if r.IOPS != 100 || r.CPUMicros != 100 || r.OwnMicros != 10000 || r.Errors != 1 || r.MBps != 0.4096 {
		t.Errorf("%+v", r)
	}
	r.Workload, r.Target = "x", "t"
	var out strings.Builder
	err := table(&out, options{rounds: 1, targets: []string{"t"}, workloads: []workload{{name: "x"}}}, []result{r})
	if err != nil || !strings.Contains(out.String(), "a 100") {
		t.Errorf("table:\n%s", out.String())
	}
	if m := median([]float64{5, 1, 3}); m != 3 {
		t.Errorf("median %v", m)
	}
}

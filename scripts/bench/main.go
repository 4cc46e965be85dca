// Command bench measures ashlar and Debian's tgt in one run, on one machine, with one load generator.
//
//	go run ./scripts/bench [flags]          make bench ARGS="-seconds 5 -rounds 1"
//
// Targets, one running at a time:
//
//	ashlar     "ashlar dev --separate": three replicas, each synced before a write is answered
//	tgt-sync   tgtd on a local file, write cache off: fdatasync after each write, one copy
//	tgt-wb     tgtd on a local file, tgt's default: a write is done when it is in the page cache
//	ram        the gateway's engine alone, over memory (-ramtarget, see gateway/ramtarget)
//	gotgt      the engine of github.com/gostor/gotgt over the same memory (-gotgt, see scripts/bench/gotgt)
//	tgt-ram    tgtd on a file in the memory file system (-shm), write cache on
//	URL        -url iscsi://HOST:PORT/IQN/LUN with -pids: anything else that is running
//
// Workloads are named by access (s sequential, r random), direction, block size and queue depth: rw4k-q32 is
// 4 KiB random writes with 32 outstanding on one session. Each runs for -ramp and then -seconds; a round runs all
// workloads of all targets, and the table has the median of the rounds. Every 4 KiB that is written carries its
// place, and every read checks it. Latency is from handing the command to the initiator to its answer. CPU is
// user and system time of the target's processes out of /proc/PID/stat, per completed command.
//
// -engine measures the last three with workloads of their own; "make bench-engine" builds what it needs. A target that dies
// has no figures for what was left, and the run goes on.
//
// The generator is this process. It is not the fastest; -load PROGRAM uses another one, which is called for each workload as
//
//	PROGRAM --url URL --rw randread|randwrite|read|write --bs N --qd N --sessions N --seconds S --ramp S --size N --check --pids P,...
//
// (with --once to write the whole unit) and prints a JSON object: total {ios, iops, mb_s, lat_us {mean, p50, p99, max}},
// errors, client_cpu_s, and servers, a list of {pid, cpu_s}.
//
// The result is one JSON object per measurement in -o, and a table on stdout. On a machine with few cores the
// generator competes with the target: its own CPU is in the table for that reason.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	binary    string
	dir       string
	targets   []string
	workloads []workload
	url       string
	pids      []int
	ramtarget string
	gotgt     string
	shm       string
	load      string
	out       string
	size      int64
	seconds   time.Duration
	ramp      time.Duration
	rounds    int
	keep      bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opt, err := parse(os.Args[1:])
	if err == nil {
		err = bench(ctx, opt, os.Stdout)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// parse reads the flags.
func parse(args []string) (options, error) {
	var opt options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&opt.binary, "binary", "bin/ashlar", "the program to measure")
	f.StringVar(&opt.dir, "dir", "bin/bench", "folder for data, on the disk to measure; removed at the end")
	targets := f.String("targets", "", "targets to measure (default: ashlar,tgt-sync,tgt-wb)")
	engine := f.Bool("engine", false, "measure engines over memory: ram,tgt-ram,gotgt")
	f.StringVar(&opt.ramtarget, "ramtarget", "bin/ramtarget", "the program of target ram")
	f.StringVar(&opt.gotgt, "gotgt", "bin/gotgt", "the program of target gotgt")
	f.StringVar(&opt.shm, "shm", "/dev/shm", "a memory file system, for target tgt-ram")
	f.StringVar(&opt.load, "load", "", "another load generator (default: this process)")
	names := f.String("workloads", "", "only these workloads, comma separated (default: all)")
	f.StringVar(&opt.url, "url", "", "measure this logical unit instead; its content is ERASED")
	pids := f.String("pids", "", "with -url: pids of the target's processes, comma separated")
	f.StringVar(&opt.out, "o", "bin/bench.jsonl", "file to which the results are appended")
	f.Int64Var(&opt.size, "mib", 0, "MiB of the unit to use (default: 1024, with -engine 256)")
	sec := f.Float64("seconds", 10, "measured seconds per workload")
	ramp := f.Float64("ramp", 2, "seconds before that are not measured")
	f.IntVar(&opt.rounds, "rounds", 3, "rounds")
	f.BoolVar(&opt.keep, "keep", false, "keep the data folder")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	all := workloads
	if *engine {
		all = engineWorkloads
	}
	opt.setDefaults(*engine, targets)
	opt.size <<= 20
	opt.seconds = time.Duration(*sec * float64(time.Second))
	opt.ramp = time.Duration(*ramp * float64(time.Second))
	opt.targets = strings.Split(*targets, ",")
	for s := range strings.SplitSeq(*pids, ",") {
		if n, err := strconv.Atoi(s); err == nil {
			opt.pids = append(opt.pids, n)
		} else if s != "" {
			return opt, fmt.Errorf("-pids: %w", err)
		}
	}
	if opt.url != "" {
		opt.targets = []string{"url"}
	}
	var err error
	opt.workloads, err = choose(*names, all)
	return opt, err
}

// setDefaults fills in what was not given.
func (o *options) setDefaults(engine bool, targets *string) {
	if *targets == "" {
		*targets = "ashlar,tgt-sync,tgt-wb"
		if engine {
			*targets = "ram,tgt-ram,gotgt"
		}
	}
	if o.size == 0 {
		o.size = 1024
		if engine {
			o.size = 256
		}
	}
}

// result is one measurement: one line of the results file.
type result struct {
	Target      string             `json:"target"`
	Workload    string             `json:"workload"`
	Round       int                `json:"round"`
	At          time.Time          `json:"at"`
	Seconds     float64            `json:"seconds"`
	IOPS        float64            `json:"iops"`
	MBps        float64            `json:"mb_s"`
	MeanMicros  float64            `json:"mean_us"`
	P50Micros   float64            `json:"p50_us"`
	P99Micros   float64            `json:"p99_us"`
	MaxMicros   float64            `json:"max_us"`
	Errors      int64              `json:"errors"`
	CPUMicros   float64            `json:"cpu_us_per_io"`
	RoleMicros  map[string]float64 `json:"cpu_us_per_io_by_role,omitempty"`
	OwnMicros   float64            `json:"generator_cpu_us_per_io"`
	FirstErrors []string           `json:"first_errors,omitempty"`
}

// bench runs all rounds.
func bench(ctx context.Context, opt options, w io.Writer) (err error) {
	if err := os.MkdirAll(opt.dir, 0o750); err != nil {
		return err
	}
	if !opt.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(opt.dir)) }()
	}
	if err := os.MkdirAll(filepath.Dir(opt.out), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(opt.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var all []result
	for round := 1; round <= opt.rounds; round++ {
		for _, name := range opt.targets {
			got, err := measureTarget(ctx, opt, name, round, func(r result) error {
				b, err := json.Marshal(r)
				if err != nil {
					return err
				}
				fmt.Fprintf(os.Stderr, "round %d %-9s %-10s %9.0f IOPS %8.1f MB/s p50 %7.0f us p99 %8.0f us cpu %5.0f us/io errors %d\n",
					r.Round, r.Target, r.Workload, r.IOPS, r.MBps, r.P50Micros, r.P99Micros, r.CPUMicros, r.Errors)
				_, err = f.Write(append(b, '\n'))
				return err
			})
			all = append(all, got...)
			if err != nil && name == "gotgt" && ctx.Err() == nil { // it panics now and then
				fmt.Fprintf(os.Stderr, "round %d: gotgt: %v\n", round, err)
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if err := table(w, opt, all); err != nil {
		return err
	}
	for _, r := range all {
		if r.Errors > 0 {
			return fmt.Errorf("%s %s: %d errors: %q", r.Target, r.Workload, r.Errors, r.FirstErrors)
		}
	}
	return nil
}

// measureTarget starts a target, fills its unit, runs all workloads and stops it. It fills in each round: targets in memory
// forget at a stop what they had, and a read of what was never written is an error.
func measureTarget(ctx context.Context, opt options, name string, round int, each func(result) error) (all []result, err error) {
	tg, err := startTarget(ctx, opt, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tg.stop()) }()
	if err := fill(ctx, opt, tg); err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	for _, wl := range opt.workloads {
		r, err := measure(ctx, opt, tg, wl)
		if err != nil {
			return all, fmt.Errorf("%s: %w", wl.name, err)
		}
		r.Target, r.Workload, r.Round, r.At = name, wl.name, round, time.Now().UTC()
		all = append(all, r)
		if err := each(r); err != nil {
			return all, err
		}
	}
	return all, nil
}

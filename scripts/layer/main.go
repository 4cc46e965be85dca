// Command layer runs one layer of the tests within a time budget, and sums the layers up at the end.
//
//	layer -name unit -budget 8m -results FILE -- go test -json ARGS…
//	layer -sum FILE
//
// The first form runs a command that prints the events of "go test -json" (one JSON object a line), in a
// process group of its own that is killed when the budget is spent. It shows one line per package and, for
// what failed, the output of the test; it appends its counts to FILE (one JSON object a line) and always
// exits 0 when FILE could be written, so that the next layer runs too. The second form prints a table and,
// as its last line, "N passed, N failed, N skipped"; it exits 1 when anything failed or nothing ran.
//
// Counted are top-level tests. A package that fails without a failed test (it does not build, it panics
// outside a test, its time is over), and a layer that ends without a result, count as one failure each.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// killGrace is how long a layer may clean up between SIGTERM and SIGKILL.
const killGrace = 10 * time.Second

// eventMax bounds one line of "go test -json".
const eventMax = 4 << 20

func main() {
	name := flag.String("name", "", "name of the layer")
	budget := flag.Duration("budget", 8*time.Minute, "time after which the layer is killed and counts as failed")
	results := flag.String("results", "", "file to which the counts are appended")
	sum := flag.String("sum", "", "sum up the counts of FILE instead of running a layer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *name, *budget, *results, *sum, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "layer:", err)
		stop()
		os.Exit(1)
	}
}

// run is main with its inputs named.
func run(ctx context.Context, name string, budget time.Duration, results, sum string, argv []string) error {
	switch {
	case sum != "":
		return summarize(os.Stdout, sum)
	case name == "" || results == "" || len(argv) == 0:
		return errors.New("usage: layer -name NAME -budget D -results FILE -- COMMAND…, or layer -sum FILE")
	}
	c, err := runLayer(ctx, os.Stdout, name, budget, argv)
	if err != nil {
		return err
	}
	if err := c.appendTo(results); err != nil {
		return err
	}
	return ctx.Err()
}

// runLayer executes argv and counts what its events say.
func runLayer(ctx context.Context, w io.Writer, name string, budget time.Duration, argv []string) (counts, error) {
	fmt.Fprintf(w, "\n=== %s (budget %v): %s\n", name, budget, shorten(argv))
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killGrace
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return counts{}, err
	}
	if err := cmd.Start(); err != nil {
		return counts{}, err
	}
	// A process that outlives SIGTERM could hold the pipe open for ever: kill what is left of the group.
	kill := context.AfterFunc(ctx, func() {
		time.Sleep(killGrace)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	defer kill()
	t := newTally(w)
	sc := bufio.NewScanner(out)
	sc.Buffer(make([]byte, 64<<10), eventMax)
	for sc.Scan() {
		t.line(sc.Bytes())
	}
	readErr := sc.Err()
	waitErr := cmd.Wait()
	timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded)
	c := t.finish(name, waitErr, readErr, timedOut, budget)
	c.Seconds = time.Since(start).Seconds()
	fmt.Fprintf(w, "--- %s: %d passed, %d failed, %d skipped in %.0f s of %v\n",
		name, c.Passed, c.Failed, c.Skipped, c.Seconds, budget)
	return c, nil
}

// shorten prints a command without a tail that nobody reads.
func shorten(argv []string) string {
	s := ""
	for i, a := range argv {
		if i > 0 {
			s += " "
		}
		s += a
	}
	if len(s) > 160 {
		s = s[:160] + "…"
	}
	return s
}

// appendTo adds the counts to the results file.
func (c counts) appendTo(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}

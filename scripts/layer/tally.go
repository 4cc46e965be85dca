package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

// outputMax is how much output of one failed test is shown; the end is what tells why.
const outputMax = 64 << 10

// event is one line of "go test -json" (go doc test2json) or of the build ("build-output", "build-fail").
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64
	ImportPath  string
	FailedBuild string
}

// counts is the result of a layer.
type counts struct {
	Layer    string   `json:"layer"`
	Passed   int      `json:"passed"`
	Failed   int      `json:"failed"`
	Skipped  int      `json:"skipped"`
	Seconds  float64  `json:"seconds"`
	Failures []string `json:"failures,omitempty"`
}

// pkg is the state of one package.
type pkg struct {
	done                    bool
	passed, failed, skipped int
	output                  map[string][]byte // by test; "" for the package itself
}

// tally follows the events of one run of go test.
type tally struct {
	w      io.Writer
	pkgs   map[string]*pkg
	builds map[string][]byte // compiler output by import path
	c      counts
}

func newTally(w io.Writer) *tally {
	return &tally{w: w, pkgs: map[string]*pkg{}, builds: map[string][]byte{}}
}

// line takes one line of output. What is no event is passed on as it is.
func (t *tally) line(b []byte) {
	var e event
	if len(b) == 0 || b[0] != '{' || json.Unmarshal(b, &e) != nil || e.Action == "" {
		fmt.Fprintf(t.w, "%s\n", b)
		return
	}
	switch e.Action {
	case "build-output":
		t.builds[e.ImportPath] = keep(t.builds[e.ImportPath], e.Output)
		return
	case "build-fail":
		return
	}
	p := t.pkgs[e.Package]
	if p == nil {
		p = &pkg{output: map[string][]byte{}}
		t.pkgs[e.Package] = p
	}
	switch e.Action {
	case "output":
		p.output[e.Test] = keep(p.output[e.Test], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.packageEnd(p, e)
		} else {
			t.testEnd(p, e)
		}
	}
}

// keep appends output and drops the beginning when there is too much.
func keep(b []byte, s string) []byte {
	b = append(b, s...)
	if len(b) > 2*outputMax {
		b = append(b[:0], b[len(b)-outputMax:]...)
	}
	return b
}

// testEnd counts a test and shows the output of a failed one.
func (t *tally) testEnd(p *pkg, e event) {
	top := !strings.Contains(e.Test, "/")
	switch e.Action {
	case "pass":
		if top {
			p.passed++
		}
	case "skip":
		if top {
			p.skipped++
			fmt.Fprintf(t.w, "skip %s %s: %s\n", short(e.Package), e.Test, reason(p.output[e.Test]))
		}
	case "fail":
		fmt.Fprintf(t.w, "FAIL %s %s (%.2f s)\n%s", short(e.Package), e.Test, e.Elapsed, tail(p.output[e.Test]))
		if top {
			p.failed++
			t.c.Failures = append(t.c.Failures, short(e.Package)+" "+e.Test)
		}
	}
	delete(p.output, e.Test)
}

// packageEnd closes a package.
func (t *tally) packageEnd(p *pkg, e event) {
	p.done = true
	if e.Action == "fail" && p.failed == 0 {
		t.packageFailed(p, e)
	}
	t.c.Passed += p.passed
	t.c.Failed += p.failed
	t.c.Skipped += p.skipped
	if p.passed+p.failed+p.skipped > 0 {
		fmt.Fprintf(t.w, "%-4s %-44s %3d passed %2d failed %7.2f s\n", e.Action, short(e.Package), p.passed, p.failed, e.Elapsed)
	}
	p.output = nil
}

// packageFailed counts a package that failed as such, and shows all that it printed, the output of the
// tests that had not ended (one of them panicked or hung) included.
func (t *tally) packageFailed(p *pkg, e event) {
	p.failed++
	what := short(e.Package)
	fmt.Fprintf(t.w, "FAIL %s\n%s", what, tail(t.builds[e.FailedBuild]))
	names := make([]string, 0, len(p.output))
	for name := range p.output {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(t.w, "%s", tail(p.output[name]))
	}
	t.c.Failures = append(t.c.Failures, what+" (package)")
}

// finish closes the run: packages that never ended, and a command that failed without a failed test, are
// failures.
func (t *tally) finish(name string, waitErr, readErr error, timedOut bool, budget time.Duration) counts {
	t.c.Layer = name
	open := make([]string, 0, len(t.pkgs))
	for pkgName, p := range t.pkgs {
		if !p.done {
			open = append(open, pkgName)
		}
	}
	sort.Strings(open)
	for _, pkgName := range open {
		p := t.pkgs[pkgName]
		t.packageFailed(p, event{Package: pkgName})
		t.c.Passed += p.passed
		t.c.Failed += p.failed
		t.c.Skipped += p.skipped
	}
	switch {
	case timedOut:
		t.fail(name, fmt.Sprintf("time budget of %v is spent", budget))
	case readErr != nil:
		t.fail(name, readErr.Error())
	case waitErr != nil && t.c.Failed == 0:
		t.fail(name, waitErr.Error())
	case t.c.Passed+t.c.Failed == 0:
		t.fail(name, "no test ran")
	}
	return t.c
}

// fail counts one failure of the layer itself.
func (t *tally) fail(name, why string) {
	t.c.Failed++
	t.c.Failures = append(t.c.Failures, name+": "+why)
	fmt.Fprintf(t.w, "FAIL %s: %s\n", name, why)
}

// short drops the module from an import path.
func short(p string) string {
	return strings.TrimPrefix(p, "github.com/ashlar-storage/ashlar/")
}

// tail is the end of an output.
func tail(b []byte) []byte {
	if len(b) > outputMax {
		return b[len(b)-outputMax:]
	}
	return b
}

// reason is the line of a skipped test that says why.
func reason(out []byte) string {
	for l := range strings.Lines(string(out)) {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			return l
		}
	}
	return "no reason given"
}

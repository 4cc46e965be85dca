package selftest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Verdict is how a check ended.
type Verdict string

// The verdicts.
const (
	Pass Verdict = "pass"
	Fail Verdict = "fail" // the host would not work, or not as it should
	Skip Verdict = "skip" // not applicable here, or not allowed
)

// Options say what to test.
type Options struct {
	Profile string // windows, esxi or linux
	URL     URL
	// Initiator is the iSCSI name to log in with; other initiators of the run append to it.
	Initiator string
	// Writes are the blocks that may be overwritten, none if its Count is 0. Only then are reservations taken and the
	// logical unit reset.
	Writes Range
	// Timeout bounds each wait for the target; 0 means 10 s.
	Timeout time.Duration
}

// Range is a run of logical blocks.
type Range struct{ First, Count uint64 }

// timeoutDefault bounds a wait for the target.
const timeoutDefault = 10 * time.Second

// Result is what became of one check.
type Result struct {
	Area     string  `json:"area"`
	Check    string  `json:"check"`
	Verdict  Verdict `json:"verdict"`
	Expected string  `json:"expected"`
	Found    string  `json:"found"`
	// Advice says what to do about a failure.
	Advice string `json:"advice,omitempty"`
	TookMS int64  `json:"took_ms"`
}

// Report is the outcome of a run.
type Report struct {
	Profile string   `json:"profile"`
	Portal  string   `json:"portal"`
	Target  string   `json:"target"`
	LUN     uint16   `json:"lun"`
	Passed  int      `json:"passed"`
	Failed  int      `json:"failed"`
	Skipped int      `json:"skipped"`
	Results []Result `json:"results"`
}

// check is one thing to find out. run returns what it found; an error is a failure, unless it is a skipped.
type check struct {
	area, title string
	want        string // what the host expects
	advice      string // what to do when it is not so
	writes      bool   // changes data or state of the logical unit
	run         func(p *probe) (found string, err error)
}

// skipped is the error of a check that does not apply.
type skipped struct{ why string }

func (s *skipped) Error() string { return s.why }

func skip(format string, args ...any) error { return &skipped{fmt.Sprintf(format, args...)} }

// ErrProfile says that a profile is unknown.
var ErrProfile = errors.New("the host is windows, esxi or linux")

// Run goes through the checks of a profile. The error is that none could be run at all, as when the login fails.
func Run(ctx context.Context, o Options) (*Report, error) {
	list := profile(o.Profile)
	if list == nil {
		return nil, fmt.Errorf("%q: %w", o.Profile, ErrProfile)
	}
	if o.Timeout == 0 {
		o.Timeout = timeoutDefault
	}
	p, err := newProbe(ctx, o)
	if err != nil {
		return nil, err
	}
	defer p.close()
	r := &Report{Profile: o.Profile, Portal: o.URL.Portal, Target: o.URL.Target, LUN: o.URL.LUN, Results: []Result{}}
	for _, c := range list {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r.add(p.judge(c))
	}
	return r, nil
}

func (r *Report) add(x Result) {
	switch x.Verdict {
	case Pass:
		r.Passed++
	case Fail:
		r.Failed++
	case Skip:
		r.Skipped++
	}
	r.Results = append(r.Results, x)
}

// judge runs one check.
func (p *probe) judge(c check) Result {
	r := Result{Area: c.area, Check: c.title, Verdict: Pass, Expected: c.want}
	if c.writes && p.o.Writes.Count == 0 {
		r.Verdict, r.Found = Skip, "changes the logical unit: allow it with --allow-writes"
		return r
	}
	if err := p.fresh(); err != nil {
		r.Verdict, r.Found, r.Advice = Fail, err.Error(), "The target does not let this host in again: see its log."
		return r
	}
	began := time.Now()
	found, err := c.run(p)
	p.endCheck()
	r = verdictOf(c, found, err)
	r.TookMS = time.Since(began).Milliseconds()
	return r
}

// verdictOf is the result of a check that found something.
func verdictOf(c check, found string, err error) Result {
	r := Result{Area: c.area, Check: c.title, Verdict: Pass, Expected: c.want, Found: found}
	var s *skipped
	switch {
	case errors.As(err, &s):
		r.Verdict, r.Found = Skip, s.why
	case err != nil:
		r.Verdict, r.Found, r.Advice = Fail, err.Error(), c.advice
	}
	return r
}

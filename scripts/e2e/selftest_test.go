//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// selftestMax bounds one run of ashlar selftest.
const selftestMax = 90 * time.Second

// selftestReport is what ashlar selftest -o json prints.
type selftestReport struct {
	Passed, Failed, Skipped int
	Results                 []struct{ Area, Check, Verdict, Expected, Found, Advice string }
}

// TestSelftest runs "ashlar selftest" for each host against a logical unit of the cluster: nothing may fail but the limits
// in milliseconds, for which this machine has too much else to do. With an oracle, what fails is only told.
func TestSelftest(t *testing.T) {
	u := newUnit(t, "64MiB")
	for _, host := range []string{"esxi", "linux", "windows"} { // Windows last: what a new volume uses is known after some seconds
		t.Run(host, func(t *testing.T) {
			r, exit := selftest(t, host, u.url(), "--allow-writes", "0-65535")
			for _, x := range r.Results {
				line := fmt.Sprintf("%s %s, %s: %s", strings.ToUpper(x.Verdict), x.Area, x.Check, x.Found)
				if x.Verdict == "fail" && !foreign() && x.Check != "UNMAP and I/O together" {
					t.Error(line)
				} else {
					t.Log(line)
				}
			}
			if len(r.Results) < 40 || r.Passed+r.Failed+r.Skipped != len(r.Results) || (r.Failed == 0) != (exit == 0) {
				t.Errorf("%d results, %d passed, %d failed, %d skipped, exit status %d", len(r.Results), r.Passed, r.Failed, r.Skipped, exit)
			}
			t.Logf("%d passed, %d failed, %d skipped", r.Passed, r.Failed, r.Skipped)
		})
	}
}

// TestSelftestChangesNothing compares the unit before and after a run without leave to write.
func TestSelftestChangesNothing(t *testing.T) {
	u := newUnit(t, "64MiB")
	c := client(u, "selftest")
	defer c.Close()
	s, err := c.Session(t.Context())
	must(t, err)
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i >> 8)
	}
	lb := c.LogicalBlock()
	must(t, s.Write(t.Context(), 0, lb, want))
	r, _ := selftest(t, "esxi", u.url())
	if r.Skipped < 10 {
		t.Errorf("%d checks skipped: those that write must be", r.Skipped)
	}
	got := make([]byte, len(want))
	must(t, s.Read(t.Context(), 0, lb, got))
	if string(got) != string(want) {
		t.Error("the data changed")
	}
}

// selftest runs ashlar selftest and reads its report.
func selftest(t *testing.T, host, url string, more ...string) (r selftestReport, exit int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), selftestMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, underTest(t), append([]string{"selftest", host, url, "-o", "json"}, more...)...)
	cmd.WaitDelay = 2 * time.Second
	var words strings.Builder
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, words.String())
	}
	if err != nil {
		exit = cmd.ProcessState.ExitCode()
	}
	return r, exit
}

//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// conformanceMax bounds one test of iscsi-test-cu. Those of SANITIZE overwrite the whole medium up to three times, and one
// of them sleeps for a minute.
const (
	conformanceMax = 30 * time.Second
	sanitizeMax    = 180 * time.Second
)

// verdict is how one test of the suite ended.
type verdict string

const (
	vPass    verdict = "PASS"
	vFail    verdict = "FAIL"
	vSkip    verdict = "SKIP"
	vTimeout verdict = "TIMEOUT"
)

// TestConformance runs every test of libiscsi's iscsi-test-cu alone (RUN=SUITE in E2E_CONFORMANCE narrows them).
// testdata/conformance.txt lists the tests that are expected to fail or to be skipped, each with its reason; any
// other result than PASS fails, and so does a listed test that passes.
func TestConformance(t *testing.T) {
	want := os.Getenv("E2E_CONFORMANCE")
	if want == "" {
		t.Skip("runs with make conformance (E2E_CONFORMANCE=1)")
	}
	filter := regexp.MustCompile(".")
	if want != "1" {
		filter = regexp.MustCompile(want)
	}
	u := newUnit(t, "256MiB")
	others := otherUnits(t, u)
	known := map[string]expectation{}
	if !foreign() {
		known = readKnown(t, "testdata/conformance.txt")
	}
	table := map[string]map[verdict]int{}
	var suites []string
	for _, name := range conformanceTests(t) {
		if !filter.MatchString(name) {
			continue
		}
		on, special := others[name]
		if !special {
			on = u
		}
		v, why := conform(t, on, name)
		suite, _, _ := strings.Cut(name, ".")
		if table[suite] == nil {
			table[suite] = map[verdict]int{}
			suites = append(suites, suite)
		}
		table[suite][v]++
		e, one := known[name]
		if !one {
			e = known[suite+".*"]
		}
		switch {
		case v == vPass && e.verdict == "":
		case v == e.verdict:
		case v == vPass:
			t.Errorf("%s passes now: take it out of testdata/conformance.txt (%s)", name, e.why)
		case foreign():
			t.Logf("%s %s: %s", v, name, why)
		default:
			t.Errorf("%s %s: %s", v, name, why)
		}
	}
	t.Log(tableText(suites, table))
}

// otherUnits are the logical units of tests that the usual one can not be used for, by test:
//   - the suite ReadOnly is for a write-protected one;
//   - GetLBAStatus.UnmapSingle asks about LBA i+1 and wants the answer to begin one physical block behind i, which only holds
//     where a physical block is one logical block;
//   - MultipathIO.CompareAndWrite zeroes 256 blocks and goes on to the next one, which has to be zero as well.
func otherUnits(t *testing.T, u unit) map[string]unit {
	t.Helper()
	if foreign() || u.cl == nil {
		return nil
	}
	readOnly, large, fresh := u, u, u
	readOnly.lun, large.lun, fresh.lun = 1, 2, 3
	admin(t, u.cl, "volume", "create", u.volume+"-read", "--size", "256MiB")
	admin(t, u.cl, "target", "map", u.target, "--lun", "1", "--volume", u.volume+"-read", "--read-only")
	admin(t, u.cl, "volume", "create", u.volume+"-4096", "--size", "256MiB", "--block-size", "4096")
	admin(t, u.cl, "target", "map", u.target, "--lun", "2", "--volume", u.volume+"-4096")
	admin(t, u.cl, "volume", "create", u.volume+"-fresh", "--size", "256MiB")
	admin(t, u.cl, "target", "map", u.target, "--lun", "3", "--volume", u.volume+"-fresh")
	return map[string]unit{
		"ReadOnly.ReadOnlySBC": readOnly, "GetLBAStatus.UnmapSingle": large, "MultipathIO.CompareAndWrite": fresh,
	}
}

// conformanceTests lists the suite, as FAMILY.TEST.
func conformanceTests(t *testing.T) []string {
	t.Helper()
	var out []string
	for l := range strings.Lines(tool(t, toolMax, "iscsi-test-cu", "-l")) {
		l = strings.TrimSpace(l)
		if name, ok := strings.CutPrefix(l, "ALL."); ok && strings.Count(name, ".") == 1 && !strings.HasSuffix(name, "*") {
			out = append(out, name)
		}
	}
	if len(out) < 200 {
		t.Fatalf("iscsi-test-cu lists %d tests, want 200 or more", len(out))
	}
	return out
}

var (
	cuFailed  = regexp.MustCompile(`\[FAILED\].*|\d+\. .*CU_.*`)
	cuSkipped = regexp.MustCompile(`\[SKIPPED\].*`)
	cuAfter   = regexp.MustCompile(`(passed|FAILED)[ \t]*\[SKIPPED\].*`)
	cuTotals  = regexp.MustCompile(`tests +([1-9]) +[1-9] +([0-9]) +([0-9]) `)
)

// conform runs one test. What is printed before "Test:" belongs to the set-up of the suite, and a [SKIPPED] after
// the verdict to its end.
func conform(t *testing.T, u unit, name string) (verdict, string) {
	t.Helper()
	limit, run := conformanceMax, name
	switch {
	case name == "iSCSITMF.LUNResetSimpleAsync":
		run = "iSCSITMF.*" // it looks at a variable that only the other test of its suite sets
	case strings.HasPrefix(name, "Sanitize."):
		limit = sanitizeMax
	}
	args := []string{"-d", "-S", "-v", "-t", "ALL." + run, u.url()}
	if strings.HasPrefix(name, "MultipathIO.") {
		if u.cl != nil && len(u.cl.Portals) > 1 {
			args = append(args, fmt.Sprintf("iscsi://%s/%s/%d", u.cl.Portals[1], u.target, u.lun))
		} else {
			args = append(args, u.url())
		}
	}
	start := time.Now()
	out, err := try(t, limit, "iscsi-test-cu", args...)
	if time.Since(start) >= limit {
		return vTimeout, "no end after " + limit.String()
	}
	if i := strings.Index(out, "Test: "); i >= 0 {
		out = cuAfter.ReplaceAllString(out[i:], "$1")
	}
	totals := cuTotals.FindStringSubmatch(out)
	switch {
	case totals == nil:
		return vFail, fmt.Sprintf("did not run: %v %s", err, lastLine(out))
	case totals[3] != "0":
		return vFail, cuFailed.FindString(out)
	case strings.Contains(out, "[SKIPPED]"):
		return vSkip, cuSkipped.FindString(out)
	}
	return vPass, ""
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// expectation is one line of testdata/conformance.txt: "VERDICT SUITE.TEST: reason", where TEST may be * for all
// tests of the suite that no other line names.
type expectation struct {
	verdict verdict
	why     string
}

func readKnown(t *testing.T, name string) map[string]expectation {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]expectation{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		l := strings.TrimSpace(sc.Text())
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		head, why, ok := strings.Cut(l, ": ")
		f := strings.Fields(head)
		if !ok || len(f) != 2 || why == "" {
			t.Fatalf("%s: %q: want VERDICT SUITE.TEST: reason", name, l)
		}
		out[f[1]] = expectation{verdict(f[0]), why}
	}
	return out
}

func tableText(suites []string, table map[string]map[verdict]int) string {
	var b strings.Builder
	all := map[verdict]int{}
	row := func(name string, m map[verdict]int) {
		fmt.Fprintf(&b, "%-28s %5d %5d %5d %8d\n", name, m[vPass], m[vFail], m[vSkip], m[vTimeout])
	}
	fmt.Fprintf(&b, "\n%-28s %5s %5s %5s %8s\n", "suite", vPass, vFail, vSkip, vTimeout)
	slices.Sort(suites)
	for _, s := range suites {
		row(s, table[s])
		for v, n := range table[s] {
			all[v] += n
		}
	}
	row("all", all)
	return b.String()
}

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/internal/selftest"
)

// TestSelftestArguments refuses what can not be meant, before anything is connected to.
func TestSelftestArguments(t *testing.T) {
	const url = "iscsi://127.0.0.1:1/iqn.2026-11.dev:x/0"
	for want, args := range map[string][]string{
		"windows, esxi or linux":  {"solaris", url},
		"iscsi://[USER":           {"linux", "127.0.0.1:3260"},
		"--allow-writes":          {"linux", url, "--allow-writes", "everything"},
		"choose table or json":    {"linux", url, "-o", "xml"},
		"go together":             {"linux", "iscsi://user@127.0.0.1:1/iqn.2026-11.dev:x/0"},
		"--secret-file":           {"linux", url, "--secret-file", "/nonexistent"},
		"log in to iqn":           {"linux", url},
		"accepts 2 arg(s)":        {"linux"},
		"unknown flag: --destroy": {"linux", url, "--destroy"},
	} {
		c := newSelftest()
		c.SilenceErrors, c.SilenceUsage = true, true
		c.SetArgs(args)
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// TestSelftestReport prints a report in both forms.
func TestSelftestReport(t *testing.T) {
	r := &selftest.Report{Profile: "esxi", Passed: 1, Failed: 1, Results: []selftest.Result{
		{Area: "A", Check: "one", Verdict: selftest.Pass, Expected: "x", Found: "y"},
		{Area: "B", Check: "two", Verdict: selftest.Fail, Expected: "this", Found: "that", Advice: "Do something."},
	}}
	var table, text bytes.Buffer
	if err := printReport(&table, r, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PASS  A  one  y\n", "FAIL  B  two  that\n", "expected: this", "Do something.", "1 passed, 1 failed, 0 skipped"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("%q is not in\n%s", want, table.String())
		}
	}
	if err := printReport(&text, r, true); err != nil {
		t.Fatal(err)
	}
	var back selftest.Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil || len(back.Results) != 2 || back.Results[1].Advice != "Do something." {
		t.Errorf("%v: %s", err, text.String())
	}
}

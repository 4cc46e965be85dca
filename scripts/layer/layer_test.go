package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// layer runs a shell script as a layer and returns its counts and what was printed.
func layer(t *testing.T, budget time.Duration, script string) (counts, string) {
	t.Helper()
	var out strings.Builder
	c, err := runLayer(t.Context(), &out, "l", budget, []string{"sh", "-c", script})
	if err != nil {
		t.Fatal(err)
	}
	return c, out.String()
}

func TestCounts(t *testing.T) {
	const head = `cat <<'E'
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"hello of A\n"}
`
	for _, c := range []struct {
		name, events, after     string
		passed, failed, skipped int
		shows                   string
	}{
		{"pass", `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"p"}`, "", 1, 0, 0, "1 passed"},
		{"fail shows output", `{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, "exit 1", 0, 1, 0, "hello of A"},
		{"skip", `{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p"}`, "", 1, 0, 1, "skip p TestA: hello of A"},
		{"panic in a test", `{"Action":"fail","Package":"p"}`, "exit 1", 0, 1, 0, "hello of A"},
		{"package never ends", `{"Action":"pass","Package":"p","Test":"TestB"}`, "", 1, 1, 0, "hello of A"},
		{"build fails", `{"ImportPath":"q","Action":"build-output","Output":"q.go:1: wrong\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"fail","Package":"q","FailedBuild":"q"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`, "exit 1", 1, 1, 0, "q.go:1: wrong"},
		{"command fails alone", `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`, "exit 3", 1, 1, 0, "exit status 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, out := layer(t, time.Minute, head+c.events+"\nE\n"+c.after)
			if got.Passed != c.passed || got.Failed != c.failed || got.Skipped != c.skipped {
				t.Errorf("got %+v", got)
			}
			if !strings.Contains(out, c.shows) {
				t.Errorf("output lacks %q:\n%s", c.shows, out)
			}
		})
	}
	if got, _ := layer(t, time.Minute, "true"); got.Failed != 1 {
		t.Errorf("a layer without tests: got %+v, want a failure", got)
	}
}

func TestBudget(t *testing.T) {
	start := time.Now()
	got, out := layer(t, 300*time.Millisecond, `echo '{"Action":"start","Package":"p"}'; sleep 60`)
	if got.Failed == 0 || !strings.Contains(out, "time budget") {
		t.Errorf("got %+v\n%s", got, out)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the layer ended after %v", d)
	}
}

func TestSummary(t *testing.T) {
	name := filepath.Join(t.TempDir(), "results")
	sum := func() (string, error) {
		var out strings.Builder
		err := summarize(&out, name)
		return out.String(), err
	}
	if _, err := sum(); err == nil {
		t.Error("no file: no error")
	}
	for _, c := range []counts{{Layer: "a", Passed: 3, Skipped: 1}, {Layer: "b", Passed: 2}} {
		if err := c.appendTo(name); err != nil {
			t.Fatal(err)
		}
	}
	out, err := sum()
	if err != nil || !strings.HasSuffix(out, "\n5 passed, 0 failed, 1 skipped\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := (counts{Layer: "c", Failed: 1, Failures: []string{"p TestX"}}).appendTo(name); err != nil {
		t.Fatal(err)
	}
	out, err = sum()
	if !errors.Is(err, errFailed) || !strings.HasSuffix(out, "\n5 passed, 1 failed, 1 skipped\n") || !strings.Contains(out, "p TestX") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.WriteFile(name, []byte(`{"layer":"a"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = sum(); !errors.Is(err, errFailed) {
		t.Errorf("nothing ran: %v", err)
	}
}

func TestUsage(t *testing.T) {
	if err := run(context.Background(), "", time.Second, "", "", nil); err == nil {
		t.Error("no arguments: no error")
	}
}

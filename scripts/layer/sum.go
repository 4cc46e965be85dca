package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// errFailed makes the process exit with 1; what failed is printed above.
var errFailed = errors.New("tests failed")

// summarize prints the table of the layers in the results file and the closing line.
func summarize(w io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var all counts
	layers := 0
	d := json.NewDecoder(f)
	fmt.Fprintf(w, "\n%-12s %7s %7s %8s %8s\n", "layer", "passed", "failed", "skipped", "seconds")
	for {
		var c counts
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		layers++
		fmt.Fprintf(w, "%-12s %7d %7d %8d %8.0f\n", c.Layer, c.Passed, c.Failed, c.Skipped, c.Seconds)
		all.Passed += c.Passed
		all.Failed += c.Failed
		all.Skipped += c.Skipped
		all.Failures = append(all.Failures, c.Failures...)
	}
	if layers == 0 {
		return fmt.Errorf("%s: no layer left a result", name)
	}
	if len(all.Failures) > 0 {
		fmt.Fprintln(w, "\nfailed:")
		for _, s := range all.Failures {
			fmt.Fprintln(w, "  "+s)
		}
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", all.Passed, all.Failed, all.Skipped)
	if all.Failed > 0 || all.Passed == 0 {
		return errFailed
	}
	return nil
}

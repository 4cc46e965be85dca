package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/internal/selftest"
)

// errSelftest says that a target did not pass; the report says why.
var errSelftest = errors.New("checks failed")

// newSelftest is the verb that looks at an iSCSI target as a host does.
func newSelftest() *cobra.Command {
	var o selftest.Options
	var output, writes, secretFile string
	c := &cobra.Command{
		Use:   "selftest windows|esxi|linux iscsi://[USER@]HOST[:PORT]/TARGET/LUN",
		Short: "Look at an iSCSI target, any target, as a host of this kind does before it relies on it",
		Long: "Logs in as the host would, goes through the checks that its vendor publishes, and prints what passed, what did not, and\n" +
			"what to do about it. Without --allow-writes nothing of the logical unit is changed. With it the given blocks are\n" +
			"OVERWRITTEN, reservations are taken and cleared, and the logical unit is reset: use a unit that nobody else uses.\n" +
			"The exit status is 1 when a check failed.",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("-o %q: choose table or json", output)
			}
			var err error
			o.Profile = args[0]
			if o.URL, err = selftest.ParseURL(args[1]); err != nil {
				return err
			}
			if o.Writes, err = selftest.ParseRange(writes); err != nil {
				return fmt.Errorf("--allow-writes: %w", err)
			}
			if secretFile != "" {
				b, err := os.ReadFile(secretFile)
				if err != nil {
					return fmt.Errorf("--secret-file: %w", err)
				}
				o.URL.Secret = strings.TrimRight(string(b), "\r\n")
			}
			if (o.URL.User == "") != (o.URL.Secret == "") {
				return errors.New("a CHAP user and its secret go together: give USER@ in the URL and --secret-file")
			}
			r, err := selftest.Run(c.Context(), o)
			if err != nil {
				return err
			}
			if err := printReport(c.OutOrStdout(), r, output == "json"); err != nil {
				return err
			}
			if r.Failed > 0 {
				return fmt.Errorf("%d of %d %w", r.Failed, len(r.Results), errSelftest)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&writes, "allow-writes", "", "blocks that may be overwritten: FIRST-LAST, 4 MiB or more, or all")
	f.StringVar(&o.Initiator, "initiator", "iqn.2026-11.dev.ashlar:selftest", "iSCSI name to log in with; a second host appends .other")
	f.StringVar(&secretFile, "secret-file", "", "file with the CHAP secret of the user in the URL")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "longest wait for an answer")
	f.StringVarP(&output, "output", "o", "table", "table or json")
	return c
}

// printReport shows a report as a list, what failed with what to do, or as JSON.
func printReport(w io.Writer, r *selftest.Report, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, x := range r.Results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", strings.ToUpper(string(x.Verdict)), x.Area, x.Check, x.Found)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range r.Results {
		if x.Verdict == selftest.Fail {
			fmt.Fprintf(w, "\n%s, %s\n  expected: %s\n  found:    %s\n  %s\n", x.Area, x.Check, x.Expected, x.Found, x.Advice)
		}
	}
	_, err := fmt.Fprintf(w, "\n%s: %d passed, %d failed, %d skipped\n", r.Profile, r.Passed, r.Failed, r.Skipped)
	return err
}

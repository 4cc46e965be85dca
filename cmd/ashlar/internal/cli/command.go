package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
)

// metaEnv names the environment variable with the addresses of the metaservers.
const metaEnv = "ASHLAR_META"

// metaDefault is where a metaserver listens on a machine by itself.
const metaDefault = "127.0.0.1:7400"

// timeoutDefault bounds a command that asks one thing.
const timeoutDefault = metaclient.AdminTimeout

// Commands returns the verbs: volume, target, session, cluster, chunkserver and copyset, each with its own flags on every leaf, so
// that the leaves can be put below another command.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		volumeCommand(), targetCommand(), sessionCommand(), clusterCommand(), chunkserverCommand(), copysetCommand(),
	}
}

// options are the flags that every verb has.
type options struct {
	meta    string
	output  string
	timeout time.Duration
}

// session is one verb at work.
type session struct {
	admin metav1.AdminClient
	out   io.Writer
	err   io.Writer
	json  bool
}

// group makes a command that only holds others.
func group(use, short string, leaves ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(leaves...)
	return c
}

// verb makes a leaf that does f with a connection.
func verb(use, short string, args cobra.PositionalArgs, f func(context.Context, *session, []string) error) *cobra.Command {
	o := &options{}
	c := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, args, f) },
	}
	meta := os.Getenv(metaEnv)
	if meta == "" {
		meta = metaDefault
	}
	c.Flags().StringVar(&o.meta, "meta", meta, "addresses of the metaservers, HOST:PORT[,…] (or "+metaEnv+")")
	c.Flags().StringVarP(&o.output, "output", "o", "table", "table or json")
	c.Flags().DurationVar(&o.timeout, "timeout", timeoutDefault, "how long to try")
	return c
}

func (o *options) run(c *cobra.Command, args []string, f func(context.Context, *session, []string) error) error {
	if o.output != "table" && o.output != "json" {
		return fmt.Errorf("-o %q: choose table or json", o.output)
	}
	if o.timeout <= 0 {
		return fmt.Errorf("--timeout %v: give a time such as 15s", o.timeout)
	}
	client, err := metaclient.Dial(splitList(o.meta), metaclient.Options{})
	if err != nil {
		return fmt.Errorf("--meta %q: give HOST:PORT[,HOST:PORT…] of the metaservers: %w", o.meta, err)
	}
	defer client.Close() //nolint:errcheck // nothing is lost
	ctx, cancel := context.WithTimeout(c.Context(), o.timeout)
	defer cancel()
	s := &session{admin: client.Admin(), out: c.OutOrStdout(), err: c.ErrOrStderr(), json: o.output == "json"}
	return explain(f(ctx, s, args), o.meta)
}

// splitList splits a list at commas and leaves empty parts out.
func splitList(s string) []string {
	var out []string
	for _, p := range strings.Split(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// verbError is an error of the cluster in the words of the metaserver, with what to do.
type verbError struct {
	text string
	err  error
}

func (e *verbError) Error() string { return e.text }
func (e *verbError) Unwrap() error { return e.err }

// explain turns the error of a call into what the administrator reads.
func explain(err error, meta string) error {
	var known *verbError
	if err == nil || errors.As(err, &known) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch st.Code() {
	case codes.DeadlineExceeded, codes.Unavailable:
		return &verbError{fmt.Sprintf("%s\nAre the metaservers at %s the right ones and running? See --meta and %s.", st.Message(), meta, metaEnv), err}
	case codes.Canceled:
		return &verbError{"interrupted", err}
	case codes.Unimplemented:
		return &verbError{"the metaserver does not know this command: it runs an older version, upgrade it", err}
	}
	return &verbError{st.Message(), err}
}

// print shows v as JSON, or runs table.
func (s *session) print(v any, table func(io.Writer)) error {
	if s.json {
		enc := json.NewEncoder(s.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// row writes one line of a table.
func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			_, _ = io.WriteString(w, "\t")
		}
		_, _ = fmt.Fprint(w, c)
	}
	_, _ = io.WriteString(w, "\n")
}

// field writes one line of a list of names and values.
func field(w io.Writer, name string, value any) { row(w, name+":", value) }

// dash shows an empty text as a dash.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// list joins texts, a dash when there are none.
func list(items []string) string { return dash(strings.Join(items, ", ")) }

// age shows how long ago a time of milliseconds was.
func age(unixMs int64) string {
	if unixMs == 0 {
		return "never"
	}
	d := time.Since(time.UnixMilli(unixMs))
	switch {
	case d < 0:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d/time.Hour))
	}
	return fmt.Sprintf("%dd ago", int(d/(24*time.Hour)))
}

// yes shows a truth.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

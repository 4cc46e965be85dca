package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// secretFileMax bounds a file with a CHAP secret, in bytes.
const secretFileMax = 4096

// targetOut is a target in JSON.
type targetOut struct {
	IQN           string         `json:"iqn"`
	CreatedUnixMs int64          `json:"created_unix_ms"`
	LUNs          []lunOut       `json:"luns"`
	Initiators    []initiatorOut `json:"initiators"`
	Redirects     []redirectOut  `json:"redirects"`
	// Sessions are there only when the target is shown.
	Sessions []sessionOut `json:"sessions,omitempty"`
	// PendingGateways is there only in the answer to a change that some gateways have not confirmed.
	PendingGateways []string `json:"pending_gateways,omitempty"`
}

type lunOut struct {
	LUN      uint32 `json:"lun"`
	Volume   string `json:"volume"`
	VolumeID uint64 `json:"volume_id"`
	ReadOnly bool   `json:"read_only"`
}

type initiatorOut struct {
	Name       string `json:"name"`
	ChapUser   string `json:"chap_user"`
	MutualUser string `json:"mutual_user"`
	// ChapRotating says that an old secret is valid as well.
	ChapRotating bool `json:"chap_rotating"`
}

type redirectOut struct {
	Gateway   string `json:"gateway"`
	Address   string `json:"address"`
	Permanent bool   `json:"permanent"`
}

func newTargetOut(t *metav1.Target) targetOut {
	out := targetOut{
		IQN: t.GetIqn(), CreatedUnixMs: t.GetCreatedUnixMs(), LUNs: []lunOut{}, Initiators: []initiatorOut{},
		Redirects: []redirectOut{}, PendingGateways: t.GetPendingGateways(),
	}
	for _, l := range t.GetLuns() {
		out.LUNs = append(out.LUNs, lunOut{l.GetLun(), l.GetVolume(), l.GetVolumeId(), l.GetReadOnly()})
	}
	for _, i := range t.GetInitiators() {
		out.Initiators = append(out.Initiators, initiatorOut{i.GetName(), i.GetChapUser(), i.GetMutualUser(), i.GetChapRotating()})
	}
	for _, r := range t.GetRedirects() {
		out.Redirects = append(out.Redirects, redirectOut{r.GetGateway(), r.GetAddress(), r.GetPermanent()})
	}
	return out
}

func targetCommand() *cobra.Command {
	return group("target", "Create targets, map volumes into them and say who may use them",
		targetCreate(), targetList(), targetShow(), targetDelete(), targetMap(), targetUnmap(), targetAllow(), targetDeny(), targetRedirect())
}

// target shows one target.
func (s *session) target(t *metav1.Target, err error) error {
	if err != nil {
		return err
	}
	return s.showTarget(newTargetOut(t))
}

func (s *session) showTarget(o targetOut) error {
	s.pending(o.PendingGateways)
	return s.print(o, func(w io.Writer) {
		field(w, "IQN", o.IQN)
		field(w, "Created", age(o.CreatedUnixMs))
		for _, l := range o.LUNs {
			note := ""
			if l.ReadOnly {
				note = " (read-only)"
			}
			field(w, fmt.Sprintf("LUN %d", l.LUN), l.Volume+note)
		}
		for _, i := range o.Initiators {
			field(w, "Allowed", i.Name+auth(i))
		}
		if len(o.Initiators) == 0 {
			field(w, "Allowed", "nobody: see ashlar target allow")
		}
		for _, r := range o.Redirects {
			field(w, "Redirect", redirectText(r))
		}
		for _, i := range o.Sessions {
			field(w, "Session", fmt.Sprintf("%s from %s at %s, %s, %d commands (%s in flight, %d failed, %d aborted), %s read, %s written",
				i.Initiator, i.from(), i.Gateway, age(i.SinceUnixMs), i.Commands, i.depth(), i.Failed, i.Aborted,
				sizeText(i.ReadBytes), sizeText(i.WriteBytes)))
		}
	})
}

// pending tells of gateways that have not confirmed a change, which is in force everywhere else.
func (s *session) pending(gateways []string) {
	for _, g := range gateways {
		_, _ = fmt.Fprintf(s.err, "gateway %s has not confirmed the change; it takes it over when it reaches a metaserver\n", g)
	}
}

// auth says how an initiator proves itself.
func auth(i initiatorOut) string {
	note := ""
	if i.ChapRotating {
		note = ", the old secret is valid as well"
	}
	switch {
	case i.MutualUser != "":
		return fmt.Sprintf(" (mutual CHAP, users %s and %s%s)", i.ChapUser, i.MutualUser, note)
	case i.ChapUser != "":
		return fmt.Sprintf(" (CHAP, user %s%s)", i.ChapUser, note)
	}
	return " (no authentication)"
}

func targetCreate() *cobra.Command {
	return verb("create IQN", "Create a target", cobra.ExactArgs(1), func(ctx context.Context, s *session, args []string) error {
		return s.target(s.admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: args[0]}))
	})
}

func targetList() *cobra.Command {
	return verb("list", "List the targets", cobra.NoArgs, func(ctx context.Context, s *session, _ []string) error {
		r, err := s.admin.ListTargets(ctx, &metav1.ListTargetsRequest{})
		if err != nil {
			return err
		}
		out := []targetOut{}
		for _, t := range r.GetTargets() {
			out = append(out, newTargetOut(t))
		}
		return s.print(out, func(w io.Writer) {
			row(w, "IQN", "LUNS", "INITIATORS")
			for _, t := range out {
				row(w, t.IQN, len(t.LUNs), len(t.Initiators))
			}
		})
	})
}

func targetShow() *cobra.Command {
	return verb("show IQN", "Show a target and its sessions", cobra.ExactArgs(1), func(ctx context.Context, s *session, args []string) error {
		t, err := s.admin.ShowTarget(ctx, &metav1.ShowTargetRequest{Iqn: args[0]})
		if err != nil {
			return err
		}
		o := newTargetOut(t)
		o.Sessions, err = s.sessions(ctx, &metav1.ListSessionsRequest{Target: t.GetIqn()})
		if err != nil && status.Code(err) != codes.Unimplemented { // an older metaserver
			return err
		}
		return s.showTarget(o)
	})
}

func targetDelete() *cobra.Command {
	return verb("delete IQN", "Delete a target without LUNs", cobra.ExactArgs(1), func(ctx context.Context, s *session, args []string) error {
		r, err := s.admin.DeleteTarget(ctx, &metav1.DeleteTargetRequest{Iqn: args[0]})
		if err != nil {
			return err
		}
		s.pending(r.GetPendingGateways())
		return s.deleted("target", args[0])
	})
}

func targetMap() *cobra.Command {
	q := &metav1.MapLUNRequest{}
	c := verb("map IQN --lun N --volume NAME", "Make a volume a LUN of a target", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			q.Iqn = args[0]
			return s.target(s.admin.MapLUN(ctx, q))
		})
	c.Flags().Uint32Var(&q.Lun, "lun", 0, "LUN, 0 to 255")
	c.Flags().StringVar(&q.Volume, "volume", "", "name of the volume")
	c.Flags().BoolVar(&q.ReadOnly, "read-only", false, "refuse writes")
	mustFlag(c, "lun")
	mustFlag(c, "volume")
	return c
}

func targetUnmap() *cobra.Command {
	q := &metav1.UnmapLUNRequest{}
	c := verb("unmap IQN --lun N", "Take a volume out of a target", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			q.Iqn = args[0]
			return s.target(s.admin.UnmapLUN(ctx, q))
		})
	c.Flags().Uint32Var(&q.Lun, "lun", 0, "LUN, 0 to 255")
	mustFlag(c, "lun")
	return c
}

func targetAllow() *cobra.Command {
	i := &metav1.Initiator{}
	var secretFile, oldFile, mutualFile string
	var long bool
	c := verb("allow IQN --initiator NAME", "Let an initiator use a target, in place of what it was allowed before", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			if (i.ChapUser == "") != (secretFile == "") || (i.MutualUser == "") != (mutualFile == "") {
				return errors.New("a CHAP user and the file with its secret go together: give --chap-user and --chap-secret-file, " +
					"and for mutual CHAP --mutual-user and --mutual-secret-file too")
			}
			var err error
			if i.ChapSecret, err = readSecret("--chap-secret-file", secretFile); err != nil {
				return err
			}
			if i.ChapOldSecret, err = readSecret("--chap-old-secret-file", oldFile); err != nil {
				return err
			}
			if i.MutualSecret, err = readSecret("--mutual-secret-file", mutualFile); err != nil {
				return err
			}
			return s.target(s.admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: args[0], Initiator: i, LongSecrets: long}))
		})
	c.Flags().StringVar(&i.Name, "initiator", "", "the initiator's iSCSI name, or * for any")
	c.Flags().StringVar(&i.ChapUser, "chap-user", "", "user with which the initiator proves itself")
	c.Flags().StringVar(&secretFile, "chap-secret-file", "", "file with its secret, 12 to 16 bytes; - for stdin")
	c.Flags().StringVar(&oldFile, "chap-old-secret-file", "", "file with a secret that is valid as well, until the initiator has the other one")
	c.Flags().BoolVar(&long, "long-secrets", false, "permit secrets of more than 16 bytes, which Windows does not take")
	c.Flags().StringVar(&i.MutualUser, "mutual-user", "", "user with which the target proves itself")
	c.Flags().StringVar(&mutualFile, "mutual-secret-file", "", "file with its secret, 12 to 16 bytes, another one")
	mustFlag(c, "initiator")
	return c
}

// readSecret reads a secret from a file, "-" for stdin, without the line's end; empty for no file. Secrets are not taken as
// arguments because other users of the machine see those.
func readSecret(flag, name string) (string, error) {
	var from io.Reader
	switch name {
	case "":
		return "", nil
	case "-":
		from = os.Stdin
	default:
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", flag, err)
		}
		defer f.Close() //nolint:errcheck // only read
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, secretFileMax))
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return "", fmt.Errorf("%s: %s is empty", flag, name)
	}
	return string(b), nil
}

func targetDeny() *cobra.Command {
	q := &metav1.DenyInitiatorRequest{}
	c := verb("deny IQN --initiator NAME", "Take away what allow gave", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			q.Iqn = args[0]
			return s.target(s.admin.DenyInitiator(ctx, q))
		})
	c.Flags().StringVar(&q.Initiator, "initiator", "", "the initiator's iSCSI name, or * for the entry that lets any in")
	mustFlag(c, "initiator")
	return c
}

// redirectText says where a redirect leads.
func redirectText(r redirectOut) string {
	from, how := "every gateway", "temporarily"
	if r.Gateway != "" {
		from = "gateway " + r.Gateway
	}
	if r.Permanent {
		how = "permanently"
	}
	return fmt.Sprintf("from %s to %s, %s", from, r.Address, how)
}

func targetRedirect() *cobra.Command {
	q := &metav1.RedirectTargetRequest{Redirect: &metav1.Redirect{}}
	off := false
	c := verb("redirect IQN --to HOST:PORT | --off", "Have gateways send a target's initiators elsewhere when they log in", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			if off == (q.Redirect.GetAddress() != "") {
				return errors.New("say where initiators are sent with --to HOST:PORT, or end a redirect with --off")
			}
			q.Iqn = args[0]
			return s.target(s.admin.RedirectTarget(ctx, q))
		})
	c.Flags().StringVar(&q.Redirect.Gateway, "gateway", "", "name of the gateway that sends them away; without it every one but that at --to")
	c.Flags().StringVar(&q.Redirect.Address, "to", "", "portal that they are sent to")
	c.Flags().BoolVar(&q.Redirect.Permanent, "permanent", false, "have initiators remember it")
	c.Flags().BoolVar(&off, "off", false, "end the redirect")
	return c
}

package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// sessionOut is an iSCSI session in JSON.
type sessionOut struct {
	Gateway     string            `json:"gateway"`
	TSIH        uint32            `json:"tsih"`
	ISID        string            `json:"isid"`
	Initiator   string            `json:"initiator"`
	Alias       string            `json:"alias"`
	Target      string            `json:"target"`
	User        string            `json:"user"`
	SinceUnixMs int64             `json:"since_unix_ms"`
	Connections []connectionOut   `json:"connections"`
	Keys        map[string]string `json:"keys"`
	InFlight    uint32            `json:"in_flight"`
	Window      uint32            `json:"window"`
	Commands    uint64            `json:"commands"`
	Failed      uint64            `json:"failed"`
	Aborted     uint64            `json:"aborted"`
	Rejected    uint64            `json:"rejected"`
	ReadBytes   uint64            `json:"read_bytes"`
	WriteBytes  uint64            `json:"write_bytes"`
}

type connectionOut struct {
	CID          uint32 `json:"cid"`
	Initiator    string `json:"initiator"`
	Portal       string `json:"portal"`
	HeaderDigest string `json:"header_digest"`
	DataDigest   string `json:"data_digest"`
}

func newSessionOut(s *metav1.Session) sessionOut {
	out := sessionOut{
		Gateway: s.GetGateway(), TSIH: s.GetTsih(), ISID: s.GetIsid(), Initiator: s.GetInitiator(), Alias: s.GetAlias(),
		Target: s.GetTarget(), User: s.GetUser(), SinceUnixMs: s.GetSinceUnixMs(), Connections: []connectionOut{}, Keys: s.GetKeys(),
		InFlight: s.GetInFlight(), Window: s.GetWindow(), Commands: s.GetCommands(), Failed: s.GetFailed(),
		Aborted: s.GetAborted(), Rejected: s.GetRejected(), ReadBytes: s.GetReadBytes(), WriteBytes: s.GetWriteBytes(),
	}
	for _, c := range s.GetConnections() {
		out.Connections = append(out.Connections, connectionOut{
			c.GetCid(), c.GetInitiator(), c.GetPortal(), c.GetHeaderDigest(), c.GetDataDigest(),
		})
	}
	return out
}

// from are the addresses that the initiator connects from.
func (s *sessionOut) from() string {
	var out []string
	for _, c := range s.Connections {
		out = append(out, c.Initiator)
	}
	return list(out)
}

// depth is how many commands are in flight, of how many.
func (s *sessionOut) depth() string { return fmt.Sprintf("%d/%d", s.InFlight, s.Window) }

func sessionCommand() *cobra.Command {
	return group("session", "Show the iSCSI sessions of initiators", sessionList())
}

// sessions asks for sessions.
func (s *session) sessions(ctx context.Context, r *metav1.ListSessionsRequest) ([]sessionOut, error) {
	reply, err := s.admin.ListSessions(ctx, r)
	if err != nil {
		return nil, err
	}
	out := []sessionOut{}
	for _, m := range reply.GetSessions() {
		out = append(out, newSessionOut(m))
	}
	return out, nil
}

func sessionList() *cobra.Command {
	r := &metav1.ListSessionsRequest{}
	keys := false
	c := verb("list", "List the sessions, as the gateways saw them a few seconds ago", cobra.NoArgs, func(ctx context.Context, s *session, _ []string) error {
		out, err := s.sessions(ctx, r)
		if err != nil {
			return err
		}
		return s.print(out, func(w io.Writer) {
			row(w, "GATEWAY", "TSIH", "INITIATOR", "FROM", "TARGET", "SINCE", "DEPTH", "COMMANDS", "READ", "WRITTEN", "FAILED", "ABORTED")
			for _, o := range out {
				row(w, o.Gateway, o.TSIH, o.Initiator, o.from(), dash(o.Target), age(o.SinceUnixMs), o.depth(), o.Commands,
					sizeText(o.ReadBytes), sizeText(o.WriteBytes), o.Failed, o.Aborted)
				if keys {
					row(w, "", "", keysText(o.Keys))
				}
			}
		})
	})
	c.Flags().StringVar(&r.Target, "target", "", "only of the target with this IQN")
	c.Flags().StringVar(&r.Initiator, "initiator", "", "only of the initiator with this IQN")
	c.Flags().StringVar(&r.Gateway, "gateway", "", "only of the gateway with this name")
	c.Flags().BoolVar(&keys, "keys", false, "show the negotiated keys too (json always does)")
	return c
}

// keysText writes negotiated keys in the order of their names.
func keysText(keys map[string]string) string {
	var out []string
	for k, v := range keys {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// pollEvery is how often --wait looks.
const pollEvery = 500 * time.Millisecond

// waitDefault bounds --wait unless --timeout is given: copying a copyset takes as long as it takes.
const waitDefault = 6 * time.Hour

// copysetOut is a copyset in JSON.
type copysetOut struct {
	ID             uint64        `json:"id"`
	Pool           string        `json:"pool"`
	ConfVersion    uint64        `json:"conf_version"`
	Quorum         bool          `json:"quorum"`
	Leader         uint64        `json:"leader"`
	Term           uint64        `json:"term"`
	Commit         uint64        `json:"commit"`
	AllocatedBytes uint64        `json:"allocated_bytes"`
	Peers          []peerOut     `json:"peers"`
	Operation      *operationOut `json:"operation"`
	// Comparison is the last one of the replicas that the metaserver knows of; nil: none.
	Comparison *comparisonOut `json:"comparison"`
}

type comparisonOut struct {
	Index  uint64   `json:"index"`
	Peers  []uint64 `json:"peers"`
	Differ bool     `json:"differ"`
	Odd    []uint64 `json:"odd"`
}

// text describes a comparison on one line.
func (c *comparisonOut) text() string {
	s := fmt.Sprintf("%d peers hold the same", len(c.Peers))
	if c.Differ {
		s = fmt.Sprintf("peers %v DIFFER, odd: %v", c.Peers, c.Odd)
	}
	return fmt.Sprintf("%s at index %d", s, c.Index)
}

type peerOut struct {
	ID          uint64 `json:"id"`
	Chunkserver uint64 `json:"chunkserver"`
	Role        string `json:"role"`
	Match       uint64 `json:"match"`
	Up          bool   `json:"up"`
}

type operationOut struct {
	Kind           string `json:"kind"`
	Step           string `json:"step"`
	OldPeer        uint64 `json:"old_peer"`
	NewPeer        uint64 `json:"new_peer"`
	NewChunkserver uint64 `json:"new_chunkserver"`
	StartedUnixMs  int64  `json:"started_unix_ms"`
	DoneBytes      uint64 `json:"done_bytes"`
	TotalBytes     uint64 `json:"total_bytes"`
	Error          string `json:"error"`
}

func newCopysetOut(c *metav1.Copyset) copysetOut {
	out := copysetOut{
		ID: c.GetId(), Pool: c.GetPool(), ConfVersion: c.GetConfVersion(), Quorum: c.GetQuorum(), Leader: c.GetLeader(),
		Term: c.GetTerm(), Commit: c.GetCommit(), AllocatedBytes: c.GetAllocated(), Peers: []peerOut{},
	}
	for _, p := range c.GetPeers() {
		role := "voter"
		if p.GetRole() == metav1.PeerRole_PEER_ROLE_LEARNER {
			role = "learner"
		}
		out.Peers = append(out.Peers, peerOut{p.GetId(), p.GetChunkserver(), role, p.GetMatch(), p.GetUp()})
	}
	if v := c.GetComparison(); v != nil {
		out.Comparison = &comparisonOut{v.GetIndex(), orEmpty(v.GetPeers()), v.GetDiffer(), orEmpty(v.GetOdd())}
	}
	if o := c.GetOperation(); o != nil {
		out.Operation = &operationOut{
			o.GetKind(), o.GetStep(), o.GetOldPeer(), o.GetNewPeer(), o.GetNewChunkserver(), o.GetStartedUnixMs(),
			o.GetDoneBytes(), o.GetTotalBytes(), o.GetError(),
		}
	}
	return out
}

func copysetCommand() *cobra.Command {
	return group("copyset", "Show and compare copysets, and replace their peers", copysetList(), copysetShow(), copysetVerify(), copysetReplacePeer())
}

func copysetList() *cobra.Command {
	return verb("list", "List the copysets", cobra.NoArgs, func(ctx context.Context, s *session, _ []string) error {
		r, err := s.admin.ListCopysets(ctx, &metav1.ListCopysetsRequest{})
		if err != nil {
			return err
		}
		out := []copysetOut{}
		for _, c := range r.GetCopysets() {
			out = append(out, newCopysetOut(c))
		}
		return s.print(out, func(w io.Writer) { copysetTable(w, out) })
	})
}

func copysetTable(w io.Writer, list []copysetOut) {
	row(w, "COPYSET", "POOL", "QUORUM", "LEADER", "PEERS (PEER@CHUNKSERVER)", "ALLOCATED", "OPERATION")
	for _, c := range list {
		var peers []string
		for _, p := range c.Peers {
			peers = append(peers, p.short())
		}
		op := "-"
		if c.Operation != nil {
			op = c.Operation.text()
		}
		leader := "-"
		if c.Leader != 0 {
			leader = fmt.Sprint(c.Leader)
		}
		row(w, c.ID, c.Pool, yes(c.Quorum), leader, strings.Join(peers, " "), sizeText(c.AllocatedBytes), op)
	}
}

// short is "12@3", with what is special about the peer.
func (p peerOut) short() string {
	s := fmt.Sprintf("%d@%d", p.ID, p.Chunkserver)
	if p.Role != "voter" {
		s += "(" + p.Role + ")"
	}
	if !p.Up {
		s += "(down)"
	}
	return s
}

// text describes an operation on one line.
func (o *operationOut) text() string {
	s := fmt.Sprintf("%s: peer %d by %d@%d: %s", o.Kind, o.OldPeer, o.NewPeer, o.NewChunkserver, o.Step)
	if o.TotalBytes > 0 {
		s += fmt.Sprintf(" (%s of %s)", sizeText(o.DoneBytes), sizeText(o.TotalBytes))
	}
	if o.Error != "" {
		s += ", given up: " + o.Error
	}
	return s
}

// copyset shows one copyset.
func (s *session) copyset(c *metav1.Copyset) error {
	o := newCopysetOut(c)
	return s.print(o, func(w io.Writer) {
		field(w, "Copyset", o.ID)
		field(w, "Pool", o.Pool)
		field(w, "Quorum", yes(o.Quorum))
		field(w, "Leader", fmt.Sprintf("chunkserver %d, term %d", o.Leader, o.Term))
		field(w, "Commit", o.Commit)
		field(w, "Configuration", o.ConfVersion)
		field(w, "Allocated", sizeText(o.AllocatedBytes))
		for _, p := range o.Peers {
			field(w, fmt.Sprintf("Peer %d", p.ID), fmt.Sprintf("chunkserver %d, %s, up: %s, has %d", p.Chunkserver, p.Role, yes(p.Up), p.Match))
		}
		if o.Comparison != nil {
			field(w, "Compared", o.Comparison.text())
		}
		if o.Operation != nil {
			field(w, "Operation", o.Operation.text()+", started "+age(o.Operation.StartedUnixMs))
		}
	})
}

func copysetShow() *cobra.Command {
	return verb("show COPYSET", "Show a copyset", cobra.ExactArgs(1), func(ctx context.Context, s *session, args []string) error {
		id, err := parseID("copyset", args[0])
		if err != nil {
			return err
		}
		c, err := s.admin.ShowCopyset(ctx, &metav1.ShowCopysetRequest{Id: id})
		if err != nil {
			return err
		}
		return s.copyset(c)
	})
}

func copysetReplacePeer() *cobra.Command {
	q := &metav1.ReplacePeerRequest{}
	var wait bool
	c := verb("replace-peer COPYSET --peer N", "Replace a peer of a copyset by a new one", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			var err error
			if q.Copyset, err = parseID("copyset", args[0]); err != nil {
				return err
			}
			// Waiting is for the copy, not for a metaserver.
			ask, cancel := context.WithTimeout(ctx, timeoutDefault)
			defer cancel()
			r, err := s.admin.ReplacePeer(ask, q)
			if err != nil {
				return err
			}
			if wait {
				if r, err = s.replaced(ctx, r); err != nil {
					return err
				}
			}
			return s.copyset(r)
		})
	c.Flags().Uint64Var(&q.Peer, "peer", 0, "id of the peer to replace")
	c.Flags().Uint64Var(&q.Chunkserver, "to", 0, "chunkserver for the new peer (default: the metaserver chooses)")
	c.Flags().BoolVar(&wait, "wait", false, "show the progress and wait for the end (then --timeout is 6h unless given)")
	mustFlag(c, "peer")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		if wait && !c.Flags().Changed("timeout") {
			return c.Flags().Set("timeout", waitDefault.String())
		}
		return nil
	}
	return c
}

// replaced follows an operation to its end and says on stderr how far it is.
func (s *session) replaced(ctx context.Context, c *metav1.Copyset) (*metav1.Copyset, error) {
	peer, last := c.GetOperation().GetNewPeer(), ""
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		op := c.GetOperation()
		if op == nil || op.GetNewPeer() != peer {
			return c, outcome(c, peer, last)
		}
		if text := newCopysetOut(c).Operation.text(); text != last {
			last = text
			fmt.Fprintln(s.err, text)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the replacement is still going on (%s): see ashlar copyset show %d: %w", last, c.GetId(), ctx.Err())
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, timeoutDefault)
		next, err := s.admin.ShowCopyset(ask, &metav1.ShowCopysetRequest{Id: c.GetId()})
		cancel()
		if err != nil {
			return nil, err
		}
		c = next
	}
}

// outcome tells whether the new peer of an operation that ended is a member.
func outcome(c *metav1.Copyset, peer uint64, last string) error {
	for _, p := range c.GetPeers() {
		if p.GetId() == peer {
			return nil
		}
	}
	if peer == 0 {
		return errors.New("the replacement ended before it could be seen: see ashlar copyset show")
	}
	return fmt.Errorf("the replacement was given up (%s)", last)
}

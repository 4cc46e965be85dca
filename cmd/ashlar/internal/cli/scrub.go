package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

const (
	// scrubAsk bounds the question how a chunkserver's scrub is, scrubGlance that of a command that is about more.
	scrubAsk    = 5 * time.Second
	scrubGlance = time.Second
	// scrubWait is --timeout of scrub --wait unless it is given.
	scrubWait = 7 * 24 * time.Hour
	// scrubShown is how many findings a table has of each kind; JSON has all.
	scrubShown = 20
	blockBytes = 4096
)

// scrubOut is the scrub of a chunkserver in JSON.
type scrubOut struct {
	Chunkserver  uint64       `json:"chunkserver"`
	Pass         uint64       `json:"pass"`
	Running      bool         `json:"running"`
	BeganUnixMs  int64        `json:"began_unix_ms"`
	NextUnixMs   int64        `json:"next_unix_ms"`
	Progress     tallyOut     `json:"progress"`
	UsedBytes    uint64       `json:"used_bytes"`
	RateBytes    uint64       `json:"rate_bytes"`
	LastPass     uint64       `json:"last_pass"`
	EndedUnixMs  int64        `json:"last_ended_unix_ms"`
	Last         tallyOut     `json:"last"`
	Findings     []findingOut `json:"findings"`
	Unrepairable []findingOut `json:"unrepairable"`
}

type tallyOut struct {
	VerifiedBytes      uint64 `json:"verified_bytes"`
	DamagedBlocks      uint64 `json:"damaged_blocks"`
	RepairedBlocks     uint64 `json:"repaired_blocks"`
	UnrepairableBlocks uint64 `json:"unrepairable_blocks"`
	SkippedChunks      uint64 `json:"skipped_chunks"`
}

type findingOut struct {
	Copyset    uint64 `json:"copyset"`
	Volume     uint64 `json:"volume"`
	Chunk      uint32 `json:"chunk"`
	Block      uint32 `json:"block"`
	TimeUnixMs int64  `json:"time_unix_ms"`
	Repaired   bool   `json:"repaired"`
	Problem    string `json:"problem"`
	Error      string `json:"error"`
	// Version is a version of the volume that has the block, 0 when the content of now was looked at.
	Version uint64 `json:"version"`
}

func newScrubOut(id uint64, r *chunkv1.ScrubReply) *scrubOut {
	return &scrubOut{
		Chunkserver: id, Pass: r.GetPass(), Running: r.GetRunning(), BeganUnixMs: r.GetBeganUnixMs(), NextUnixMs: r.GetNextUnixMs(),
		Progress: newTallyOut(r.GetTally()), UsedBytes: r.GetUsed(), RateBytes: r.GetRate(),
		LastPass: r.GetLastPass(), EndedUnixMs: r.GetEndedUnixMs(), Last: newTallyOut(r.GetLast()),
		Findings: newFindings(r.GetFindings()), Unrepairable: newFindings(r.GetUnrepairable()),
	}
}

func newTallyOut(t *chunkv1.ScrubTally) tallyOut {
	return tallyOut{
		t.GetVerifiedBlocks() * blockBytes, t.GetDamagedBlocks(), t.GetRepairedBlocks(), t.GetUnrepairableBlocks(), t.GetSkippedChunks(),
	}
}

func newFindings(all []*chunkv1.ScrubFinding) []findingOut {
	out := []findingOut{}
	for _, f := range all {
		out = append(out, findingOut{
			f.GetCopyset(), f.GetVolume(), f.GetChunk(), f.GetBlock(), f.GetTimeUnixMs(), f.GetRepaired(), f.GetProblem(), f.GetError(),
			f.GetContentVersion(),
		})
	}
	return out
}

// text says in a line what the scrub does.
func (o *scrubOut) text() string {
	if o.Running {
		return fmt.Sprintf("pass %d, %s of %s, at most %s/s", o.Pass, sizeText(o.Progress.VerifiedBytes), sizeText(o.UsedBytes), sizeText(o.RateBytes))
	}
	if o.LastPass == 0 {
		return "never"
	}
	return fmt.Sprintf("pass %d ended %s, %s verified", o.LastPass, age(o.EndedUnixMs), sizeText(o.Last.VerifiedBytes))
}

// damage says in a line what was found.
func (o *scrubOut) damage() string {
	t := o.Last
	if o.Running {
		t = o.Progress
	}
	text := fmt.Sprintf("%d damaged, %d repaired", t.DamagedBlocks, t.RepairedBlocks)
	if t.SkippedChunks > 0 {
		text += fmt.Sprintf(", %d chunks not readable", t.SkippedChunks)
	}
	if n := len(o.Unrepairable); n > 0 {
		text += fmt.Sprintf(", %d NOT REPAIRABLE so far", n)
	}
	return text
}

// table shows the findings.
func (o *scrubOut) table(w io.Writer) {
	field(w, "Scrub", o.text())
	field(w, "Blocks", o.damage())
	show := func(name string, all []findingOut) {
		if len(all) == 0 {
			return
		}
		row(w)
		row(w, name, "COPYSET", "VOLUME", "CHUNK", "BLOCK", "FOUND", "PROBLEM", "NOT REPAIRED BECAUSE")
		for _, f := range all[max(0, len(all)-scrubShown):] {
			row(w, "", f.Copyset, f.Volume, f.Chunk, f.Block, age(f.TimeUnixMs), f.Problem, dash(f.Error))
		}
	}
	show("UNREPAIRABLE", o.Unrepairable)
	show("FINDINGS", o.Findings)
}

// askScrub asks the chunkserver itself.
func askScrub(ctx context.Context, id uint64, address string, start bool) (*scrubOut, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	ctx, cancel := context.WithTimeout(ctx, scrubAsk)
	defer cancel()
	r, err := chunkv1.NewScrubClient(conn).Scrub(ctx, &chunkv1.ScrubRequest{Chunkserver: id, Start: start})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, &verbError{fmt.Sprintf("chunkserver %d does not know scrubs: it runs an older version, upgrade it", id), err}
	case err != nil:
		return nil, &verbError{fmt.Sprintf("chunkserver %d at %s: %s", id, address, status.Convert(err).Message()), err}
	}
	return newScrubOut(id, r), nil
}

// askScrubs asks all chunkservers that are up, at the same time, and returns those that answered by id.
func askScrubs(ctx context.Context, all []*metav1.Chunkserver) map[uint64]*scrubOut {
	ctx, cancel := context.WithTimeout(ctx, scrubGlance)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	out := map[uint64]*scrubOut{}
	for _, c := range all {
		if c.GetState() == metav1.ChunkserverState_CHUNKSERVER_STATE_DOWN || c.GetAddress() == "" {
			continue
		}
		wg.Go(func() {
			if o, err := askScrub(ctx, c.GetId(), c.GetAddress(), false); err == nil {
				mu.Lock()
				out[c.GetId()] = o
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

// What scrub --wait ends with when damage is left; what was printed says where.
var (
	errUnrepairable = errors.New("there are blocks that no replica could repair: start the chunkservers that are down and scrub again")
	errSkipped      = errors.New("there are chunks that could not be read: the index of that chunkserver is damaged, replace it with ashlar chunkserver drain")
)

func chunkserverScrub() *cobra.Command {
	var all, wait bool
	c := verb("scrub ID|--all", "Read all blocks of a chunkserver now, and repair what is damaged", cobra.MaximumNArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			if all == (len(args) == 1) {
				return errors.New("give the id of a chunkserver, or --all")
			}
			targets, err := s.scrubTargets(ctx, args)
			if err != nil {
				return err
			}
			var errs []error
			out := []*scrubOut{}
			for _, t := range targets {
				o, err := askScrub(ctx, t.GetId(), t.GetAddress(), true)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				out = append(out, o)
			}
			if wait {
				errs = append(errs, s.scrubbed(ctx, targets, out))
			}
			return errors.Join(append(errs, s.printScrubs(out, all))...)
		})
	c.Flags().BoolVar(&all, "all", false, "all chunkservers that are up")
	c.Flags().BoolVar(&wait, "wait", false, "show the progress and wait for the end (then --timeout is 168h unless given); fail if damage is left")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		if wait && !c.Flags().Changed("timeout") {
			return c.Flags().Set("timeout", scrubWait.String())
		}
		return nil
	}
	return c
}

// scrubTargets returns the chunkserver that args names, or all that are up.
func (s *session) scrubTargets(ctx context.Context, args []string) ([]*metav1.Chunkserver, error) {
	ctx, cancel := context.WithTimeout(ctx, timeoutDefault)
	defer cancel()
	if len(args) == 1 {
		id, err := parseID("chunkserver", args[0])
		if err != nil {
			return nil, err
		}
		r, err := s.admin.ShowChunkserver(ctx, &metav1.ShowChunkserverRequest{Id: id})
		if err != nil {
			return nil, err
		}
		return []*metav1.Chunkserver{r.GetChunkserver()}, nil
	}
	r, err := s.admin.ListChunkservers(ctx, &metav1.ListChunkserversRequest{})
	if err != nil {
		return nil, err
	}
	var out []*metav1.Chunkserver
	for _, c := range r.GetChunkservers() {
		if c.GetState() == metav1.ChunkserverState_CHUNKSERVER_STATE_DOWN {
			fmt.Fprintf(s.err, "chunkserver %d is down and left out\n", c.GetId())
			continue
		}
		out = append(out, c)
	}
	return out, nil
}

// scrubbed follows the passes that were begun to their ends, fills out with how they are then, and says on stderr how far they are.
func (s *session) scrubbed(ctx context.Context, targets []*metav1.Chunkserver, out []*scrubOut) error {
	address := map[uint64]string{}
	for _, t := range targets {
		address[t.GetId()] = t.GetAddress()
	}
	var errs []error
	for i, o := range out {
		o, err := s.follow(ctx, o, address[o.Chunkserver])
		out[i] = o
		switch {
		case err != nil:
			errs = append(errs, err)
		case len(o.Unrepairable) > 0:
			errs = append(errs, errUnrepairable)
		case o.Last.SkippedChunks > 0:
			errs = append(errs, errSkipped)
		}
	}
	return errors.Join(errs...)
}

// follow follows one pass to its end. A chunkserver that was restarted before it began has forgotten it, and is asked again.
func (s *session) follow(ctx context.Context, o *scrubOut, address string) (*scrubOut, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	idle := 0
	for pass, last := o.Pass, ""; o.LastPass < pass; {
		select {
		case <-ctx.Done():
			return o, fmt.Errorf("chunkserver %d is still being scrubbed: see ashlar chunkserver show %d: %w", o.Chunkserver, o.Chunkserver, ctx.Err())
		case <-tick.C:
		}
		again := idle > 1
		now, err := askScrub(ctx, o.Chunkserver, address, again)
		var text string
		switch code := status.Code(err); {
		case err == nil:
			o, text = now, fmt.Sprintf("chunkserver %d: %s, %s", now.Chunkserver, now.text(), now.damage())
			if idle++; o.Running || again {
				idle = 0
			}
		case code == codes.FailedPrecondition || code == codes.Unimplemented:
			return o, err
		default:
			text = err.Error() // it may come back
		}
		if text != last {
			last = text
			fmt.Fprintln(s.err, text)
		}
	}
	return o, nil
}

// printScrubs shows scrubs; with all, JSON is an array.
func (s *session) printScrubs(out []*scrubOut, all bool) error {
	if !all && s.json && len(out) == 0 {
		return nil // the error says why
	}
	var v any = out
	if !all && len(out) == 1 {
		v = out[0]
	}
	return s.print(v, func(w io.Writer) {
		for i, o := range out {
			if i > 0 {
				row(w)
			}
			field(w, "Chunkserver", o.Chunkserver)
			o.table(w)
		}
	})
}

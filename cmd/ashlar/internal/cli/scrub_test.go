package cli

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// scrubFake is a metaserver of one chunkserver that is up, and one that is down, and the former itself.
type scrubFake struct {
	metav1.UnimplementedAdminServer
	chunkv1.UnimplementedScrubServer
	address string
	started int
	asked   int
	damaged bool
	skipped uint64
	// failure is what the next questions without a start are answered with; forgets how many starts it forgets.
	failure error
	forgets int
}

func serveScrub(t *testing.T) *scrubFake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &scrubFake{address: l.Addr().String()}
	g := grpc.NewServer()
	metav1.RegisterAdminServer(g, f)
	chunkv1.RegisterScrubServer(g, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return f
}

func (f *scrubFake) up() *metav1.Chunkserver {
	return &metav1.Chunkserver{Id: 4, Address: f.address, State: metav1.ChunkserverState_CHUNKSERVER_STATE_UP}
}

func (f *scrubFake) ShowChunkserver(context.Context, *metav1.ShowChunkserverRequest) (*metav1.ShowChunkserverReply, error) {
	return &metav1.ShowChunkserverReply{Chunkserver: f.up()}, nil
}

func (f *scrubFake) ListChunkservers(context.Context, *metav1.ListChunkserversRequest) (*metav1.ListChunkserversReply, error) {
	down := &metav1.Chunkserver{Id: 5, Address: "127.0.0.1:1", State: metav1.ChunkserverState_CHUNKSERVER_STATE_DOWN}
	return &metav1.ListChunkserversReply{Chunkservers: []*metav1.Chunkserver{f.up(), down}}, nil
}

func (f *scrubFake) ClusterStatus(context.Context, *metav1.ClusterStatusRequest) (*metav1.ClusterStatusReply, error) {
	return &metav1.ClusterStatusReply{Healthy: true, Chunkservers: []*metav1.Chunkserver{f.up()}}, nil
}

// Scrub runs the second time it is asked, and has ended the third.
func (f *scrubFake) Scrub(_ context.Context, r *chunkv1.ScrubRequest) (*chunkv1.ScrubReply, error) {
	if r.GetChunkserver() != 4 {
		return nil, errors.New("another one is meant")
	}
	if f.asked++; r.GetStart() {
		f.started, f.asked = f.started+1, 1
	} else if f.failure != nil {
		return nil, f.failure
	}
	if f.started <= f.forgets {
		f.asked = 1
	}
	bad := &chunkv1.ScrubFinding{Copyset: 3, Volume: 7, Chunk: 2, Block: 99, Problem: "checksum mismatch", Error: "no peer has it"}
	reply := &chunkv1.ScrubReply{Pass: 9, LastPass: 8, Used: 8 << 20, Rate: 64 << 20}
	if f.damaged {
		reply.Unrepairable, reply.Findings = []*chunkv1.ScrubFinding{bad}, []*chunkv1.ScrubFinding{bad}
	}
	switch f.asked {
	case 1:
	case 2:
		reply.Running, reply.Tally = true, &chunkv1.ScrubTally{VerifiedBlocks: 512, DamagedBlocks: 2, RepairedBlocks: 1}
	default:
		reply.LastPass, reply.EndedUnixMs = 9, 1
		reply.Last = &chunkv1.ScrubTally{VerifiedBlocks: 2048, DamagedBlocks: 2, RepairedBlocks: 1, SkippedChunks: f.skipped}
	}
	return reply, nil
}

func TestScrubCommand(t *testing.T) {
	f := serveScrub(t)
	out, errs, err := run(t, f.address, "chunkserver", "scrub", "4", "--wait")
	if err != nil || f.started != 1 {
		t.Fatal(f.started, err)
	}
	if !strings.Contains(errs, "chunkserver 4: pass 9, 2MiB of 8MiB") || !strings.Contains(out, "8MiB verified") || !strings.Contains(out, "2 damaged, 1 repaired") {
		t.Errorf("%s\n%s", errs, out)
	}
	f.damaged = true
	out, _, err = run(t, f.address, "chunkserver", "scrub", "--all", "--wait", "-o", "json")
	var all []scrubOut
	if !errors.Is(err, errUnrepairable) || json.Unmarshal([]byte(out), &all) != nil || len(all) != 1 || f.started != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	o := all[0]
	if o.Chunkserver != 4 || o.LastPass != 9 || o.Last.VerifiedBytes != 8<<20 || len(o.Unrepairable) != 1 || o.Unrepairable[0].Block != 99 {
		t.Errorf("%+v", o)
	}
	_, errs, err = run(t, f.address, "chunkserver", "scrub", "--all")
	if err != nil || !strings.Contains(errs, "chunkserver 5 is down") {
		t.Errorf("%v, %s", err, errs)
	}
	for _, args := range [][]string{{"chunkserver", "scrub"}, {"chunkserver", "scrub", "4", "--all"}, {"chunkserver", "scrub", "x"}} {
		if _, _, err := run(t, f.address, args...); err == nil {
			t.Errorf("%v did not fail", args)
		}
	}
}

// TestScrubWaitEnds: --wait ends with an error when the disk has failed or chunks could not be read, and has a pass begun again
// that a restart made forgotten.
func TestScrubWaitEnds(t *testing.T) {
	f := serveScrub(t)
	f.failure = status.Error(codes.FailedPrecondition, "scrub: the disk has failed: sync")
	if _, _, err := run(t, f.address, "chunkserver", "scrub", "4", "--wait", "--timeout", "20s"); err == nil || !strings.Contains(err.Error(), "the disk has failed") {
		t.Error(err)
	}
	f.failure, f.skipped = nil, 3
	if _, _, err := run(t, f.address, "chunkserver", "scrub", "4", "--wait", "--timeout", "20s"); !errors.Is(err, errSkipped) {
		t.Error(err)
	}
	out, _, err := run(t, f.address, "cluster", "status")
	if err != nil || !strings.Contains(out, "3 chunks can not be read") || strings.Contains(out, "healthy") {
		t.Errorf("%v\n%s", err, out)
	}
	f.skipped, f.started, f.forgets = 0, 0, 1
	if _, _, err := run(t, f.address, "chunkserver", "scrub", "4", "--wait", "--timeout", "20s"); err != nil || f.started != 2 {
		t.Error(f.started, err)
	}
}

// TestDamageIsShown: the commands that tell how things are tell of damage that is left.
func TestDamageIsShown(t *testing.T) {
	f := serveScrub(t)
	out, _, err := run(t, f.address, "cluster", "status")
	if err != nil || !strings.Contains(out, "healthy") {
		t.Fatalf("%v\n%s", err, out)
	}
	f.damaged = true
	out, _, err = run(t, f.address, "cluster", "status")
	if err != nil || !strings.Contains(out, "Chunkserver 4 has damaged blocks that no replica could repair: 1.") || strings.Contains(out, "healthy") {
		t.Errorf("%v\n%s", err, out)
	}
	out, _, err = run(t, f.address, "chunkserver", "show", "4")
	if err != nil || !strings.Contains(out, "1 NOT REPAIRABLE so far") || !strings.Contains(out, "UNREPAIRABLE") || !strings.Contains(out, "no peer has it") {
		t.Errorf("%v\n%s", err, out)
	}
}

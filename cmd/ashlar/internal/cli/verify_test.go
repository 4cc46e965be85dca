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

// verifyFake is a metaserver with copyset 7 on chunkservers 1 to 3, of which 2 leads, and all chunkservers themselves. 4 was a
// member once.
type verifyFake struct {
	metav1.UnimplementedAdminServer
	chunkv1.UnimplementedScrubServer
	address string
	down    uint64
	started int
	// asked counts questions for chunkserver 3, whose digest takes its time.
	asked int
	odd   uint64
	// leads are the leaders that are told first, one after the other.
	leads []uint64
	// busy is how many questions the leader refuses first, because it is handing over.
	busy int
}

func (f *verifyFake) ShowCopyset(context.Context, *metav1.ShowCopysetRequest) (*metav1.Copyset, error) {
	lead := uint64(2)
	if len(f.leads) > 0 {
		lead, f.leads = f.leads[0], f.leads[1:]
	}
	return &metav1.Copyset{
		Id: 7, Leader: lead, Peers: []*metav1.Peer{{Id: 71, Chunkserver: 1}, {Id: 72, Chunkserver: 2}, {Id: 73, Chunkserver: 3}},
		Comparison: &metav1.Comparison{Index: 30, Peers: []uint64{71, 72, 73}, Differ: true, Odd: []uint64{73}},
	}, nil
}

func (f *verifyFake) ListChunkservers(context.Context, *metav1.ListChunkserversRequest) (*metav1.ListChunkserversReply, error) {
	r := &metav1.ListChunkserversReply{}
	for id := uint64(1); id <= 4; id++ {
		st := metav1.ChunkserverState_CHUNKSERVER_STATE_UP
		if id == f.down {
			st = metav1.ChunkserverState_CHUNKSERVER_STATE_DOWN
		}
		r.Chunkservers = append(r.Chunkservers, &metav1.Chunkserver{Id: id, Address: f.address, State: st})
	}
	return r, nil
}

func (f *verifyFake) Digest(_ context.Context, r *chunkv1.DigestRequest) (*chunkv1.DigestReply, error) {
	id := r.GetChunkserver()
	if r.GetStart() {
		if id != 2 {
			return nil, status.Error(codes.FailedPrecondition, "it does not lead")
		}
		if f.busy > 0 {
			f.busy--
			return nil, status.Error(codes.Unavailable, "it does not take a digest now")
		}
		f.started++
		return &chunkv1.DigestReply{Asked: 50}, nil
	}
	index := uint64(40)
	if f.started > 0 {
		index = 50
	}
	if id == 3 && f.started > 0 {
		if f.asked++; f.asked < 3 {
			return &chunkv1.DigestReply{Asked: 50, Index: 40, Sum: make([]byte, 16), State: make([]byte, 16)}, nil
		}
	}
	if id == 4 {
		if f.odd != 4 {
			return nil, status.Error(codes.NotFound, "nothing")
		}
		index = 40
	}
	d := &chunkv1.DigestReply{Asked: index, Index: index, Peer: 70 + id, Format: 257, Sum: make([]byte, 16), State: make([]byte, 16), Blocks: 512}
	d.Chunks = []*chunkv1.ChunkDigest{{Volume: 5, Chunk: 1, Blocks: 256, Sum: 1}, {Volume: 5, Chunk: 2, Blocks: 256, Sum: 2}}
	if id == f.odd {
		d.Sum[0], d.Chunks[1].Sum = 1, 3
		d.Chunks = append(d.Chunks, &chunkv1.ChunkDigest{Volume: 6, Chunk: 9, Blocks: 1, Sum: 7})
	}
	return d, nil
}

func TestVerifyCommand(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &verifyFake{address: l.Addr().String()}
	g := grpc.NewServer()
	metav1.RegisterAdminServer(g, f)
	chunkv1.RegisterScrubServer(g, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	defer func() {
		g.Stop()
		<-done
	}()

	f.leads, f.busy = []uint64{0, 1}, 1 // nobody leads yet, then it is another one than was told, and that hands over
	out, _, err := run(t, f.address, "copyset", "verify", "7")
	if err != nil || f.started != 1 || !strings.Contains(out, "the replicas hold the same") || !strings.Contains(out, "index 50") || strings.Count(out, "Peer 7") != 3 {
		t.Fatalf("%v\n%s", err, out)
	}
	f.odd = 3
	out, _, err = run(t, f.address, "copyset", "verify", "7", "-o", "json")
	var o verifyOut
	if !errors.Is(err, errDiffer) || json.Unmarshal([]byte(out), &o) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if o.Equal || o.StateDiffers || len(o.Replicas) != 3 || len(o.Chunks) != 2 || o.Chunks[0].Chunk != 2 || o.Chunks[1].Volume != 6 {
		t.Errorf("%+v", o)
	}
	if h := o.Chunks[1].Replica; len(h) != 3 || h[0].Blocks != 0 || h[2].Blocks != 1 || h[2].Chunkserver != 3 {
		t.Errorf("%+v", h)
	}
	out, _, err = run(t, f.address, "copyset", "verify", "7")
	if !errors.Is(err, errDiffer) || !strings.Contains(out, "THE REPLICAS DIFFER") || !strings.Contains(out, "256:0000000000000003@3") {
		t.Errorf("%v\n%s", err, out)
	}
	// Of a replica that was replaced since, the last comparison still tells.
	f.odd, f.started, f.down = 4, 0, 3
	out, _, err = run(t, f.address, "copyset", "verify", "7", "--last")
	if !errors.Is(err, errDiffer) || f.started != 0 || !strings.Contains(out, "chunkserver 3: it is down") || !strings.Contains(out, "@4") {
		t.Errorf("%v\n%s", err, out)
	}
	f.odd, f.down = 0, 2
	if _, _, err = run(t, f.address, "copyset", "verify", "7"); err == nil {
		t.Error("verified without a leader")
	}
	if out, _, err = run(t, f.address, "copyset", "show", "7"); err != nil || !strings.Contains(out, "peers [71 72 73] DIFFER, odd: [73] at index 30") {
		t.Errorf("%v\n%s", err, out)
	}
}

package volume_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// tappedDoer calls tap with each request that begins.
type tappedDoer struct {
	volume.Doer
	tap func(*chunkclient.Request)
}

func (d *tappedDoer) Begin(a *chunkclient.Attempt, req *chunkclient.Request, dst []byte) {
	d.tap(req)
	d.Doer.Begin(a, req, dst)
}

// TestFenceReachesAllPieces: a write that was cancelled before Fence sends no piece under the new generation, although
// it was half way through its pieces.
func TestFenceReachesAllPieces(t *testing.T) {
	f := newFakeCluster(3, 3, 3)
	r := f.router()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var h *volume.Handle
	var seen []layout.Generation
	tap := func(req *chunkclient.Request) {
		if req.Op != chunkclient.Write {
			return
		}
		if seen = append(seen, req.Fence.Generation); len(seen) == 1 {
			cancel()
			h.Fence()
		}
	}
	h = volume.New(&tappedDoer{r, tap}, f, 1<<20, nil).Open(placement(true), "iqn.2026-11.test:host", 0, alwaysWanted)
	defer func() {
		r.Close()
		f.wg.Wait()
	}()
	if err := h.WriteAt(ctx, make([]byte, 1<<20), 0); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if len(seen) != 1 {
		t.Fatalf("pieces under the generations %v", seen)
	}
}

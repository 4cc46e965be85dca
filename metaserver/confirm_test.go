package metaserver

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
)

// fakeGateway watches the exports and confirms them, as a gateway does.
type fakeGateway struct {
	id   uint64
	stop func()

	mu   sync.Mutex
	last *metav1.Exports
	// deaf: what comes is not taken over.
	deaf bool
}

// newGateway registers a gateway and runs it until the test ends.
func newGateway(t *testing.T, client *metaclient.Client, name string) *fakeGateway {
	t.Helper()
	r := must(client.Node().RegisterGateway(t.Context(), &metav1.RegisterGatewayRequest{Name: name}))(t)
	ctx, cancel := context.WithCancel(context.Background())
	g := &fakeGateway{id: r.GetId()}
	var wg sync.WaitGroup
	taken := make(chan struct{}, 1)
	wg.Go(func() {
		_ = client.WatchExports(ctx, g.id, func(e *metav1.Exports) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			if !g.deaf {
				g.last = e
				select {
				case taken <- struct{}{}:
				default:
				}
			}
			return nil
		})
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			beat := &metav1.GatewayHeartbeatRequest{Id: g.id, ExportsRevision: g.exports().GetRevision()}
			attempt, cancel := context.WithTimeout(ctx, time.Second)
			_, _ = client.Node().GatewayHeartbeat(attempt, beat)
			cancel()
			select {
			case <-ctx.Done():
			case <-taken:
			case <-time.After(300 * time.Millisecond):
			}
		}
	})
	g.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(g.stop)
	return g
}

func (g *fakeGateway) exports() *metav1.Exports {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

func (g *fakeGateway) setDeaf(deaf bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deaf = deaf
}

// TestConfirmed: a change is answered when all gateways serve by it; one that does not is waited for in vain and named.
func TestConfirmed(t *testing.T) {
	d, w, _ := cluster(t, "confirmed")
	ctx := t.Context()
	patient, err := metaclient.Dial([]string{d.address}, metaclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer patient.Close()
	admin := patient.Admin()
	one, two := newGateway(t, w.client, "one"), newGateway(t, w.client, "two")
	const iqn = "iqn.2026-11.com.example:c"
	must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	both := func(what string, want func(*metav1.Exports) bool) {
		t.Helper()
		for i, g := range []*fakeGateway{one, two} {
			if !want(g.exports()) {
				t.Errorf("%s was answered before gateway %d had it", what, i+1)
			}
		}
	}
	begin := time.Now()
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	both("create", func(e *metav1.Exports) bool { return len(e.GetTargets()) == 1 })
	if err := mapLUN(ctx, admin, iqn, 0, "v", false)(); err != nil {
		t.Fatal(err)
	}
	both("map", func(e *metav1.Exports) bool { return len(e.GetTargets()[0].GetLuns()) == 1 })
	for i := range 5 {
		name := fmt.Sprintf("iqn.2026-11.com.example:h%d", i)
		tg := must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{Name: name}}))(t)
		both("allow", func(e *metav1.Exports) bool { return len(e.GetTargets()[0].GetInitiators()) == i+1 })
		if len(tg.GetPendingGateways()) != 0 {
			t.Errorf("allowing: %v are named", tg.GetPendingGateways())
		}
	}
	must(admin.DenyInitiator(ctx, &metav1.DenyInitiatorRequest{Iqn: iqn, Initiator: "iqn.2026-11.com.example:h0"}))(t)
	both("deny", func(e *metav1.Exports) bool { return len(e.GetTargets()[0].GetInitiators()) == 4 })
	must(admin.ResizeVolume(ctx, &metav1.ResizeVolumeRequest{Name: "v", Size: 2 << 30}))(t)
	both("resize", func(e *metav1.Exports) bool { return e.GetVolumes()[0].GetSize() == 2<<30 })
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("nine changes took %v with gateways that answer", took)
	}
	two.setDeaf(true)
	begin = time.Now()
	tg := must(admin.UnmapLUN(ctx, &metav1.UnmapLUNRequest{Iqn: iqn, Lun: 0}))(t)
	if p := tg.GetPendingGateways(); len(p) != 1 || !strings.HasPrefix(p[0], "two (last heard of ") || len(one.exports().GetTargets()[0].GetLuns()) != 0 {
		t.Errorf("with a gateway that is deaf %q are named", p)
	}
	if took := time.Since(begin); took < 2*time.Second || took > 4*time.Second {
		t.Errorf("a deaf gateway was waited for for %v", took)
	}
	two.stop()
	eventually(t, "the dead gateway is known to be down", func() bool {
		return !must(admin.ClusterStatus(ctx, &metav1.ClusterStatusRequest{}))(t).GetGateways()[1].GetUp()
	})
	begin = time.Now()
	r := must(admin.DeleteTarget(ctx, &metav1.DeleteTargetRequest{Iqn: iqn}))(t)
	if took := time.Since(begin); took > time.Second || len(r.GetPendingGateways()) != 0 || len(one.exports().GetTargets()) != 0 {
		t.Errorf("with a gateway that is down: %v after %v", r, took)
	}
	d.stop2(t)
}

// TestConfirmedAfterFailover: a new active metaserver does not know who lives, and waits for all.
func TestConfirmedAfterFailover(t *testing.T) {
	t.Parallel()
	a := start(t, testConfig("confirmed2"), Options{})
	eventually(t, "it is active", a.Active)
	b := start(t, testConfig("confirmed2"), Options{})
	client := dial(t, a.address, b.address)
	one, two := newGateway(t, client, "one"), newGateway(t, client, "two")
	two.stop()
	a.stop2(t)
	tg := must(client.Admin().CreateTarget(t.Context(), &metav1.CreateTargetRequest{Iqn: "iqn.2026-11.com.example:f"}))(t)
	if len(one.exports().GetTargets()) != 1 {
		t.Error("the change was answered before the living gateway had it")
	}
	if p := tg.GetPendingGateways(); len(p) > 1 || len(p) == 1 && !strings.HasPrefix(p[0], "two (not heard of") {
		t.Errorf("%q are named", p)
	}
}

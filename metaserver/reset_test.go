package metaserver

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// TestReset: a reset is stored with the next access generation, once. Its answer waits until the copysets and the other gateways
// have it, and the other gateways are told so; one that does not act is named.
func TestReset(t *testing.T) {
	const iqn = "iqn.2026-11.com.example:t"
	d, w, admin := cluster(t, "reset")
	ctx, node := t.Context(), w.client.Node()
	v := must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	must(admin.MapLUN(ctx, &metav1.MapLUNRequest{Iqn: iqn, Volume: "v"}))(t)
	one, two := newGateway(t, w.client, "one"), newGateway(t, w.client, "two")
	name := byte(0)
	request := func() *metav1.ReserveRequest {
		name++
		return &metav1.ReserveRequest{
			Gateway: one.id, Volume: v.GetId(), Action: uint32(reservation.UnitReset), Request: append(make([]byte, 15), name),
			Nexus: &metav1.Nexus{Initiator: "iqn.2026-13.com.example:month", Isid: make([]byte, 6), Port: 1},
		}
	}
	await := func(version uint64) ([]string, time.Duration) {
		began := time.Now()
		r := must(node.AwaitReset(ctx, &metav1.AwaitResetRequest{Gateway: one.id, Volume: v.GetId(), Version: version}))(t)
		return r.GetPendingGateways(), time.Since(began)
	}
	awaited := func(version uint64) uint32 {
		return must(node.ResetAwaited(ctx, &metav1.ResetAwaitedRequest{Gateway: two.id, Volume: v.GetId(), Version: version}))(t).GetLeftMs()
	}
	q := request()
	first := must(node.Reserve(ctx, q))(t).GetReservations()
	if first.GetAccessGeneration() != v.GetAccessGeneration()+1 || first.GetVersion() != 1 {
		t.Fatalf("reset: %v", first)
	}
	if again := must(node.Reserve(ctx, q))(t).GetReservations(); again.GetVersion() != 1 || again.GetAccessGeneration() != first.GetAccessGeneration() {
		t.Errorf("the repetition made another one: %v", again)
	}
	if pending, took := await(1); len(pending) != 0 || took > time.Second {
		t.Errorf("%q are named after %v", pending, took)
	}
	if r := two.exports().GetReservations(); len(r) != 1 || r[0].GetVersion() != 1 || len(r[0].GetEvents()) != 1 {
		t.Errorf("answered before the other gateway had it: %v", r)
	}
	w.mu.Lock()
	if w.raised[layout.VolumeID(v.GetId())] == 0 {
		t.Error("answered before a copyset was told")
	}
	w.mu.Unlock()
	if left := awaited(1); left != 0 {
		t.Errorf("the answer is said to wait %d ms after it was given", left)
	}

	two.setDeaf(true)
	must(node.Reserve(ctx, request()))(t)
	left := make(chan uint32, 1)
	go func() { left <- awaited(2) }()
	if pending, took := await(2); len(pending) != 1 || took > 2*time.Second {
		t.Errorf("with a gateway that does not act %q are named after %v", pending, took)
	}
	if ms := <-left; ms == 0 || ms > 1200 {
		t.Errorf("the other gateway was told that the answer waits %d ms", ms)
	}
	_, err := node.ResetAwaited(ctx, &metav1.ResetAwaitedRequest{Gateway: 99, Volume: v.GetId(), Version: 2})
	wantCode(t, err, codes.NotFound, "not registered")
	d.stop2(t)
}

// TestModesAreEverybodys: a change of mode pages is stored, and answered when the other gateways know of it.
func TestModesAreEverybodys(t *testing.T) {
	const iqn, host = "iqn.2026-11.com.example:t", "iqn.2026-11.com.example:a"
	d, w, admin := cluster(t, "modes")
	ctx := t.Context()
	v := must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{Name: host}}))(t)
	must(admin.MapLUN(ctx, &metav1.MapLUNRequest{Iqn: iqn, Volume: "v"}))(t)
	one, two := newGateway(t, w.client, "one"), newGateway(t, w.client, "two")
	nexus := &metav1.Nexus{Initiator: host, Isid: make([]byte, 6), Port: 1}
	change := func(name byte, settings reservation.Settings, save bool) *metav1.VolumeReservations {
		t.Helper()
		r := must(w.client.Node().Reserve(ctx, &metav1.ReserveRequest{
			Gateway: one.id, Volume: v.GetId(), Action: uint32(reservation.ModeSelect), Request: append(make([]byte, 15), name),
			Nexus: nexus, Settings: uint32(settings), Save: save,
		}))(t)
		if r.GetStatus() != 0 {
			t.Fatalf("status %d", r.GetStatus())
		}
		return r.GetReservations()
	}
	now := change(1, reservation.WriteProtect, true)
	if now.GetSettings() != uint32(reservation.WriteProtect) || now.GetSavedSettings() != now.GetSettings() ||
		now.GetAccessGeneration() != v.GetAccessGeneration()+1 {
		t.Errorf("%v", now)
	}
	if e := now.GetEvents(); len(e) != 1 || !proto.Equal(e[0].GetBy(), nexus) || !e[0].GetEverybody() {
		t.Errorf("told %v", e)
	}
	if r := two.exports().GetReservations(); len(r) != 1 || !proto.Equal(r[0], now) {
		t.Errorf("answered before the other gateway knew of it: %v", r)
	}
	if now = change(2, 0, false); now.GetSettings() != 0 || now.GetSavedSettings() == 0 || now.GetAccessGeneration() != v.GetAccessGeneration()+1 {
		t.Errorf("%v", now)
	}
	two.setDeaf(true)
	began := time.Now()
	change(3, reservation.DescriptorSense, false)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a gateway that does not act was waited for for %v", took)
	}
	d.stop2(t)
	next := start(t, testConfig("modes"), Options{Raiser: w})
	kept := must(dial(t, next.address).Node().ShowReservations(ctx, &metav1.ShowReservationsRequest{Volume: v.GetId(), Initiator: host}))(t)
	if kept.GetSettings() != uint32(reservation.DescriptorSense) || kept.GetSavedSettings() != uint32(reservation.WriteProtect) {
		t.Errorf("the next metaserver has %v", kept)
	}
}

package metaserver

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// TestSanitize: a SANITIZE is on record until it is complete. Meanwhile gateways reach the medium for it, the next metaserver
// knows of it, and the administrator sees it.
func TestSanitize(t *testing.T) {
	const iqn, host = "iqn.2026-11.com.example:t", "iqn.2026-11.com.example:a"
	d, w, admin := cluster(t, "sanitize")
	ctx, node := t.Context(), w.client.Node()
	v := must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{Name: host}}))(t)
	must(admin.MapLUN(ctx, &metav1.MapLUNRequest{Iqn: iqn, Volume: "v"}))(t)
	one, two := newGateway(t, w.client, "one"), newGateway(t, w.client, "two")
	name := byte(0)
	request := func(a reservation.Action, z *metav1.Sanitize) *metav1.ReserveRequest {
		name++
		return &metav1.ReserveRequest{
			Gateway: one.id, Volume: v.GetId(), Action: uint32(a), Request: append(make([]byte, 15), name), Sanitize: z,
			Nexus: &metav1.Nexus{Initiator: host, Isid: make([]byte, 6), Port: 1},
		}
	}
	do := func(a reservation.Action, z *metav1.Sanitize) *metav1.VolumeReservations {
		t.Helper()
		r := must(node.Reserve(ctx, request(a, z)))(t)
		if r.GetStatus() != 0 {
			t.Fatalf("status %d", r.GetStatus())
		}
		return r.GetReservations()
	}
	attach := func(to uint64) error {
		_, err := node.Attach(ctx, &metav1.AttachRequest{Gateway: to, Volume: v.GetId(), Initiator: reservation.SanitizeInitiator})
		return err
	}
	wantCode(t, attach(one.id), codes.FailedPrecondition, "allowed in no target")
	for _, z := range []*metav1.Sanitize{
		nil,
		{},
		{Size: 1 << 30, Passes: 1},
		{Size: 1 << 30, Passes: 32, Pattern: []byte{1}},
		{Size: 1 << 63},
		{Size: 1 << 30, Passes: 1, Pattern: make([]byte, 4097)},
	} {
		_, err := node.Reserve(ctx, request(reservation.SanitizeBegin, z))
		wantCode(t, err, codes.InvalidArgument, "SANITIZE")
	}
	first := request(reservation.SanitizeBegin, &metav1.Sanitize{Size: 1 << 30, Passes: 3, Pattern: []byte{1, 2}, Invert: true})
	begun := must(node.Reserve(ctx, first))(t).GetReservations()
	z := begun.GetSanitize()
	if begun.GetAccessGeneration() != v.GetAccessGeneration()+1 || z.GetPasses() != 3 || !z.GetInvert() || len(z.GetPattern()) != 2 {
		t.Errorf("%v", begun)
	}
	if r := two.exports().GetReservations(); len(r) != 1 || r[0].GetSanitize().GetId() != z.GetId() {
		t.Errorf("answered before the other gateway knew of it: %v", r)
	}
	for _, g := range []*fakeGateway{one, two} {
		if err := attach(g.id); err != nil {
			t.Error(err)
		}
	}
	do(reservation.SanitizeReport, &metav1.Sanitize{Id: z.GetId(), Claim: z.GetClaim(), Done: 1 << 29})
	if s := must(admin.ShowVolume(ctx, &metav1.ShowVolumeRequest{Name: "v"}))(t).GetSanitize(); s.GetDone() != 1<<29 || s.GetPasses() != 3 {
		t.Errorf("shown: %v", s)
	}
	two.setDeaf(true)
	asked := time.Now()
	if r := must(node.Reserve(ctx, request(reservation.SanitizeBegin, first.GetSanitize())))(t); r.GetStatus() != uint32(reservation.Sanitizing) {
		t.Errorf("another one: status %d", r.GetStatus())
	}
	if took := time.Since(asked); took > 500*time.Millisecond {
		t.Errorf("what changes nothing waited %v for a gateway", took)
	}
	d.stop2(t)
	next := dial(t, start(t, testConfig("sanitize"), Options{Raiser: w}).address)
	node = next.Node()
	z = do(reservation.SanitizeClaim, &metav1.Sanitize{Id: z.GetId(), Claim: z.GetClaim()}).GetSanitize()
	if z.GetDone() != 1<<29 || z.GetClaim() != 2 {
		t.Errorf("the next metaserver has %v", z)
	}
	for range 100 { // more than names of requests are remembered
		do(reservation.SanitizeReport, &metav1.Sanitize{Id: z.GetId(), Claim: 2, Done: 1 << 30})
	}
	if now := do(reservation.SanitizeReport, &metav1.Sanitize{Id: z.GetId(), Claim: 2, Done: 3 << 30}); now.GetSanitize() != nil {
		t.Errorf("%v", now)
	}
	if r := must(node.Reserve(ctx, first))(t); r.GetStatus() != 0 || r.GetReservations().GetSanitize() != nil {
		t.Errorf("the repetition of its beginning after all the reports: %v", r)
	}
	wantCode(t, attach(one.id), codes.FailedPrecondition, "allowed in no target")
}

package metaserver

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestReservations reserves a volume, has it preempted, repeats the call, and finds all of it with the next metaserver.
func TestReservations(t *testing.T) {
	const iqn, a, b = "iqn.2026-11.com.example:t", "iqn.2026-11.com.example:a", "iqn.2026-11.com.example:b"
	d, w, admin := cluster(t, "reservations")
	ctx := t.Context()
	v := must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	for _, i := range []string{a, b} {
		must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{Name: i}}))(t)
	}
	must(admin.MapLUN(ctx, &metav1.MapLUNRequest{Iqn: iqn, Volume: "v"}))(t)
	gw := newGateway(t, w.client, "gw")
	port := must(w.client.Node().RegisterGateway(ctx, &metav1.RegisterGatewayRequest{Name: "gw"}))(t).GetRelativePort()
	number := byte(0)
	request := func(initiator string, action, typ uint32, key, service uint64) *metav1.ReserveRequest {
		number++
		return &metav1.ReserveRequest{
			Gateway: gw.id, Volume: v.GetId(), Nexus: &metav1.Nexus{Initiator: initiator, Isid: make([]byte, 6), Port: port},
			Action: action, Type: typ, Key: key, ServiceKey: service, Request: append(make([]byte, 15), number),
		}
	}
	node := w.client.Node()
	do := func(q *metav1.ReserveRequest, status uint32) *metav1.VolumeReservations {
		t.Helper()
		r := must(node.Reserve(ctx, q))(t)
		if r.GetStatus() != status {
			t.Fatalf("%v: status %d, want %d", q, r.GetStatus(), status)
		}
		return r.GetReservations()
	}
	raised := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.raised[layout.VolumeID(v.GetId())]
	}
	before := do(request(a, 0, 0, 0, 1), 0)
	do(request(b, 0, 0, 0, 2), 0)
	if raised() != 0 {
		t.Error("registering took access away")
	}
	held := do(request(a, 1, 5, 1, 0), 0)
	if held.GetAccessGeneration() != before.GetAccessGeneration()+1 || raised() == 0 {
		t.Errorf("reserving left the access generation at %d, %d copysets were told", held.GetAccessGeneration(), raised())
	}
	do(request(b, 1, 5, 2, 0), 1)
	preempt := request(b, 5, 5, 2, 1)
	now := do(preempt, 0)
	if again := do(preempt, 0); !proto.Equal(now, again) {
		t.Errorf("repeated: %v, was %v", again, now)
	}
	if len(now.GetRegistrations()) != 1 || now.GetHolder().GetInitiator() != b || now.GetAccessGeneration() != held.GetAccessGeneration()+1 {
		t.Errorf("preempted: %v", now)
	}
	eventually(t, "the gateway has the reservations", func() bool {
		r := gw.exports().GetReservations()
		return len(r) == 1 && proto.Equal(r[0], now)
	})
	wrong := request(b, 0, 0, 2, 3)
	wrong.Nexus.Isid = []byte{1}
	_, err := node.Reserve(ctx, wrong)
	wantCode(t, err, codes.InvalidArgument, "ISID")
	_, err = node.Reserve(ctx, request("iqn.2026-11.com.example:c", 0, 0, 0, 3))
	wantCode(t, err, codes.FailedPrecondition, "allowed in no target")

	_, err = node.ShowReservations(ctx, &metav1.ShowReservationsRequest{Volume: v.GetId(), Initiator: "iqn.2026-11.com.example:c"})
	wantCode(t, err, codes.FailedPrecondition, "allowed in no target")

	next := start(t, testConfig("reservations"), Options{Raiser: w})
	d.stop2(t)
	node = dial(t, next.address).Node()
	kept := must(node.ShowReservations(ctx, &metav1.ShowReservationsRequest{Volume: v.GetId(), Initiator: a}))(t)
	if !proto.Equal(kept, now) {
		t.Errorf("the next metaserver has %v, not %v", kept, now)
	}
	if again := do(preempt, 0); !proto.Equal(now, again) {
		t.Errorf("repeated after failover: %v", again)
	}
}

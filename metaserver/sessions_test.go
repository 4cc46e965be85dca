package metaserver

import (
	"context"
	"testing"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// TestSessions has gateways report their sessions, which a list shows in order and by name.
func TestSessions(t *testing.T) {
	cfg := testConfig("sessions")
	client := dial(t, start(t, cfg, Options{}).address)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var ids []uint64
	for _, name := range []string{"g1", "g2"} {
		r, err := client.Node().RegisterGateway(ctx, &metav1.RegisterGatewayRequest{Name: name, Portals: []string{"127.0.0.1:1"}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.GetId())
	}
	report := func(gateway uint64, n int, sessions ...*metav1.Session) error {
		for len(sessions) < n {
			sessions = append(sessions, &metav1.Session{Initiator: "x"})
		}
		_, err := client.Node().ReportSessions(ctx, &metav1.ReportSessionsRequest{Gateway: gateway, Sessions: sessions})
		return err
	}
	if err := report(ids[0], 0, &metav1.Session{Target: "t2", Initiator: "a", Tsih: 1}, &metav1.Session{Target: "t1", Initiator: "b", Tsih: 2}); err != nil {
		t.Fatal(err)
	}
	if err := report(ids[1], 0, &metav1.Session{Target: "t1", Initiator: "a", Tsih: 1, Gateway: "a lie"}); err != nil {
		t.Fatal(err)
	}
	if report(ids[1]+100, 0) == nil || report(ids[1], 4097) == nil {
		t.Error("a report of an unknown gateway, or of too many sessions, is taken")
	}
	list := func(r *metav1.ListSessionsRequest) (out string) {
		t.Helper()
		reply, err := client.Admin().ListSessions(ctx, r)
		if err != nil {
			return "error"
		}
		for _, s := range reply.GetSessions() {
			out += s.GetGateway() + " " + s.GetTarget() + " " + s.GetInitiator() + "; "
		}
		return out
	}
	for _, c := range []struct {
		ask  *metav1.ListSessionsRequest
		want string
	}{
		{&metav1.ListSessionsRequest{}, "g1 t1 b; g1 t2 a; g2 t1 a; "},
		{&metav1.ListSessionsRequest{Target: "t1"}, "g1 t1 b; g2 t1 a; "},
		{&metav1.ListSessionsRequest{Initiator: "a"}, "g1 t2 a; g2 t1 a; "},
		{&metav1.ListSessionsRequest{Gateway: "g2"}, "g2 t1 a; "},
		{&metav1.ListSessionsRequest{Gateway: "g3"}, "error"},
	} {
		if got := list(c.ask); got != c.want {
			t.Errorf("%v: %q, want %q", c.ask, got, c.want)
		}
	}
	if err := report(ids[0], 0); err != nil {
		t.Fatal(err)
	}
	if got := list(&metav1.ListSessionsRequest{}); got != "g2 t1 a; " {
		t.Errorf("after the sessions of g1 ended: %q", got)
	}
}

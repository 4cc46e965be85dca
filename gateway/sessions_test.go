package gateway

import (
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/portal"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
)

// TestNewSessions translates a session with two connections.
func TestNewSessions(t *testing.T) {
	l := &login.Result{
		InitiatorName: "i", TargetName: "t", User: "u", TSIH: 7, ISID: pdu.ISID{0x80, 0, 0, 0, 0, 5}, Params: login.Default(),
	}
	second := *l
	second.CID, second.Params.HeaderDigest = 1, login.DigestCRC32C
	out := newSessions([]portal.SessionInfo{{
		Login: l, Since: time.UnixMilli(99), InFlight: 3, Window: 128,
		Stats: session.Stats{Commands: 10, Failed: 2, Aborted: 1, ReadBytes: 4096},
		Conns: []portal.ConnInfo{{Login: l, Initiator: "a:1", Portal: "b:2"}, {Login: &second, Initiator: "a:3", Portal: "b:2"}},
	}})
	if len(out) != 1 || len(out[0].GetConnections()) != 2 {
		t.Fatalf("%v", out)
	}
	s := out[0]
	if s.GetIsid() != "800000000005" || s.GetSinceUnixMs() != 99 || s.GetInFlight() != 3 || s.GetFailed() != 2 || s.GetUser() != "u" {
		t.Errorf("%v", s)
	}
	if c := s.GetConnections()[1]; c.GetCid() != 1 || c.GetHeaderDigest() != "CRC32C" || c.GetInitiator() != "a:3" {
		t.Errorf("%v", c)
	}
	if k := s.GetKeys(); k["InitialR2T"] != "Yes" || k["FirstBurstLength"] != "65536" || k["TaskReporting"] != "RFC3720" {
		t.Errorf("%v", k)
	}
}

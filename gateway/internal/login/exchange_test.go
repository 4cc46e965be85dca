package login

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// testLister knows n targets, t0 to tn-1.
type testLister int

func (n testLister) Targets(initiator, name string) []TargetRecord {
	var out []TargetRecord
	for i := range int(n) {
		r := TargetRecord{Name: fmt.Sprintf("iqn.2026-11.dev.ashlar:t%d", i), Addresses: []string{"10.0.0.1:3260,1", "[fd00::1]:3260,1"}}
		if initiator == hostName && (name == "" || name == r.Name) {
			out = append(out, r)
		}
	}
	return out
}

func newExchange(kind SessionType, sendMax uint32, lister TargetLister) *Exchange {
	r := &Result{Type: kind, InitiatorName: hostName, Params: Default()}
	if kind == SessionNormal {
		r.TargetName = "iqn.2026-11.dev.ashlar:t1"
	}
	r.Params.InitiatorMaxRecvDataSegmentLength = sendMax
	return NewExchange(r, lister)
}

// ask makes a first and only request.
func ask(kv ...string) *pdu.TextRequest {
	return &pdu.TextRequest{Final: true, ITT: 1, TTT: pdu.ReservedTag, Data: textOf(kv...)}
}

func TestSendTargets(t *testing.T) {
	record := func(i int) string {
		return fmt.Sprintf("TargetName=iqn.2026-11.dev.ashlar:t%d\nTargetAddress=10.0.0.1:3260,1\nTargetAddress=[fd00::1]:3260,1\n", i)
	}
	for _, c := range []struct {
		kind  SessionType
		value string
		want  string
	}{
		{SessionDiscovery, "All", record(0) + record(1) + record(2)},
		{SessionDiscovery, "iqn.2026-11.dev.ashlar:t2", record(2)},
		{SessionDiscovery, "IQN.2026-11.dev.ashlar:T2", record(2)},
		{SessionDiscovery, "iqn.2026-11.dev.ashlar:t9", ""},
		{SessionDiscovery, "", "SendTargets=Reject\n"},
		{SessionDiscovery, "x", "SendTargets=Reject\n"},
		{SessionNormal, "", record(1)},
		{SessionNormal, "iqn.2026-11.dev.ashlar:t1", record(1)},
		{SessionNormal, "iqn.2026-11.dev.ashlar:t2", ""},
		{SessionNormal, "All", "SendTargets=Reject\n"},
	} {
		t.Run(fmt.Sprintf("%v/%s", c.kind, c.value), func(t *testing.T) {
			reply, err := newExchange(c.kind, 8192, testLister(3)).Receive(ask("SendTargets="+c.value), 9)
			if err != nil {
				t.Fatal(err)
			}
			r := reply.Response
			if got := strings.ReplaceAll(string(r.Data), "\x00", "\n"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if !r.Final || r.Continue || !r.TTT.IsReserved() || r.ITT != 1 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestLongSendTargets fetches a list that needs many responses.
func TestLongSendTargets(t *testing.T) {
	const n = 300
	x := newExchange(SessionDiscovery, 512, testLister(n))
	req := ask("SendTargets=All")
	var got []byte
	for ttt := pdu.TTT(1); ; ttt++ {
		reply, err := x.Receive(req, ttt)
		if err != nil {
			t.Fatal(err)
		}
		r := reply.Response
		if len(r.Data) > 512 {
			t.Fatalf("response of %d bytes", len(r.Data))
		}
		got = append(got, r.Data...)
		if r.Final {
			if r.Continue || !r.TTT.IsReserved() {
				t.Fatalf("%+v", r)
			}
			break
		}
		if r.TTT != ttt || !r.Continue {
			t.Fatalf("%+v", r)
		}
		req = &pdu.TextRequest{Final: true, ITT: 1, TTT: ttt}
	}
	if names := bytes.Count(got, []byte("TargetName=")); names != n {
		t.Errorf("%d targets, want %d", names, n)
	}
	if _, err := x.Receive(req, 99); err == nil {
		t.Error("a request after the end was accepted")
	}
}

func TestSendTargetsBound(t *testing.T) {
	const n = 20000
	x := newExchange(SessionDiscovery, lengthMax, testLister(n))
	reply, err := x.Receive(ask("SendTargets=All", "X-a=1"), 1)
	if err != nil {
		t.Fatal(err)
	}
	data := reply.Response.Data
	names := bytes.Count(data, []byte("TargetName="))
	if len(data) > MaxSendTargetsLen || reply.Omitted == 0 || names+reply.Omitted != n || !bytes.HasSuffix(data, []byte("X-a=NotUnderstood\x00")) {
		t.Errorf("%d bytes, %d targets, %d omitted", len(data), names, reply.Omitted)
	}
	if next, err := x.Receive(ask(), 2); err != nil || next.Omitted != 0 {
		t.Errorf("%+v, %v", next, err)
	}
}

func TestFullFeatureKeys(t *testing.T) {
	reply, err := newExchange(SessionNormal, 8192, testLister(0)).Receive(ask(
		"MaxBurstLength=1024", "HeaderDigest=CRC32C", "InitiatorName="+hostName, "AuthMethod=None", "X-a=1", "TargetAlias=Irrelevant",
		"InitiatorAlias=a", "X#NodeArchitecture=a", "TargetAddress=a", "IFMarker=No",
	), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := textOf("MaxBurstLength=Reject", "HeaderDigest=Reject", "InitiatorName=Reject", "AuthMethod=Reject", "X-a=NotUnderstood",
		"TargetAddress=Reject", "IFMarker=Reject")
	if !bytes.Equal(reply.Response.Data, want) || reply.InitiatorMaxRecvDataSegmentLength != 0 {
		t.Errorf("%q, want %q", reply.Response.Data, want)
	}
}

func TestNewSegmentLength(t *testing.T) {
	x := newExchange(SessionDiscovery, 8192, testLister(50))
	reply, err := x.Receive(ask("MaxRecvDataSegmentLength=512"), 1)
	if err != nil || reply.InitiatorMaxRecvDataSegmentLength != 512 || !reply.Response.Final || len(reply.Response.Data) != 0 {
		t.Fatalf("%+v, %v", reply, err)
	}
	if reply, err = x.Receive(ask("SendTargets=All"), 1); err != nil || len(reply.Response.Data) != 512 {
		t.Errorf("%d bytes, %v", len(reply.Response.Data), err)
	}
	reply, err = x.Receive(ask("MaxRecvDataSegmentLength=1"), 1)
	if err != nil || reply.InitiatorMaxRecvDataSegmentLength != 0 || string(reply.Response.Data) != "MaxRecvDataSegmentLength=Reject\x00" {
		t.Errorf("%+v, %v", reply, err)
	}
}

// TestExchangeContinuation sends a list in pieces, and a second list before F.
func TestExchangeContinuation(t *testing.T) {
	x := newExchange(SessionDiscovery, 8192, testLister(1))
	reply, err := x.Receive(&pdu.TextRequest{Continue: true, ITT: 1, TTT: pdu.ReservedTag, Data: []byte("SendTarg")}, 7)
	if err != nil || reply.Response.Final || reply.Response.TTT != 7 || len(reply.Response.Data) != 0 {
		t.Fatalf("%+v, %v", reply, err)
	}
	reply, err = x.Receive(&pdu.TextRequest{ITT: 1, TTT: 7, Data: []byte("ets=All\x00")}, 8)
	if err != nil || reply.Response.Final || reply.Response.TTT != 8 || len(reply.Response.Data) == 0 {
		t.Fatalf("%+v, %v", reply, err)
	}
	reply, err = x.Receive(&pdu.TextRequest{Final: true, ITT: 1, TTT: 8, Data: textOf("X-a=1")}, 9)
	if err != nil || !reply.Response.Final || string(reply.Response.Data) != "X-a=NotUnderstood\x00" {
		t.Fatalf("%+v, %v", reply, err)
	}
}

func TestExchangeErrors(t *testing.T) {
	next := func(ttt pdu.TTT, kv ...string) *pdu.TextRequest {
		return &pdu.TextRequest{Final: true, ITT: 1, TTT: ttt, Data: textOf(kv...)}
	}
	begun := &pdu.TextRequest{ITT: 1, TTT: pdu.ReservedTag, Data: textOf("InitiatorAlias=a")}
	for _, c := range []struct {
		name string
		reqs []*pdu.TextRequest
	}{
		{"TTT of nothing", []*pdu.TextRequest{next(5)}},
		{"another TTT", []*pdu.TextRequest{begun, next(2)}},
		{"another ITT", []*pdu.TextRequest{begun, {Final: true, ITT: 2, TTT: 1}}},
		{"F and C", []*pdu.TextRequest{{Final: true, Continue: true, ITT: 1, TTT: pdu.ReservedTag}}},
		{"unterminated", []*pdu.TextRequest{{Final: true, ITT: 1, TTT: pdu.ReservedTag, Data: []byte("SendTargets=All")}}},
		{"key twice", []*pdu.TextRequest{ask("SendTargets=All", "SendTargets=All")}},
		{"key in two requests", []*pdu.TextRequest{begun, next(1, "InitiatorAlias=b")}},
		{"2048 tiny keys", []*pdu.TextRequest{{Final: true, ITT: 1, TTT: pdu.ReservedTag, Data: bytes.Repeat([]byte("X=\x00"), 2048)}}},
		{"too long", []*pdu.TextRequest{{Final: true, ITT: 1, TTT: pdu.ReservedTag, Data: make([]byte, MaxTextLen+1)}}},
		{"text instead of asking for the rest", []*pdu.TextRequest{ask("SendTargets=All"), next(1, "X-a=1")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newExchange(SessionDiscovery, 512, testLister(50))
			var err error
			for i, req := range c.reqs {
				if _, err = x.Receive(req, pdu.TTT(i+1)); err != nil && i < len(c.reqs)-1 {
					t.Fatalf("request %d: %v", i, err)
				}
			}
			var fe *pdu.FormatError
			if !errors.As(err, &fe) || fe.Reason == 0 {
				t.Fatalf("%v", err)
			}
			if reply, err := x.Receive(ask("SendTargets=All"), 1); err != nil || len(reply.Response.Data) == 0 {
				t.Errorf("no exchange after the error: %v", err)
			}
		})
	}
}

// TestEmptyTextForEver sends empty requests with the C bit until they are refused.
func TestEmptyTextForEver(t *testing.T) {
	x := newExchange(SessionDiscovery, 8192, testLister(1))
	req := &pdu.TextRequest{Continue: true, ITT: 1, TTT: pdu.ReservedTag}
	for i := range MaxTextParts + 1 {
		_, err := x.Receive(req, 4)
		if (err != nil) != (i == MaxTextParts) {
			t.Fatalf("request %d: %v", i, err)
		}
		req.TTT = 4
	}
}

// TestRestart begins a new exchange in the middle of another, which a reserved TTT does.
func TestRestart(t *testing.T) {
	x := newExchange(SessionDiscovery, 512, testLister(50))
	if reply, err := x.Receive(ask("SendTargets=All"), 1); err != nil || !reply.Response.Continue {
		t.Fatal(err)
	}
	reply, err := x.Receive(ask("SendTargets=iqn.2026-11.dev.ashlar:t3"), 2)
	if err != nil || !reply.Response.Final || !slices.Equal(reply.Response.Data[:11], []byte("TargetName=")) {
		t.Errorf("%+v, %v", reply, err)
	}
}

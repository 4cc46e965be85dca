package checks

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Login are the checks of the login phase (RFC 7143 sections 6 and 13).
func Login() []peer.Check {
	return slices.Concat(peer.Suite("login",
		peer.Check{Title: "standard login", Run: loginStandard},
		peer.Check{Title: "login without the security stage", Run: loginOperational},
		peer.Check{Title: "TSIH", Run: loginTSIH},
		peer.Check{Title: "TSIH of no session", Run: loginWrongTSIH},
		peer.Check{Title: "T bit not set", Run: loginNoTransit},
		peer.Check{Title: "T bit to a stage that can not follow", Run: loginWrongStage},
		peer.Check{Title: "T bit and C bit", Run: loginTransitContinue},
		peer.Check{Title: "C bit", Run: loginContinue},
		peer.Check{Title: "StatSN and CmdSN", Run: loginStatSN},
		peer.Check{Title: "fields that change", Run: loginFieldsChange},
		peer.Check{Title: "version", Run: loginVersion},
		peer.Check{Title: "first PDU is no login", Run: loginFirstPDU},
		peer.Check{Title: "InitiatorName", Run: loginInitiatorName},
		peer.Check{Title: "TargetName", Run: loginTargetName},
		peer.Check{Title: "SessionType", Run: loginSessionType},
		peer.Check{Title: "AuthMethod", Run: loginAuthMethod},
		peer.Check{Title: "reserved ISID format", Run: loginReservedISID},
		peer.Check{Title: "session reinstatement", Run: loginReinstatement},
		peer.Check{Title: "two sessions of one initiator", Run: loginTwoSessions},
		peer.Check{Title: "target moved temporarily", Run: loginMoved(false)},
		peer.Check{Title: "target moved permanently", Run: loginMoved(true)},
	), peer.Suite("negotiation",
		peer.Check{Title: "negotiate once", Run: negotiateOnce},
		peer.Check{Title: "list", Run: negotiateList},
		peer.Check{Title: "boolean", Run: negotiateBoolean},
		peer.Check{Title: "number", Run: negotiateNumber},
		peer.Check{Title: "illegal values", Run: negotiateIllegal},
		peer.Check{Title: "unknown keys", Run: negotiateUnknown},
		peer.Check{Title: "FirstBurstLength above MaxBurstLength", Run: negotiateFirstBurst},
		peer.Check{Title: "digests", Run: negotiateDigests},
		peer.Check{Title: "markers", Run: negotiateMarkers},
		peer.Check{Title: "MaxRecvDataSegmentLength", Run: negotiateMRDSL},
		peer.Check{Title: "DefaultTime2Wait and DefaultTime2Retain", Run: negotiateTimes},
		peer.Check{Title: "MaxOutstandingR2T", Run: negotiateR2Ts},
		peer.Check{Title: "ErrorRecoveryLevel", Run: negotiateERL},
		peer.Check{Title: "iSCSIProtocolLevel and TaskReporting", Run: negotiateLevel},
		peer.Check{Title: "keys of a normal session in a discovery session", Run: negotiateIrrelevant},
	))
}

func loginStandard(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	r := p.MustStep(wire.Final, wire.Security, wire.Operational, append(g.Names(), "AuthMethod=None")...)
	if r.Flags()&wire.Final == 0 || r.Flags()>>2&3 != wire.Security || r.Flags()&3 != wire.Operational {
		t.Fatalf("byte 1 is %02x, want T from the security to the operational stage", r.Flags())
	}
	if v, n := wire.Lookup(r.Data, "AuthMethod"); v != "None" || n != 1 {
		t.Errorf("AuthMethod=%q", v)
	}
	if v, n := wire.Lookup(r.Data, "TargetPortalGroupTag"); n != 1 || v == "0" {
		t.Errorf("the first response has TargetPortalGroupTag %q, %d times", v, n)
	}
	if r.BHS[2] != 0 || r.BHS[3] != 0 {
		t.Errorf("versions %d and %d", r.BHS[2], r.BHS[3])
	}
	if !slices.Equal(r.BHS[8:14], p.ISID[:]) {
		t.Errorf("ISID % x", r.BHS[8:14])
	}
	p.Must("operational stage", p.Negotiate(peer.Keys()))
	p.MustReady()
	p.Leave()
}

func loginOperational(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	p.Must("login", p.Negotiate(append(g.Names(), peer.Keys()...)))
	if p.Answer("TargetPortalGroupTag") == "" {
		t.Errorf("no TargetPortalGroupTag")
	}
	p.MustReady()
	p.Leave()
}

func loginTSIH(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	r := p.MustStep(wire.Final, wire.Security, wire.Operational, append(g.Names(), "AuthMethod=None")...)
	if h := uint16(r.BHS[14])<<8 | uint16(r.BHS[15]); h != 0 {
		t.Errorf("TSIH %d before the final response", h)
	}
	p.Must("operational stage", p.Negotiate(peer.Keys()))
	q := g.Session(t)
	if p.TSIH == 0 || q.TSIH == 0 || p.TSIH == q.TSIH {
		t.Errorf("TSIH %d and %d of two sessions", p.TSIH, q.TSIH)
	}
}

func loginWrongTSIH(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	p.TSIH = 0xfffe
	p.Refused(2, p.Negotiate(append(g.Names(), peer.Keys()...)))
}

func loginNoTransit(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	r := p.MustStep(0, wire.Security, 0, append(g.Names(), "AuthMethod=None")...)
	if r.Flags()&wire.Final != 0 {
		t.Fatalf("the response has T, the request had not")
	}
	r = p.MustStep(wire.Final, wire.Security, wire.Operational)
	if r.Flags()&wire.Final == 0 {
		t.Fatalf("no T when the initiator is ready for the next stage")
	}
	r = p.MustStep(0, wire.Operational, 0, "MaxBurstLength=65536")
	if r.Flags()&wire.Final != 0 {
		t.Fatalf("the response has T, the request had not")
	}
	p.Must("end of the login", p.Negotiate(nil))
	p.MustReady()
}

func loginWrongStage(t peer.T, g *peer.Target) {
	for _, c := range []struct{ csg, nsg byte }{
		{wire.Security, wire.Security},
		{wire.Security, 2},
		{wire.Operational, wire.Operational},
		{wire.Operational, wire.Security},
		{2, wire.FullFeature},
		{wire.FullFeature, wire.FullFeature},
	} {
		p := g.Dial(t)
		_, err := p.Step(wire.Final, c.csg, c.nsg, g.Names()...)
		p.Refused(2, err)
	}
	p := g.Dial(t) // back to a stage that is over
	p.MustStep(wire.Final, wire.Security, wire.Operational, append(g.Names(), "AuthMethod=None")...)
	_, err := p.Step(wire.Final, wire.Security, wire.Operational)
	p.Refused(2, err)
}

func loginTransitContinue(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	_, err := p.Step(wire.Final|wire.Continue, wire.Operational, wire.FullFeature, g.Names()...)
	p.Refused(2, err)
}

// loginContinue cuts one list in the middle of a key.
func loginContinue(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	text := wire.Keys(append(g.Names(), peer.Keys()...)...)
	for _, cut := range []int{5, 40, len(text) - 1} {
		p := g.Dial(t)
		r, err := p.StepPDU(p.LoginPDU(wire.Continue, wire.Operational, 0, text[:cut]))
		p.Must("first part", err)
		if len(r.Data) != 0 || r.Flags()&(wire.Final|wire.Continue) != 0 {
			t.Errorf("the answer to a part has byte 1 %02x and %d bytes", r.Flags(), len(r.Data))
		}
		_, err = p.StepPDU(p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, text[cut:]))
		p.Must("second part", err)
		p.SwitchDigests()
		p.MustReady()
		p.Leave()
	}
	_, err := p.StepPDU(p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, text[:len(text)-3]))
	p.Refused(2, err) // the last pair is not terminated
}

func loginStatSN(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	p.CmdSN, p.MaxCmdSN = 0xffffffff, 0xffffffff
	r := p.MustStep(0, wire.Security, 0, append(g.Names(), "AuthMethod=None")...)
	first := r.StatSN()
	for n := uint32(1); n <= 3; n++ {
		r = p.MustStep(0, wire.Security, 0)
		if r.StatSN() != first+n {
			t.Errorf("StatSN %d after %d", r.StatSN(), first+n-1)
		}
		if r.ExpCmdSN() != p.CmdSN {
			t.Errorf("ExpCmdSN %#x, the CmdSN of the login is %#x", r.ExpCmdSN(), p.CmdSN)
		}
	}
	p.MustStep(wire.Final, wire.Security, wire.Operational)
	p.Must("operational stage", p.Negotiate(peer.Keys()))
	p.MustReady()
	if p.CmdSN > 100 {
		t.Errorf("CmdSN %#x did not wrap", p.CmdSN)
	}
	p.Leave()
}

func loginFieldsChange(t peer.T, g *peer.Target) {
	for name, change := range map[string]func(*wire.PDU){
		"ISID": func(r *wire.PDU) { r.BHS[13]++ },
		"TSIH": func(r *wire.PDU) { r.BHS[15]++ },
		"ITT":  func(r *wire.PDU) { r.BHS[19]++ },
		"CID":  func(r *wire.PDU) { r.BHS[21]++ },
	} {
		p := g.Dial(t)
		p.MustStep(wire.Final, wire.Security, wire.Operational, append(g.Names(), "AuthMethod=None")...)
		r := p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, wire.Keys(peer.Keys()...))
		change(&r)
		_, err := p.StepPDU(r)
		t.Logf("%s: %v", name, err)
		p.Refused(2, err)
	}
}

func loginVersion(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	r := p.LoginPDU(wire.Final, wire.Security, wire.Operational, wire.Keys(g.Names()...))
	r.BHS[2], r.BHS[3] = 2, 1
	_, err := p.StepPDU(r)
	p.RefusedWith(2, 5, err)
	q := g.Dial(t) // a later one that can also do ours
	r = q.LoginPDU(wire.Final, wire.Security, wire.Operational, wire.Keys(g.Names()...))
	r.BHS[2], r.BHS[3] = 1, 0
	a, err := q.StepPDU(r)
	q.Must("versions 0 to 1", err)
	if a.BHS[3] != 0 {
		t.Errorf("active version %d", a.BHS[3])
	}
}

func loginFirstPDU(t peer.T, g *peer.Target) {
	for _, first := range []wire.PDU{
		wire.NopOut(1, wire.Reserved, nil), wire.Command(wire.Final, 1, 0, 0, peer.TUR(), nil),
		wire.Text(wire.Final, 1, wire.Reserved, wire.Keys("SendTargets=All")), wire.Logout(0, 1, 0),
		wire.DataOut(wire.Final, 1, 1, 0, 0, 0, nil), wire.New(0x3f, 0x80, 1),
	} {
		p := g.Dial(t)
		p.Must("send", p.Send(first))
		p.Closed()
	}
}

func loginInitiatorName(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	_, err := p.Step(wire.Final, wire.Operational, wire.FullFeature, "SessionType=Normal", "TargetName="+g.Name)
	p.RefusedWith(2, 7, err)
	for _, name := range []string{"", "nonsense", "iqn", "eui.xyz", g.Initiator + strings.Repeat("x", 300)} {
		p := g.Dial(t)
		_, err := p.Step(wire.Final, wire.Operational, wire.FullFeature, "InitiatorName="+name, "TargetName="+g.Name)
		p.Refused(2, err)
	}
}

func loginTargetName(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	_, err := p.Step(wire.Final, wire.Operational, wire.FullFeature, "InitiatorName="+g.Initiator)
	p.RefusedWith(2, 7, err)
	p = g.Dial(t)
	_, err = p.Step(wire.Final, wire.Operational, wire.FullFeature, "InitiatorName="+g.Initiator, "TargetName="+g.Name+".none")
	p.RefusedWith(2, 3, err)
	p = g.Dial(t) // names are compared in lower case (RFC 3722)
	up := "TargetName=" + strings.ToUpper(g.Name)
	p.Must("name in capitals", p.Negotiate(append([]string{"InitiatorName=" + g.Initiator, up}, peer.Keys()...)))
}

func loginSessionType(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	_, err := p.Step(wire.Final, wire.Operational, wire.FullFeature,
		"InitiatorName="+g.Initiator, "SessionType=Other", "TargetName="+g.Name)
	p.Refused(2, err)
	p = g.Dial(t)
	p.Must("normal is the default", p.Negotiate(append([]string{"InitiatorName=" + g.Initiator, "TargetName=" + g.Name}, peer.Keys()...)))
	p.MustReady()
}

func loginAuthMethod(t peer.T, g *peer.Target) {
	for offer, want := range map[string]string{"None": "None", "CHAP,None": "None", "SRP,None": "None", "KRB5,None,CHAP": "None"} {
		p := g.Dial(t)
		r := p.MustStep(wire.Final, wire.Security, wire.Operational, append(g.Names(), "AuthMethod="+offer)...)
		if v, _ := wire.Lookup(r.Data, "AuthMethod"); v != want {
			t.Errorf("AuthMethod=%s answered with %q", offer, v)
		}
	}
	for _, offer := range []string{"SRP", "KRB5,SPKM1", "none", ""} {
		p := g.Dial(t)
		r, err := p.Step(wire.Final, wire.Security, wire.Operational, append(g.Names(), "AuthMethod="+offer)...)
		if v, _ := wire.Lookup(r.Data, "AuthMethod"); err == nil && v == "Reject" {
			continue
		}
		p.Refused(2, err)
	}
}

func loginReservedISID(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	p.ISID[0] = 0xc0
	p.Refused(2, p.Negotiate(append(g.Names(), peer.Keys()...)))
}

func loginReinstatement(t peer.T, g *peer.Target) {
	p := g.Session(t)
	q := g.Dial(t)
	q.ISID = p.ISID
	q.Enter()
	p.Closed()
	r := q.MustDo(peer.TUR(), 0, nil)
	if r.Sense.Key != 6 {
		t.Errorf("the first command after a reinstatement: %v, want a unit attention", r.Err())
	}
	q.MustReady()
	q.Leave()
}

func loginTwoSessions(t peer.T, g *peer.Target) {
	p, q := g.Session(t), g.Session(t)
	p.MustReady()
	q.MustReady()
	p.Leave()
	q.MustReady()
	q.Leave()
}

func negotiateOnce(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	_, err := p.Step(wire.Final, wire.Operational, wire.FullFeature,
		append(g.Names(), "MaxBurstLength=65536", "MaxBurstLength=32768")...)
	p.Refused(2, err)
	p = g.Dial(t)
	p.MustStep(0, wire.Operational, 0, append(g.Names(), "MaxBurstLength=65536")...)
	_, err = p.Step(wire.Final, wire.Operational, wire.FullFeature, "MaxBurstLength=65536")
	p.Refused(2, err)
}

// negotiated logs in with keys and returns the value that the target answered to one of them.
func negotiated(g *peer.Target, t peer.T, key, offer string, more ...string) (string, error) {
	p := g.Dial(t)
	err := p.Negotiate(append(append(g.Names(), key+"="+offer), more...))
	v, n := wire.Lookup(p.Answers, key)
	if n > 1 && !slices.Contains(wire.Pairs(p.Answers), key+"=Reject") {
		t.Errorf("%s is answered %d times", key, n)
	}
	if n > 1 {
		v = "Reject" // and the target's own declaration
	}
	p.Close()
	return v, err
}

// answers wants an answer to each offer of a key, one of several. Without any the login must be refused or answered
// with Reject.
func answers(g *peer.Target, t peer.T, key string, offers map[string]string, more ...string) {
	t.Helper()
	for offer, want := range offers {
		v, err := negotiated(g, t, key, offer, more...)
		var refused *wire.LoginError
		switch {
		case want == "" && (errors.As(err, &refused) && refused.Class == 2 || err == nil && v == "Reject"):
		case want == "" || err != nil:
			t.Errorf("%s=%s: answered with %q, %v", key, offer, v, err)
		case !slices.Contains(strings.Split(want, "|"), v):
			t.Errorf("%s=%s: answered with %q, want %s", key, offer, v, want)
		}
	}
}

func negotiateList(t peer.T, g *peer.Target) {
	for _, key := range []string{"HeaderDigest", "DataDigest"} {
		answers(g, t, key, map[string]string{
			"None": "None", "None,CRC32C": "None", "CRC32C,None": "CRC32C|None", "X-other,None": "None", "X-other": "", "": "",
		})
	}
}

func negotiateBoolean(t peer.T, g *peer.Target) {
	answers(g, t, "InitialR2T", map[string]string{"Yes": "Yes", "No": "Yes|No", "yes": "", "1": "", "": ""})
	answers(g, t, "ImmediateData", map[string]string{"No": "No", "Yes": "Yes|No", "NO": "", "true": ""})
	answers(g, t, "DataPDUInOrder", map[string]string{"Yes": "Yes", "No": "Yes|No", "Maybe": ""})
	answers(g, t, "DataSequenceInOrder", map[string]string{"Yes": "Yes", "No": "Yes|No", "Maybe": ""})
}

// atMost wants a number up to limit as the answer.
func atMost(g *peer.Target, t peer.T, key, offer string, limit int, more ...string) {
	t.Helper()
	v, err := negotiated(g, t, key, offer, more...)
	n, bad := strconv.ParseInt(v, 0, 64)
	if err != nil || bad != nil || int(n) > limit || n < 0 {
		t.Errorf("%s=%s: answered with %q, %v, want a number up to %d", key, offer, v, err, limit)
	}
}

func negotiateNumber(t peer.T, g *peer.Target) {
	atMost(g, t, "MaxBurstLength", "512", 512)
	atMost(g, t, "MaxBurstLength", "65536", 65536)
	atMost(g, t, "MaxBurstLength", "16777215", 16777215)
	atMost(g, t, "MaxBurstLength", "0x10000", 65536)
	atMost(g, t, "FirstBurstLength", "512", 512, "InitialR2T=No")
	atMost(g, t, "MaxConnections", "1", 1)
	atMost(g, t, "MaxConnections", "65535", 65535)
}

func negotiateIllegal(t peer.T, g *peer.Target) {
	for key, values := range map[string][]string{
		"MaxBurstLength":           {"0", "511", "16777216", "-1", "abc", "", "65536 ", "1e6", "99999999999999999999999"},
		"FirstBurstLength":         {"0", "511", "16777216", "ten"},
		"MaxRecvDataSegmentLength": {"0", "511", "16777216", "none"},
		"MaxConnections":           {"0", "65536", "one"},
		"MaxOutstandingR2T":        {"0", "65536"},
		"ErrorRecoveryLevel":       {"3", "-1", "x"},
		"DefaultTime2Wait":         {"3601", "soon"},
		"DefaultTime2Retain":       {"3601", "long"},
	} {
		offers := map[string]string{}
		for _, v := range values {
			offers[v] = ""
		}
		answers(g, t, key, offers, "InitialR2T=No")
	}
}

func negotiateUnknown(t peer.T, g *peer.Target) {
	answers(g, t, "X-com.example.key", map[string]string{"1": "NotUnderstood"})
	answers(g, t, "NoSuchKey", map[string]string{"Yes": "NotUnderstood"})
	p := g.Session(t)
	p.Must("text", p.Request(wire.Text(wire.Final, p.NextITT(), wire.Reserved, wire.Keys("X-com.example.key=1"))))
	if v, _ := wire.Lookup(p.Want(wire.OpTextRsp).Data, "X-com.example.key"); v != "NotUnderstood" {
		t.Errorf("in full feature phase: %q", v)
	}
	p.Leave()
}

func negotiateFirstBurst(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	err := p.Negotiate(append(g.Names(), "InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=262144", "MaxBurstLength=4096"))
	var refused *wire.LoginError
	if errors.As(err, &refused) {
		return
	}
	p.Must("login", err)
	if p.FirstBurst > 4096 && p.Answer("FirstBurstLength") != "Reject" {
		t.Errorf("FirstBurstLength=%d with MaxBurstLength=4096", p.FirstBurst)
	}
}

func negotiateDigests(t peer.T, g *peer.Target) {
	for i, c := range [][2]string{{"None", "None"}, {"CRC32C", "None"}, {"None", "CRC32C"}, {"CRC32C", "CRC32C"}} {
		p := g.Session(t, "HeaderDigest="+c[0], "DataDigest="+c[1])
		if p.Answer("HeaderDigest") != c[0] || p.Answer("DataDigest") != c[1] {
			t.Errorf("HeaderDigest=%s, DataDigest=%s for %v", p.Answer("HeaderDigest"), p.Answer("DataDigest"), c)
		}
		bl := p.BlockLen()
		data := peer.Pattern(200*bl, byte(i))
		p.Store(uint64(i)*1000, bl, data)
		p.Holds(uint64(i)*1000, bl, data)
		p.Leave()
	}
}

func negotiateMarkers(t peer.T, g *peer.Target) {
	for _, key := range []string{"IFMarker", "OFMarker"} {
		answers(g, t, key, map[string]string{"Yes": "No|Reject|Irrelevant|NotUnderstood", "No": "No|Reject|Irrelevant|NotUnderstood"})
	}
	p := g.Session(t, "IFMarker=No", "OFMarker=No", "IFMarkInt=2048", "OFMarkInt=2048")
	p.Leave()
}

func negotiateMRDSL(t peer.T, g *peer.Target) {
	for _, limit := range []int{512, 8192, 65536} {
		p := g.Session(t, "MaxRecvDataSegmentLength="+strconv.Itoa(limit))
		if _, n := wire.Lookup(p.Answers, "MaxRecvDataSegmentLength"); n > 1 {
			t.Errorf("the target declares its own %d times", n)
		}
		bl := p.BlockLen()
		data := peer.Pattern(128*bl, 7)
		p.Store(0, bl, data)
		itt, err := p.Start(peer.RW16(peer.Read16, 0, 128), len(data), nil)
		p.Must("read", err)
		for got := 0; ; {
			d := p.Want(wire.OpDataIn)
			if len(d.Data) > limit || d.ITT() != itt || int(d.U32(40)) != got {
				t.Fatalf("data-in of %d bytes at %d, the limit is %d", len(d.Data), d.U32(40), limit)
			}
			if got += len(d.Data); d.Flags()&wire.HasStatus != 0 {
				if got != len(data) {
					t.Fatalf("%d bytes", got)
				}
				break
			}
		}
		p.Leave()
	}
}

func negotiateTimes(t peer.T, g *peer.Target) {
	for offer, least := range map[string]int{"0": 0, "20": 20, "3600": 3600} {
		v, err := negotiated(g, t, "DefaultTime2Wait", offer)
		if n, bad := strconv.Atoi(v); err != nil || bad != nil || n < least {
			t.Errorf("DefaultTime2Wait=%s: answered with %q, %v", offer, v, err)
		}
		atMost(g, t, "DefaultTime2Retain", offer, least)
	}
}

// negotiateR2Ts counts the R2Ts that are outstanding.
func negotiateR2Ts(t peer.T, g *peer.Target) {
	for _, offer := range []int{1, 4} {
		p := g.Session(t, "MaxOutstandingR2T="+strconv.Itoa(offer), "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=8192")
		limit, err := strconv.Atoi(p.Answer("MaxOutstandingR2T"))
		if err != nil || limit > offer || limit < 1 {
			t.Fatalf("MaxOutstandingR2T=%q for %d", p.Answer("MaxOutstandingR2T"), offer)
		}
		bl := p.BlockLen()
		data := peer.Pattern(65536, byte(offer))
		itt, err := p.Start(peer.RW16(peer.Write16, 0, uint32(len(data)/bl)), 0, data)
		p.Must("write", err)
		var open []wire.PDU
		for {
			r, err := p.NextWithin(peer.QuietTime)
			if errors.Is(err, wire.ErrQuiet) {
				break
			}
			p.Must("R2T", err)
			if open = append(open, r); r.Opcode() != wire.OpR2T || len(open) > limit {
				t.Fatalf("opcode %#02x, %d R2Ts outstanding, the limit is %d", r.Opcode(), len(open), limit)
			}
		}
		for i := range open {
			p.Must("data", p.AnswerR2T(&open[i], data))
		}
		r, err := p.Finish(itt, data)
		p.Must("write", err)
		if r.Err() != nil {
			t.Errorf("write: %v", r.Err())
		}
		p.Holds(0, bl, data)
	}
}

func negotiateERL(t peer.T, g *peer.Target) {
	for _, offer := range []int{0, 1, 2} {
		atMost(g, t, "ErrorRecoveryLevel", strconv.Itoa(offer), offer)
	}
}

func negotiateLevel(t peer.T, g *peer.Target) {
	v, err := negotiated(g, t, "iSCSIProtocolLevel", "31")
	if n, bad := strconv.Atoi(v); err != nil || v != "NotUnderstood" && (bad != nil || n > 31) {
		t.Errorf("iSCSIProtocolLevel=31: %q, %v", v, err)
	}
	answers(g, t, "TaskReporting", map[string]string{"RFC3720": "RFC3720|NotUnderstood", "FastAbort,RFC3720": "FastAbort|RFC3720|NotUnderstood"})
}

func negotiateIrrelevant(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	p.Must("discovery", p.Negotiate([]string{
		"InitiatorName=" + g.Initiator, "SessionType=Discovery", "MaxConnections=1", "InitialR2T=Yes", "MaxOutstandingR2T=1",
	}))
	for _, key := range []string{"InitialR2T", "MaxOutstandingR2T"} {
		if v := p.Answer(key); v != "Irrelevant" {
			t.Errorf("%s: %q, want Irrelevant", key, v)
		}
	}
}

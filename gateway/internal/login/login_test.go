package login

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

const (
	hostName   = "iqn.2001-04.com.example:host"
	targetName = "iqn.2026-11.dev.ashlar:demo"
	hostSecret = "initiator-secre"
	ourSecret  = "target--secret"
)

var (
	oneWay = Auth{Initiator: &Credentials{"alice", []Secret{Secret(hostSecret)}}}
	mutual = Auth{oneWay.Initiator, &MutualCredentials{"ashlar", Secret(ourSecret)}}
)

// testEnv knows one target, by default open to everyone.
type testEnv struct {
	target    TargetInfo
	discovery DiscoveryInfo
	admit     func(Admission) (Grant, error)
	admitted  []Admission
	refuse    error  // of Permit
	proofs    []bool // what Authenticated was told
}

func newTestEnv() *testEnv {
	return &testEnv{
		target:    TargetInfo{Exists: true, Allowed: true, PortalGroupTag: 7},
		discovery: DiscoveryInfo{Allowed: true, Open: true},
	}
}

func (e *testEnv) LookupTarget(_, target string) TargetInfo {
	if target != targetName {
		return TargetInfo{}
	}
	return e.target
}

func (e *testEnv) LookupDiscovery(string) DiscoveryInfo { return e.discovery }

func (e *testEnv) Permit(string) error { return e.refuse }

func (e *testEnv) Authenticated(_ string, ok bool) { e.proofs = append(e.proofs, ok) }

// discoverWith has discovery ask for a proof.
func (e *testEnv) discoverWith(a ...Auth) { e.discovery = DiscoveryInfo{Allowed: true, Auths: a} }

func (e *testEnv) Admit(a Admission) (Grant, error) {
	e.admitted = append(e.admitted, a)
	if e.admit != nil {
		return e.admit(a)
	}
	return Grant{TSIH: 0x0101}, nil
}

// counting is a random source that can be predicted.
type counting struct{ next byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.next
		c.next++
	}
	return len(p), nil
}

// host plays the initiator's side of a login.
type host struct {
	t     testing.TB
	login *Login
	req   pdu.LoginRequest // the fixed fields
	last  map[string]string
	done  *Result
	err   error
}

func newHost(t testing.TB, cfg Config, env Env) *host {
	if cfg.Rand == nil {
		cfg.Rand = &counting{}
	}
	h := &host{t: t, login: NewLogin(cfg, env)}
	h.req = pdu.LoginRequest{ISID: pdu.ISID{0, 2, 0x3d, 0, 0, 1}, ITT: 5, CID: 1}
	h.req.CmdSN, h.req.ExpStatSN = 100, 1000
	return h
}

// send sends a request and returns the response, which went over the wire.
func (h *host) send(req pdu.LoginRequest) pdu.LoginResponse {
	h.t.Helper()
	out, done, err := h.login.Receive(req)
	if len(out) != 1 {
		h.t.Fatalf("%d responses, %v", len(out), err)
	}
	h.done, h.err = done, err
	wire := out[0].AppendHeader(nil, len(out[0].Data))
	resp, perr := pdu.ParseLoginResponse((*pdu.Header)(wire), nil, out[0].Data)
	if perr != nil {
		h.t.Fatal(perr)
	}
	if len(resp.Data) > DefaultMaxRecvDataSegmentLength {
		h.t.Fatalf("response of %d bytes", len(resp.Data))
	}
	if !resp.Continue {
		pairs, perr := ParseText(resp.Data)
		if perr == nil {
			h.last = map[string]string{}
			for _, p := range pairs {
				h.last[p.Key] = p.Value
			}
		}
	}
	return resp
}

// say sends text in stage csg; nsg is the stage to move to, or the same for none.
func (h *host) say(csg, nsg pdu.LoginStage, kv ...string) pdu.LoginResponse {
	h.t.Helper()
	req := h.req
	req.CSG, req.Data = csg, textOf(kv...)
	if nsg != csg {
		req.Transit, req.NSG = true, nsg
	}
	return h.send(req)
}

// response computes a CHAP_R to the last challenge of the target.
func (h *host) response(secret string) string {
	a, err1 := strconv.Atoi(h.last[keyCHAPA])
	id, err2 := strconv.Atoi(h.last[keyCHAPI])
	c, err3 := decodeBinary(h.last[keyCHAPC], MaxBinaryLen)
	if err := errors.Join(err1, err2, err3); err != nil {
		h.t.Fatal(err)
	}
	return encodeBinary(CHAPResponse(CHAPAlgorithm(a), uint8(id), Secret(secret), c))
}

func (h *host) wantStatus(want Status) {
	h.t.Helper()
	var se *StatusError
	if !errors.As(h.err, &se) || se.Status != want {
		h.t.Fatalf("login ended with %v, want %v", h.err, want)
	}
	if _, _, err := h.login.Receive(h.req); !errors.Is(err, ErrOver) {
		h.t.Fatalf("after the end: %v", err)
	}
}

const (
	sec  = pdu.StageSecurity
	oper = pdu.StageOperational
	full = pdu.StageFullFeature
)

var normal = []string{"InitiatorName=" + hostName, "TargetName=" + targetName, "SessionType=Normal"}

// with returns the names of a normal session and more.
func with(kv ...string) []string { return append(slices.Clone(normal), kv...) }

// TestTranscripts runs the logins in testdata. Commands:
//
//	new [oneway|mutual] [rotate] [alias=A] [limit=N]        a connection; limit is the initiator's segment length
//	send [T] [C] csg=N [nsg=N] [tsih=N] [raw]               a request with the text below; $resp:SECRET and
//	                                                        $resp64:SECRET stand for the response to the challenge
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		var h *host
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				env := newTestEnv()
				for name, a := range map[string]Auth{"oneway": oneWay, "mutual": mutual} {
					if d.HasArg(name) {
						env.target.Auth = a
						env.discoverWith(a)
					}
				}
				if d.HasArg("rotate") {
					env.target.Auth.Initiator = &Credentials{"alice", []Secret{Secret("new-secret-of-it"), Secret(hostSecret)}}
				}
				if d.HasArg("alias") {
					d.ScanArgs(t, "alias", &env.target.Alias)
				}
				h = newHost(t, DefaultConfig(), env)
				return ""
			case "send":
				h.t = t
				return transcriptSend(h, d)
			}
			return "unknown command " + d.Cmd
		})
	})
}

func transcriptSend(h *host, d *datadriven.TestData) string {
	req := h.req
	var csg, nsg int
	d.ScanArgs(h.t, "csg", &csg)
	if d.HasArg("nsg") {
		d.ScanArgs(h.t, "nsg", &nsg)
	}
	if d.HasArg("tsih") {
		var tsih int
		d.ScanArgs(h.t, "tsih", &tsih)
		req.TSIH = pdu.TSIH(tsih)
	}
	req.Transit, req.Continue = d.HasArg("T"), d.HasArg("C")
	req.CSG, req.NSG = pdu.LoginStage(csg), pdu.LoginStage(nsg)
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(d.Input), "\n") {
		if key, secret, ok := strings.Cut(line, "=$resp:"); ok {
			line = key + "=" + h.response(secret)
		}
		if key, secret, ok := strings.Cut(line, "=$resp64:"); ok {
			b, err := decodeBinary(h.response(secret), MaxBinaryLen)
			if err != nil {
				h.t.Fatal(err)
			}
			line = key + "=0b" + base64.StdEncoding.EncodeToString(b)
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	req.Data = textOf(lines...)
	if d.HasArg("raw") { // not terminated
		req.Data = bytes.TrimSuffix(req.Data, []byte{0})
	}
	resp := h.send(req)
	var b strings.Builder
	for _, f := range []struct {
		on   bool
		name string
	}{{resp.Transit, "T "}, {resp.Continue, "C "}} {
		if f.on {
			b.WriteString(f.name)
		}
	}
	fmt.Fprintf(&b, "csg=%d nsg=%d status=%02x%02x tsih=%d statsn=%d cmdsn=%d..%d\n",
		resp.CSG, resp.NSG, resp.StatusClass, resp.StatusDetail, resp.TSIH, resp.StatSN, resp.ExpCmdSN, resp.MaxCmdSN)
	b.WriteString(strings.ReplaceAll(string(resp.Data), "\x00", "\n"))
	if h.err != nil {
		fmt.Fprintf(&b, "-- %v\n", h.err)
	}
	if r := h.done; r != nil {
		fmt.Fprintf(&b, "-- %v session of %s with %q, user %q, next StatSN %d\n-- %+v\n",
			r.Type, r.InitiatorName, r.TargetName, r.User, r.StatSN, r.Params)
	}
	return b.String()
}

func chapEnv(e *testEnv) { e.target.Auth = mutual }

var failures = []struct {
	name   string
	env    func(e *testEnv)
	run    func(h *host)
	status Status
}{
	{"no InitiatorName", nil, func(h *host) { h.say(sec, oper, "TargetName="+targetName) }, StatusMissingParameter},
	{"nothing at all", nil, func(h *host) { h.say(sec, oper) }, StatusMissingParameter},
	{"no TargetName", nil, func(h *host) { h.say(sec, oper, "InitiatorName="+hostName) }, StatusMissingParameter},
	{"bad InitiatorName", nil, func(h *host) { h.say(sec, oper, "InitiatorName=host", "TargetName="+targetName) }, StatusInitiatorError},
	{"bad TargetName", nil, func(h *host) { h.say(sec, oper, "InitiatorName="+hostName, "TargetName=x") }, StatusNotFound},
	{"unknown target", nil, func(h *host) { h.say(sec, oper, "InitiatorName="+hostName, "TargetName="+targetName+"2") }, StatusNotFound},
	{"not allowed", func(e *testEnv) { e.target.Allowed = false }, func(h *host) { h.say(sec, oper, normal...) }, StatusAuthorizationFailure},
	{"unavailable", func(e *testEnv) { e.target.Unavailable = true }, func(h *host) { h.say(sec, oper, normal...) }, StatusServiceUnavailable},
	{"discovery not allowed", func(e *testEnv) { e.discovery.Allowed = false }, func(h *host) {
		h.say(sec, oper, "InitiatorName="+hostName, "SessionType=Discovery")
	}, StatusAuthorizationFailure},
	{"session type", nil, func(h *host) { h.say(sec, oper, "InitiatorName="+hostName, "SessionType=Other") }, StatusSessionTypeUnsupported},
	{"InitiatorName twice", nil, func(h *host) { h.say(sec, oper, with("InitiatorName="+hostName)...) }, StatusInitiatorError},
	{"InitiatorName again", nil, func(h *host) { h.say(sec, sec, normal...); h.say(sec, oper, "InitiatorName="+hostName) }, StatusInitiatorError},
	{"SessionType too late", nil, func(h *host) {
		h.say(sec, sec, "InitiatorName="+hostName, "TargetName="+targetName)
		h.say(sec, oper, "SessionType=Discovery")
	}, StatusInitiatorError},
	{"AuthMethod twice", nil, func(h *host) { h.say(sec, sec, with("AuthMethod=None")...); h.say(sec, oper, "AuthMethod=None") }, StatusInitiatorError},
	{"version 1", nil, func(h *host) { h.req.VersionMax, h.req.VersionMin = 1, 1; h.say(sec, oper, normal...) }, StatusUnsupportedVersion},
	{"version changes", nil, func(h *host) { h.say(sec, sec, normal...); h.req.VersionMax = 1; h.say(sec, oper) }, StatusInitiatorError},
	{"reserved ISID", nil, func(h *host) { h.req.ISID[0] = 0xc0; h.say(sec, oper, normal...) }, StatusInitiatorError},
	{"ISID changes", nil, func(h *host) { h.say(sec, sec, normal...); h.req.ISID[5]++; h.say(sec, oper) }, StatusInitiatorError},
	{"TSIH changes", nil, func(h *host) { h.say(sec, sec, normal...); h.req.TSIH++; h.say(sec, oper) }, StatusInitiatorError},
	{"CID changes", nil, func(h *host) { h.say(sec, sec, normal...); h.req.CID++; h.say(sec, oper) }, StatusInitiatorError},
	{"ITT changes", nil, func(h *host) { h.say(sec, sec, normal...); h.req.ITT++; h.say(sec, oper) }, StatusInitiatorError},
	{"CSG 2", nil, func(h *host) { h.say(2, full, normal...) }, StatusInitiatorError},
	{"CSG 3", nil, func(h *host) { h.say(full, full, normal...) }, StatusInitiatorError},
	{"NSG 2", nil, func(h *host) { h.say(sec, 2, normal...) }, StatusInitiatorError},
	{"NSG behind CSG", nil, func(h *host) { h.say(oper, sec, normal...) }, StatusInitiatorError},
	{"CSG ahead of the stage", nil, func(h *host) { h.say(sec, sec, normal...); h.say(oper, full) }, StatusInitiatorError},
	{"CSG behind the stage", nil, func(h *host) { h.say(sec, oper, normal...); h.say(sec, full) }, StatusInitiatorError},
	{"T to the same stage", nil, func(h *host) {
		req := h.req
		req.Transit, req.Data = true, textOf(normal...)
		h.send(req)
	}, StatusInitiatorError},
	{"T and C", nil, func(h *host) {
		req := h.req
		req.Transit, req.Continue, req.NSG, req.Data = true, true, oper, textOf(normal...)
		h.send(req)
	}, StatusInitiatorError},
	{"MaxRecvDataSegmentLength of 0", nil, func(h *host) { h.say(oper, full, with("MaxRecvDataSegmentLength=0")...) }, StatusInitiatorError},
	{"MaxRecvDataSegmentLength of 511", nil, func(h *host) { h.say(oper, full, with("MaxRecvDataSegmentLength=511")...) }, StatusInitiatorError},
	{"MaxRecvDataSegmentLength of 2^24", nil, func(h *host) { h.say(oper, full, with("MaxRecvDataSegmentLength=16777216")...) }, StatusInitiatorError},
	{"MaxRecvDataSegmentLength of nothing", nil, func(h *host) { h.say(sec, oper, with("MaxRecvDataSegmentLength=")...) }, StatusInitiatorError},
	{"key twice", nil, func(h *host) {
		h.say(oper, full, with("MaxBurstLength=1024", "MaxBurstLength=1024")...)
	}, StatusInitiatorError},
	{"key in two requests", nil, func(h *host) {
		h.say(oper, oper, with("MaxBurstLength=1024")...)
		h.say(oper, full, "MaxBurstLength=2048")
	}, StatusInitiatorError},
	{"unterminated text", nil, func(h *host) {
		req := h.req
		req.Data = bytes.TrimSuffix(textOf(normal...), []byte{0})
		h.send(req)
	}, StatusInitiatorError},
	{"2048 tiny keys", nil, func(h *host) {
		req := h.req
		req.Data = bytes.Repeat([]byte("X=\x00"), 2048)
		h.send(req)
	}, StatusInitiatorError},
	{"empty requests with C for ever", nil, func(h *host) {
		req := h.req
		req.Continue = true
		for h.err == nil {
			h.send(req)
		}
	}, StatusInitiatorError},
	{"requests for ever", nil, func(h *host) {
		h.say(sec, sec, normal...)
		for h.err == nil {
			h.say(sec, sec)
		}
	}, StatusInitiatorError},
	{"a key of 64 bytes", nil, func(h *host) { h.say(oper, full, with(strings.Repeat("k", 64)+"=")...) }, StatusInitiatorError},
	{"an unknown key of 8 KiB", nil, func(h *host) { h.say(oper, full, with(strings.Repeat("k", 7000)+"=")...) }, StatusInitiatorError},

	{"authentication skipped", chapEnv, func(h *host) { h.say(oper, full, normal...) }, StatusAuthenticationFailure},
	{"no AuthMethod", chapEnv, func(h *host) { h.say(sec, oper, normal...) }, StatusAuthenticationFailure},
	{"AuthMethod None only", chapEnv, func(h *host) { h.say(sec, oper, with("AuthMethod=None")...) }, StatusAuthenticationFailure},
	{"AuthMethod unknown", chapEnv, func(h *host) { h.say(sec, oper, with("AuthMethod=KRB5,SRP")...) }, StatusAuthenticationFailure},
	{"CHAP only, not configured", nil, func(h *host) { h.say(sec, oper, with("AuthMethod=CHAP")...) }, StatusAuthenticationFailure},
	{"AuthMethod and CHAP_A together", chapEnv, func(h *host) { h.say(sec, sec, with("AuthMethod=CHAP", "CHAP_A=5")...) }, StatusInitiatorError},
	{"CHAP_A before AuthMethod", chapEnv, func(h *host) { h.say(sec, sec, with("CHAP_A=5")...) }, StatusInitiatorError},
	{"CHAP_A missing", chapEnv, func(h *host) { h.say(sec, sec, with("AuthMethod=CHAP")...); h.say(sec, sec) }, StatusMissingParameter},
	{"CHAP_A out of order", chapEnv, func(h *host) {
		h.say(sec, sec, with("AuthMethod=CHAP")...)
		h.say(sec, oper, "CHAP_N=alice", "CHAP_R=0x00112233445566778899aabbccddeeff")
	}, StatusMissingParameter},
	{"CHAP_A and CHAP_N together", chapEnv, func(h *host) {
		h.say(sec, sec, with("AuthMethod=CHAP")...)
		h.say(sec, oper, "CHAP_A=5", "CHAP_N=alice")
	}, StatusInitiatorError},
	{"jump out of CHAP", chapEnv, func(h *host) { h.say(sec, sec, with("AuthMethod=CHAP")...); h.say(oper, full) }, StatusInitiatorError},
	{"CHAP keys after None", nil, func(h *host) { h.say(sec, sec, with("AuthMethod=None")...); h.say(sec, oper, "CHAP_A=5") }, StatusInitiatorError},
	{"no random bytes", chapEnv, func(h *host) {
		h.login.rand = strings.NewReader("short")
		h.say(sec, sec, with("AuthMethod=CHAP")...)
		h.say(sec, sec, "CHAP_A=5")
	}, StatusTargetError},

	{"admission refused", func(e *testEnv) {
		e.admit = func(Admission) (Grant, error) { return Grant{}, failf(StatusTooManyConnections, "full") }
	}, func(h *host) { h.say(oper, full, normal...) }, StatusTooManyConnections},
	{"admission failed", func(e *testEnv) {
		e.admit = func(Admission) (Grant, error) { return Grant{}, errors.New("boom") }
	}, func(h *host) { h.say(oper, full, normal...) }, StatusTargetError},
	{"admission without TSIH", func(e *testEnv) {
		e.admit = func(Admission) (Grant, error) { return Grant{}, nil }
	}, func(h *host) { h.say(oper, full, normal...) }, StatusTargetError},
	{"no such session", func(e *testEnv) {
		e.admit = func(a Admission) (Grant, error) {
			return Grant{}, failf(StatusSessionDoesNotExist, "TSIH %d", a.TSIH)
		}
	}, func(h *host) { h.req.TSIH = 9; h.say(oper, full, normal...) }, StatusSessionDoesNotExist},
}

func TestFailures(t *testing.T) {
	for _, c := range failures {
		t.Run(c.name, func(t *testing.T) {
			env := newTestEnv()
			if c.env != nil {
				c.env(env)
			}
			h := newHost(t, DefaultConfig(), env)
			c.run(h)
			h.wantStatus(c.status)
			if h.done != nil {
				t.Error("a result and an error")
			}
			if admitted := len(env.admitted) > 0; admitted && env.admit == nil {
				t.Error("a login that failed was admitted")
			}
		})
	}
}

// toChallenge brings a login of auth to the target's challenge.
func toChallenge(t *testing.T, auth Auth, algorithm string) *host {
	t.Helper()
	env := newTestEnv()
	env.target.Auth = auth
	h := newHost(t, DefaultConfig(), env)
	h.say(sec, oper, with("AuthMethod=None,CHAP")...)
	if h.last[keyAuthMethod] != "CHAP" {
		t.Fatalf("AuthMethod is %v", h.last)
	}
	if resp := h.say(sec, oper, "CHAP_A="+algorithm); h.err != nil || resp.Transit {
		t.Fatalf("after CHAP_A: %+v, %v", resp, h.err)
	}
	return h
}

func TestCHAPAlgorithms(t *testing.T) {
	for _, c := range []struct {
		offer, chosen string
		size          int // of the challenge
	}{
		{"5", "5", 16},
		{"6", "6", 20},
		{"7", "7", 32},
		{"8", "8", 32},
		{"8,7,6,5", "8", 32},
		{"1,99,5,7", "5", 16},
	} {
		t.Run(c.offer, func(t *testing.T) {
			h := toChallenge(t, mutual, c.offer)
			if n := (len(h.last[keyCHAPC]) - 2) / 2; h.last[keyCHAPA] != c.chosen || n != c.size {
				t.Fatalf("%v, challenge of %d bytes", h.last, n)
			}
			a, _ := strconv.Atoi(c.chosen)
			challenge := bytes.Repeat([]byte{0xc5}, 24)
			resp := h.say(sec, oper, "CHAP_N=alice", "CHAP_R="+h.response(hostSecret), "CHAP_I=200", "CHAP_C="+encodeBinary(challenge))
			if h.err != nil || !resp.Transit {
				t.Fatal(h.err)
			}
			want := encodeBinary(CHAPResponse(CHAPAlgorithm(a), 200, Secret(ourSecret), challenge))
			if h.last[keyCHAPN] != "ashlar" || h.last[keyCHAPR] != want {
				t.Errorf("%v, want %s", h.last, want)
			}
			if h.say(oper, full); h.done == nil || h.done.User != "alice" {
				t.Errorf("result %+v, %v", h.done, h.err)
			}
		})
	}
	for _, offer := range []string{"", "1", "0x", "4,9", "MD5", "5 ", "261"} {
		env := newTestEnv()
		env.target.Auth = oneWay
		h := newHost(t, DefaultConfig(), env)
		h.say(sec, sec, with("AuthMethod=CHAP")...)
		h.say(sec, sec, "CHAP_A="+offer)
		h.wantStatus(StatusAuthenticationFailure)
	}
}

// TestCHAPVectors compares with responses that were computed elsewhere: id 0x17, secret "initiator-secret", challenge
// 00 01 .. 0f.
func TestCHAPVectors(t *testing.T) {
	challenge := make([]byte, 16)
	for i := range challenge {
		challenge[i] = byte(i)
	}
	for a, want := range map[CHAPAlgorithm]string{
		CHAPMD5: "f5bbd630ed695f3e1a725841794e813f", CHAPSHA1: "eedff3809574dc4c9ee22c8fc08951fd3ef146e7",
		CHAPSHA256: "281ec45307f4055c66cc3c2e472eb913bfa5db4940949f7c0ce14417e6425b5f",
		CHAPSHA3:   "a8c1217240c9fe785a72e471f91791756c3178db992838f0acb2934d1baa3188",
	} {
		if got := encodeBinary(CHAPResponse(a, 0x17, Secret("initiator-secret"), challenge)); got != "0x"+want {
			t.Errorf("algorithm %d: %s, want %s", a, got, want)
		}
	}
}

func TestCHAPRefusals(t *testing.T) {
	good := func(h *host) []string { return []string{"CHAP_N=alice", "CHAP_R=" + h.response(hostSecret)} }
	ask := []string{"CHAP_I=1", "CHAP_C=0x" + strings.Repeat("ab", 16)}
	both := func(h *host, more ...string) []string { return append(good(h), more...) }
	sameSecret := Auth{mutual.Initiator, &MutualCredentials{"ashlar", Secret(hostSecret)}}
	for _, c := range []struct {
		name   string
		auth   Auth
		text   func(h *host) []string
		status Status
	}{
		{"good one way", oneWay, good, StatusSuccess},
		{"good mutual", mutual, func(h *host) []string { return both(h, ask...) }, StatusSuccess},
		{"mutual possible, not asked", mutual, good, StatusSuccess},
		{"upper case hex", oneWay, func(h *host) []string {
			return []string{"CHAP_N=alice", "CHAP_R=0X" + strings.ToUpper(h.response(hostSecret)[2:])}
		}, StatusSuccess},
		{"wrong secret", oneWay, func(h *host) []string { return []string{"CHAP_N=alice", "CHAP_R=" + h.response("another-secret")} }, StatusAuthenticationFailure},
		{"unknown user", oneWay, func(h *host) []string { return []string{"CHAP_N=bob", "CHAP_R=" + h.response(hostSecret)} }, StatusAuthenticationFailure},
		{"user in upper case", oneWay, func(h *host) []string { return []string{"CHAP_N=Alice", "CHAP_R=" + h.response(hostSecret)} }, StatusAuthenticationFailure},
		{"empty user", oneWay, func(h *host) []string { return []string{"CHAP_N=", "CHAP_R=" + h.response(hostSecret)} }, StatusAuthenticationFailure},
		{"the target's secret", mutual, func(h *host) []string { return []string{"CHAP_N=alice", "CHAP_R=" + h.response(ourSecret)} }, StatusAuthenticationFailure},
		{"no CHAP_N", oneWay, func(h *host) []string { return good(h)[1:] }, StatusMissingParameter},
		{"no CHAP_R", oneWay, func(h *host) []string { return good(h)[:1] }, StatusMissingParameter},
		{"nothing", oneWay, func(*host) []string { return nil }, StatusMissingParameter},
		{"CHAP_A again", oneWay, func(h *host) []string { return both(h, "CHAP_A=5") }, StatusInitiatorError},
		{"AuthMethod again", oneWay, func(h *host) []string { return both(h, "AuthMethod=None") }, StatusInitiatorError},
		{"CHAP_N twice", oneWay, func(h *host) []string { return both(h, "CHAP_N=alice") }, StatusInitiatorError},
		{"response too short", oneWay, func(*host) []string { return []string{"CHAP_N=alice", "CHAP_R=0x" + strings.Repeat("ab", 15)} }, StatusAuthenticationFailure},
		{"response too long", oneWay, func(*host) []string { return []string{"CHAP_N=alice", "CHAP_R=0x" + strings.Repeat("ab", 17)} }, StatusAuthenticationFailure},
		{"response of the largest size", oneWay, func(*host) []string {
			return []string{"CHAP_N=alice", "CHAP_R=0x" + strings.Repeat("ab", 1024)}
		}, StatusAuthenticationFailure},
		{"response without digits", oneWay, func(*host) []string { return []string{"CHAP_N=alice", "CHAP_R=0x"} }, StatusAuthenticationFailure},
		{"response in no encoding", oneWay, func(*host) []string { return []string{"CHAP_N=alice", "CHAP_R=" + strings.Repeat("ab", 16)} }, StatusAuthenticationFailure},
		{"response not hex", oneWay, func(*host) []string { return []string{"CHAP_N=alice", "CHAP_R=0x" + strings.Repeat("zz", 16)} }, StatusAuthenticationFailure},
		{"empty response", oneWay, func(*host) []string { return []string{"CHAP_N=alice", "CHAP_R="} }, StatusAuthenticationFailure},
		{"mutual not configured", oneWay, func(h *host) []string { return both(h, ask...) }, StatusAuthenticationFailure},
		{"CHAP_I without CHAP_C", mutual, func(h *host) []string { return both(h, ask[0]) }, StatusMissingParameter},
		{"CHAP_C without CHAP_I", mutual, func(h *host) []string { return both(h, ask[1]) }, StatusMissingParameter},
		{"CHAP_I too big", mutual, func(h *host) []string { return both(h, "CHAP_I=256", ask[1]) }, StatusAuthenticationFailure},
		{"CHAP_I negative", mutual, func(h *host) []string { return both(h, "CHAP_I=-1", ask[1]) }, StatusAuthenticationFailure},
		{"CHAP_C empty", mutual, func(h *host) []string { return both(h, ask[0], "CHAP_C=0x") }, StatusAuthenticationFailure},
		{"CHAP_C of 1024 bytes", mutual, func(h *host) []string { return both(h, ask[0], "CHAP_C=0x"+strings.Repeat("ab", 1024)) }, StatusSuccess},
		{"CHAP_C of 1025 bytes", mutual, func(h *host) []string { return both(h, ask[0], "CHAP_C=0x"+strings.Repeat("ab", 1025)) }, StatusInitiatorError},
		{"reflected challenge", mutual, func(h *host) []string { return both(h, "CHAP_I=1", "CHAP_C="+h.last[keyCHAPC]) }, StatusAuthenticationFailure},
		{"reflected challenge in base64", mutual, func(h *host) []string {
			c, _ := decodeBinary(h.last[keyCHAPC], MaxBinaryLen)
			return both(h, "CHAP_I=1", "CHAP_C=0b"+base64.StdEncoding.EncodeToString(c))
		}, StatusAuthenticationFailure},
		{"both directions with one secret", sameSecret, func(h *host) []string { return both(h, ask...) }, StatusAuthenticationFailure},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := toChallenge(t, c.auth, "5")
			resp := h.say(sec, oper, c.text(h)...)
			if c.status != StatusSuccess {
				h.wantStatus(c.status)
				if resp.Transit || len(resp.Data) != 0 {
					t.Errorf("refused with %+v", resp)
				}
				return
			}
			if h.err != nil || !resp.Transit {
				t.Fatal(h.err)
			}
		})
	}
}

// TestOneAnswerForAllBadCredentials compares what goes over the wire.
func TestOneAnswerForAllBadCredentials(t *testing.T) {
	var first []byte
	for _, text := range [][]string{{"CHAP_N=alice", "wrong-secret"}, {"CHAP_N=nobody", hostSecret}, {"CHAP_N=nobody", "wrong-secret"}} {
		h := toChallenge(t, oneWay, "7")
		resp := h.say(sec, oper, text[0], "CHAP_R="+h.response(text[1]))
		h.wantStatus(StatusAuthenticationFailure)
		wire := append(resp.AppendHeader(nil, len(resp.Data)), resp.Data...)
		if first == nil {
			first = wire
		}
		if !bytes.Equal(wire, first) {
			t.Errorf("%v: %x, want %x", text, wire, first)
		}
	}
}

// TestEqualResponses makes the two responses equal although the secrets and challenges differ, which a host could only
// do by reflecting through a second connection: it is refused whatever the way.
func TestEqualResponses(t *testing.T) {
	c := &chap{algorithm: CHAPMD5, id: 1, challenge: []byte("target challenge")}
	theirs := CHAPResponse(CHAPMD5, 9, Secret(ourSecret), []byte("their challenge"))
	_, err := c.answer(&mutual, theirs, "9", encodeBinary([]byte("their challenge")))
	var se *StatusError
	if !errors.As(err, &se) || se.Status != StatusAuthenticationFailure {
		t.Errorf("%v", err)
	}
}

func TestChallengesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 64 {
		cfg := DefaultConfig()
		env := newTestEnv()
		env.target.Auth = oneWay
		h := &host{t: t, login: NewLogin(cfg, env), req: pdu.LoginRequest{ITT: 1}} // the real generator
		h.say(sec, sec, with("AuthMethod=CHAP")...)
		h.say(sec, sec, "CHAP_A=5")
		if c := h.last[keyCHAPC]; len(c) != 2+2*16 || seen[c] {
			t.Fatalf("challenge %q is short or repeated", c)
		}
		seen[h.last[keyCHAPC]] = true
	}
}

func TestRedirect(t *testing.T) {
	for permanent, want := range map[bool]Status{false: StatusMovedTemporarily, true: StatusMovedPermanently} {
		env := newTestEnv()
		env.target.Redirect = &Redirect{permanent, "10.0.0.2:3260"}
		h := newHost(t, DefaultConfig(), env)
		resp := h.say(sec, oper, normal...)
		h.wantStatus(want)
		if resp.StatusClass != 1 || h.last[keyTargetAddress] != "10.0.0.2:3260" {
			t.Errorf("%+v, %v", resp, h.last)
		}
	}
}

func TestAdmission(t *testing.T) {
	env := newTestEnv()
	h := newHost(t, DefaultConfig(), env)
	h.say(oper, full, with("HeaderDigest=CRC32C", "InitiatorAlias=h")...)
	if h.err != nil {
		t.Fatal(h.err)
	}
	a := env.admitted[0]
	if a.Type != SessionNormal || a.InitiatorName != hostName || a.TargetName != targetName || a.PortalGroupTag != 7 ||
		a.ISID != h.req.ISID || a.TSIH != 0 || a.CID != 1 || a.CmdSN != 100 || a.Params.HeaderDigest != DigestCRC32C {
		t.Errorf("%+v", a)
	}
	r := h.done
	if !r.Leading || r.TSIH != 0x0101 || r.InitiatorAlias != "h" || r.ExpCmdSN != 100 || r.MaxCmdSN != 100+127 || r.StatSN != 1001 ||
		r.Params != a.Params || r.Params.TargetMaxRecvDataSegmentLength != 262144 {
		t.Errorf("%+v", r)
	}
}

func TestJoin(t *testing.T) {
	env := newTestEnv()
	env.admit = func(a Admission) (Grant, error) { return Grant{a.TSIH, 500, 627}, nil }
	h := newHost(t, DefaultConfig(), env)
	h.req.TSIH = 9
	resp := h.say(oper, full, with("MaxBurstLength=1024", "DataDigest=CRC32C")...)
	if h.err != nil || h.done.Leading || h.done.ExpCmdSN != 500 || resp.ExpCmdSN != 500 || resp.MaxCmdSN != 627 || resp.TSIH != 9 {
		t.Fatalf("%+v, %+v, %v", resp, h.done, h.err)
	}
	if h.last[keyMaxBurstLength] != answerReject || h.last[keyDataDigest] != "CRC32C" {
		t.Errorf("%v", h.last)
	}
	env.admit = func(Admission) (Grant, error) { return Grant{TSIH: 10}, nil }
	h = newHost(t, DefaultConfig(), env)
	h.req.TSIH = 9
	h.say(oper, full, normal...)
	h.wantStatus(StatusTargetError)
}

// TestSplitAnswer gives the target a small limit for its responses, so that they need the C bit.
func TestSplitAnswer(t *testing.T) {
	var unknown []string
	for i := range 30 {
		unknown = append(unknown, fmt.Sprintf("X-key%d=1", i))
	}
	env := newTestEnv()
	h := newHost(t, DefaultConfig(), env)
	var got []byte
	resp := h.say(oper, full, with(append(unknown, "MaxRecvDataSegmentLength=512")...)...)
	for n := 1; ; n++ {
		if h.err != nil || len(resp.Data) > 512 {
			t.Fatalf("%d bytes, %v", len(resp.Data), h.err)
		}
		got = append(got, resp.Data...)
		if !resp.Continue {
			break
		}
		if resp.Transit || h.done != nil || n > 10 {
			t.Fatal("the stage changed before the text was complete")
		}
		resp = h.say(oper, full)
	}
	pairs, err := ParseText(got)
	if err != nil || len(pairs) != 32 || h.done == nil || !resp.Transit {
		t.Fatalf("%d pairs, %v, %+v", len(pairs), err, resp)
	}

	h = newHost(t, DefaultConfig(), env)
	h.say(oper, full, with(append(unknown, "MaxRecvDataSegmentLength=512")...)...)
	h.say(oper, full, "MaxBurstLength=1024") // instead of asking for the rest
	h.wantStatus(StatusInitiatorError)
}

func TestSecretsDoNotPrint(t *testing.T) {
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(format, *mutual.Mutual) + fmt.Sprintf(format, *mutual.Initiator); strings.Contains(s, "secre-") || strings.Contains(s, ourSecret) || strings.Contains(s, hostSecret) {
			t.Errorf("%s prints %s", format, s)
		}
	}
}

func TestStatusNames(t *testing.T) {
	var names []string
	for s := range Status(0x0303) {
		if n := s.String(); !strings.HasPrefix(n, "login status") {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	if len(slices.Compact(names)) != 18 {
		t.Errorf("%d statuses have names: %v", len(names), names)
	}
}

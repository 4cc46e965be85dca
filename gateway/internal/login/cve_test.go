package login

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// The defects that were found in the login, text and CHAP code of other targets and initiators, each as a test by its number.
// What they did there: overflow of a buffer or a stack, a loop without end, a login without a secret. What is asked for here:
// the login ends with a status, the exchange with a Reject, and no answer or allocation is longer than the limits of this
// package.

// hostileText is text that broke other targets, for a login and for an exchange.
var hostileText = []struct {
	name string
	data []byte
	more bool // the C bit
	// repeat sends it until it is refused.
	repeat bool
	// fine says that it is within the limits, and answered.
	fine bool
}{
	{"CVE-2013-2850 unknown key of 64 bytes", []byte(strings.Repeat("k", 64) + "=1\x00"), false, false, false},
	{"CVE-2013-2850 unknown key of 8 KiB", []byte(strings.Repeat("k", 8190) + "=\x00"), false, false, false},
	{"CVE-2013-2850 longest unknown key, largest value", []byte(strings.Repeat("k", MaxKeyLen) + "=" + strings.Repeat("v", MaxValueLen) + "\x00"), false, false, true},
	{"CVE-2026-63887 2048 tiny keys", bytes.Repeat([]byte("a=\x00"), 2048), false, false, false},
	{"CVE-2026-63887 as many tiny keys as are allowed", bytes.Repeat([]byte("a=\x00"), MaxTextKeys), false, false, true},
	{"CVE-2026-63887 as many of the longest keys as are allowed", bytes.Repeat([]byte(strings.Repeat("k", MaxKeyLen)+"=\x00"), MaxTextKeys), false, false, true},
	{"CVE-2026-90011 unterminated key", []byte("X-abc"), false, false, false},
	{"CVE-2026-90011 unterminated value", []byte("X-abc=1"), false, false, false},
	{"CVE-2026-90011 unterminated after others", []byte("X-abc=1\x00X-d=2"), false, false, false},
	{"CVE-2026-90011 no equals sign", []byte("X-abc\x00"), false, false, false},
	{"SPDK 21.01 empty PDUs with the C bit", nil, true, true, false},
	{"SPDK 21.01 one byte at a time with the C bit", []byte("X"), true, true, false},
	{"SPDK 21.01 full PDUs with the C bit", bytes.Repeat([]byte("X"), 8000), true, true, false},
}

func TestHostileTextInLogin(t *testing.T) {
	for _, c := range hostileText {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, DefaultConfig(), newTestEnv())
			if h.say(oper, oper, normal...); h.err != nil {
				t.Fatal(h.err)
			}
			req := h.req
			req.CSG, req.Continue, req.Data = oper, c.more, c.data
			var resp pdu.LoginResponse
			for range MaxLoginRequests + 1 {
				if resp = h.send(req); h.err != nil || !c.repeat {
					break
				}
			}
			if (h.err == nil) != c.fine {
				t.Fatalf("%v", h.err)
			}
			if !c.fine {
				h.wantStatus(StatusInitiatorError)
				if len(resp.Data) != 0 {
					t.Errorf("refused with text %q", resp.Data)
				}
			}
		})
	}
}

func TestHostileTextInFullFeaturePhase(t *testing.T) {
	for _, c := range hostileText {
		t.Run(c.name, func(t *testing.T) {
			x := newExchange(SessionNormal, 8192, testLister(2))
			req := &pdu.TextRequest{Final: !c.more, Continue: c.more, ITT: 1, TTT: pdu.ReservedTag, Data: c.data}
			var reply TextReply
			var err error
			for range MaxTextParts + 1 {
				if reply, err = x.Receive(req, 5); err != nil || !c.repeat {
					break
				}
				req.TTT = 5
			}
			var reject *pdu.FormatError
			if (err == nil) != c.fine || err != nil && !errors.As(err, &reject) {
				t.Fatalf("%+v, %v", reply, err)
			}
			if n := len(reply.Response.Data); n > MaxTextLen {
				t.Errorf("an answer of %d bytes", n)
			}
		})
	}
}

// TestHostileCHAPValues gives responses and challenges that are too long for what they are decoded into; their length must be
// seen before they are decoded.
func TestHostileCHAPValues(t *testing.T) {
	huge := strings.Repeat("ab", 1024)
	for _, c := range []struct{ name, key, value string }{
		{"CVE-2018-14633 hex of 17 bytes for MD5", keyCHAPR, "0x" + strings.Repeat("ab", 17)},
		{"CVE-2018-14633 hex of 1024 bytes", keyCHAPR, "0x" + huge},
		{"CVE-2018-14633 hex of more than any value", keyCHAPR, "0x" + huge + "ab"},
		{"CVE-2018-14633 base64 of 17 bytes for MD5", keyCHAPR, "0b" + base64.StdEncoding.EncodeToString(make([]byte, 17))},
		{"CVE-2018-14633 base64 of 1024 bytes", keyCHAPR, "0b" + base64.StdEncoding.EncodeToString(make([]byte, 1024))},
		{"CVE-2026-63886 base64 of padding", keyCHAPR, "0b" + strings.Repeat("=", 24)},
		{"CVE-2026-63886 base64 with padding inside", keyCHAPR, "0bAAAA====AAAAAAAAAAAAAAAA"},
		{"CVE-2026-63886 odd hex", keyCHAPR, "0x" + strings.Repeat("a", 31)},
		{"CVE-2026-63886 no digits", keyCHAPR, "0b"},
		{"CVE-2026-63886 challenge of 1025 bytes", keyCHAPC, "0x" + huge + "ab"},
		{"CVE-2026-63886 challenge of base64 garbage", keyCHAPC, "0b" + strings.Repeat("*", 1000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := toChallenge(t, mutual, "5")
			keys := map[string]string{keyCHAPN: "alice", keyCHAPR: h.response(hostSecret), keyCHAPI: "1", keyCHAPC: "0x" + strings.Repeat("cd", 16)}
			keys[c.key] = c.value
			var text []string
			for k, v := range keys {
				text = append(text, k+"="+v)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			resp := h.say(sec, oper, text...)
			runtime.ReadMemStats(&after)
			var se *StatusError
			if !errors.As(h.err, &se) || se.Status != StatusAuthenticationFailure && se.Status != StatusInitiatorError || resp.Transit || len(resp.Data) != 0 {
				t.Errorf("%+v, %v", resp, h.err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
				t.Errorf("%d bytes were allocated", n)
			}
		})
	}
}

// TestCVE_2024_45751 looks at the challenges of targets that begin again: they must not be those of the last time, which a
// generator with a fixed seed would make.
func TestCVE_2024_45751(t *testing.T) {
	if l := NewLogin(DefaultConfig(), newTestEnv()); l.rand != rand.Reader {
		t.Fatal("the default generator is not the system's")
	}
	seen := map[string]bool{}
	for range 64 {
		env := newTestEnv()
		env.target.Auth = oneWay
		h := &host{t: t, login: NewLogin(DefaultConfig(), env), req: pdu.LoginRequest{ITT: 1}}
		h.say(sec, sec, with("AuthMethod=CHAP")...)
		h.say(sec, sec, "CHAP_A=8,7,5")
		c := h.last[keyCHAPC]
		if len(c) != 2+2*32 || seen[c] {
			t.Fatalf("challenge %q is short or repeated", c)
		}
		seen[c] = true
	}
}

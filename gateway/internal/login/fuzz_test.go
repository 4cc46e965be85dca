package login

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

func FuzzTextKeys(f *testing.F) {
	for _, s := range []string{
		"", "A=b\x00", "A=b", "A\x00", "=\x00", "\x00\x00", "A=b=c\x00D=\x00", "InitiatorName=iqn.2001-04.com.example:a\x00",
		"CHAP_R=0x" + strings.Repeat("ab", 1024) + "\x00", strings.Repeat("k", 64) + "=1\x00", strings.Repeat("A=\x00", 101),
		"HeaderDigest=CRC32C,None\x00MaxBurstLength=0xffffff\x00FirstBurstLength=1\x00X-a=\x00",
	} {
		f.Add([]byte(s), uint16(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		pairs, err := ParseText(data)
		var r TextReader
		at := int(cut) % (len(data) + 1)
		_, err1 := r.Add(data[:at], true)
		split, err2 := r.Add(data[at:], false)
		if (err == nil) != (err1 == nil && err2 == nil) || !slices.Equal(pairs, split) {
			t.Fatalf("whole %q, %v; cut at %d %q, %v", pairs, err, at, split, errors.Join(err1, err2))
		}
		if err != nil {
			var te *TextError
			if !errors.As(err, &te) {
				t.Fatalf("error without answer: %v", err)
			}
			return
		}
		w := NewTextWriter(MaxTextLen)
		for _, p := range pairs {
			if err := w.Add(p.Key, p.Value); err != nil {
				t.Fatal(err)
			}
		}
		out, _ := w.Next(MaxTextLen)
		if again, err := ParseText(out); err != nil || !slices.Equal(pairs, again) {
			t.Fatalf("%q became %q, %v", pairs, again, err)
		}
		checkNegotiation(t, pairs)
	})
}

// checkNegotiation negotiates any pairs and checks the bound of the answers and the invariants of Params.
func checkNegotiation(t *testing.T, pairs []Pair) {
	cfg := DefaultConfig()
	n := newNegotiation(&cfg)
	answers, err := n.operational(pairs)
	if err != nil {
		return
	}
	w := NewTextWriter(MaxTextLen)
	for _, p := range answers {
		if err := w.Add(p.Key, p.Value); err != nil || strings.ContainsRune(p.Value, 0) {
			t.Fatalf("answer %q: %v", p, err)
		}
	}
	p, err := n.finish()
	if err != nil {
		t.Fatal(err)
	}
	checkParams(t, p)
}

func checkParams(t *testing.T, p Params) {
	if p.FirstBurstLength < 512 || p.FirstBurstLength > p.MaxBurstLength || p.MaxBurstLength > 1<<24-1 ||
		p.InitiatorMaxRecvDataSegmentLength < 512 || p.InitiatorMaxRecvDataSegmentLength > 1<<24-1 ||
		p.TargetMaxRecvDataSegmentLength < 512 || p.MaxConnections < 1 || p.MaxOutstandingR2T < 1 ||
		p.ErrorRecoveryLevel > 2 || !p.DataPDUInOrder || !p.DataSequenceInOrder {
		t.Fatalf("parameters %+v", p)
	}
}

func FuzzCHAPValue(f *testing.F) {
	for _, s := range []string{"", "0x", "0b", "0xab", "0xABC", "0bq6s=", "0bq6s", "0b\n", "0Bq6ur", "0Xzz", "0x" + strings.Repeat("ab", 1025)} {
		f.Add(s, uint16(16))
	}
	f.Fuzz(func(t *testing.T, s string, limit uint16) {
		maxLen := int(limit) % (MaxBinaryLen + 1)
		b, err := decodeBinary(s, maxLen)
		if err != nil {
			return
		}
		if len(b) < 1 || len(b) > maxLen {
			t.Fatalf("%d bytes, the limit is %d", len(b), maxLen)
		}
		if again, err := decodeBinary(encodeBinary(b), maxLen); err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
		if c := s[1]; (c == 'x' || c == 'X') && !strings.EqualFold(s[2:], hex.EncodeToString(b)) {
			t.Fatalf("%q is %x", s, b)
		}
	})
}

// FuzzLogin sends any requests to a target that demands CHAP. The script is split at "|"; the first two bytes of a
// request are byte 1 of its header and a selector of fields to disturb. "$R" stands for the right response, so that
// the fuzzer can get past it, but counts only if the user was right as well.
func FuzzLogin(f *testing.F) {
	names := "InitiatorName=" + hostName + "\x00TargetName=" + targetName + "\x00"
	for _, s := range []string{
		"\x81\x00" + names + "AuthMethod=CHAP,None\x00|\x81\x00CHAP_A=7,5\x00|\x81\x00CHAP_N=alice\x00CHAP_R=$R\x00|\x87\x00HeaderDigest=CRC32C\x00",
		"\x00\x00" + names + "AuthMethod=CHAP\x00|\x00\x00CHAP_A=5\x00|\x83\x00CHAP_N=alice\x00CHAP_R=$R\x00CHAP_I=1\x00CHAP_C=0xabababababababababababababababab\x00",
		"\x40\x00InitiatorN|\x81\x00ame=" + hostName + "\x00SessionType=Discovery\x00AuthMethod=CHAP\x00",
		"\x87\x00" + names, "\x81\x00" + names + "AuthMethod=None\x00", "\x83\x01" + names, "\x81\x02" + names, "\x8c\x00", "|", "\x40\x00|\x40\x00|\x40\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		env := newTestEnv()
		env.target.Auth = mutual
		env.discoverWith(mutual)
		h := newHost(t, DefaultConfig(), env)
		proved := false
		for part := range bytes.SplitSeq(script, []byte("|")) {
			if len(part) < 2 || len(part) > DefaultMaxRecvDataSegmentLength || h.err != nil || h.done != nil {
				break
			}
			req := disturbed(h.req, part[1])
			req.Transit, req.Continue = part[0]&0x80 != 0, part[0]&0x40 != 0
			req.CSG, req.NSG = pdu.LoginStage(part[0]>>2&3), pdu.LoginStage(part[0]&3)
			req.Data = part[2:]
			if c := h.login.security.chap; c != nil && bytes.Contains(req.Data, []byte("$R")) {
				r := encodeBinary(CHAPResponse(c.algorithm, c.id, Secret(hostSecret), c.challenge))
				req.Data = bytes.Replace(req.Data, []byte("$R"), []byte(r), 1)
				proved = proved || bytes.Contains(script, []byte("alice"))
			}
			resp := h.send(req)
			if (resp.StatusClass != 0) != (h.err != nil) || h.err != nil && h.done != nil {
				t.Fatalf("%+v with %v", resp, h.err)
			}
			if resp.Transit && (!req.Transit || resp.NSG > req.NSG || resp.Continue) {
				t.Fatalf("%+v answers %+v", resp, req)
			}
		}
		if h.done == nil {
			return
		}
		if !proved || h.done.User != "alice" || h.done.InitiatorName == "" || h.done.TSIH == 0 {
			t.Fatalf("%+v without the secret", h.done)
		}
		checkParams(t, h.done.Params)
	})
}

func disturbed(req pdu.LoginRequest, how byte) pdu.LoginRequest {
	switch how {
	case 1:
		req.VersionMin = 1
	case 2:
		req.ISID[0] = 0xc0
	case 3:
		req.TSIH = 9
	case 4:
		req.CID++
	case 5:
		req.ITT++
	case 6:
		req.VersionMax = 3
	}
	return req
}

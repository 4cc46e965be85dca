package checks

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Authentication are the checks of CHAP (RFC 7143 section 12.1.3, RFC 1994). They need a Target with CHAP.
func Authentication() []peer.Check {
	return peer.Suite("CHAP",
		peer.Check{Title: "valid, hexadecimal and base64, every algorithm", Run: chapValid},
		peer.Check{Title: "valid, mutual", Run: chapMutual},
		peer.Check{Title: "needed", Run: chapNeeded},
		peer.Check{Title: "A invalid", Run: chapWrongA},
		peer.Check{Title: "A chosen from a list", Run: chapChooseA},
		peer.Check{Title: "N invalid", Run: chapWrongN},
		peer.Check{Title: "R invalid", Run: chapWrongR},
		peer.Check{Title: "R too big, too small, no number", Run: chapSizeR},
		peer.Check{Title: "I of the initiator invalid", Run: chapWrongI},
		peer.Check{Title: "C of the initiator too big, too small, no number", Run: chapWrongC},
		peer.Check{Title: "C reflected", Run: chapReflectedC},
		peer.Check{Title: "C reflected over another connection", Run: chapReflectedElsewhere},
		peer.Check{Title: "challenges differ", Run: chapChallenges},
		peer.Check{Title: "out of order", Run: chapOrder},
		peer.Check{Title: "twice", Run: chapTwice},
		peer.Check{Title: "stage left before the end", Run: chapLeave},
		peer.Check{Title: "unknown name and wrong secret look the same", Run: chapSame},
	)
}

func chapValid(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	for _, a := range c.Algorithms {
		for _, encode := range []bool{false, true} {
			p := g.Dial(t)
			p.Must(fmt.Sprintf("algorithm %d, base64 %v", a, encode), p.Login(wire.Login{
				Initiator: c.NextInitiator(), Target: c.Name, ISID: p.ISID, User: c.User, Secret: c.Secret, CHAP: a, Base64: encode,
			}))
			p.MustReady()
			p.Leave()
		}
	}
	p, id, challenge := g.Challenged(t, c.Algorithms[0])
	_, err := p.Prove("CHAP_N="+c.User, "CHAP_R="+"0x"+strings.ToUpper(c.Proof(c.Algorithms[0], id, challenge)[2:]))
	p.Must("capitals", err)
}

func chapMutual(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	if c.Mutual == "" {
		t.Skipf("the target does not prove itself")
	}
	for _, a := range c.Algorithms {
		p := g.Dial(t)
		p.Must("mutual CHAP", p.Login(wire.Login{
			Initiator: c.NextInitiator(), Target: c.Name, ISID: p.ISID, User: c.User, Secret: c.Secret, MutualSecret: c.Mutual, CHAP: a,
		}))
		if v := p.Answer("CHAP_N"); v != c.TargetUser {
			t.Errorf("CHAP_N=%q of the target, want %q", v, c.TargetUser)
		}
		p.MustReady()
		p.Leave()
	}
}

func chapNeeded(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	p := g.Dial(t)
	_, err := p.Step(wire.Final, wire.Security, wire.Operational, append(c.Names(), "AuthMethod=None")...)
	p.RefusedWith(2, 1, err)
	p = g.Dial(t)
	_, err = p.Step(wire.Final, wire.Operational, wire.FullFeature, append(c.Names(), peer.Keys()...)...)
	p.Refused(2, err)
	p = g.Dial(t)
	_, err = p.Step(wire.Final, wire.Security, wire.Operational, c.Names()...)
	p.Refused(2, err)
}

func chapWrongA(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	for _, a := range []string{"0", "1", "99", "256", "-5", "MD5", "", strings.Repeat("9,", 100) + "9"} {
		p := g.Dial(t)
		p.MustStep(0, wire.Security, 0, append(c.Names(), "AuthMethod=CHAP")...)
		_, err := p.Step(0, wire.Security, 0, "CHAP_A="+a)
		p.Refused(2, err)
	}
}

func chapChooseA(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	p := g.Dial(t)
	p.MustStep(0, wire.Security, 0, append(c.Names(), "AuthMethod=CHAP")...)
	r := p.MustStep(0, wire.Security, 0, "CHAP_A=99,"+strconv.Itoa(c.Algorithms[0])+",1")
	if v, _ := wire.Lookup(r.Data, "CHAP_A"); v != strconv.Itoa(c.Algorithms[0]) {
		t.Errorf("CHAP_A=%q", v)
	}
}

func chapWrongN(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	for _, n := range []string{"", "nobody", c.User + "x", strings.ToUpper(c.User) + "X", strings.Repeat("n", 255)} {
		p, id, challenge := g.Challenged(t, c.Algorithms[0])
		_, err := p.Prove("CHAP_N="+n, "CHAP_R="+c.Proof(c.Algorithms[0], id, challenge))
		p.Refused(2, err)
	}
	p, id, challenge := g.Challenged(t, c.Algorithms[0])
	_, err := p.Prove("CHAP_R=" + c.Proof(c.Algorithms[0], id, challenge))
	p.Refused(2, err)
}

func chapWrongR(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	a := c.Algorithms[0]
	for _, answer := range []func(id byte, challenge []byte) []byte{
		func(id byte, challenge []byte) []byte { return wire.CHAPResponse(a, id, c.Secret+"x", challenge) },
		func(id byte, challenge []byte) []byte { return wire.CHAPResponse(a, id+1, c.Secret, challenge) },
		func(id byte, challenge []byte) []byte { return wire.CHAPResponse(a, id, c.Secret, challenge[1:]) },
		func(id byte, challenge []byte) []byte { return wire.CHAPResponse(a, id, "", challenge) },
		func(id byte, challenge []byte) []byte { return make([]byte, 16) },
	} {
		p, id, challenge := g.Challenged(t, a)
		_, err := p.Prove("CHAP_N="+c.User, "CHAP_R="+wire.Hex(answer(id, challenge)))
		p.Refused(2, err)
	}
}

func chapSizeR(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	a := c.Algorithms[0]
	for _, r := range []string{
		"", "0x", "0b", "0x0", "12", "0xzz", "0b====", "0x" + strings.Repeat("0", 30), "0x" + strings.Repeat("0", 34),
		"0x" + strings.Repeat("ab", 1024), "0x" + strings.Repeat("ab", 3000), "0b" + strings.Repeat("QUFB", 700),
	} {
		p, _, _ := g.Challenged(t, a)
		_, err := p.Prove("CHAP_N="+c.User, "CHAP_R="+r)
		p.Refused(2, err)
	}
	p, id, challenge := g.Challenged(t, a) // right, and one byte more
	_, err := p.Prove("CHAP_N="+c.User, "CHAP_R="+c.Proof(a, id, challenge)+"00")
	p.Refused(2, err)
}

func chapWrongI(t peer.T, g *peer.Target) {
	for _, i := range []string{"256", "-1", "", "x", "99999999999999999999", "1,2"} {
		p, err := g.MutualTry(t, func(byte, []byte) []string { return []string{"CHAP_I=" + i, "CHAP_C=0x" + strings.Repeat("5a", 16)} })
		p.Refused(2, err)
	}
	p, err := g.MutualTry(t, func(byte, []byte) []string { return []string{"CHAP_C=0x" + strings.Repeat("5a", 16)} })
	p.Refused(2, err)
	for _, i := range []string{"0", "255"} {
		p, err := g.MutualTry(t, func(byte, []byte) []string { return []string{"CHAP_I=" + i, "CHAP_C=0x" + strings.Repeat("5a", 16)} })
		p.Must("CHAP_I="+i, err)
	}
}

func chapWrongC(t peer.T, g *peer.Target) {
	for _, v := range []string{"", "0x", "0b", "5", "0xgg", "0b***", "0x" + strings.Repeat("00", 1025), "0b" + strings.Repeat("AAAA", 400)} {
		p, err := g.MutualTry(t, func(byte, []byte) []string { return []string{"CHAP_I=1", "CHAP_C=" + v} })
		p.Refused(2, err)
	}
	p, err := g.MutualTry(t, func(byte, []byte) []string { return []string{"CHAP_I=1"} })
	p.Refused(2, err)
	p, err = g.MutualTry(t, func(byte, []byte) []string { return []string{"CHAP_I=1", "CHAP_C=0x" + strings.Repeat("a5", 1024)} })
	p.Must("the largest challenge, 1024 bytes", err)
}

func chapReflectedC(t peer.T, g *peer.Target) {
	for _, encode := range []func([]byte) string{wire.Hex, wire.Base64} {
		p, err := g.MutualTry(t, func(id byte, challenge []byte) []string {
			return []string{"CHAP_I=" + strconv.Itoa(int(id)), "CHAP_C=" + encode(challenge)}
		})
		p.Refused(2, err)
	}
}

// chapReflectedElsewhere has the target answer its own challenge of another connection, and tries the answer there.
func chapReflectedElsewhere(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	a := c.Algorithms[0]
	p, id, challenge := g.Challenged(t, a)
	q, err := g.MutualTry(t, func(byte, []byte) []string {
		return []string{"CHAP_I=" + strconv.Itoa(int(id)), "CHAP_C=" + wire.Hex(challenge)}
	})
	stolen := q.Answer("CHAP_R")
	if err != nil || stolen == "" {
		return // refused at once
	}
	_, err = p.Prove("CHAP_N="+c.User, "CHAP_R="+stolen)
	p.Refused(2, err)
}

func chapChallenges(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	seen := map[string]bool{}
	for range 16 {
		p, _, challenge := g.Challenged(t, c.Algorithms[0])
		if len(challenge) < 16 || len(challenge) > 1024 {
			t.Errorf("a challenge of %d bytes", len(challenge))
		}
		if seen[string(challenge)] || bytes.Equal(challenge, make([]byte, len(challenge))) {
			t.Fatalf("the challenge % x comes again", challenge)
		}
		seen[string(challenge)] = true
		p.Close()
	}
}

func chapOrder(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	for _, pairs := range [][]string{
		{"CHAP_A=5"}, {"CHAP_N=" + c.User, "CHAP_R=0x" + strings.Repeat("00", 16)}, {"CHAP_I=1", "CHAP_C=0x00"},
	} {
		p := g.Dial(t) // before AuthMethod
		_, err := p.Step(0, wire.Security, 0, append(c.Names(), pairs...)...)
		p.Refused(2, err)
	}
	p := g.Dial(t) // the answer before the challenge
	p.MustStep(0, wire.Security, 0, append(c.Names(), "AuthMethod=CHAP")...)
	_, err := p.Step(0, wire.Security, 0, "CHAP_N="+c.User, "CHAP_R=0x"+strings.Repeat("00", 16))
	p.Refused(2, err)
	p, _, _ = g.Challenged(t, c.Algorithms[0]) // again from the beginning
	_, err = p.Step(0, wire.Security, 0, "CHAP_A="+strconv.Itoa(c.Algorithms[0]))
	p.Refused(2, err)
}

func chapTwice(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	a := c.Algorithms[0]
	p, id, challenge := g.Challenged(t, a)
	r := c.Proof(a, id, challenge)
	_, err := p.Prove("CHAP_N="+c.User, "CHAP_R=0x"+strings.Repeat("00", 16), "CHAP_R="+r)
	p.Refused(2, err)
	p, id, challenge = g.Challenged(t, a)
	p.MustStep(wire.Final, wire.Security, wire.Operational, "CHAP_N="+c.User, "CHAP_R="+c.Proof(a, id, challenge))
	_, err = p.Step(0, wire.Security, 0, "CHAP_A=5")
	p.Refused(2, err)
}

// chapLeave sets T before the proof, and goes to another stage without leave.
func chapLeave(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	p := g.Dial(t)
	r, err := p.Step(wire.Final, wire.Security, wire.Operational, append(c.Names(), "AuthMethod=CHAP")...)
	if err == nil && r.Flags()&wire.Final != 0 {
		t.Fatalf("the security stage ended without a proof")
	}
	_, err = p.Step(wire.Final, wire.Operational, wire.FullFeature, peer.Keys()...)
	p.Refused(2, err)
	p = g.Dial(t)
	p.MustStep(0, wire.Security, 0, append(c.Names(), "AuthMethod=CHAP")...)
	r, err = p.Step(wire.Final, wire.Security, wire.FullFeature, "CHAP_A="+strconv.Itoa(c.Algorithms[0]))
	if err == nil && r.Flags()&wire.Final != 0 {
		t.Fatalf("full feature phase without a proof")
	}
}

func chapSame(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	a := c.Algorithms[0]
	status := func(user, secret string) wire.LoginError {
		p, id, challenge := g.Challenged(t, a)
		_, err := p.Prove("CHAP_N="+user, "CHAP_R="+wire.Hex(wire.CHAPResponse(a, id, secret, challenge)))
		var l *wire.LoginError
		if !errors.As(err, &l) {
			t.Fatalf("%v", err)
		}
		return wire.LoginError{Class: l.Class, Detail: l.Detail}
	}
	x, y := status("nobody", c.Secret), status(c.User, "another secret")
	if x.Class != y.Class || x.Detail != y.Detail || x.Class != 2 || x.Detail != 1 {
		t.Errorf("status %02x%02x for an unknown name and %02x%02x for a wrong secret, want 0201 for both", x.Class, x.Detail, y.Class, y.Detail)
	}
}

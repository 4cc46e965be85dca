package hostile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Checks are the classes of mistakes that targets became known for, as the input that finds them. The target must
// refuse or survive each; what it does meanwhile to others, to its memory and to its goroutines is for the test that
// runs the checks to see.
func Checks() []peer.Check {
	return slices.Concat(peer.Suite("hostile text",
		peer.Check{Title: "unknown keys of the greatest length", Run: hostileLongKeys},
		peer.Check{Title: "unknown keys that are too long", Run: hostileTooLongKeys},
		peer.Check{Title: "2048 tiny keys", Run: hostileTinyKeys},
		peer.Check{Title: "unterminated text", Run: hostileUnterminated},
		peer.Check{Title: "empty text with C bit for ever", Run: hostileEmptyContinue},
		peer.Check{Title: "login with C bit for ever", Run: hostileLoginContinue},
		peer.Check{Title: "login without end", Run: hostileLoginRounds},
		peer.Check{Title: "login of 16 MiB", Run: hostileLoginHuge},
		peer.Check{Title: "values of the greatest length", Run: hostileLongValues},
		peer.Check{Title: "text of zero bytes and of no key", Run: hostileZeroText},
		peer.Check{Title: "login that never comes", Run: hostileSilentLogin},
	), peer.Suite("hostile CHAP",
		peer.Check{Title: "oversized CHAP_R", Run: hostileCHAPR},
		peer.Check{Title: "oversized CHAP_C", Run: hostileCHAPC},
	), hostileLengths(), hostileTeardown(), hostileCommands())
}

func hostileLongKeys(t peer.T, g *peer.Target) {
	var many []string
	for i := range 90 {
		many = append(many, fmt.Sprintf("X-%061d=%s", i, strings.Repeat("v", 20)))
	}
	p := g.Dial(t)
	err := p.Negotiate(append(append(g.Names(), many...), peer.Keys()...))
	if err != nil {
		var l *wire.LoginError
		if !errors.As(err, &l) && !errors.Is(err, wire.ErrHungUp) {
			t.Fatalf("%v", err)
		}
	}
	q := g.Session(t)
	q.Must("text", q.Request(wire.Text(wire.Final, q.NextITT(), wire.Reserved, wire.Keys(many...))))
	r, err := q.Next()
	if err == nil && len(r.Data) > 262144 || err != nil && !errors.Is(err, wire.ErrHungUp) {
		t.Errorf("opcode %#02x with %d bytes, %v", r.Opcode(), len(r.Data), err)
	}
}

// hostileTooLongKeys wants a key of more than 63 bytes not to come back in an answer that it would not fit.
func hostileTooLongKeys(t peer.T, g *peer.Target) {
	for _, n := range []int{64, 65, 255, 256, 1000, 8000} {
		p := g.Dial(t)
		key := strings.Repeat("K", n)
		r, err := p.Step(wire.Final, wire.Operational, wire.FullFeature, append(g.Names(), key+"=1")...)
		if err == nil && len(r.Data) > 8192 {
			t.Errorf("an answer of %d bytes in a login", len(r.Data))
		}
		if err == nil {
			if v, _ := wire.Lookup(r.Data, key); v != "NotUnderstood" {
				t.Errorf("a key of %d bytes is answered with %q", n, v)
			}
		}
		p.Close()
	}
}

// tiny are keys of two bytes.
func tiny(n int) []string {
	var out []string
	for i := range n {
		out = append(out, string(rune('A'+i%26))+string(rune('a'+i/26%26))+"=")
	}
	return out
}

func hostileTinyKeys(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	_, err := p.Step(wire.Final, wire.Operational, wire.FullFeature, append(g.Names(), tiny(2000)...)...)
	p.Refused(2, err)
	q := g.Session(t)
	text := wire.Keys(tiny(2048)...)
	q.Must("text", q.Request(wire.Text(wire.Final, q.NextITT(), wire.Reserved, text[:min(len(text), q.MaxSend)])))
	q.NotGood()
	g.Session(t).Leave()
}

func hostileUnterminated(t peer.T, g *peer.Target) {
	for _, text := range []string{"InitiatorName=" + g.Initiator, "A", "=", strings.Repeat("A", 8192), strings.Repeat("=", 8192)} {
		p := g.Dial(t)
		_, err := p.StepPDU(p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, []byte(text)))
		p.Refused(2, err)
	}
	p := g.Session(t)
	p.Must("text", p.Request(wire.Text(wire.Final, p.NextITT(), wire.Reserved, []byte("SendTargets="))))
	p.NotGood()
	g.Session(t).Leave()
}

// hostileEmptyContinue continues an empty text for ever: the target must stop it.
func hostileEmptyContinue(t peer.T, g *peer.Target) {
	p := g.Session(t)
	itt, ttt := p.NextITT(), uint32(wire.Reserved)
	for range 10000 {
		if p.Request(wire.Text(wire.Continue, itt, ttt, nil)) != nil {
			return
		}
		r, err := p.Next()
		if errors.Is(err, wire.ErrHungUp) || err == nil && r.Opcode() == wire.OpReject {
			g.Session(t).Leave()
			return
		}
		p.Must("text", err)
		ttt = r.TTT()
	}
	t.Errorf("10000 empty parts of a text are taken")
}

func hostileLoginContinue(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	sent := 0
	for range 10000 {
		text := wire.Keys("X-filler=" + strings.Repeat("f", 200))
		_, err := p.StepPDU(p.LoginPDU(wire.Continue, wire.Operational, 0, text))
		if err != nil {
			t.Logf("refused after %d bytes: %v", sent, err)
			if sent > 1<<20 {
				t.Errorf("a target keeps %d bytes of a login", sent)
			}
			p.Refused(2, err)
			return
		}
		sent += len(text)
	}
	t.Errorf("%d bytes of one list are taken in a login", sent)
}

func hostileLoginRounds(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	pairs := append(g.Names(), "AuthMethod=None")
	for range 10000 {
		if _, err := p.Step(0, wire.Security, 0, pairs...); err != nil {
			p.Refused(2, err)
			return
		}
		pairs = nil
	}
	t.Errorf("10000 login requests are answered")
}

func hostileLoginHuge(t peer.T, g *peer.Target) {
	for _, n := range []int{8193, 65536, 1<<24 - 1} {
		p := g.Dial(t)
		r := p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, nil)
		r.Raw = true
		r.SetDataLen(n)
		p.Must("send", p.Send(r))
		p.Closed() // without waiting for the data
	}
}

func hostileLongValues(t peer.T, g *peer.Target) {
	for _, n := range []int{255, 256, 1000, 7000} {
		for _, key := range []string{"InitiatorAlias", "MaxBurstLength", "HeaderDigest", "X-any", "InitiatorName", "TargetName", "SendTargets"} {
			p := g.Dial(t)
			_, err := p.Step(wire.Final, wire.Operational, wire.FullFeature, append(g.Names(), key+"="+strings.Repeat("1", n))...)
			if err != nil {
				p.Refused(2, err)
			}
			p.Close()
		}
	}
}

func hostileZeroText(t peer.T, g *peer.Target) {
	for _, text := range [][]byte{make([]byte, 8192), wire.Keys("=x"), wire.Keys("=", "=", "="), {0xff, 0xfe, '=', 0}, wire.Keys("Key \x01=1")} {
		p := g.Dial(t)
		_, err := p.StepPDU(p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, append(wire.Keys(g.Names()...), text...)))
		var l *wire.LoginError
		if err != nil && !errors.As(err, &l) && !errors.Is(err, wire.ErrHungUp) {
			t.Errorf("%q: %v", text[:min(len(text), 16)], err)
		}
		p.Close()
		q := g.Session(t)
		q.Must("text", q.Request(wire.Text(wire.Final, q.NextITT(), wire.Reserved, text)))
		if r, err := q.Next(); err == nil && r.Opcode() != wire.OpTextRsp && r.Opcode() != wire.OpReject {
			t.Errorf("%q: opcode %#02x", text[:min(len(text), 16)], r.Opcode())
		}
		q.Close()
	}
}

// hostileSilentLogin opens connections and says nothing, a part of a header, or a part of the data.
func hostileSilentLogin(t peer.T, g *peer.Target) {
	if g.LoginTimeout == 0 {
		t.Skipf("the login timeout of the target is not known")
	}
	full := wire.New(wire.OpLogin|wire.Immediate, wire.Final|wire.Operational<<2|wire.FullFeature, 0)
	full.Raw = true
	full.SetDataLen(4096)
	var all []*peer.Peer
	for _, n := range []int{0, 1, 47} {
		p := g.Dial(t)
		p.Must("send", p.SendBytes(full.BHS[:n]))
		all = append(all, p)
	}
	p := g.Dial(t)
	p.Must("send", p.Send(full))
	all = append(all, p)
	begin := time.Now()
	g.Session(t).Leave()
	for _, p := range all {
		p.Timeout = 2*g.LoginTimeout + time.Second
		p.Closed()
	}
	if d := time.Since(begin); d > 2*g.LoginTimeout+time.Second {
		t.Errorf("closed after %v, the login timeout is %v", d, g.LoginTimeout)
	}
}

func hostileCHAPR(t peer.T, g *peer.Target) {
	c := g.Credentials(t)
	for _, r := range []string{
		"0x" + strings.Repeat("f", 7900), "0b" + strings.Repeat("/", 7900), "0x" + strings.Repeat("f", 2049), "0x" + strings.Repeat("f", 2050),
		"0b" + strings.Repeat("QUJD", 342) + "=", "0b" + strings.Repeat("\x01", 100), "0x" + strings.Repeat(" ", 32),
	} {
		p, _, _ := g.Challenged(t, c.Algorithms[0])
		_, err := p.Prove("CHAP_N="+c.User, "CHAP_R="+r)
		p.Refused(2, err)
	}
	for _, n := range []int{256, 1024, 7000} {
		p, _, _ := g.Challenged(t, c.Algorithms[0])
		_, err := p.Prove("CHAP_N="+strings.Repeat("n", n), "CHAP_R=0x"+strings.Repeat("00", 16))
		p.Refused(2, err)
	}
}

func hostileCHAPC(t peer.T, g *peer.Target) {
	for _, v := range []string{"0x" + strings.Repeat("f", 7000), "0b" + strings.Repeat("/", 7000), "0b" + strings.Repeat("QUJD", 342)} {
		p, err := g.MutualTry(t, func(byte, []byte) []string { return []string{"CHAP_I=1", "CHAP_C=" + v} })
		p.Refused(2, err)
	}
}

package portal

import (
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

const guardSecret, guardMutual = "0123456789abcdef", "fedcba9876543210"

// guarded starts a portal on which testInitiator has to prove itself and anybody else has not.
func guarded(t *testing.T, change func(*Config), adjust func(*target.Config)) *Portal {
	t.Helper()
	cfg := Default()
	cfg.Addresses = []string{"127.0.0.1:0"}
	if change != nil {
		change(&cfg)
	}
	m := &mediums{disks: map[uint64]*disk{testVolume: newDisk(testSize)}}
	p, _ := serverOf(t, cfg, m, func(addr string) target.Config {
		c := exported(addr, testSize, 512, target.Access{Initiator: target.AnyInitiator}, target.Access{
			Initiator: testInitiator,
			Auth: login.Auth{
				Initiator: &login.Credentials{User: "u", Secrets: []login.Secret{login.Secret(guardSecret)}},
				Mutual:    &login.MutualCredentials{User: "m", Secret: login.Secret(guardMutual)},
			},
		})
		if adjust != nil {
			adjust(&c)
		}
		return c
	})
	return p
}

// security sends keys in SecurityNegotiation and returns the status and the keys of the answer.
func (i *initiator) security(transit bool, keys ...string) (login.Status, map[string]string) {
	i.t.Helper()
	var b []byte
	for _, k := range keys {
		b = append(append(b, k...), 0)
	}
	req := pdu.LoginRequest{
		Transit: transit, CSG: pdu.StageSecurity, ISID: pdu.ISID{0x80, 5: 9}, ITT: 1,
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat}, Data: b,
	}
	if transit {
		req.NSG = pdu.StageFullFeature
	}
	i.write(req.AppendHeader(nil, len(b)), b)
	a := i.must(pdu.OpLoginResponse)
	r, err := pdu.ParseLoginResponse(&a.Header, nil, a.data)
	if err != nil {
		i.t.Fatal(err)
	}
	i.stat = r.StatSN.Next()
	pairs, err := login.ParseText(r.Data)
	if err != nil {
		i.t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range pairs {
		got[p.Key] = p.Value
	}
	return login.Status(uint16(r.StatusClass)<<8 | uint16(r.StatusDetail)), got
}

// challenged goes on to the target's challenge, which it returns, or the status of a refusal.
func (i *initiator) challenged(name string) (login.Status, map[string]string) {
	i.t.Helper()
	s, _ := i.security(false, "InitiatorName="+name, "TargetName="+testTarget, "SessionType=Normal", "AuthMethod=CHAP")
	if s != login.StatusSuccess {
		return s, nil
	}
	return i.security(false, "CHAP_A=5")
}

// prove logs in with a secret.
func (i *initiator) prove(name, secret string, more ...string) login.Status {
	i.t.Helper()
	s, c := i.challenged(name)
	if s != login.StatusSuccess {
		return s
	}
	s, _ = i.security(true, append(more, "CHAP_N=u", "CHAP_R="+responseTo(i.t, c, secret))...)
	return s
}

func responseTo(t testing.TB, c map[string]string, secret string) string {
	t.Helper()
	challenge, err := hex.DecodeString(strings.TrimPrefix(c["CHAP_C"], "0x"))
	if err != nil {
		t.Fatal(err)
	}
	id := 0
	for _, d := range c["CHAP_I"] {
		id = 10*id + int(d-'0')
	}
	return "0x" + hex.EncodeToString(login.CHAPResponse(login.CHAPMD5, uint8(id), login.Secret(secret), challenge))
}

// TestBackoff guesses a secret until it is held off, sees that this is for nobody else, and gets in when the time is over.
func TestBackoff(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := guarded(t, func(c *Config) { c.Backoff.NameFree, c.Backoff.Base = 2, time.Second }, nil)
	for range 3 {
		if s := dial(t, p).prove(testInitiator, "not-the-secret-"); s != login.StatusAuthenticationFailure {
			t.Fatalf("a wrong secret: %v", s)
		}
	}
	since := time.Now()
	if s := dial(t, p).prove(testInitiator, guardSecret); s != login.StatusServiceUnavailable {
		t.Errorf("after three failures: %v", s)
	}
	if err := dial(t, p).login(testInitiator+".other", 1); err != nil {
		t.Errorf("another initiator of the address, which has no secret: %v", err)
	}
	if st := p.Stats(); st.AuthFailed != 3 || st.HeldOff != 1 {
		t.Errorf("%d failed, %d held off", st.AuthFailed, st.HeldOff)
	}
	time.Sleep(time.Until(since.Add(1100 * time.Millisecond)))
	if s := dial(t, p).prove(testInitiator, guardSecret); s != login.StatusSuccess {
		t.Errorf("when the time is over: %v", s)
	}
}

// TestReflectionOverTwoConnections has the target asked its own challenge through a second connection.
func TestReflectionOverTwoConnections(t *testing.T) {
	p := guarded(t, nil, nil)
	a := dial(t, p)
	_, c := a.challenged(testInitiator)
	if s := dial(t, p).prove(testInitiator, guardSecret, "CHAP_I="+c["CHAP_I"], "CHAP_C="+c["CHAP_C"]); s != login.StatusAuthenticationFailure {
		t.Errorf("a challenge of another connection: %v", s)
	}
	if s := dial(t, p).prove(testInitiator, guardSecret, "CHAP_I=1", "CHAP_C=0x"+strings.Repeat("ab", 16)); s != login.StatusSuccess {
		t.Errorf("a challenge of its own: %v", s)
	}
}

// TestHalfOpenPerAddress keeps connections of one address that do not log in; another address is served.
func TestHalfOpenPerAddress(t *testing.T) {
	p := guarded(t, func(c *Config) { c.LoginsPerAddressMax = 2 }, nil)
	first := dial(t, p)
	dial(t, p)
	eventually(t, "logins", func() bool { return p.Stats().Logins == 2 })
	dial(t, p).closed()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	nc, err := from.Dial("tcp", p.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	i := dial(t, p) // for its fields; it is one too many itself
	_ = i.nc.Close()
	i.nc = nc
	i.in.Reset(nc)
	defer nc.Close() //nolint:errcheck // the test is over
	if err := i.login(testInitiator+".other", 1); err != nil {
		t.Errorf("from another address: %v", err)
	}
	if err := first.login(testInitiator+".other", 2); err != nil {
		t.Errorf("one that logs in after all: %v", err)
	}
	eventually(t, "the place to become free", func() bool { return p.Stats().Logins == 1 })
	if err := dial(t, p).login(testInitiator+".other", 3); err != nil {
		t.Errorf("one in the place that became free: %v", err)
	}
}

func TestRedirectHere(t *testing.T) {
	p := guarded(t, nil, func(c *target.Config) { c.Targets[0].Redirect = &login.Redirect{Address: c.Portals[0].Address} })
	if err := dial(t, p).login(testInitiator+".other", 1); err != nil {
		t.Errorf("where it was sent to: %v", err)
	}
	p = guarded(t, nil, func(c *target.Config) { c.Targets[0].Redirect = &login.Redirect{Address: "127.0.0.9:3260"} })
	s, keys := dial(t, p).challenged(testInitiator)
	if s != login.StatusMovedTemporarily {
		t.Errorf("%v, %v", s, keys)
	}
}

// TestMove asks the initiators of one target to leave.
func TestMove(t *testing.T) {
	p := guarded(t, nil, nil)
	i := dial(t, p)
	if err := i.login(testInitiator+".other", 1); err != nil {
		t.Fatal(err)
	}
	if n := p.Move([]string{testTarget + ".other"}); n != 0 {
		t.Errorf("%d sessions of a target that nobody uses", n)
	}
	if n := p.Move([]string{testTarget}); n != 1 {
		t.Errorf("%d sessions were asked", n)
	}
	if a := i.must(pdu.OpAsyncMessage); a.Header[36] != byte(pdu.AsyncLogout) {
		t.Errorf("event %d", a.Header[36])
	}
	i.logout()
}

func TestGuardKey(t *testing.T) {
	for host, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "::ffff:10.0.0.1", "fd00:1:2:3:4::5": "fd00:1:2:3::/64",
		"fe80::1%eth0": "fe80::/64", "pipe": "pipe",
	} {
		if got := guardKey(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

// TestIPv6 logs in over IPv6 and asks where the target is.
func TestIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("this machine has no IPv6")
	} else {
		_ = l.Close()
	}
	p := guarded(t, func(c *Config) { c.Addresses = []string{"[::1]:0"} }, nil)
	i := dial(t, p)
	if err := i.login(testInitiator+".other", 1); err != nil {
		t.Fatal(err)
	}
	text := []byte("SendTargets=\x00")
	h := pdu.TextRequest{Final: true, Immediate: true, ITT: 7, TTT: pdu.ReservedTag, InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat}}
	i.write(h.AppendHeader(nil, len(text)), text)
	a := i.must(pdu.OpTextResponse)
	want := "TargetName=" + testTarget + "\x00TargetAddress=[::1]:" + portOf(t, p) + ",1\x00"
	if string(a.data) != want {
		t.Errorf("%q, want %q", a.data, want)
	}
}

// TestEveryAddress listens on every address of the machine, which is nothing that a host can be told.
func TestEveryAddress(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0"} {
		p := guarded(t, func(c *Config) { c.Addresses = []string{listen} }, func(c *target.Config) {
			c.Portals = append(c.Portals, target.Portal{Address: "0.0.0.0:3260", Group: 2}, target.Portal{Address: "10.0.0.2:3260", Group: 2})
		})
		i := dial(t, p)
		_ = i.nc.Close()
		nc, err := net.Dial("tcp", "127.0.0.2:"+portOf(t, p))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close() //nolint:errcheck // the test is over
		i.nc = nc
		i.in.Reset(nc)
		if err := i.login(testInitiator+".other", 1); err != nil {
			t.Fatal(err)
		}
		text := []byte("SendTargets=\x00")
		h := pdu.TextRequest{Final: true, Immediate: true, ITT: 7, TTT: pdu.ReservedTag, InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat}}
		i.write(h.AppendHeader(nil, len(text)), text)
		a := i.must(pdu.OpTextResponse)
		want := "TargetName=" + testTarget + "\x00TargetAddress=127.0.0.2:" + portOf(t, p) + ",1\x00TargetAddress=10.0.0.2:3260,2\x00"
		if string(a.data) != want {
			t.Errorf("%s: %q, want %q", listen, a.data, want)
		}
	}
}

func portOf(t *testing.T, p *Portal) string {
	t.Helper()
	_, port, err := net.SplitHostPort(p.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

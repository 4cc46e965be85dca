package login

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// authLister has a target for each name, which asks for what the map says.
type authLister map[string]Auth

func (l authLister) Targets(_, name string) []TargetRecord {
	var out []TargetRecord
	for _, n := range []string{"open", "alice", "alice2", "bob"} {
		a, ok := l[n]
		full := "iqn.2026-11.dev.ashlar:" + n
		if ok && (name == "" || name == full) {
			out = append(out, TargetRecord{Name: full, Addresses: []string{"10.0.0.1:3260,1"}, Auth: a})
		}
	}
	return out
}

// TestDiscoveryByProof has four targets: one open, two with a user of the same name and different secrets, one with another
// user. A discovery session lists those that take what its login has proven.
func TestDiscoveryByProof(t *testing.T) {
	user := func(name string, secrets ...string) Auth {
		c := &Credentials{User: name}
		for _, s := range secrets {
			c.Secrets = append(c.Secrets, Secret(s))
		}
		return Auth{Initiator: c, Mutual: &MutualCredentials{"for-" + name, Secret(ourSecret)}}
	}
	all := authLister{
		"open": {}, "alice": user("alice", "secret-of-one", "old-secret-of-1"), "alice2": user("alice", "secret-of-two"), "bob": user("bob", "secret-of-bob"),
	}
	for _, c := range []struct {
		name   string
		offer  string
		open   bool // is there an open target
		user   string
		secret string
		want   string // targets listed; "0201" a refusal
		mutual string
	}{
		{"no proof", "None", true, "", "", "open", ""},
		{"no proof preferred", "None,CHAP", true, "", "", "open", ""},
		{"no proof where one is needed", "None", false, "", "", "0201", ""},
		{"first secret", "CHAP,None", true, "alice", "secret-of-one", "open alice", "for-alice"},
		{"its old secret", "CHAP", true, "alice", "old-secret-of-1", "open alice", "for-alice"},
		{"same user, other secret", "CHAP", false, "alice", "secret-of-two", "alice2", "for-alice"},
		{"other user", "CHAP", false, "bob", "secret-of-bob", "bob", "for-bob"},
		{"one's name, another's secret", "CHAP", true, "bob", "secret-of-one", "0201", ""},
		{"unknown user", "CHAP", true, "eve", "secret-of-one", "0201", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := newTestEnv()
			lister := authLister{}
			for n, a := range all {
				if n != "open" || c.open {
					lister[n] = a
				}
			}
			env.discoverWith(all["alice"], all["alice2"], all["bob"])
			env.discovery.Open = c.open
			h := newHost(t, DefaultConfig(), env)
			h.say(sec, oper, "InitiatorName="+hostName, "SessionType=Discovery", "AuthMethod="+c.offer)
			if h.err == nil && c.user != "" {
				h.say(sec, oper, "CHAP_A=7")
				h.say(sec, oper, "CHAP_N="+c.user, "CHAP_R="+h.response(c.secret), "CHAP_I=1", "CHAP_C=0x"+strings.Repeat("ab", 16))
			}
			if c.want == "0201" {
				h.wantStatus(StatusAuthenticationFailure)
				return
			}
			if h.last[keyCHAPN] != c.mutual {
				t.Errorf("the target proves itself as %q, want %q", h.last[keyCHAPN], c.mutual)
			}
			h.say(oper, full)
			if h.done == nil {
				t.Fatal(h.err)
			}
			x := NewExchange(h.done, lister)
			reply, err := x.Receive(ask("SendTargets=All"), 9)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for item := range strings.SplitSeq(string(reply.Response.Data), "\x00") {
				if n, ok := strings.CutPrefix(item, "TargetName=iqn.2026-11.dev.ashlar:"); ok {
					got = append(got, n)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("listed %q, want %q", s, c.want)
			}
			for n := range all { // by name it hears no more
				reply, err := x.Receive(ask("SendTargets=iqn.2026-11.dev.ashlar:"+n), 9)
				if listed := strings.Contains(" "+c.want+" ", " "+n+" "); err != nil || (len(reply.Response.Data) > 0) != listed {
					t.Errorf("asked for %s: %q, %v", n, reply.Response.Data, err)
				}
			}
		})
	}
}

func TestProof(t *testing.T) {
	asks := func(user string, secrets ...string) Auth {
		c := &Credentials{User: user}
		for _, s := range secrets {
			c.Secrets = append(c.Secrets, Secret(s))
		}
		return Auth{Initiator: c}
	}
	p := newProof("u", Secret("s-1"))
	for _, c := range []struct {
		name string
		p    Proof
		a    Auth
		want bool
	}{
		{"nothing asked, nothing proven", Proof{}, Auth{}, true},
		{"nothing asked", p, Auth{}, true},
		{"nothing proven", Proof{}, asks("u", "s-1"), false},
		{"nothing can prove it", Proof{}, asks("u"), false},
		{"right", p, asks("u", "s-1"), true},
		{"one of two", p, asks("u", "s-2", "s-1"), true},
		{"other secret", p, asks("u", "s-2"), false},
		{"other user", p, asks("v", "s-1"), false},
		{"moved border", newProof("us", Secret("-1")), asks("u", "s-1"), false},
	} {
		if got := c.p.Satisfies(c.a); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, struct{ P Proof }{p}); !strings.Contains(s, "[proof]") {
			t.Errorf("%s prints %s", format, s)
		}
	}
}

// TestPermit has the surroundings refuse CHAP: nothing is asked of the initiator then, and nothing counted. Who needs no CHAP
// is not held off.
func TestPermit(t *testing.T) {
	env := newTestEnv()
	env.target.Auth = oneWay
	env.refuse = failf(StatusServiceUnavailable, "too many failures")
	h := newHost(t, DefaultConfig(), env)
	h.say(sec, sec, with("AuthMethod=CHAP")...)
	resp := h.say(sec, sec, "CHAP_A=5")
	h.wantStatus(StatusServiceUnavailable)
	if len(resp.Data) != 0 || len(env.proofs) != 0 {
		t.Errorf("%q, %v", resp.Data, env.proofs)
	}
	env.refuse = errors.New("no table")
	h = newHost(t, DefaultConfig(), env)
	h.say(sec, sec, with("AuthMethod=CHAP")...)
	h.say(sec, sec, "CHAP_A=5")
	h.wantStatus(StatusTargetError)
	env.target.Auth = Auth{}
	h = newHost(t, DefaultConfig(), env)
	if h.say(sec, full, with("AuthMethod=None")...); h.done == nil {
		t.Error(h.err)
	}
}

// TestAuthenticatedIsTold follows what the surroundings hear of CHAP: each proof that was tried, and nothing else.
func TestAuthenticatedIsTold(t *testing.T) {
	for _, c := range []struct {
		name string
		last func(h *host) []string
		want string
	}{
		{"right", func(h *host) []string { return []string{"CHAP_N=alice", "CHAP_R=" + h.response(hostSecret)} }, "[true]"},
		{"wrong", func(h *host) []string { return []string{"CHAP_N=alice", "CHAP_R=" + h.response("no")} }, "[false]"},
		{"malformed", func(*host) []string { return []string{"CHAP_N=alice", "CHAP_R=0x"} }, "[false]"},
		{"reflected", func(h *host) []string {
			return []string{"CHAP_N=alice", "CHAP_R=" + h.response(hostSecret), "CHAP_I=1", "CHAP_C=" + h.last[keyCHAPC]}
		}, "[false]"},
		{"no proof", func(*host) []string { return []string{"CHAP_N=alice"} }, "[]"},
		{"out of order", func(*host) []string { return []string{"CHAP_A=5"} }, "[]"},
	} {
		env := newTestEnv()
		env.target.Auth = mutual
		h := newHost(t, DefaultConfig(), env)
		h.say(sec, oper, with("AuthMethod=CHAP")...)
		h.say(sec, oper, "CHAP_A=5")
		h.say(sec, oper, c.last(h)...)
		if got := fmt.Sprint(env.proofs); got != c.want {
			t.Errorf("%s: told %s, want %s", c.name, got, c.want)
		}
	}
}

// TestChallenges remembers challenges of all connections, and forgets the oldest.
func TestChallenges(t *testing.T) {
	c := NewChallenges()
	name := func(i int) []byte { return fmt.Appendf(nil, "challenge %d", i) }
	const n = challengesKept + 10
	for i := range n {
		if !c.made(name(i)) || c.made(name(i)) {
			t.Fatalf("challenge %d", i)
		}
	}
	for i := range n {
		if c.has(name(i)) != (i >= 10) {
			t.Fatalf("challenge %d: %v", i, c.has(name(i)))
		}
	}
	if len(c.known) != challengesKept {
		t.Errorf("%d are remembered", len(c.known))
	}
	if c.has([]byte("another")) {
		t.Error("one that was never made is known")
	}
}

// TestRepeatedChallenge has a generator that begins again, as one without entropy after a restart may.
func TestRepeatedChallenge(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Challenges = NewChallenges()
	for round := range 2 {
		cfg.Rand = &counting{}
		env := newTestEnv()
		env.target.Auth = oneWay
		h := newHost(t, cfg, env)
		h.say(sec, sec, with("AuthMethod=CHAP")...)
		h.say(sec, sec, "CHAP_A=5")
		if round == 0 && h.err != nil {
			t.Fatal(h.err)
		}
		if round == 1 {
			h.wantStatus(StatusTargetError)
		}
	}
}

// TestReflectionToAnotherLogin sends the challenge of one login in another.
func TestReflectionToAnotherLogin(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Challenges, cfg.Rand = NewChallenges(), &counting{}
	login := func() *host {
		env := newTestEnv()
		env.target.Auth = mutual
		h := newHost(t, cfg, env)
		h.say(sec, oper, with("AuthMethod=CHAP")...)
		h.say(sec, oper, "CHAP_A=7")
		return h
	}
	a, b := login(), login()
	b.say(sec, oper, "CHAP_N=alice", "CHAP_R="+b.response(hostSecret), "CHAP_I=1", "CHAP_C="+a.last[keyCHAPC])
	b.wantStatus(StatusAuthenticationFailure)
}

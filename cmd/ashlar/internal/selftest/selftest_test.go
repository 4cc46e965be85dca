package selftest

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	for s, want := range map[string]URL{
		"iscsi://127.0.0.1/iqn.2026-11.dev:x/0":              {Portal: "127.0.0.1:3260", Target: "iqn.2026-11.dev:x"},
		"iscsi://host:3261/iqn.2026-11.dev:x/16383":          {Portal: "host:3261", Target: "iqn.2026-11.dev:x", LUN: 16383},
		"iscsi://[::1]:3261/iqn.2026-11.dev:x/1":             {Portal: "[::1]:3261", Target: "iqn.2026-11.dev:x", LUN: 1},
		"iscsi://[fe80::1]/iqn.2026-11.dev:x/1":              {Portal: "[fe80::1]:3260", Target: "iqn.2026-11.dev:x", LUN: 1},
		"iscsi://user%se@cret@host/iqn.2026-11.dev:x/1":      {Portal: "host:3260", Target: "iqn.2026-11.dev:x", LUN: 1, User: "user", Secret: "se@cret"},
		"iscsi://user@10.0.0.1:860/eui.0123456789abcdef/255": {Portal: "10.0.0.1:860", Target: "eui.0123456789abcdef", LUN: 255, User: "user"},
	} {
		if got, err := ParseURL(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "host/iqn/0", "iscsi://host/iqn", "iscsi://host/iqn/", "iscsi:///iqn/0", "iscsi://host//0", "iscsi://host/iqn/16384", "iscsi://host/iqn/-1", "iscsi://h/i/0/1"} {
		if u, err := ParseURL(s); !errors.Is(err, ErrURL) {
			t.Errorf("%s: %+v, %v", s, u, err)
		}
	}
}

func TestParseRange(t *testing.T) {
	for s, want := range map[string]Range{"": {}, "all": All, "0-8191": {0, 8192}, "100-100": {100, 1}} {
		if got, err := ParseRange(s); err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"0", "5-4", "-", "a-b", "0-", "-1", "0-1-2", "everything"} {
		if got, err := ParseRange(s); !errors.Is(err, ErrRange) {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

// TestProfiles finds checks without words, and those that no host makes.
func TestProfiles(t *testing.T) {
	used := map[string]bool{}
	for host, names := range byHost {
		seen := map[string]bool{}
		for _, n := range append(append([]string(nil), everyHost...), names...) {
			if seen[n] {
				t.Errorf("%s makes %q twice", host, n)
			}
			seen[n], used[n] = true, true
		}
		if len(profile(host)) != len(seen) {
			t.Errorf("%s has %d checks, want %d", host, len(profile(host)), len(seen))
		}
	}
	for n, c := range allChecks() {
		if !used[n] {
			t.Errorf("no host makes %q", n)
		}
		if c.area == "" || c.title == "" || c.want == "" || c.advice == "" || c.run == nil {
			t.Errorf("%q is not complete", n)
		}
	}
	if profile("plan9") != nil {
		t.Error("an unknown host has checks")
	}
}

// TestJudge has checks end in each way.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		writes bool
		err    error
		want   Verdict
	}{{false, nil, Pass}, {false, errors.New("x"), Fail}, {false, skip("x"), Skip}} {
		r := verdictOf(check{want: "w", advice: "a"}, "found", c.err)
		if r.Verdict != c.want || (r.Advice != "") != (c.want == Fail) || r.Found == "" {
			t.Errorf("%v: %+v", c.err, r)
		}
	}
	p := &probe{}
	if r := p.judge(check{writes: true}); r.Verdict != Skip {
		t.Errorf("a check that writes, not allowed: %+v", r)
	}
}

// TestNoTarget runs against a port that hangs up, and one that says nothing.
func TestNoTarget(t *testing.T) {
	for _, hangUp := range []bool{true, false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan net.Conn, 8)
		go func() {
			defer close(accepted)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if hangUp {
					c.Close()
				} else {
					accepted <- c
				}
			}
		}()
		u, err := ParseURL("iscsi://" + l.Addr().String() + "/iqn.2026-11.dev:x/0")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(context.Background(), Options{Profile: "linux", URL: u, Initiator: "iqn.2026-11.dev:i", Timeout: 200 * time.Millisecond})
		if err == nil {
			t.Errorf("%+v", r)
		}
		l.Close()
		for c := range accepted {
			c.Close()
		}
	}
	if _, err := Run(context.Background(), Options{Profile: "beos"}); !errors.Is(err, ErrProfile) {
		t.Error(err)
	}
}

// TestPortGroups cuts a report at every byte, and judges reports as a host does.
func TestPortGroups(t *testing.T) {
	plain := []byte{
		0, 0, 0, 24,
		0x01, 0x0B, 0, 1, 0, 0, 0, 1, 0, 0, 0, 11,
		0x80, 0x0B, 0, 2, 0, 0, 0, 1, 0, 0, 0, 12,
	}
	extended := append([]byte{0, 0, 0, 28, 0x10, 60, 0, 0}, plain[4:]...)
	for _, x := range []bool{false, true} {
		d := plain
		if x {
			d = extended
		}
		groups, err := parsePortGroups(d, x)
		if err != nil || len(groups) != 2 || groups[1].tag != 2 || groups[1].state != 0 || groups[0].ports[0] != 11 {
			t.Fatalf("%+v, %v", groups, err)
		}
		for n := range d {
			if _, err := parsePortGroups(d[:n], x); err == nil {
				t.Errorf("%d bytes are taken", n)
			}
			cut := append([]byte(nil), d[:n]...)
			if n > 8 && (len(d)-n)%12 != 0 {
				cut[3] = byte(n - 4)
				if _, err := parsePortGroups(cut, x); err == nil {
					t.Errorf("%d bytes with their length are taken", n)
				}
			}
		}
		if own, err := judgeGroups(groups, 12, 2); err != nil || own.tag != 2 {
			t.Errorf("%+v, %v", own, err)
		}
	}
	if _, err := parsePortGroups(plain, true); err == nil {
		t.Error("there is an extended header in a report without")
	}
	for name, g := range map[string][]portGroup{
		"no group":         nil,
		"another port":     {{tag: 2, supported: 0xFF, ports: []uint16{11}}},
		"another group":    {{tag: 1, supported: 0xFF, ports: []uint16{12}}},
		"no port":          {{tag: 2, supported: 0xFF}},
		"unavailable":      {{tag: 2, state: 3, supported: 0xFF, ports: []uint16{12}}},
		"transitioning":    {{tag: 2, state: 15, supported: 0xFF, ports: []uint16{12}}},
		"not supported":    {{tag: 2, state: 1, supported: 0xFD, ports: []uint16{12}}},
		"no such state":    {{tag: 2, state: 7, supported: 0xFF, ports: []uint16{12}}},
		"a port twice":     {{tag: 2, supported: 1, ports: []uint16{12}}, {tag: 3, supported: 1, ports: []uint16{12}}},
		"a bad other one":  {{tag: 2, supported: 1, ports: []uint16{12}}, {tag: 3, state: 2, supported: 1, ports: []uint16{13}}},
		"one port of many": {{tag: 1, supported: 1, ports: []uint16{12}}, {tag: 2, supported: 1, ports: []uint16{13}}},
	} {
		if own, err := judgeGroups(g, 12, 2); err == nil {
			t.Errorf("%s: %+v", name, own)
		}
	}
}

func TestTagPorts(t *testing.T) {
	m := tagPorts{}
	for _, c := range []struct {
		tag  string
		port uint16
		ok   bool
	}{{"1", 7, true}, {"1", 7, true}, {"2", 8, true}, {"1", 8, false}, {"3", 8, false}, {"2", 9, false}, {"3", 9, true}} {
		if err := m.add(c.tag, c.port); (err == nil) != c.ok {
			t.Errorf("tag %s, port %d: %v", c.tag, c.port, err)
		}
	}
	if len(m) != 3 {
		t.Errorf("%v", m)
	}
}

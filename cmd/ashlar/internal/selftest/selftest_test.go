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

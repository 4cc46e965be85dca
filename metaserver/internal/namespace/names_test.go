package namespace

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/storage/iscsiname"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name              string
		target, initiator bool
	}{
		{"iqn.2026-11.dev.ashlar:demo", true, true},
		{"IQN.2026-11.dev.Ashlar:Demo", true, true},
		{"iqn.1991-05.com.microsoft:host.example.com", true, true},
		{"iqn.1993-08.org.debian:01:d0c9f2b9c3a", true, true},
		{"iqn.2026-11.com.example", true, true},
		{"iqn.1991-05.com.microsoft:host_1", false, true},
		{"eui.02004567A425678D", true, true},
		{"naa.52004567BA64678D", true, true},
		{"naa.62004567BA64678D0123456789ABCDEF", true, true},
		{"", false, false},
		{"iqn", false, false},
		{"iqn.2026-13.com.example:x", false, true},
		{"iqn.26-11.com.example:x", false, false},
		{"iqn.2026-11.com.example:", false, true},
		{"iqn.2026-11.-com:x", false, true},
		{"iqn.2026-11.com.example:a b", false, false},
		{"iqn.2026-11.com.example:a/b", false, true},
		{"iqn.2026-11.com.example:ä", false, true},
		{"iqn.2026-11.com.example:a\x00", false, false},
		{"iqn.2026-11.com.example:a\n", false, false},
		{"iqn.2026-11.com.example:a,b", false, false},
		{"iqn.2026-11.com.example:a=b", false, false},
		{"eui.02004567A425678", false, false},
		{"naa.52004567BA64678D01", false, false},
		{"naa.52004567BA64678G", false, false},
		{"iqn.2026-11.com.example:" + strings.Repeat("x", 199), true, true},
		{"iqn.2026-11.com.example:" + strings.Repeat("x", 200), false, false},
		{"*", false, false},
	} {
		got, err := TargetName(c.name)
		if (err == nil) != c.target || c.target && got != strings.ToLower(c.name) {
			t.Errorf("target %q: %q, %v", c.name, got, err)
		}
		if err != nil && !refuse.Is(err, refuse.Invalid) {
			t.Errorf("target %q: %v is no refusal of what is invalid", c.name, err)
		}
		if got, err = InitiatorName(c.name); (err == nil) != c.initiator || c.initiator && got != strings.ToLower(c.name) {
			t.Errorf("initiator %q: %q, %v", c.name, got, err)
		}
	}
}

// FuzzName: what is accepted is short, can be a part of other names, and is accepted again as it is.
func FuzzName(f *testing.F) {
	for _, s := range []string{"iqn.2026-11.dev.ashlar:demo", "eui.02004567A425678D", "naa.52004567BA64678D", "iqn.2026-11.a", "\x00", "IQN."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := InitiatorName(s)
		if err != nil {
			return
		}
		again, err := InitiatorName(n)
		if err != nil || again != n || len(n) > iscsiname.Max {
			t.Errorf("%q became %q, then %q, %v", s, n, again, err)
		}
		if strings.ContainsAny(n, " ,=\n\x00\x7f") || strings.ToLower(n) != n {
			t.Errorf("%q was taken", n)
		}
	})
}

func TestSeal(t *testing.T) {
	key := strings.Repeat("k", SealKeySize)
	s, err := NewSealer([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	const secret, place = "0123456789ab", "target\x00host\x00chap"
	sealed := s.Seal(secret, place)
	if strings.Contains(string(sealed), secret) {
		t.Error("sealed in the clear")
	}
	if string(s.Seal(secret, place)) == string(sealed) {
		t.Error("sealing twice gives the same")
	}
	if got, err := s.Open(sealed, place); got != secret || err != nil {
		t.Errorf("opened %q, %v", got, err)
	}
	if _, err := s.Open(sealed, place+"x"); !errors.Is(err, ErrSealed) {
		t.Errorf("in another place: %v", err)
	}
	for i := range sealed {
		if _, err := s.Open(sealed[:i], place); err == nil {
			t.Errorf("opened when cut at %d", i)
		}
		bad := append([]byte(nil), sealed...)
		bad[i] ^= 1
		if _, err := s.Open(bad, place); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
	}
	other, err := NewSealer([]byte(strings.Repeat("a1", SealKeySize) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(sealed, place); !errors.Is(err, ErrSealKey) {
		t.Errorf("with another key: %v", err)
	}
	for _, bad := range []string{"", "short", strings.Repeat("zz", SealKeySize), strings.Repeat("a", 33)} {
		if _, err := NewSealer([]byte(bad)); err == nil {
			t.Errorf("the key %q was taken", bad)
		}
	}
}

func TestMoves(t *testing.T) {
	now := time.Now()
	n := &Namespace{o: Options{Now: func() time.Time { return now }}}
	var a *Attachment
	for i := range 200 {
		now = now.Add(time.Second)
		next := n.next(a, uint64(i%2))
		if a != nil && next.Epoch != a.Epoch+1 {
			t.Fatalf("epoch %d after %d", next.Epoch, a.Epoch)
		}
		a = next
	}
	if len(a.MovesUnixMs) != movesMax || a.Moves(now) != movesMax {
		t.Errorf("%d moves remembered, %d counted; want %d", len(a.MovesUnixMs), a.Moves(now), movesMax)
	}
	if got := a.Moves(now.Add(movesWindow)); got != 0 {
		t.Errorf("%d moves after the window", got)
	}
	since := a.SinceUnixMs
	now = now.Add(time.Minute)
	if a = n.next(a, a.Gateway); a.SinceUnixMs != since {
		t.Error("attaching again through the same gateway counts as a move")
	}
}

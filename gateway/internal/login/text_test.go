package login

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func pairsOf(kv ...string) []Pair {
	var pairs []Pair
	for _, s := range kv {
		k, v, _ := strings.Cut(s, "=")
		pairs = append(pairs, Pair{k, v})
	}
	return pairs
}

func textOf(kv ...string) []byte {
	if len(kv) == 0 {
		return nil
	}
	return []byte(strings.Join(kv, "\x00") + "\x00")
}

func TestParseText(t *testing.T) {
	long := strings.Repeat("v", MaxValueLen)
	key63 := strings.Repeat("k", MaxKeyLen)
	for _, c := range []struct {
		name string
		in   string
		want []Pair // nil: an error
	}{
		{"nothing", "", []Pair{}},
		{"one", "A=b\x00", pairsOf("A=b")},
		{"several", "A=b\x00C=\x00D=e=f\x00", pairsOf("A=b", "C=", "D=e=f")},
		{"empty strings between", "\x00A=b\x00\x00\x00", pairsOf("A=b")},
		{"unterminated", "A=b", nil},
		{"unterminated second", "A=b\x00C=d", nil},
		{"no equals sign", "A\x00", nil},
		{"no key", "=b\x00", nil},
		{"key with a space", "A b=c\x00", nil},
		{"key with a control character", "A\x01=c\x00", nil},
		{"key beyond ASCII", "Ä=c\x00", nil},
		{"extension keys", "X-com.example.x=1\x00X#y=2\x00", pairsOf("X-com.example.x=1", "X#y=2")},
		{"key of 63 bytes", key63 + "=b\x00", pairsOf(key63 + "=b")},
		{"key of 64 bytes", key63 + "k=b\x00", nil},
		{"value of 255 bytes", "A=" + long + "\x00", pairsOf("A=" + long)},
		{"value of 256 bytes", "A=" + long + "v\x00", nil},
		{"list of long values", "A=" + long + "," + long + "\x00", pairsOf("A=" + long + "," + long)},
		{"list with a value too long", "A=x," + long + "v\x00", nil},
		{"CHAP_R of 1024 bytes", "CHAP_R=0x" + strings.Repeat("ab", 1024) + "\x00", pairsOf("CHAP_R=0x" + strings.Repeat("ab", 1024))},
		{"CHAP_R of 1025 bytes", "CHAP_R=0x" + strings.Repeat("ab", 1025) + "\x00", nil},
		{"most keys", strings.Repeat("A=b\x00", MaxTextKeys), slices.Repeat(pairsOf("A=b"), MaxTextKeys)},
		{"one key too many", strings.Repeat("A=b\x00", MaxTextKeys+1), nil},
		{"2048 tiny keys", strings.Repeat("A=\x00", 2048), nil},
		{"zeros of the largest size", strings.Repeat("\x00", MaxTextLen), []Pair{}},
		{"too long", strings.Repeat("\x00", MaxTextLen+1), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseText([]byte(c.in))
			if c.want == nil {
				var te *TextError
				if !errors.As(err, &te) {
					t.Fatalf("got %v, %v; want a TextError", got, err)
				}
				return
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Fatalf("got %v, %v; want %v", got, err, c.want)
			}
		})
	}
}

// TestTextReaderCuts cuts a list in two and in three at every byte.
func TestTextReaderCuts(t *testing.T) {
	want := pairsOf("InitiatorName=iqn.2001-04.com.example:a", "AuthMethod=CHAP,None", "A=")
	text := textOf("InitiatorName=iqn.2001-04.com.example:a", "AuthMethod=CHAP,None", "A=")
	var r TextReader
	for i := range len(text) + 1 {
		for j := i; j <= len(text); j++ {
			for k, part := range [][]byte{text[:i], text[i:j]} {
				part = slices.Clone(part)
				if pairs, err := r.Add(part, true); pairs != nil || err != nil || !r.InProgress() {
					t.Fatalf("part %d of a cut at %d, %d: %v, %v", k, i, j, pairs, err)
				}
				clear(part) // the reader must not keep it
			}
			got, err := r.Add(text[j:], false)
			if err != nil || !slices.Equal(got, want) || r.InProgress() {
				t.Fatalf("cut at %d, %d: %v, %v", i, j, got, err)
			}
		}
		if i < len(text) { // unterminated
			if _, err := r.Add(text[:i], false); (err == nil) != (i == 0 || text[i-1] == 0) {
				t.Fatalf("ended after %d bytes: %v", i, err)
			}
		}
	}
}

func TestTextReaderLimits(t *testing.T) {
	var r TextReader
	for i := range MaxTextParts + 1 {
		if _, err := r.Add(nil, true); (err == nil) != (i < MaxTextParts) {
			t.Fatalf("empty part %d: %v", i, err)
		}
	}
	r = TextReader{}
	if _, err := r.Add(make([]byte, MaxTextLen), true); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Add(make([]byte, 1), false); err == nil {
		t.Fatal("a list longer than MaxTextLen was accepted")
	}
	if cap(r.part) > 2*MaxTextLen {
		t.Errorf("reader holds %d bytes", cap(r.part))
	}
}

func TestTextWriter(t *testing.T) {
	w := NewTextWriter(20)
	if err := errors.Join(w.Add("A", "12345"), w.Add("B", "")); err != nil {
		t.Fatal(err)
	}
	var te *TextError
	if err := w.Add("C", "123456789"); !errors.As(err, &te) || w.Len() != 11 {
		t.Fatalf("%v, %d bytes", err, w.Len())
	}
	if err := w.Add("C", "123456"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		data, more := w.Next(8)
		got = append(got, string(data))
		if !more {
			break
		}
	}
	if want := []string{"A=12345\x00", "B=\x00C=123", "456\x00"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if data, more := w.Next(8); data != nil || more || w.Len() != 0 {
		t.Errorf("%q, %v after the end", data, more)
	}
}

// TestAnswersFit proves what MaxTextKeys promises: no list of unknown keys has an answer beyond MaxTextLen.
func TestAnswersFit(t *testing.T) {
	var in []string
	for i := range MaxTextKeys {
		in = append(in, fmt.Sprintf("X-%0*d=", MaxKeyLen-2, i))
	}
	text := textOf(in...)
	if len(text) > MaxTextLen {
		t.Fatal("the test's list is too long to arrive")
	}
	pairs, err := ParseText(text)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	out, err := newNegotiation(&cfg).operational(pairs)
	if err != nil {
		t.Fatal(err)
	}
	w := NewTextWriter(MaxTextLen)
	out = append(out, Pair{keyTargetPortalGroupTag, "65535"}, Pair{keyTargetAlias, strings.Repeat("a", MaxValueLen)},
		Pair{keyMaxRecvDataSegmentLength, "16777215"})
	for _, p := range out {
		if err := w.Add(p.Key, p.Value); err != nil {
			t.Fatal(err)
		}
	}
}

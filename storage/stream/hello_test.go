package stream

import (
	"bytes"
	"errors"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sampleHello() Hello {
	return Hello{
		Purpose: RaftData, Cluster: [16]byte{1, 15: 9}, From: 1<<63 + 5, To: 7, lowest: VersionMin, highest: VersionMax,
	}
}

// resealed returns b, changed, with the length and checksum that it then has.
func resealed(b []byte, change func(b []byte) []byte) []byte {
	b = change(bytes.Clone(b[:len(b)-4]))
	le.PutUint16(b[8:], uint16(len(b)+4))
	return seal(b)
}

func TestHello(t *testing.T) {
	want := sampleHello()
	b := want.append(nil)
	if len(b) != helloSize {
		t.Fatalf("%d bytes", len(b))
	}
	for n := range len(b) {
		if err := new(Hello).parse(b[:n]); !errors.Is(err, errHello) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			if new(Hello).parse(bad) == nil {
				t.Errorf("bit %d of byte %d is not checked", bit, i)
			}
		}
	}
	longer := resealed(b, func(b []byte) []byte { return append(b, "from a newer version"...) })
	for _, b := range [][]byte{b, longer} {
		var got Hello
		if err := got.parse(b); err != nil || got != want {
			t.Errorf("%v: %+v", err, got)
		}
		read, err := readSealed(bytes.NewReader(b[8:]), b[:8])
		if err != nil || !bytes.Equal(read, b) {
			t.Errorf("read %x: %v", read, err)
		}
	}
}

func TestNegotiate(t *testing.T) {
	for name, c := range map[string]struct {
		h    Hello
		want uint8
		code Code
	}{
		"same":          {Hello{lowest: 1, highest: 1}, 1, Accepted},
		"newer":         {Hello{lowest: 1, highest: 9}, VersionMax, Accepted},
		"much newer":    {Hello{lowest: VersionMax + 1, highest: 9}, 0, BadVersion},
		"older":         {Hello{lowest: 0, highest: 0}, 0, BadVersion},
		"the other way": {Hello{lowest: 2, highest: 1}, 0, BadVersion},
		"flags":         {Hello{lowest: 1, highest: 9, flags: 0x40}, 0, BadFlags},
	} {
		got, err := c.h.negotiate()
		var refused *RefusedError
		if c.code == Accepted && (err != nil || got != c.want) || c.code != Accepted && (!errors.As(err, &refused) || refused.Code != c.code) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

func TestAnswer(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 2*helloMax))
	for _, c := range []struct {
		a  answer
		ok bool
	}{
		{answer{version: VersionMax}, true},
		{answer{version: VersionMax + 1}, false},
		{answer{version: VersionMax, flags: 1}, false},
		{answer{code: BadCluster, text: "another one"}, false},
		{answer{code: NotReady, text: long}, false},
	} {
		b := c.a.append(nil)
		for n := range len(b) {
			if err := new(answer).parse(b[:n]); !errors.Is(err, errHello) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
		var got answer
		if err := got.parse(b); err != nil || (got.err() == nil) != c.ok || got.code != c.a.code || len(b) > helloMax {
			t.Errorf("%+v: %v, %+v: %v", c.a, err, got, got.err())
		}
		var refused *RefusedError
		if errors.As(got.err(), &refused) != (c.a.code != Accepted) {
			t.Errorf("%+v: %v", c.a, got.err())
		}
	}
}

// FuzzHello: whatever comes is parsed or refused; what is parsed says the same again.
func FuzzHello(f *testing.F) {
	h, a := sampleHello(), answer{code: BadFlags, version: 1, text: "why"}
	f.Add(h.append(nil))
	f.Add(a.append(nil))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		read, err := readSealed(bytes.NewReader(b), nil)
		if err != nil {
			return
		}
		if len(read) > helloMax || !bytes.HasPrefix(b, read) {
			t.Fatalf("read %x", read)
		}
		var h, again Hello
		if h.parse(read) == nil && (again.parse(h.append(nil)) != nil || again != h) {
			t.Errorf("%+v became %+v", h, again)
		}
		_, _ = h.negotiate()
		var a answer
		if a.parse(read) == nil {
			_ = a.err()
		}
	})
}

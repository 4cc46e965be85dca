package isns

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func v4(a, b, c, d byte) [16]byte { return [16]byte{10: 0xff, 11: 0xff, 12: a, 13: b, 14: c, 15: d} }

// TestRegisterBytes compares a registration with what RFC 4171 sections 5.1, 5.3 and 6 say byte by byte.
func TestRegisterBytes(t *testing.T) {
	r := Registration{
		Entity: "abc", Period: 900, Portals: []Portal{{v4(10, 0, 0, 1), 3260, 7}}, Targets: []string{"iqn.2026-11.a:b"},
	}
	out := r.Register("", true)
	if len(out) != 1 {
		t.Fatalf("%d requests", len(out))
	}
	want := strings.Join([]string{
		"0001 0001 00a8 9c00 0102 0000",                      // version 1, DevAttrReg, 168 bytes, client+replace+last+first
		"00000020 00000010 69716e2e323032362d31312e613a6200", // source: iSCSI name
		"00000001 00000004 61626300",                         // key: entity
		"00000000 00000000",                                  // delimiter
		"00000001 00000004 61626300",                         // entity
		"00000002 00000004 00000002",                         // protocol iSCSI
		"00000006 00000004 00000384",                         // registration period
		"00000010 00000010 00000000000000000000ffff0a000001", // portal address
		"00000011 00000004 00000cbc",                         // and port
		"00000020 00000010 69716e2e323032362d31312e613a6200", // iSCSI name
		"00000021 00000004 00000001",                         // node type target
		"00000033 00000004 00000007",                         // group tag
		"00000031 00000010 00000000000000000000ffff0a000001", // of this portal
		"00000032 00000004 00000cbc",
	}, "")
	wire := out[0].Append(nil, 0x0102)
	got := hex.EncodeToString(wire)
	want = strings.ReplaceAll(want, " ", "")
	want = want[:8] + fmt.Sprintf("%04x", len(wire)-HeaderLen) + want[12:]
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	bye := r.Deregister("iqn.2026-11.a:b")
	if got, want := hex.EncodeToString(bye.Append(nil, 3)), "000100040000" /* length below */ +"8c0000030000"; got[:8] != want[:8] || got[12:24] != want[12:] {
		t.Errorf("header %s", got[:24])
	}
}

// TestRegisterSizes registers as much as a cluster can have: no request is longer than a PDU, all have the entity, only the
// first replaces, and every target is in one of them with all portals.
func TestRegisterSizes(t *testing.T) {
	for _, c := range []struct{ portals, targets int }{{1, 1}, {1, 10_000}, {PortalsMax + 10, 300}, {64, 1000}} {
		r := Registration{Entity: strings.Repeat("e", 255), Period: 60}
		for i := range c.portals {
			r.Portals = append(r.Portals, Portal{v4(10, 0, byte(i>>8), byte(i)), 3260, uint16(i + 1)})
		}
		for i := range c.targets {
			name := fmt.Sprintf("iqn.2026-11.com.example:%05d", i)
			r.Targets = append(r.Targets, name+strings.Repeat("x", 223-len(name)))
		}
		r.Sort()
		nodes, groups := 0, 0
		for i, q := range r.Register("", true) {
			if len(q.Payload) > PayloadMax || len(q.Payload)%4 != 0 || q.Replace != (i == 0) || q.Function != DevAttrReg {
				t.Fatalf("%+v: request %d of %d bytes, replace %v", c, i, len(q.Payload), q.Replace)
			}
			attributes, err := parseAttributes(q.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if attributes[0].Tag != TagISCSIName || attributes[1].Tag != TagEntityIdentifier || attributes[2].Tag != TagDelimiter {
				t.Fatalf("request %d begins with %v", i, attributes[:3])
			}
			for _, a := range attributes[1:] {
				switch a.Tag {
				case TagISCSIName:
					nodes++
				case TagGroupTag:
					groups++
				}
			}
		}
		if nodes != c.targets || groups != c.targets*min(c.portals, PortalsMax) {
			t.Errorf("%+v: %d nodes, %d groups", c, nodes, groups)
		}
	}
	for _, r := range []Registration{{}, {Targets: []string{"a"}}, {Portals: []Portal{{}}}} {
		if got := r.Register("", true); got != nil {
			t.Errorf("%+v is registered as %v", r, got)
		}
	}
}

func TestSort(t *testing.T) {
	a := Registration{Targets: []string{"b", "a", "b"}, Portals: []Portal{{v4(1, 1, 1, 2), 2, 3}, {v4(1, 1, 1, 1), 2, 4}, {v4(1, 1, 1, 1), 2, 3}}}
	b := Registration{Targets: []string{"a", "b"}, Portals: []Portal{{v4(1, 1, 1, 1), 2, 3}, {v4(1, 1, 1, 2), 2, 3}}}
	if a.Sort(); !a.Equal(&b) {
		t.Errorf("%+v", a)
	}
	if b.Portals[0].Port++; a.Equal(&b) {
		t.Error("different ports are equal")
	}
}

// reply makes the PDUs of a reply to transaction 5 of DevAttrReg, each with at most size bytes of the payload.
func reply(payload []byte, size int) []byte {
	var out []byte
	for seq := uint16(0); ; seq++ {
		n := min(size, len(payload))
		flags := uint16(flagServer)
		if seq == 0 {
			flags |= flagFirst
		}
		if n == len(payload) {
			flags |= flagLast
		}
		for _, v := range []uint16{version, uint16(DevAttrReg | replyBit), uint16(n), flags, 5, seq} {
			out = binary.BigEndian.AppendUint16(out, v)
		}
		out = append(out, payload[:n]...)
		if payload = payload[n:]; len(payload) == 0 {
			return out
		}
	}
}

// read feeds a stream to a Reader until the reply is complete; nil: the stream ended before.
func read(stream []byte) (*Reply, error) {
	r := NewReader(DevAttrReg, 5)
	for len(stream) >= HeaderLen {
		n, err := r.Header((*[HeaderLen]byte)(stream))
		if err != nil {
			return nil, err
		}
		stream = stream[HeaderLen:]
		if len(stream) < n {
			return nil, nil
		}
		out, err := r.Payload(stream[:n])
		if out != nil || err != nil {
			return out, err
		}
		stream = stream[n:]
	}
	return nil, nil
}

var goodReply = appendText(appendUint32([]byte{0, 0, 0, 0}, TagRegistrationPeriod, 300), TagEntityIdentifier, "isns:1")

func TestReply(t *testing.T) {
	for _, size := range []int{4, 8, 12, 20, 100} {
		stream := reply(goodReply, size)
		got, err := read(stream)
		if err != nil || got == nil || got.Status != StatusSuccessful || len(got.Attributes) != 2 {
			t.Fatalf("in pieces of %d: %+v, %v", size, got, err)
		}
		if v, ok := got.Uint32(TagRegistrationPeriod); !ok || v != 300 {
			t.Errorf("period %d, %v", v, ok)
		}
		if v, ok := got.Uint32(TagEntityIdentifier); ok {
			t.Errorf("a text is the number %d", v)
		}
		for cut := range stream {
			if got, err := read(stream[:cut]); got != nil || err != nil {
				t.Fatalf("cut at %d: %+v, %v", cut, got, err)
			}
		}
	}
	refused := []byte{0, 0, 0, 6}
	if got, err := read(reply(refused, 4)); err != nil || got.Status != StatusSourceUnknown {
		t.Errorf("%+v, %v", got, err)
	}
	if s := (&StatusError{StatusSourceUnknown}).Error() + (&StatusError{77}).Error(); !strings.Contains(s, "source unknown") || !strings.Contains(s, "status 77") {
		t.Error(s)
	}
}

// TestMalformedReplies is for the line CVE-2010-2221: what a server says of lengths is not believed.
func TestMalformedReplies(t *testing.T) {
	good := reply(goodReply, 100)
	set := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	for name, stream := range map[string][]byte{
		"version 2":                    set(0, 0, 2),
		"a request":                    set(2, 0),
		"another function":             set(3, 4),
		"odd length":                   set(4, 0, 21),
		"no status":                    set(4, 0, 0),
		"not from a server":            set(6, 0x8c),
		"not the first":                set(6, 0x48),
		"another transaction":          set(9, 6),
		"sequence 1":                   set(11, 1),
		"attribute beyond the end":     set(20, 0xff, 0xff, 0xff, 0xfc),
		"attribute of the largest":     set(20, 0x7f, 0xff, 0xff, 0xff),
		"attribute of odd length":      set(20, 0, 0, 0, 3),
		"half an attribute":            reply(goodReply[:8], 100),
		"empty PDU that is not last":   {0, 1, 0x80, 1, 0, 0, 0x44, 0, 0, 5, 0, 0},
		"the same PDU twice":           append(reply(goodReply, 8)[:20], reply(goodReply, 8)[:20]...),
		"more attributes than allowed": reply(append([]byte{0, 0, 0, 0}, make([]byte, 8*(AttributesMax+1))...), PayloadMax),
		"longer than allowed":          reply(make([]byte, ReplyMax+4), PayloadMax),
	} {
		got, err := read(stream)
		var format *FormatError
		if got != nil || !errors.As(err, &format) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	r := NewReader(DevAttrReg, 5)
	if n, err := r.Header((*[HeaderLen]byte)(good)); err != nil || n != len(goodReply) {
		t.Fatal(n, err)
	}
	if _, err := r.Payload(goodReply[:8]); err == nil {
		t.Error("less payload than the header says")
	}
}

// FuzzReply reads any bytes as a server's reply: whatever they are, no more is kept than ReplyMax, and what is accepted is
// what was sent.
func FuzzReply(f *testing.F) {
	f.Add(reply(goodReply, 100))
	f.Add(reply(goodReply, 8))
	f.Add(reply([]byte{0, 0, 0, 6}, 4))
	f.Add(reply([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfc}, 100))
	f.Add([]byte{0, 1, 0x80, 1, 0, 0, 0x4c, 0, 0, 5, 0, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		got, err := read(stream)
		if err != nil {
			var format *FormatError
			if !errors.As(err, &format) || got != nil {
				t.Fatalf("%+v, %v", got, err)
			}
			return
		}
		if got == nil {
			return
		}
		n := 4
		for _, a := range got.Attributes {
			n += 8 + len(a.Value)
			if v, ok := a.Uint32(); ok && binary.BigEndian.Uint32(a.Value) != v {
				t.Fatalf("%v", a)
			}
		}
		if n > ReplyMax || n > len(stream) {
			t.Fatalf("%d bytes out of %d", n, len(stream))
		}
	})
}

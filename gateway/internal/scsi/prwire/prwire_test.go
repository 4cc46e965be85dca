package prwire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/reservation"
)

var (
	port1 = reservation.Nexus{Initiator: "iqn.2026-11.com.example:a", ISID: reservation.ISID{0, 2, 0x3D, 0, 0, 1}, Port: 1}
	any1  = reservation.Nexus{Initiator: "iqn.b", AnyISID: true, Port: 1}
)

func TestTransportID(t *testing.T) {
	for _, n := range []reservation.Nexus{port1, any1, {Initiator: "iqn." + strings.Repeat("x", nameMax-4)}} {
		p := AppendTransportID([]byte{9}, n)[1:]
		got, length, ok := parseTransportID(append(slices.Clone(p), 1, 2, 3))
		want := n
		want.Port = 0
		if !ok || length != len(p) || got != want || len(p)%4 != 0 || len(p) < 24 {
			t.Errorf("%+v: %+v, %d of %d, %v", n, got, length, len(p), ok)
		}
		for i := range p {
			if _, _, ok := parseTransportID(p[:i]); ok {
				t.Errorf("%+v cut at %d was taken", n, i)
			}
		}
	}
	if got := hex.EncodeToString(AppendTransportID(nil, any1)); got != "05000014"+"69716e2e62"+strings.Repeat("00", 15) {
		t.Errorf("TransportID of a device: %s", got)
	}
}

// wire makes a TransportID of raw parts.
func wire(first byte, additional uint16, text string) []byte {
	p := make([]byte, 4+max(int(additional), len(text)))
	p[0] = first
	binary.BigEndian.PutUint16(p[2:], additional)
	copy(p[4:], text)
	return p
}

// TestHostileTransportIDs are lengths and names that are not what they say.
func TestHostileTransportIDs(t *testing.T) {
	long := "iqn." + strings.Repeat("x", 300)
	for name, p := range map[string][]byte{
		"length beyond the end":  wire(5, 20, "iqn.b")[:20],
		"length of everything":   wire(5, 20, "iqn.b")[:24:24],
		"short length":           wire(5, 16, "iqn.b\x00aaaaaaaaaaaaaaaaaa"),
		"odd length":             append(wire(5, 21, "iqn.b"), 0, 0, 0),
		"no zero":                wire(5, 20, "iqn.bbbbbbbbbbbbbbbb"),
		"something after zero":   wire(5, 20, "iqn.b\x00x"),
		"no name":                wire(5, 20, ""),
		"not a name":             wire(5, 20, "disk"),
		"a comma":                wire(5, 20, "iqn.b,c"),
		"too long":               wire(5, 304, long),
		"Fibre Channel":          wire(0, 20, "iqn.b"),
		"format 10b":             wire(0x85, 20, "iqn.b"),
		"no ISID":                wire(0x45, 20, "iqn.b"),
		"short ISID":             wire(0x45, 20, "iqn.b,i,0x12"),
		"ISID that is no number": wire(0x45, 24, "iqn.b,i,0x0002300000zz"),
		"ISID that is too long":  wire(0x45, 28, "iqn.b,i,0x00023000000100"),
	} {
		if name == "length of everything" {
			binary.BigEndian.PutUint16(p[2:], 0xFFFC)
		}
		if n, _, ok := parseTransportID(p); ok {
			t.Errorf("%s: taken as %+v", name, n)
		}
	}
}

func basic(flags byte) []byte {
	p := make([]byte, OutLength)
	p[7], p[15], p[20] = 1, 2, flags
	return p
}

// withIDs appends the TransportIDs of SPEC_I_PT.
func withIDs(nexuses ...reservation.Nexus) []byte {
	p := append(basic(0x08), 0, 0, 0, 0)
	for _, n := range nexuses {
		p = AppendTransportID(p, n)
	}
	binary.BigEndian.PutUint32(p[OutLength:], uint32(len(p)-OutLength-4))
	return p
}

func move(n reservation.Nexus) []byte {
	p := basic(0)
	p[17], p[19] = 0x03, byte(n.Port)
	p = AppendTransportID(p, n)
	binary.BigEndian.PutUint32(p[20:], uint32(len(p)-OutLength))
	return p
}

func TestParseOut(t *testing.T) {
	own := reservation.Nexus{Initiator: "iqn.own", Port: 1}
	moved := port1
	moved.Port = 7
	for _, c := range []struct {
		name   string
		action reservation.Action
		p      []byte
		want   reservation.Request
	}{
		{"all bits", reservation.Register, basic(0x05), reservation.Request{AllPorts: true, APTPL: true}},
		{"reserve", reservation.Reserve, basic(0), reservation.Request{}},
		{"initiators", reservation.Register, withIDs(port1, any1), reservation.Request{SpecIPT: true, Initiators: []reservation.Nexus{port1, any1}}},
		{"no initiators", reservation.Register, withIDs(), reservation.Request{SpecIPT: true}},
		{"move", reservation.RegisterAndMove, move(moved), reservation.Request{Unregister: true, APTPL: true, Destination: moved}},
	} {
		c.want.Nexus, c.want.Action, c.want.Key, c.want.ServiceKey = own, c.action, 1, 2
		got := reservation.Request{Nexus: own, Action: c.action}
		if err := ParseOut(c.p, &got); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %+v", c.name, err, got)
		}
		for i := range c.p {
			got := reservation.Request{Nexus: own, Action: c.action}
			if err := ParseOut(c.p[:i:i], &got); !errors.Is(err, ErrLength) {
				t.Errorf("%s cut at %d: %v", c.name, i, err)
			}
		}
		if err := ParseOut(append(slices.Clone(c.p), 0), &reservation.Request{Action: c.action}); !errors.Is(err, ErrLength) {
			t.Errorf("%s with a byte more: %v", c.name, err)
		}
	}
}

func TestParseOutRefuses(t *testing.T) {
	many := make([]reservation.Nexus, TransportIDsMax+1)
	for i := range many {
		many[i] = any1
	}
	lies := withIDs(port1)
	binary.BigEndian.PutUint32(lies[OutLength:], 0xFFFFFFFF)
	broken := withIDs(port1)
	broken[OutLength+4] = 0x4F
	noPort := move(port1)
	noPort[19] = 0
	two := AppendTransportID(move(port1), port1)
	binary.BigEndian.PutUint32(two[20:], uint32(len(two)-OutLength))
	for _, c := range []struct {
		name   string
		action reservation.Action
		p      []byte
		want   error
	}{
		{"too many", reservation.Register, withIDs(many...), ErrMany},
		{"a length that lies", reservation.Register, lies, ErrLength},
		{"a broken TransportID", reservation.Register, broken, ErrField},
		{"far too long", reservation.Register, make([]byte, OutMax+1), ErrLength},
		{"move to no port", reservation.RegisterAndMove, noPort, ErrField},
		{"move to a device", reservation.RegisterAndMove, move(any1), ErrField},
		{"move to two", reservation.RegisterAndMove, two, ErrField},
	} {
		if err := ParseOut(c.p, &reservation.Request{Action: c.action}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestIn(t *testing.T) {
	s := &reservation.State{
		Generation: 0x01020304, Type: reservation.WriteExclusiveRegistrants, Holder: port1, APTPL: true,
		Registrations: []reservation.Registration{{Nexus: port1, Key: 0xA1}, {Nexus: any1, Key: 0xB2}},
	}
	all := *s
	all.Type, all.Holder = reservation.ExclusiveAccessAll, reservation.Nexus{}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"keys", ReadKeys(s), "01020304 00000010 00000000000000a1 00000000000000b2"},
		{"no keys", ReadKeys(&reservation.State{}), "00000000 00000000"},
		{"reservation", ReadReservation(s), "01020304 00000010 00000000000000a1 00000000 00 05 0000"},
		{"reservation of all", ReadReservation(&all), "01020304 00000010 0000000000000000 00000000 00 08 0000"},
		{"no reservation", ReadReservation(&reservation.State{Generation: 1}), "00000001 00000000"},
		{"capabilities", ReportCapabilities(s), "0008 0d b1 ea 01 0000"},
		{"capabilities, not persistent", ReportCapabilities(&reservation.State{}), "0008 0d b0 ea 01 0000"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
		if err != nil || !bytes.Equal(c.got, want) {
			t.Errorf("%s: %x, want %x (%v)", c.name, c.got, want, err)
		}
	}
	p := ReadFullStatus(s)
	if int(binary.BigEndian.Uint32(p[4:])) != len(p)-8 {
		t.Fatalf("additional length of %x", p)
	}
	first := p[8:]
	id := AppendTransportID(nil, port1)
	if first[12] != 1 || first[13] != 5 || first[19] != 1 || int(binary.BigEndian.Uint32(first[20:])) != len(id) || !bytes.Equal(first[24:24+len(id)], id) {
		t.Errorf("full status of the holder: %x", first)
	}
	if second := first[24+len(id):]; second[7] != 0xB2 || second[12] != 0 || second[13] != 0 || second[24] != 5 {
		t.Errorf("full status of the other: %x", second)
	}
}

func FuzzParseOut(f *testing.F) {
	f.Add(byte(0), withIDs(port1, any1))
	f.Add(byte(7), move(port1))
	f.Add(byte(1), basic(0))
	f.Fuzz(func(t *testing.T, action byte, p []byte) {
		r := reservation.Request{Nexus: port1, Action: reservation.Action(action)}
		if err := ParseOut(p, &r); err != nil {
			return
		}
		if len(r.Initiators) > TransportIDsMax {
			t.Fatalf("%d TransportIDs", len(r.Initiators))
		}
		for _, n := range append(r.Initiators, r.Destination) {
			if n.Initiator == "" && r.Action != reservation.RegisterAndMove {
				continue
			}
			again, _, ok := parseTransportID(AppendTransportID(nil, n))
			again.Port = n.Port
			if !ok || again != n {
				t.Fatalf("%+v came back as %+v", n, again)
			}
		}
	})
}

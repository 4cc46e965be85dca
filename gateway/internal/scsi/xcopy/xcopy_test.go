package xcopy

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	naa    = "60010203 04050607 08090A0B 0C0D0E0F"
	cscd   = "E4 40 0000 01 03 00 10" + naa + "00000000 04 000200"
	blocks = "02 03 0018 0001 FFFF 0000 0800 0000000000000010 0000000100000020"
	offset = "0A 01 001C 0000 0001 00100000 0000000000000010 0000000100000020 0040 0080"
)

// list is a parameter list of the parts, with a header that counts them.
func list(t testing.TB, head string, cscds, segments []string) []byte {
	t.Helper()
	p := append(unhex(t, head), make([]byte, 14)...)
	c, s := unhex(t, strings.Join(cscds, "")), unhex(t, strings.Join(segments, ""))
	binary.BigEndian.PutUint16(p[2:], uint16(len(c)))
	binary.BigEndian.PutUint32(p[8:], uint32(len(s)))
	return append(append(p, c...), s...)
}

func repeat(s string, n int) []string {
	return strings.Split(strings.TrimSuffix(strings.Repeat(s+",", n), ","), ",")
}

func TestParse(t *testing.T) {
	p := list(t, "2A 10", []string{cscd, cscd}, []string{blocks, offset})
	got, refused := Parse(p)
	if refused != nil {
		t.Fatal(refused)
	}
	c := CSCD{CodeSet: 1, DesignatorType: 3, Designator: unhex(t, naa), Pad: true, BlockLength: 512}
	want := &List{
		ID: 0x2A, Usage: UsageDiscard, CSCDs: []CSCD{c, c},
		Segments: []Segment{
			{
				ByBlocks: true, OfDestination: true, Residual: true, Source: 1, Destination: Self, Blocks: 0x800,
				SourceLBA: 0x10, DestinationLBA: 0x100000020,
			},
			{
				Residual: true, Source: 0, Destination: 1, Bytes: 0x100000, SourceLBA: 0x10, DestinationLBA: 0x100000020,
				SourceOffset: 0x40, DestinationOffset: 0x80,
			},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

// Every list that lost bytes at its end is refused for its length, and nothing else.
func TestParseTruncated(t *testing.T) {
	p := list(t, "01 00", []string{cscd, cscd}, []string{blocks, offset})
	for n := range p {
		if _, refused := Parse(p[:n:n]); refused == nil || refused.Sense != senseListLength {
			t.Fatalf("%d bytes: %+v", n, refused)
		}
	}
	if _, refused := Parse(append(p, 1, 2, 3)); refused != nil {
		t.Fatalf("bytes behind the list: %+v", refused)
	}
}

func TestParseRefuses(t *testing.T) {
	with := func(p []byte, at int, b ...byte) []byte {
		copy(p[at:], b)
		return p
	}
	one := func() []byte { return list(t, "01 00", []string{cscd}, []string{blocks}) }
	for name, c := range map[string]struct {
		p    []byte
		want Refusal
	}{
		"usage 01b":                    {with(one(), 1, 0x08), Refusal{senseField, 1, 4}},
		"too many CSCDs":               {list(t, "01 00", repeat(cscd, CSCDMax+1), []string{blocks}), Refusal{senseManyCSCDs, -1, -1}},
		"too many segments":            {list(t, "01 00", []string{cscd}, repeat(blocks, SegmentMax+1)), Refusal{senseManySegments, -1, -1}},
		"list too long":                {list(t, "01 00", repeat(cscd, CSCDMax+1), repeat(blocks, SegmentMax+8)), Refusal{senseListLength, -1, -1}},
		"segment list of 4 GiB":        {with(one(), 8, 0xFF, 0xFF, 0xFF, 0xFF), Refusal{senseListLength, -1, -1}},
		"part of a CSCD":               {with(one(), 2, 0, 33), Refusal{senseField, 2, -1}},
		"inline data":                  {with(one(), 15, 1), Refusal{senseInline, -1, -1}},
		"inline data of 4 GiB":         {with(one(), 12, 0xFF, 0xFF, 0xFF, 0xFF), Refusal{senseInline, -1, -1}},
		"CSCD type":                    {with(one(), 16, 0xE0), Refusal{senseCSCDType, 16, -1}},
		"designator longer than field": {with(one(), 16+7, 21), Refusal{senseField, 16 + 7, -1}},
		"segment type":                 {with(one(), 48, 0x03), Refusal{senseSegmentType, 48, -1}},
		"segment length":               {with(one(), 48+3, 0x1C), Refusal{senseField, 48 + 2, -1}},
	} {
		l, refused := Parse(c.p)
		if l != nil || refused == nil || *refused != c.want {
			t.Errorf("%s: %+v, want %+v", name, refused, c.want)
		}
	}
	if l, refused := Parse(list(t, "00 18", nil, nil)); refused != nil || len(l.Segments) != 0 || l.Usage != UsageNone {
		t.Errorf("a list without descriptors: %+v %+v", l, refused)
	}
	most := list(t, "01 00", repeat(cscd, CSCDMax), repeat(offset, SegmentMax))
	if l, refused := Parse(most); refused != nil || len(l.CSCDs) != CSCDMax || len(l.Segments) != SegmentMax {
		t.Errorf("the longest list: %+v", refused)
	}
}

func TestResults(t *testing.T) {
	done := Result{Status: Completed, Segments: 3, Bytes: 0x01020304}
	failed := Result{Status: Failed, CommandStatus: 2, Sense: []byte{0x70, 0, 0x0A}}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"status":          {done.AppendStatus(nil), "00000008 01 0003 00 01020304"},
		"no failure":      {done.AppendFailure([]byte{9}), "09 00000000"},
		"failure":         {failed.AppendFailure(nil), "0000003B" + strings.Repeat("00", 52) + "02 00 0003 70000A"},
		"status, failure": {failed.AppendStatus(nil), "00000008 02 0000 00 00000000"},
		"parameters": {
			AppendOperatingParameters(nil),
			"0000002B 01000000 0010 0020 00000600 01000000 00000000 00000000 00000000 0000 0010 10 09 00 00 000000 03 02 0A E4",
		},
		"descriptors": {
			AppendDescriptors(nil),
			"0004 001C 00000000 0010 0020 00000600" + strings.Repeat("00", 16) +
				"0008 0004 03 02 0A E4  000C 0004 0002 FFFF",
		},
		"operations": {
			AppendOperations(nil),
			"8001 0020 00000010 00000010 01000000 09" + strings.Repeat("00", 19) + "C001 001C" + strings.Repeat("00", 28),
		},
	} {
		if !bytes.Equal(c.got, unhex(t, c.want)) {
			t.Errorf("%s:\ngot  % X\nwant % X", name, c.got, unhex(t, c.want))
		}
	}
}

// FuzzParse: a list is refused or within all limits, and nothing in it points outside the bytes that came.
func FuzzParse(f *testing.F) {
	f.Add(list(f, "01 00", []string{cscd, cscd}, []string{blocks, offset}))
	f.Add(list(f, "00 18", repeat(cscd, CSCDMax), repeat(offset, SegmentMax)))
	f.Add(list(f, "00 18", nil, nil))
	f.Add(unhex(f, "01 00 FFFF 00000000 FFFFFFFF FFFFFFFF"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) == 0 {
			return
		}
		l, refused := Parse(p)
		if (l == nil) == (refused == nil) {
			t.Fatalf("%v and %v", l, refused)
		}
		if refused != nil {
			if refused.Sense>>16 != 5 || refused.At >= len(p) || refused.Bit > 7 {
				t.Fatalf("%+v of %d bytes", refused, len(p))
			}
			return
		}
		if len(l.CSCDs) > CSCDMax || len(l.Segments) > SegmentMax {
			t.Fatalf("%d CSCDs, %d segments", len(l.CSCDs), len(l.Segments))
		}
		for _, c := range l.CSCDs {
			if len(c.Designator) > designatorMax || cap(c.Designator) != len(c.Designator) {
				t.Fatalf("designator of %d bytes", len(c.Designator))
			}
		}
	})
}

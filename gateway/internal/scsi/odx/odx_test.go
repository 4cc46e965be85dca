package odx

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func appendRanges(p []byte, ranges ...Range) []byte {
	for _, r := range ranges {
		p = binary.BigEndian.AppendUint64(p, r.LBA)
		p = binary.BigEndian.AppendUint32(p, r.Blocks)
		p = append(p, 0, 0, 0, 0)
	}
	return p
}

// populateList is a POPULATE TOKEN list with head as its bytes 2 to 11.
func populateList(t testing.TB, head string, ranges ...Range) []byte {
	p := append(append([]byte{0, 0}, unhex(t, head)...), 0, 0, 0, 0)
	return counted(appendRanges(p, ranges...), populateHeader)
}

func writeList(flags byte, offset uint64, token *Token, ranges ...Range) []byte {
	p := append([]byte{0, 0, flags}, make([]byte, 5)...)
	p = binary.BigEndian.AppendUint64(p, offset)
	p = append(append(p, token[:]...), make([]byte, 8)...)
	return counted(appendRanges(p, ranges...), writeHeader)
}

func counted(p []byte, header int) []byte {
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	binary.BigEndian.PutUint16(p[header-2:], uint16(len(p)-header))
	return p
}

var two = []Range{{0x100000010, 8}, {0x20, 0x10000}}

func TestParse(t *testing.T) {
	got, refused := ParsePopulate(populateList(t, "03 00 0000001E 0080FFFF", two...))
	if refused != nil || !reflect.DeepEqual(got, &Populate{Immediate: true, Timeout: 30, Ranges: two}) {
		t.Errorf("%+v %+v", got, refused)
	}
	got, refused = ParsePopulate(populateList(t, "00 00 00000000 12345678", two...)) // RTV=0: no type
	if refused != nil || got.Immediate || got.Timeout != TimeoutDefault {
		t.Errorf("%+v %+v", got, refused)
	}
	token := &Token{1, 2, 3}
	wut, refused := ParseWrite(writeList(3, 0x1122334455667788, token, two...))
	want := &Write{Immediate: true, Delete: true, Offset: 0x1122334455667788, Token: *token, Ranges: two}
	if refused != nil || !reflect.DeepEqual(wut, want) {
		t.Errorf("%+v %+v", wut, refused)
	}
}

func TestParseTruncated(t *testing.T) {
	lists := [][]byte{populateList(t, "00 00 00000000 00000000", two...), writeList(0, 0, &Token{}, two...)}
	for n := range max(len(lists[0]), len(lists[1])) {
		if n < len(lists[0]) {
			if _, refused := ParsePopulate(lists[0][:n:n]); refused == nil || refused.Sense != senseListLength {
				t.Fatalf("POPULATE TOKEN, %d bytes: %+v", n, refused)
			}
		}
		if n < len(lists[1]) {
			if _, refused := ParseWrite(lists[1][:n:n]); refused == nil || refused.Sense != senseListLength {
				t.Fatalf("WRITE USING TOKEN, %d bytes: %+v", n, refused)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	plain := "00 00 00000000 00000000"
	with := func(p []byte, at int, b ...byte) []byte {
		copy(p[at:], b)
		return p
	}
	for name, c := range map[string]struct {
		p    []byte
		want Refusal
	}{
		"no range":                  {populateList(t, plain), Refusal{senseField, 0}},
		"data length too small":     {with(populateList(t, plain, two...), 0, 0, 29), Refusal{senseField, 0}},
		"range length 0":            {with(populateList(t, plain, two...), 14, 0, 0), Refusal{senseField, 14}},
		"range length 17":           {with(populateList(t, plain, two...), 14, 0, 17), Refusal{senseField, 14}},
		"range length beyond":       {with(populateList(t, plain, two...), 14, 0, 48), Refusal{senseField, 14}},
		"too many ranges":           {populateList(t, plain, make([]Range, RangeMax+1)...), Refusal{senseManyRanges, -1}},
		"timeout":                   {populateList(t, "00 00 00000259 00000000", two...), Refusal{senseField, 4}},
		"type access on reference":  {populateList(t, "02 00 00000000 00010000", two...), Refusal{senseField, 8}},
		"type zero can not be made": {populateList(t, "02 00 00000000 FFFF0001", two...), Refusal{senseField, 8}},
	} {
		if l, refused := ParsePopulate(c.p); l != nil || refused == nil || *refused != c.want {
			t.Errorf("%s: %+v, want %+v", name, refused, c.want)
		}
	}
	if _, refused := ParseWrite(with(writeList(0, 0, &Token{}, two...), 534, 0, 15)); refused == nil || *refused != (Refusal{senseField, 534}) {
		t.Errorf("WRITE USING TOKEN: %+v", refused)
	}
	if _, refused := ParsePopulate(populateList(t, plain, make([]Range, RangeMax)...)); refused != nil {
		t.Errorf("as many ranges as are allowed: %+v", refused)
	}
}

func TestCheckRanges(t *testing.T) {
	for name, c := range map[string]struct {
		ranges []Range
		total  uint64
		want   *Refusal
	}{
		"all":                 {[]Range{{0, 100}}, 100, nil},
		"none":                {[]Range{{100, 0}}, 0, nil},
		"meet":                {[]Range{{50, 50}, {0, 50}, {50, 0}}, 100, nil},
		"end":                 {[]Range{{0, 1}, {99, 2}}, 0, &Refusal{senseOutOfRange, 32}},
		"begin":               {[]Range{{101, 0}}, 0, &Refusal{senseOutOfRange, 16}},
		"overflow":            {[]Range{{1<<64 - 1, 2}}, 0, &Refusal{senseOutOfRange, 16}},
		"more than is wanted": {[]Range{{0, 60}, {0, 61}}, 0, &Refusal{senseField, 40}},
		"overlap":             {[]Range{{50, 20}, {0, 51}}, 0, &Refusal{senseField, 16}},
		"one in another":      {[]Range{{0, 60}, {10, 1}}, 0, &Refusal{senseField, 16}},
	} {
		total, refused := (&Populate{Ranges: c.ranges}).CheckRanges(100, 120)
		if total != c.total || !reflect.DeepEqual(refused, c.want) {
			t.Errorf("%s: %d %+v, want %d %+v", name, total, refused, c.total, c.want)
		}
	}
	if _, refused := (&Write{Ranges: []Range{{101, 0}}}).CheckRanges(100, 1); refused == nil || refused.At != 536 {
		t.Errorf("WRITE USING TOKEN: %+v", refused)
	}
}

func TestCut(t *testing.T) {
	ranges := []Range{{100, 10}, {0, 0}, {50, 5}, {200, 20}}
	for _, c := range []struct {
		skip, n uint64
		want    []Range
	}{
		{0, 35, []Range{{100, 10}, {50, 5}, {200, 20}}},
		{0, 10, []Range{{100, 10}}},
		{9, 2, []Range{{109, 1}, {50, 1}}},
		{12, 4, []Range{{52, 3}, {200, 1}}},
		{34, 1, []Range{{219, 1}}},
		{5, 0, nil},
	} {
		if got := Cut(nil, ranges, c.skip, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%d from %d: %v, want %v", c.n, c.skip, got, c.want)
		}
	}
}

// counter is a random generator that is none.
type counter struct{ n byte }

func (c *counter) Read(p []byte) (int, error) {
	c.n++
	for i := range p {
		p[i] = c.n
	}
	return len(p), nil
}

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func content() *Content {
	c := &Content{BlockLength: 512, PhysicalExponent: 3, Blocks: 8, Ranges: []Range{{0, 8}}}
	copy(c.Unit[:], "\x60\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C\x0D\x0E\x0F")
	return c
}

func TestToken(t *testing.T) {
	token, refused := NewTable((&clock{time.Unix(1000, 0)}).now, &counter{0xA0}).Add("i", content(), 1)
	if refused != nil {
		t.Fatal(refused)
	}
	want := "00800001 0000 01F8 0000000000000001 E4 00 0000 01 03 00 10 600102030405060708090A0B0C0D0E0F 00000000 00 000200" +
		"00000000000000000000000000001000" + strings.Repeat("00", 32) +
		"00000200 00 03 C000" + strings.Repeat("00", 24) + strings.Repeat("A1", 64) +
		"01 00 0001 00000000000003E8 00000001 E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855" +
		"00 08" + strings.Repeat("00", 238)
	sum := sha256.Sum256(unhex(t, want))
	want += hex.EncodeToString(sum[:])
	if !bytes.Equal(token[:], unhex(t, want)) {
		t.Errorf("got  % X\nwant % X", token[:], unhex(t, want))
	}
}

func TestTable(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	table := NewTable(c.now, &counter{})
	data := content()
	token, refused := table.Add("i", data, 10)
	if refused != nil {
		t.Fatal(refused)
	}
	sense := func(token Token) uint32 {
		got, refused := table.Find(&token)
		switch {
		case refused != nil:
			return refused.Sense
		case got != data:
			t.Error("other content")
		}
		return 0
	}
	for range 3 { // each use begins the time anew
		c.at = c.at.Add(10 * time.Second)
		if s := sense(*token); s != 0 {
			t.Fatalf("%06X", s)
		}
	}
	for at := range token { // no byte of it may differ
		bad := *token
		bad[at] ^= 1
		if s := sense(bad); s != senseUnknown && (at > 7 || s != senseTokenType && s != senseLength) {
			t.Fatalf("byte %d changed: %06X", at, s)
		}
	}
	zero := Token{0xFF, 0xFF, 0, 1, 0, 0, 1, 0xF8}
	if zero.Check() != nil || !zero.Zero() || token.Zero() {
		t.Error("the zero token is not known as such")
	}
	c.at = c.at.Add(10*time.Second + 1)
	if s := sense(*token); s != senseExpired {
		t.Errorf("expired: %06X", s)
	}
	if s := sense(*token); s != senseExpired {
		t.Errorf("expired and dropped: %06X", s)
	}
	token, _ = table.Add("i", data, 10)
	table.Delete(token)
	table.Delete(token)
	if s := sense(*token); s != senseUnknown {
		t.Errorf("deleted: %06X", s)
	}
	if len(table.mu.tokens) != 0 || len(table.mu.owners) != 0 {
		t.Errorf("%d tokens and %d owners are left", len(table.mu.tokens), len(table.mu.owners))
	}
}

// TestForeign: a token tells another gateway what it stands for, until its time is over or it is deleted there, and nothing but
// all of it is believed.
func TestForeign(t *testing.T) {
	c := &clock{time.Unix(5000, 0)}
	here, there := NewTable(c.now, &wide{}), NewTable(c.now, &wide{1000})
	data := content()
	data.Ranges = []Range{{1 << 40, 3}, {7, 5}}
	data.Digests = []Digest{{1}, {2}}
	token, refused := here.Add("i", data, 10)
	if refused != nil {
		t.Fatal(refused)
	}
	got, refused := there.Find(token)
	if refused != nil {
		t.Fatalf("%06X", refused.Sense)
	}
	want := *data
	want.Digests, want.Root = nil, data.root()
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("%+v, want %+v", got, &want)
	}
	if _, same := got.Whole([]Digest{{2}, {1}}); same {
		t.Error("other digests are taken for those")
	}
	whole, same := got.Whole(data.Digests)
	if !same {
		t.Fatal("the digests are not taken")
	}
	for at := range token {
		bad := *token
		bad[at] ^= 1
		if c, refused := there.Find(&bad); c != nil || refused == nil {
			t.Fatalf("byte %d changed: %+v", at, c)
		}
	}
	there.Adopt("j", token, whole)
	c.at = c.at.Add(10 * time.Second)
	if got, _ := there.Find(token); got != whole {
		t.Errorf("adopted: %+v", got)
	}
	third := NewTable(c.now, &wide{2000})
	if _, refused := third.Find(token); refused != nil {
		t.Errorf("in its last second: %06X", refused.Sense)
	}
	third.Delete(token)
	third.Adopt("j", token, whole)
	if _, refused := third.Find(token); refused == nil || refused.Sense != senseUnknown {
		t.Errorf("deleted: %+v", refused)
	}
	c.at = c.at.Add(time.Second)
	if _, refused := NewTable(c.now, &wide{3000}).Find(token); refused == nil || refused.Sense != senseExpired {
		t.Errorf("after its time: %+v", refused)
	}
	if _, refused := there.Find(token); refused != nil { // its use began it anew
		t.Errorf("used since: %06X", refused.Sense)
	}
}

// TestForeignBounds: what has no place in a token stays at its gateway, and tokens that were deleted stay so when there are more
// than are remembered.
func TestForeignBounds(t *testing.T) {
	c := &clock{time.Unix(5000, 0)}
	here, there := NewTable(c.now, &wide{}), NewTable(c.now, &wide{1 << 20})
	many := content()
	many.Ranges, many.Blocks = nil, 0
	for i := range uint64(RangeMax) {
		many.Ranges = append(many.Ranges, Range{1<<40 + i*1000, 100})
		many.Blocks += 100
	}
	token, _ := here.Add("i", many, 600)
	if _, refused := here.Find(token); refused != nil {
		t.Errorf("at home: %06X", refused.Sense)
	}
	if _, refused := there.Find(token); refused == nil || refused.Sense != senseUnknown {
		t.Errorf("abroad: %+v", refused)
	}
	var first, last *Token
	for range tokensMax + 1 {
		last, _ = here.Add("i", content(), 600)
		if there.Delete(last); first == nil {
			first = last
		}
	}
	for name, token := range map[string]*Token{"first": first, "last": last} {
		if _, refused := there.Find(token); refused == nil || len(there.mu.ended) > tokensMax {
			t.Errorf("the %s is good again; %d are remembered", name, len(there.mu.ended))
		}
	}
	c.at = c.at.Add(2 * time.Second)
	token, _ = here.Add("i", content(), 600)
	if _, refused := there.Find(token); refused != nil {
		t.Errorf("a newer one: %06X", refused.Sense)
	}
}

func FuzzTold(f *testing.F) {
	c := &clock{time.Unix(5000, 0)}
	token, _ := NewTable(c.now, &wide{}).Add("i", content(), 600)
	f.Add(token[:])
	f.Fuzz(func(t *testing.T, p []byte) {
		var token Token
		copy(token[:], p)
		sum := sha256.Sum256(token[:tokenSum]) // let the fuzzer get past it
		copy(token[tokenSum:], sum[:])
		c, _, timeout, ok := token.told()
		if !ok {
			return
		}
		var blocks uint64
		for _, r := range c.Ranges {
			if r.LBA+uint64(r.Blocks) < r.LBA {
				t.Fatal("a range wraps")
			}
			blocks += uint64(r.Blocks)
		}
		if blocks != c.Blocks || blocks*uint64(c.BlockLength) > TransferMax || len(c.Ranges) > RangeMax || timeout > TimeoutMax {
			t.Fatalf("%+v", c)
		}
	})
}

// wide is a generator that does not repeat itself soon.
type wide struct{ n uint64 }

func (w *wide) Read(p []byte) (int, error) {
	w.n++
	binary.BigEndian.PutUint64(p, w.n)
	return len(p), nil
}

func TestTableBounds(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	table := NewTable(c.now, &wide{})
	first, _ := table.Add("a", content(), 10)
	second, _ := table.Add("a", content(), 10)
	for range tokensOfOwner - 2 {
		table.Add("a", content(), 10)
	}
	if _, refused := table.Find(first); refused != nil { // now it is the one that was used last
		t.Fatal(refused)
	}
	if _, refused := table.Add("a", content(), 10); refused != nil {
		t.Fatal(refused)
	}
	if got, refused := table.Find(second); refused != nil || got.Root != got.root() {
		t.Errorf("the token that was used longest ago is not as one of another gateway: %+v, %+v", got, refused)
	}
	if _, refused := table.Find(first); refused != nil {
		t.Error("a token in use made place")
	}
	for i := tokensOfOwner; i < tokensMax; i++ {
		if _, refused := table.Add("b"+string(rune('A'+i/tokensOfOwner)), content(), 1); refused != nil {
			t.Fatalf("%d: %+v", i, refused)
		}
	}
	if _, refused := table.Add("c", content(), 10); refused == nil || refused.Sense != senseNoRoom {
		t.Errorf("one more than the bound: %+v", refused)
	}
	c.at = c.at.Add(2 * time.Second)
	if _, refused := table.Add("c", content(), 10); refused != nil {
		t.Errorf("when others expired: %+v", refused)
	}
	if n := len(table.mu.tokens); n != tokensOfOwner+1 {
		t.Errorf("%d tokens", n)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestTableWithoutRandom(t *testing.T) {
	if token, refused := NewTable(new(clock).now, broken{}).Add("i", content(), 1); token != nil || refused == nil {
		t.Error("a token without random bytes")
	}
}

func TestInformation(t *testing.T) {
	token := &Token{0xAA}
	token[TokenLength-1] = 0xBB
	for name, c := range map[string]struct {
		i    Information
		want string
	}{
		"populated": {
			Information{Action: ActionPopulate, Status: Completed, Blocks: 0x100000002, Token: token},
			"00000222 10 01 0000 FFFFFFFF 00 00 00 F1 0000000100000002 0000 000000000000 00000202 0000 AA" +
				strings.Repeat("00", 510) + "BB",
		},
		"failed": {
			Information{Action: ActionWrite, Status: Failed, CommandStatus: 2, Sense: []byte{0x70, 0, 5}, Blocks: 7},
			"00000023 11 02 0000 FFFFFFFF 02 03 03 F1 0000000000000007 0000 000000000000 700005 00000000",
		},
		"under way": {
			Information{Action: ActionWrite, Status: Foreground},
			"00000020 11 11 0000 FFFFFFFE 00 00 00 F1 0000000000000000 0000 000000000000 00000000",
		},
	} {
		if got := c.i.Append(nil); !bytes.Equal(got, unhex(t, c.want)) {
			t.Errorf("%s:\ngot  % X\nwant % X", name, got, unhex(t, c.want))
		}
	}
}

func TestDescriptors(t *testing.T) {
	want := "0000 0020 000000000000 0040 00000258 0000003C 0000000000020000 0000000000020000"
	if got := AppendLimits(nil, 512); !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("got % X", got)
	}
	want = "0106 005C 00" + strings.Repeat("00", 15) + "FFFFFFFF 00000258" + strings.Repeat("00", 18) + "0030" +
		"00 00 002C 00000000 0000000004000000 0000000004000000" + strings.Repeat("00", 24) +
		"0108 0084 0000 0080 00800001 03 00 8000" + strings.Repeat("00", 56) + "FFFF0001 02 00 0001" + strings.Repeat("00", 56)
	if got := AppendTypes(nil); !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("got  % X\nwant % X", got, unhex(t, want))
	}
}

// FuzzLists: a list is refused or within its limits.
func FuzzLists(f *testing.F) {
	f.Add(populateList(f, "03 00 0000001E 0080FFFF", two...))
	f.Add(writeList(3, 1, &Token{0, 0x80, 0, 1, 0, 0, 1, 0xF8}, two...))
	f.Add(writeList(0, 1<<63, &Token{0xFF, 0xFF, 0, 1, 0, 0, 1, 0xF8}, make([]Range, RangeMax)...))
	table := NewTable(new(clock).now, &counter{})
	f.Fuzz(func(t *testing.T, p []byte) {
		check := func(ranges []Range, total uint64, refused *Refusal) {
			if refused != nil {
				if refused.Sense>>16 != 5 || refused.At >= len(p) {
					t.Fatalf("%+v of %d bytes", refused, len(p))
				}
				return
			}
			if len(ranges) == 0 || len(ranges) > RangeMax || total > 1<<20 {
				t.Fatalf("%d ranges, %d blocks", len(ranges), total)
			}
			for i, a := range ranges {
				if a.LBA > 1<<40 || uint64(a.Blocks) > 1<<40-a.LBA {
					t.Fatalf("%+v is not on the medium", a)
				}
				for _, b := range ranges[:i] {
					if a.Blocks > 0 && b.Blocks > 0 && a.LBA < b.LBA+uint64(b.Blocks) && b.LBA < a.LBA+uint64(a.Blocks) {
						t.Fatalf("%+v and %+v overlap", a, b)
					}
				}
			}
			var sum uint64
			for _, r := range Cut(nil, ranges, total/3, total-total/3) {
				sum += uint64(r.Blocks)
			}
			if sum != total-total/3 {
				t.Fatalf("cut %d blocks, %d wanted", sum, total-total/3)
			}
		}
		if l, refused := ParsePopulate(p); refused != nil {
			check(nil, 0, refused)
		} else {
			total, refused := l.CheckRanges(1<<40, 1<<20)
			check(l.Ranges, total, refused)
		}
		l, refused := ParseWrite(p)
		if refused != nil {
			check(nil, 0, refused)
			return
		}
		total, refused := l.CheckRanges(1<<40, 1<<20)
		check(l.Ranges, total, refused)
		if c, refused := table.Find(&l.Token); c != nil || refused == nil {
			t.Fatal("a token that was never given")
		}
	})
}

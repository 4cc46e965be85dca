package raftlog

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// TestRecordCuts cuts a record at every byte and flips every bit of it.
func TestRecordCuts(t *testing.T) {
	want := record{typ: recordEntry, entry: 2, flags: flagMoved, batch: 77, copyset: 5, index: 1 << 40, term: 9}
	payload := []byte("thirteen bytes")[:13]
	const seed = 12345
	b := want.append([]byte("before"), payload, seed)[len("before"):]
	want.length = uint32(len(payload))
	if len(b) != recordSize(len(payload)) || len(b)%recordAlign != 0 {
		t.Fatalf("length %d", len(b))
	}
	got, p, ok := parseRecord(b, seed)
	if !ok || got != want || !bytes.Equal(p, payload) {
		t.Fatalf("got %+v %q %v", got, p, ok)
	}
	if _, _, ok := parseRecord(b, seed+1); ok {
		t.Error("good under another seed")
	}
	end := recordHeader + len(payload)
	for n := range end {
		if _, _, ok := parseRecord(b[:n], seed); ok {
			t.Errorf("good when cut at %d", n)
		}
	}
	for bit := range end * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, _, ok := parseRecord(b, seed); ok {
			t.Errorf("good with bit %d flipped", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestBatchCuts(t *testing.T) {
	want := batch{
		length: 64, records: 3, seq: 1 << 33, prev: 4, durable: 3, floor: 2, digest: 99, offset: 8,
	}
	const seed = 7
	b := make([]byte, 8+batchHeader)
	want.put(b[8:], seed)
	if got, ok := parseBatch(b, 8, seed); !ok || got != want {
		t.Fatalf("got %+v %v", got, ok)
	}
	if _, ok := parseBatch(b[8:], 0, seed); ok {
		t.Error("good at another offset")
	}
	for n := range batchHeader {
		if _, ok := parseBatch(b[:8+n], 8, seed); ok {
			t.Errorf("good when cut at %d", n)
		}
	}
	for bit := 64; bit < len(b)*8; bit++ {
		b[bit/8] ^= 1 << (bit % 8)
		if _, ok := parseBatch(b, 8, seed); ok {
			t.Errorf("good with bit %d flipped", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestHeaderCuts(t *testing.T) {
	want := segmentHeader{version: 1, identity: testID, number: 3, prev: 4, floor: 2, size: 1 << 20}
	b := want.appendTo(nil)
	if len(b) != headerBlock {
		t.Fatalf("length %d", len(b))
	}
	if got, ok := parseHeader(b); !ok || got != want {
		t.Fatalf("got %+v %v", got, ok)
	}
	for n := range headerBytes {
		if _, ok := parseHeader(b[:n]); ok {
			t.Errorf("good when cut at %d", n)
		}
	}
	for bit := range headerBytes * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, ok := parseHeader(b); ok {
			t.Errorf("good with bit %d flipped", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// TestSeeds checks that neighbors do not share a seed.
func TestSeeds(t *testing.T) {
	seen := map[uint32]uint64{}
	for n := range uint64(10000) {
		s := seedOf(testID, n)
		if m, ok := seen[s]; ok {
			t.Fatalf("segments %d and %d share a seed", m, n)
		}
		seen[s] = n
	}
	if seedOf([16]byte{1}, 1) == seedOf([16]byte{2}, 1) {
		t.Fatal("two logs share a seed")
	}
}

// TestChainRules builds batches that are good but for one rule.
func TestChainRules(t *testing.T) {
	seg := &segment{number: 1, size: 1 << 16, seed: seedOf(testID, 1)}
	build := func(prev, seq uint64, data string, edit func(h *batch, r *record)) []byte {
		h := batch{records: 1, seq: seq, prev: prev, floor: 1}
		r := record{typ: recordEntry, batch: uint32(seq), copyset: 1, index: 1, term: 1}
		edit(&h, &r)
		b := r.append(make([]byte, batchHeader), []byte(data), seg.seed)
		_, h.digest = digestOf(b)
		h.length = uint32(len(b))
		h.put(b, seg.seed)
		return b
	}
	same := func(*batch, *record) {}
	mixed := build(4, 5, "one", same)
	copy(mixed[batchHeader:], build(4, 5, "two", same)[batchHeader:])
	cut := build(4, 5, "one", same)
	for name, c := range map[string]struct {
		b    []byte
		good bool
	}{
		"good":                    {build(4, 5, "one", same), true},
		"sequence jumps":          {build(4, 1<<40, "one", same), true},
		"follows another batch":   {build(3, 5, "one", same), false},
		"sequence falls":          {build(4, 4, "one", same), false},
		"records of another life": {mixed, false},
		"record of another batch": {build(4, 5, "one", func(_ *batch, r *record) { r.batch = 9 }), false},
		"record is missing":       {build(4, 5, "one", func(h *batch, _ *record) { h.records = 2 }), false},
		"at another offset":       {build(4, 5, "one", func(h *batch, _ *record) { h.offset = 8 }), false},
		"behind the end":          {cut[:len(cut)-8], false},
	} {
		w := chain{seg: seg, buf: c.b, seq: 4}
		n := 0
		err := w.walk(func(*segment, uint32, record, []byte) error { n++; return nil })
		if err != nil || (n == 1) != c.good || (w.off == len(c.b)) != c.good {
			t.Errorf("%s: %d records, %v", name, n, err)
		}
	}
}

// FuzzWalk gives recovery any bytes for a segment.
func FuzzWalk(f *testing.F) {
	l := Log{}
	l.active = &segment{number: 1, size: 1 << 16, seed: seedOf(testID, 1)}
	l.nextSeq = 1
	l.begin()
	g := &Group{id: 1}
	l.steps = []step{{g: g, entries: run(1, 3, 1, 20), save: true}, {g: g, reset: true}, {g: g, remove: true}}
	for i := range l.steps {
		l.encode(&l.steps[i])
	}
	fs := vfs.NewMem()
	file, err := fs.Create("segment")
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(l.out.Open(fs, "segment", file, 0), l.write(), l.out.Close(), file.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(l.buf), uint32(0))
	f.Add(bytes.Clone(l.buf), uint32(100))
	f.Add(l.buf[:70], uint32(9))
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, flip uint32) {
		if n := uint32(len(b)) * 8; flip > 0 && n > 0 {
			b = bytes.Clone(b)
			b[flip%n/8] ^= 1 << (flip % 8)
		}
		c := chain{seg: l.active, buf: b}
		r := recovery{l: &Log{}, groups: map[layout.CopysetID]*builder{}}
		if err := c.walk(r.apply); err == nil {
			_, _ = c.judge()
		}
		if c.off > len(b) {
			t.Fatalf("walked to %d of %d", c.off, len(b))
		}
	})
}

package sanitize

import (
	"bytes"
	"math"
	"testing"
)

func TestParseOverwrite(t *testing.T) {
	for _, test := range []struct {
		list    []byte
		at, bit int
	}{
		{[]byte{0x21, 0, 0, 1, 9}, 0, 6}, // TEST
		{[]byte{0x41, 0, 0, 1, 9}, 0, 6},
		{[]byte{0x80, 0, 0, 1, 9}, 0, 4}, // no pass
		{[]byte{0x01, 1, 0, 1, 9}, 1, 7},
		{[]byte{0x01, 0, 0, 0, 9}, 2, 7},
		{[]byte{0x01, 0, 0, 2, 9}, 2, 7},
		{[]byte{0x01, 0, 1, 1, 9}, 2, 7},
	} {
		if _, at, bit, ok := ParseOverwrite(test.list, 8); ok || at != test.at || bit != test.bit {
			t.Errorf("% X: %d, %d, %v", test.list, at, bit, ok)
		}
	}
	o, _, _, ok := ParseOverwrite([]byte{0x9F, 0, 0, 3, 1, 2, 3}, 8)
	if !ok || o.Passes != 31 || !o.Invert || !bytes.Equal(o.Block, []byte{1, 2, 3, 1, 2, 3, 1, 2}) {
		t.Errorf("%+v", o)
	}
	p := make([]byte, 16)
	o.Fill(p, 0)
	if !bytes.Equal(p, []byte{1, 2, 3, 1, 2, 3, 1, 2, 1, 2, 3, 1, 2, 3, 1, 2}) {
		t.Errorf("% X", p)
	}
	o.Fill(p, 1)
	if !bytes.Equal(p[:9], []byte{254, 253, 252, 254, 253, 252, 254, 253, 254}) {
		t.Errorf("% X", p)
	}
	if Fits(4, 8) || !Fits(5, 8) || !Fits(12, 8) || Fits(13, 8) {
		t.Error("lengths")
	}
}

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		done, total uint64
		want        uint16
	}{
		{0, 10, 0},
		{5, 10, 32768},
		{10, 10, 65535},
		{11, 10, 65535},
		{0, 0, 65535},
		{math.MaxUint64 - 1, math.MaxUint64, 65535},
		{1 << 62, 1 << 63, 32768},
	} {
		if got := ProgressOf(c.done, c.total); got != c.want {
			t.Errorf("%d of %d: %d, want %d", c.done, c.total, got, c.want)
		}
	}
}

// FuzzParseOverwrite: any list that fits is refused at a place in it, or gives an order that fills a block.
func FuzzParseOverwrite(f *testing.F) {
	f.Add([]byte{0x01, 0, 0, 1, 9})
	f.Add([]byte{0x9F, 0, 0, 3, 1, 2, 3})
	f.Fuzz(func(t *testing.T, list []byte) {
		if !Fits(len(list), 512) {
			return
		}
		o, at, _, ok := ParseOverwrite(list, 512)
		if !ok {
			if at < 0 || at > 3 {
				t.Fatal(at)
			}
			return
		}
		p := make([]byte, 1024)
		o.Fill(p, 1)
		if len(o.Block) != 512 || o.Passes < 1 || o.Passes > 31 || !bytes.Equal(p[:512], p[512:]) {
			t.Fatalf("%+v", o)
		}
	})
}

package unmap

import (
	"encoding/binary"
	"slices"
	"testing"
)

func list(pairs ...uint64) []byte {
	p := []byte{0, 0, 0, 0, 0, 0, 0, 0}
	for i := 0; i < len(pairs); i += 2 {
		p = binary.BigEndian.AppendUint64(p, pairs[i])
		p = binary.BigEndian.AppendUint32(p, uint32(pairs[i+1]))
		p = append(p, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-Header))
	return p
}

func TestRuns(t *testing.T) {
	for _, test := range []struct {
		list []byte
		want []Range
	}{
		{list(), nil},
		{list(0, 1, 1, 1, 2, 3), []Range{{0, 5}}},
		{list(5, 1, 0, 5), []Range{{5, 1}, {0, 5}}},
		{list(8, 0, 3, 1, 4, 0, 4, 2), []Range{{3, 3}}},
		{list(0, 0), nil},
	} {
		var got []Range
		Parse(test.list).Runs(func(r Range) bool { got = append(got, r); return true })
		if !slices.Equal(got, test.want) {
			t.Errorf("% X: %v, want %v", test.list, got, test.want)
		}
	}
	n := 0
	Parse(list(0, 1, 5, 1)).Runs(func(Range) bool { n++; return false })
	if n != 1 {
		t.Errorf("goes on %d times", n)
	}
}

// FuzzParse: the blocks of a list that fits lie within the limits, and the runs are all of them; a fault lies in the list.
func FuzzParse(f *testing.F) {
	f.Add(list(0, 8, 3, 9))
	f.Add(list(1<<64-1, 1))
	f.Add(list(90, 11)[:20])
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < Header {
			return
		}
		l := Parse(p)
		limits := Limits{Descriptors: 3, Blocks: 50, Capacity: 100}
		if fault := l.Check(limits); fault != nil {
			if fault.At < 2 || fault.At >= len(p) {
				t.Fatalf("%+v of %d bytes", fault, len(p))
			}
			return
		}
		var want, got uint64
		fits := func(r Range) {
			if r.LBA > limits.Capacity || r.Blocks > limits.Capacity-r.LBA { // without a sum that could overflow
				t.Fatalf("%+v", r)
			}
		}
		for i := range len(l) / descriptor {
			fits(l.at(i))
			want += l.at(i).Blocks
		}
		l.Runs(func(r Range) bool {
			if fits(r); r.Blocks == 0 {
				t.Fatalf("%+v", r)
			}
			got += r.Blocks
			return true
		})
		if got != want || got > limits.Blocks {
			t.Fatalf("%d blocks of %d", got, want)
		}
	})
}

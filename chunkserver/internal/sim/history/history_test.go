package history

import (
	"slices"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
)

func TestValues(t *testing.T) {
	p := make([]byte, 3*copyset.SectorSize)
	Fill(p[copyset.SectorSize:], 7)
	if vs, ok := Values(p); !ok || !slices.Equal(vs, []uint32{0, 7, 7}) {
		t.Errorf("%v, %v", vs, ok)
	}
	for _, at := range []int{0, 8, copyset.SectorSize - 1, copyset.SectorSize, 2 * copyset.SectorSize, len(p) - 1} {
		p[at] ^= 1
		if vs, ok := Values(p); ok {
			t.Errorf("byte %d is inverted, and these are %v", at, vs)
		}
		p[at] ^= 1
	}
}

func write(call, ret uint64, first, n int, v uint32) *Op {
	return &Op{Kind: copyset.OpWrite, First: first, N: n, Value: v, Call: call, Ret: ret, Out: copyset.Outcome{Code: copyset.OK}}
}

func read(call, ret uint64, first int, seen ...uint32) *Op {
	return &Op{First: first, N: len(seen), Seen: seen, Call: call, Ret: ret, Out: copyset.Outcome{Code: copyset.OK}}
}

// swap is a compare and write of one sector.
func swap(call, ret uint64, first int, expect, v uint32, code copyset.Code) *Op {
	return &Op{
		Kind: copyset.OpCompareAndWrite, First: first, N: 1, Expect: []uint32{expect}, Value: v, Call: call, Ret: ret,
		Out: copyset.Outcome{Code: code},
	}
}

func abandoned(o *Op) *Op {
	o.Maybe = true
	return o
}

func TestCheck(t *testing.T) {
	clear8 := func(call, ret uint64, kind copyset.Op, first, n int) *Op {
		o := write(call, ret, first, n, 0)
		o.Kind = kind
		return o
	}
	for _, c := range []struct {
		name string
		ok   bool
		ops  []*Op
	}{
		{"nothing", true, nil},
		{"read after write", true, []*Op{write(1, 2, 3, 2, 7), read(3, 4, 2, 0, 7, 7, 0)}},
		{"lost write", false, []*Op{write(1, 2, 3, 2, 7), read(3, 4, 3, 0)}},
		{"half a write", false, []*Op{write(1, 9, 3, 2, 7), read(3, 4, 3, 7, 0)}},
		{"a write under way is there or not", true, []*Op{write(1, 9, 0, 1, 7), read(2, 3, 0, 0), read(4, 5, 0, 7)}},
		{"and does not go back", false, []*Op{write(1, 9, 0, 1, 7), read(2, 3, 0, 7), read(4, 5, 0, 0)}},
		{"the older of two", false, []*Op{write(1, 2, 0, 1, 7), write(3, 4, 0, 1, 8), read(5, 6, 0, 7)}},
		{"abandoned and there", true, []*Op{abandoned(write(1, 4, 0, 1, 7)), read(5, 6, 0, 7)}},
		{"abandoned and not there", true, []*Op{abandoned(write(1, 4, 0, 1, 7)), read(5, 6, 0, 0)}},
		{"abandoned, and there later", false, []*Op{abandoned(write(1, 4, 0, 1, 7)), read(5, 6, 0, 0), read(7, 8, 0, 7)}},
		{"compare", true, []*Op{write(1, 2, 0, 1, 7), swap(3, 4, 0, 7, 8, copyset.OK), read(5, 6, 0, 8)}},
		{"compare with what is not there", false, []*Op{write(1, 2, 0, 1, 7), swap(3, 4, 0, 6, 8, copyset.OK)}},
		{"miscompare", true, []*Op{write(1, 2, 0, 1, 7), swap(3, 4, 0, 6, 8, copyset.Miscompare), read(5, 6, 0, 7)}},
		{"miscompare with what is there", false, []*Op{write(1, 2, 0, 1, 7), swap(3, 4, 0, 7, 8, copyset.Miscompare)}},
		{
			"two compares with the same", false,
			[]*Op{write(1, 2, 0, 1, 7), swap(3, 8, 0, 7, 8, copyset.OK), swap(4, 7, 0, 7, 9, copyset.OK)},
		},
		{
			"an abandoned compare that did not fit", true,
			[]*Op{write(1, 2, 0, 1, 7), abandoned(swap(3, 4, 0, 6, 8, copyset.OK)), read(5, 6, 0, 7)},
		},
		{"a discard of whole blocks", true, []*Op{
			write(1, 2, 0, 2*BlockSectors, 7), clear8(3, 4, copyset.OpDiscard, 1, 2*BlockSectors-1), read(5, 6, BlockSectors-1, 7, 0),
		}},
		{"zeroes anywhere", true, []*Op{
			write(1, 2, 0, 3, 7), clear8(3, 4, copyset.OpWriteZeroes, 1, 1), read(5, 6, 0, 7, 0, 7),
		}},
	} {
		if got := Check(c.ops); (got == porcupine.Ok) != c.ok {
			var b strings.Builder
			for _, o := range c.ops {
				b.WriteString(o.String() + "\n")
			}
			t.Errorf("%s: %v\n%s", c.name, got, b.String())
		}
	}
}

package extent

import "testing"

func TestFragments(t *testing.T) {
	var p Fragments
	for i, x := range []struct {
		block                 uint32
		at                    Addr
		blocks, pieces, least int
	}{
		{5, 100, 1, 1, 1},
		{6, 101, 2, 1, 1},
		{7, 200, 3, 2, 1}, // elsewhere in the file
		{9, 201, 4, 3, 2}, // elsewhere in the chunk
		{10, 202, 5, 3, 2},
		{11, 201, 6, 4, 2}, // backwards
	} {
		p.Add(x.block, x.at)
		if p.Blocks != x.blocks || p.Pieces != x.pieces || p.Least != x.least {
			t.Errorf("%d: %+v", i, p)
		}
	}
}

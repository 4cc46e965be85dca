package replicas

import (
	"reflect"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

func TestJudge(t *testing.T) {
	a, b, c := [16]byte{1}, [16]byte{2}, [16]byte{3}
	ids := func(p ...layout.PeerID) []layout.PeerID { return p }
	voters := ids(1, 2, 3)
	for _, x := range []struct {
		name    string
		voters  []layout.PeerID
		digests []Digest
		want    Verdict
	}{
		{"nobody", voters, nil, Verdict{}},
		{"one", voters, []Digest{{1, 9, 257, a}}, Verdict{}},
		{"all equal", voters, []Digest{{3, 9, 257, a}, {1, 9, 257, a}, {2, 9, 257, a}}, Verdict{9, ids(1, 2, 3), false, nil}},
		{"one is odd", voters, []Digest{{1, 9, 257, a}, {2, 9, 257, b}, {3, 9, 257, a}}, Verdict{9, ids(1, 2, 3), true, ids(2)}},
		{"two of three differ: nobody knows", voters, []Digest{{1, 9, 257, a}, {2, 9, 257, b}}, Verdict{9, ids(1, 2), true, nil}},
		{"all differ: nobody knows", voters, []Digest{{1, 9, 257, a}, {2, 9, 257, b}, {3, 9, 257, c}}, Verdict{9, ids(1, 2, 3), true, nil}},
		{
			"a later index counts", voters,
			[]Digest{{1, 12, 257, a}, {2, 9, 257, b}, {3, 12, 257, a}},
			Verdict{12, ids(1, 3), false, nil},
		},
		{
			"a digest that only one has yet", voters,
			[]Digest{{1, 12, 257, a}, {2, 9, 257, b}, {3, 9, 257, b}},
			Verdict{9, ids(2, 3), false, nil},
		},
		{"another format is not compared", voters, []Digest{{1, 9, 258, a}, {2, 9, 257, b}, {3, 9, 257, b}}, Verdict{9, ids(2, 3), false, nil}},
		{
			"a learner has no voice", voters,
			[]Digest{{1, 9, 257, a}, {2, 9, 257, b}, {4, 9, 257, a}},
			Verdict{9, ids(1, 2, 4), true, nil},
		},
		{
			"a learner can be odd", voters,
			[]Digest{{1, 9, 257, a}, {2, 9, 257, a}, {4, 9, 257, b}},
			Verdict{9, ids(1, 2, 4), true, ids(4)},
		},
		{
			"three of five", ids(1, 2, 3, 4, 5),
			[]Digest{{1, 9, 257, a}, {2, 9, 257, b}, {3, 9, 257, a}, {4, 9, 257, c}, {5, 9, 257, a}},
			Verdict{9, ids(1, 2, 3, 4, 5), true, ids(2, 4)},
		},
		{
			"half of four is no majority", ids(1, 2, 3, 4),
			[]Digest{{1, 9, 257, a}, {2, 9, 257, a}, {3, 9, 257, b}},
			Verdict{9, ids(1, 2, 3), true, nil},
		},
	} {
		if got := Judge(x.voters, x.digests); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: %+v, want %+v", x.name, got, x.want)
		}
	}
}

package alua

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestAppend(t *testing.T) {
	for _, test := range []struct {
		name   string
		groups []Group
		format byte
		want   string
	}{
		{"none", nil, LengthOnly, "00000000"},
		{"one", []Group{{Tag: 0x0102, Port: 0x0304}}, LengthOnly, "0000000C 00 0B 0102 00 00 00 01 0000 0304"},
		{"extended, one", []Group{{Tag: 1, Port: 1, State: Optimized}}, Extended, "00000010 10 0A 0000 00 0B 0001 00 00 00 01 0000 0001"},
		{
			"extended, all states",
			[]Group{{1, 1, NonOptimized}, {2, 2, Optimized}, {0xFFFF, 0xFFFE, Unavailable}},
			Extended,
			`00000028 10 0A 0000
			01 0B 0001 00 00 00 01 0000 0001
			00 0B 0002 00 00 00 01 0000 0002
			03 0B FFFF 00 00 00 01 0000 FFFE`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(test.want))
			got := Append([]byte{9}, test.groups, test.format)
			if err != nil || got[0] != 9 || !bytes.Equal(got[1:], want) {
				t.Errorf("got  % X\nwant % X (%v)", got[1:], want, err)
			}
		})
	}
}

package sense

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestFormats(t *testing.T) {
	for _, test := range []struct {
		name              string
		d                 Data
		fixed, descriptor string
	}{
		{
			"plain",
			Data{Code: New(6, 0x29, 0)},
			"70 00 06 00000000 0A 00000000 2900 00 000000",
			"72 06 2900 000000 00",
		},
		{
			"field",
			Data{Code: New(5, 0x24, 0), Field: InCDB(2, 7)},
			"70 00 05 00000000 0A 00000000 2400 00 CF0002",
			"72 05 2400 000000 08 02 06 0000 CF0002 00",
		},
		{
			"field without bit, in data",
			Data{Code: New(5, 0x26, 0), Field: InData(0x123, -1)},
			"70 00 05 00000000 0A 00000000 2600 00 800123",
			"72 05 2600 000000 08 02 06 0000 800123 00",
		},
		{
			"progress",
			Data{Code: New(2, 0x04, 0x1B), Field: Progress(0x8001)},
			"70 00 02 00000000 0A 00000000 041B 00 808001",
			"72 02 041B 000000 08 02 06 0000 808001 00",
		},
		{
			"segment",
			Data{Code: New(10, 0x0D, 2), Field: InSegment(6), Specific: 3, HasSpecific: true},
			"70 00 0A 00000000 0A 00000003 0D02 00 A00006",
			"72 0A 0D02 000000 14 01 0A 00 00 0000000000000003 02 06 0000 A00006 00",
		},
		{
			"information",
			Data{Code: New(0xE, 0x1D, 0), Info: 0x01020304, HasInfo: true},
			"F0 00 0E 01020304 0A 00000000 1D00 00 000000",
			"72 0E 1D00 000000 0C 00 0A 80 00 0000000001020304",
		},
		{
			"long information and field",
			Data{Code: New(3, 0x11, 0), Info: 0x0102030405, HasInfo: true, Field: InCDB(1, 0)},
			"70 00 03 00000000 0A 00000000 1100 00 C80001",
			"72 03 1100 000000 14 00 0A 80 00 0000000102030405 02 06 0000 C80001 00",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, descriptor := range []bool{false, true} {
				p := bytes.Repeat([]byte{0xA5}, Max)
				p = p[:test.d.Put(p, descriptor)]
				want := test.fixed
				if descriptor {
					want = test.descriptor
				}
				w, err := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
				if err != nil || !bytes.Equal(p, w) {
					t.Errorf("got % X, want % X (%v)", p, w, err)
				}
				if CodeOf(p) != test.d.Code {
					t.Errorf("comes back as %v", CodeOf(p))
				}
			}
		})
	}
}

func TestCode(t *testing.T) {
	code := New(0x15, 0x24, 0x01) // the key has 4 bits
	if code.Key() != 5 || code.ASC() != 0x24 || code.ASCQ() != 1 || code.String() != "05/24/01" {
		t.Error(code)
	}
}

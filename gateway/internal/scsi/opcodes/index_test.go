package opcodes

import "testing"

func TestIndex(t *testing.T) {
	self := func(c *Command) Command { return *c }
	x := NewIndex([]Command{plain, action}, self)
	for _, test := range []struct {
		cdb   []byte
		found *Command
		known bool
	}{
		{[]byte{0}, &x.All[0], true},
		{[]byte{0, 0xFF}, &x.All[0], true},
		{[]byte{0xA3}, nil, true},
		{[]byte{0xA3, 0xEC}, &x.All[1], true},
		{[]byte{0xA3, 0x0D}, nil, true},
		{[]byte{1, 0}, nil, false},
	} {
		if o, known := x.Find(test.cdb); o != test.found || known != test.known {
			t.Errorf("% X: %v, %v", test.cdb, o, known)
		}
	}
	for _, test := range []struct {
		option, opcode byte
		action         uint16
		want           string // "" when it can not be
	}{
		{1, 0, 0, "00 03 0006 000000000000"},
		{1, 0, 7, "00 03 0006 000000000000"},
		{3, 0, 7, "00 01 0000"},
		{2, 0, 0, ""},
		{1, 0xA3, 0, ""},
		{2, 0xA3, 0x0C, "00 03 000C A30C87FFFFFF010203040000"},
		{3, 0xA3, 0x2C, "00 01 0000"},
		{3, 9, 0, "00 01 0000"},
		{4, 0, 0, ""},
	} {
		p, ok := x.AppendReport(nil, test.option, test.opcode, test.action, false)
		if ok != (test.want != "") {
			t.Errorf("%+v: %v", test, ok)
		}
		want(t, p, test.want)
	}
	defer func() {
		if recover() == nil {
			t.Error("a code that stands twice is accepted")
		}
	}()
	NewIndex([]Command{plain, plain}, self)
}

func TestBadBit(t *testing.T) {
	for _, test := range []struct {
		cdb     []byte
		at, bit int
		bad     bool
	}{
		{[]byte{0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4, 0, 0xFF}, 0, 0, false},
		{[]byte{0xA3, 0x4C, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 0, false}, // ignored
		{[]byte{0xA3, 0x8C, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 1, 7, true},
		{[]byte{0xA3, 0x0C, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 2, 4, true},
		{[]byte{0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 10, 0, true},
	} {
		if at, bit, bad := action.BadBit(test.cdb, 0x40); at != test.at || bit != test.bit || bad != test.bad {
			t.Errorf("% X: %d, %d, %v", test.cdb, at, bit, bad)
		}
	}
}

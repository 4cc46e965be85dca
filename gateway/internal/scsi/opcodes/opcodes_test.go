package opcodes

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

var (
	plain  = Command{Usage: []byte{0x00, 0, 0, 0, 0, 0}, Timeout: 10}
	action = Command{Usage: []byte{0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4, 0, 0}, Action: true, Timeout: 60}
)

func want(t *testing.T, got []byte, s string) {
	t.Helper()
	w, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil || !bytes.Equal(got, w) {
		t.Errorf("got  % X\nwant % X (%v)", got, w, err)
	}
}

func TestAppend(t *testing.T) {
	all := slices.Values([]Command{plain, action})
	prefix := []byte{0xEE}
	want(t, AppendAll(prefix, all, false), "EE 00000010 00 00 0000 00 00 0006 A3 00 000C 00 01 000C")
	want(t, AppendAll(nil, all, true), `00000028 00 00 0000 00 02 0006 000A 00 00 00000000 0000000A `+
		`A3 00 000C 00 03 000C 000A 00 00 00000000 0000003C`)
	want(t, AppendNone(nil), "00 01 0000")
	want(t, plain.Append(nil, false), "00 03 0006 000000000000")
	want(t, action.Append(nil, true), "00 83 000C A30C87FFFFFF010203040000 000A 00 00 00000000 0000003C")
}

package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

func TestReportSupportedOperationCodes(t *testing.T) {
	const all, withTimeouts = "A3 0C 00 00 0000 0000FFFF 00 00", "A3 0C 80 00 0000 0000FFFF 00 00"
	r := disk512(t)
	type key struct {
		opcode byte
		action uint16
	}
	seen := map[key]bool{}
	for _, timeouts := range []bool{false, true} {
		cdb, step := all, 8
		if timeouts {
			cdb, step = withTimeouts, 20
		}
		data := r.good(cdb)
		if n := int(binary.BigEndian.Uint32(data)); n != len(data)-4 || n%step != 0 || n/step != len(allOperations.All) {
			t.Fatalf("length %d of %d", n, len(data))
		}
		for d := data[4:]; len(d) > 0; d = d[step:] {
			action := binary.BigEndian.Uint16(d[2:])
			seen[key{d[0], action}] = true
			flags := byte(0)
			if bytes.IndexByte([]byte{0x48, 0x5E, 0x5F, 0x83, 0x84, 0x9E, 0xA3}, d[0]) >= 0 {
				flags |= 1
			} else if action != 0 {
				t.Errorf("%02X: service action %d without SERVACTV", d[0], action)
			}
			if timeouts {
				flags |= 2
				wantBytes(t, d[8:16], "000A 00 00 00000000")
			}
			size := map[byte]uint16{0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[d[0]>>5]
			if d[1] != 0 || d[4] != 0 || d[5] != flags || binary.BigEndian.Uint16(d[6:]) != size {
				t.Errorf("descriptor % X", d[:step])
			}
		}
	}
	for _, must := range []key{
		{0x00, 0},
		{0x03, 0},
		{0x07, 0},
		{0x08, 0},
		{0x0A, 0},
		{0x12, 0},
		{0x15, 0},
		{0x16, 0},
		{0x17, 0},
		{0x1A, 0},
		{0x1B, 0},
		{0x1D, 0},
		{0x25, 0},
		{0x28, 0},
		{0x2A, 0},
		{0x2E, 0},
		{0x2F, 0},
		{0x34, 0},
		{0x35, 0},
		{0x37, 0},
		{0x41, 0},
		{0x42, 0},
		{0x48, 0x01},
		{0x48, 0x02},
		{0x48, 0x1F},
		{0x4D, 0},
		{0x55, 0},
		{0x56, 0},
		{0x57, 0},
		{0x5A, 0},
		{0x5E, 0},
		{0x5E, 1},
		{0x5E, 2},
		{0x5E, 3},
		{0x5F, 0},
		{0x5F, 1},
		{0x5F, 2},
		{0x5F, 3},
		{0x5F, 4},
		{0x5F, 5},
		{0x5F, 6},
		{0x5F, 7},
		{0x83, 0x00},
		{0x83, 0x10},
		{0x83, 0x11},
		{0x84, 0x00},
		{0x84, 0x03},
		{0x84, 0x04},
		{0x84, 0x07},
		{0x88, 0},
		{0x89, 0},
		{0x8A, 0},
		{0x8B, 0},
		{0x8E, 0},
		{0x8F, 0},
		{0x90, 0},
		{0x91, 0},
		{0x93, 0},
		{0x9C, 0},
		{0x9E, 0x10},
		{0x9E, 0x12},
		{0xA0, 0},
		{0xA3, 0x0A},
		{0xA3, 0x0C},
		{0xA3, 0x0D},
		{0xA8, 0},
		{0xAA, 0},
		{0xAE, 0},
		{0xAF, 0},
		{0xB7, 0},
	} {
		if !seen[must] {
			t.Errorf("%02X/%02X is not reported", must.opcode, must.action)
		}
		delete(seen, must)
	}
	if len(seen) != 0 {
		t.Errorf("reported, but not expected: %v", seen)
	}
	if n := len(r.good("A3 0C 00 00 0000 00000007 00 00")); n != 7 {
		t.Errorf("allocation length 7: %d bytes", n)
	}
}

func TestReportOneOperationCode(t *testing.T) {
	const one = "A3 0C %02X %02X %04X 00000100 00 00"
	r := disk512(t)
	for _, test := range []struct {
		option, opcode byte
		action         uint16
		want           string // "" for 05/24/00
	}{
		{1, 0x00, 0, "00 03 0006 00 00 00 00 00 00"},
		{1, 0x1D, 0, "00 03 0006 1D 17 00 00 00 00"},
		{1, 0x28, 0, "00 03 000A 28 18 FFFFFFFF 3F FFFF 00"},
		{0x81, 0x28, 0, "00 83 000A 28 18 FFFFFFFF 3F FFFF 00 000A 00 00 00000000 0000003C"},
		{1, 0x28, 9, "00 03 000A 28 18 FFFFFFFF 3F FFFF 00"}, // the service action is not looked at
		{1, 0x42, 0, "00 03 000A 42 00 00000000 3F FFFF 00"},
		{1, 0x93, 0, "00 03 0010 93 09 FFFFFFFFFFFFFFFF FFFFFFFF 3F 00"},
		{1, 0x89, 0, "00 03 0010 89 18 FFFFFFFFFFFFFFFF 000000 FF 3F 00"},
		{1, 0x9E, 0x10, ""},
		{1, 0x5E, 0, ""},
		{2, 0x5E, 3, "00 03 000A 5E 03 0000000000 FFFF 00"},
		{2, 0x5F, 6, "00 03 000A 5F 06 FF 0000 FFFFFFFF 00"},
		{1, 0x5D, 0, "00 01 0000"},
		{0x81, 0x5D, 0, "00 01 0000"},
		{2, 0x28, 0, ""},
		{2, 0x9E, 0x10, "00 03 0010 9E 10 0000000000000000 FFFFFFFF 00 00"},
		{2, 0x9E, 0x12, "00 03 0010 9E 12 FFFFFFFFFFFFFFFF FFFFFFFF 00 00"},
		{2, 0x9E, 0x13, "00 01 0000"},
		{2, 0x9E, 0x110, "00 01 0000"},
		{2, 0x5D, 0, "00 01 0000"},
		{2, 0x5E, 4, "00 01 0000"},
		{2, 0xA3, 0x0A, "00 03 000C A3 EA 00000000 FFFFFFFF 00 00"},
		{2, 0xA4, 0x0A, "00 01 0000"}, // SET TARGET PORT GROUPS
		{2, 0xA3, 0x0D, "00 03 000C A3 0D 80 000000 FFFFFFFF 00 00"},
		{3, 0x28, 0, "00 03 000A 28 18 FFFFFFFF 3F FFFF 00"},
		{3, 0x28, 1, "00 01 0000"},
		{3, 0x9E, 0x10, "00 03 0010 9E 10 0000000000000000 FFFFFFFF 00 00"},
		{4, 0x28, 0, ""},
		{7, 0x28, 0, ""},
	} {
		cdb := fmt.Sprintf(one, test.option, test.opcode, test.action)
		if test.want == "" {
			wantBytes(t, r.sense(InvalidFieldInCDB, cdb).Sense()[15:18], "CA0002")
			continue
		}
		wantBytes(t, r.good(cdb), test.want)
	}
}

// What the table says of a command is what Classify says and what the frame does.
func TestTable(t *testing.T) {
	for i := range allOperations.All {
		op := &allOperations.All[i]
		if n := map[byte]int{0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[op.opcode()>>5]; len(op.usage) != n {
			t.Errorf("%s: CDB of %d bytes", op.name, len(op.usage))
		}
		if op.usage[len(op.usage)-1] != 0 || op.timeout == 0 || op.run == nil {
			t.Errorf("%s: CONTROL, timeout or run", op.name)
		}
		if op.traits&writes != 0 && op.traits&medium == 0 || op.traits&dataIn != 0 && op.traits&dataOut != 0 {
			t.Errorf("%s: traits %b", op.name, op.traits)
		}
		if op.ignored&op.usage[1] != 0 {
			t.Errorf("%s: ignores what it looks at", op.name)
		}
		class := Classify(op.usage)
		if class.Medium != (op.traits&medium != 0) || class.Writes != (op.traits&(writes|copies) != 0) || Name(op.usage) != op.name {
			t.Errorf("%s: %+v", op.name, class)
		}
		want := DirectionNone
		if op.traits&dataIn != 0 {
			want = DirectionIn
		} else if op.traits&dataOut != 0 {
			want = DirectionOut
		}
		if class.Direction != want {
			t.Errorf("%s: direction %v", op.name, class.Direction)
		}
	}
	for _, cdb := range [][]byte{nil, {}, {0xFF}, {0x9E}, {0x9E, 0x1F}} {
		if Classify(cdb) != (Class{}) || Name(cdb) != "" {
			t.Errorf("% X is known", cdb)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a code that stands twice is accepted")
		}
	}()
	newOperationList([]operation{{name: "one", usage: make([]byte, 6)}, {name: "two", usage: make([]byte, 6)}})
}

func TestReportSupportedTaskManagementFunctions(t *testing.T) {
	r := disk512(t)
	wantBytes(t, r.good("A3 0D 00 000000 00000010 00 00"), "D8 00 00 00")
	wantBytes(t, r.good("A3 0D 80 000000 00000010 00 00"), "D8 00 00 0C 00000000 00000000 00000000")
	wantBytes(t, r.good("A3 0D 80 000000 00000004 00 00"), "D8 00 00 0C")
	r.sense(InvalidFieldInCDB, "A3 0D 00 000000 00000003 00 00")
}

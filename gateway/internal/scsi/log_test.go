package scsi

import (
	"context"
	"testing"
)

// knowing is a memory that knows what its volume uses.
type knowing struct {
	*memory
	used, available int64
}

func (k *knowing) Space(context.Context) (used, available int64) { return k.used, k.available }

func TestLogSense(t *testing.T) {
	r := disk512(t)
	for _, test := range []struct{ cdb, want string }{
		{"4D 00 40 00 00 0000 00FF 00", "80 00 0004 00 0C 0D 2F"},
		{"4D 00 40 FF 00 0000 00FF 00", "C0 FF 0010 0000 00FF 0C00 0CFF 0D00 0DFF 2F00 2FFF"},
		{"4D 00 4C 00 00 0000 00FF 00", "8C 00 0000"}, // the store does not tell
		{"4D 00 4C FF 00 0000 00FF 00", "CC FF 0004 0C00 0CFF"},
		{"4D 00 4D 00 00 0000 00FF 00", "8D 00 000C 0000 03 02 00 FF 0001 03 02 00 FF"},
		{"4D 00 0D 00 00 0001 00FF 00", "8D 00 0006 0001 03 02 00 FF"},
		{"4D 00 AF 00 00 0000 00FF 00", "AF 00 0008 0000 03 04 00 00 FF 00"},
		{"4D 00 EF 00 00 0000 0006 00", "AF 00 0008 0000"},
		{"4D 00 40 00 00 0000 0000 00", ""},
	} {
		wantBytes(t, r.good(test.cdb), test.want)
	}
	for cdb, sks := range map[string]string{
		"4D 00 41 00 00 0000 00FF 00": "CD0002",
		"4D 00 7F FF 00 0000 00FF 00": "CD0002",
		"4D 00 40 01 00 0000 00FF 00": "CF0003",
		"4D 00 40 00 00 0001 00FF 00": "CF0005",
		"4D 00 4D 00 00 0002 00FF 00": "CF0005",
		"4D 01 40 00 00 0000 00FF 00": "C80001", // SP
		"4D 02 40 00 00 0000 00FF 00": "C90001", // PPC
		"4D 00 40 00 80 0000 00FF 00": "CF0004",
	} {
		wantBytes(t, r.sense(InvalidFieldInCDB, cdb).Sense()[15:18], sks)
	}

	k := &knowing{memory: r.mem, used: 16<<20 + 1, available: 1<<30 + 1<<23}
	if err := r.luns.Update(Mapping{Unit: r.unit, Backend: k}); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, r.good("4D 00 4C 00 00 0000 00FF 00"), `8C 00 0018
		0001 03 08 00000040 02 000000
		0002 03 08 00000002 01 000000`)
	wantBytes(t, r.good("4D 00 4C 00 00 0002 00FF 00"), "8C 00 000C 0002 03 08 00000002 01 000000")
	k.used = 1 << 62
	wantBytes(t, r.good("4D 00 4C 00 00 0002 00FF 00"), "8C 00 000C 0002 03 08 FFFFFFFF 01 000000")
	k.used, k.available = -1, -1
	wantBytes(t, r.good("4D 00 4C 00 00 0000 00FF 00"), "8C 00 0000")
}

func TestReadDefectData(t *testing.T) {
	r := disk512(t)
	for _, test := range []struct{ cdb, want string }{
		{"37 00 00 00000000 0020 00", "00 00 0000"},
		{"37 E0 1D 00000000 0020 00", "00 1D 0000"},
		{"37 00 10 00000000 0002 00", "00 10"},
		{"B7 00 00000000 00000020 00 00", "00 00 0000 00000000"},
		{"B7 1C 00000000 00000020 00 00", "00 1C 0000 00000000"},
		{"B7 0B 00000000 00000003 00 00", "00 0B 00"},
	} {
		wantBytes(t, r.good(test.cdb), test.want)
	}
	for cdb, sks := range map[string]string{
		"37 00 06 00000000 0020 00":     "CA0002",
		"37 00 07 00000000 0020 00":     "CA0002",
		"37 00 20 00000000 0020 00":     "CD0002",
		"37 01 00 00000000 0020 00":     "C80001",
		"37 00 00 00000001 0020 00":     "C80006",
		"B7 06 00000000 00000020 00 00": "CA0001",
		"B7 00 00000001 00000020 00 00": "CF0002",
		"B7 00 00000000 00000020 01 00": "C8000A",
		"B7 20 00000000 00000020 00 00": "CD0001",
	} {
		wantBytes(t, r.sense(InvalidFieldInCDB, cdb).Sense()[15:18], sks)
	}
}

func TestReassignBlocks(t *testing.T) {
	r := disk512(t)
	r.good("07 00 0000 00 00", fromHex(t, "0000 0000")...)
	if c := r.run("07 00 0000 00 00", fromHex(t, "0000 0008 00000000 00002004")...); c.Transfer != 12 || c.Status != StatusGood {
		t.Error(c.Status, c.Transfer)
	}
	r.good("07 01 0000 00 00", fromHex(t, "00000004 00002004")...)
	r.good("07 02 0000 00 00", fromHex(t, "0000 0008 0000000000002004")...)
	r.good("07 03 0000 00 00", fromHex(t, "00000010 0000000000002004 0000000000000000 FF")...)
	wantBytes(t, r.sense(LBAOutOfRange, "07 00 0000 00 00", fromHex(t, "0000 0008 00000000 00002005")...).Sense()[15:18], "800008")
	r.sense(LBAOutOfRange, "07 02 0000 00 00", fromHex(t, "0000 0008 FFFFFFFFFFFFFFFF")...)
	whole := fromHex(t, "0000 0008 00000000 00002004")
	for n := range whole {
		r.sense(ParameterListLengthError, "07 00 0000 00 00", whole[:n]...)
	}
	r.sense(ParameterListLengthError, "07 00 0000 00 00", fromHex(t, "0000 0006 00000000 0000")...)
	r.sense(ParameterListLengthError, "07 01 0000 00 00", fromHex(t, "FFFFFFFC 00000000 0000")...)
	r.sense(InvalidFieldInCDB, "07 04 0000 00 00", whole...)
	r.sense(InvalidFieldInCDB, "07 00 0100 00 00", whole...)
}

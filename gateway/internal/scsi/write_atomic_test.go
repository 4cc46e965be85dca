package scsi

import (
	"bytes"
	"testing"
)

func TestWriteAtomic(t *testing.T) {
	config := testConfig(64, 512)
	config.Limits.MaxAtomic = 4096
	r := newRig(t, config)
	r.good("9C 18 0000000000000008 0000 0008 3F 00", pattern(4096, 5)...)
	if !bytes.Equal(r.mem.data[4096:8192], pattern(4096, 5)) || len(r.mem.calls) != 1 {
		t.Fatalf("wrong bytes, or not at once: %v", r.mem.calls)
	}
	r.good("9C 00 0000000000000040 0000 0000 00 00")
	r.good("9C 00 0000000000000001 0000 0000 00 00")
	for _, test := range []struct {
		cdb  string
		code SenseCode
		sks  string
	}{
		{"9C 00 0000000000000001 0000 0008 00 00", InvalidFieldInCDB, "CF0002"}, // alignment
		{"9C 00 0000000000000000 0000 0004 00 00", InvalidFieldInCDB, "CF000C"}, // granularity
		{"9C 00 0000000000000000 0000 0010 00 00", InvalidFieldInCDB, "CF000C"}, // maximum
		{"9C 00 0000000000000000 0008 0008 00 00", InvalidFieldInCDB, "CB000B"}, // ATOMIC BOUNDARY
		{"9C 20 0000000000000000 0000 0008 00 00", InvalidFieldInCDB, "CD0001"}, // WRPROTECT
		{"9C 00 0000000000000000 0000 0008 40 00", InvalidFieldInCDB, "CE000E"},
		{"9C 00 0000000000000038 0000 0010 00 00", LBAOutOfRange, "C00002"},
		{"9C 00 FFFFFFFFFFFFFFF8 0000 0008 00 00", LBAOutOfRange, "C00002"},
		{"9C 00 0000000000000041 0000 0000 00 00", LBAOutOfRange, "C00002"},
	} {
		c := r.sense(test.code, test.cdb, fill(8192, 1)...)
		wantBytes(t, c.Sense()[15:18], test.sks)
	}
	r.sense(InvalidFieldInCommandIU, "9C 00 0000000000000000 0000 0008 00 00", fill(3584, 1)...)
	if len(r.mem.calls) != 1 {
		t.Errorf("a refused one wrote: %v", r.mem.calls)
	}

	config.Limits.MaxAtomic = 0
	r = newRig(t, config)
	r.sense(InvalidFieldInCDB, "9C 00 0000000000000000 0000 0001 00 00", fill(512, 1)...)
	wantBytes(t, r.good("12 01 B0 00FF 00")[44:56], "00000000 00000000 00000000")
}

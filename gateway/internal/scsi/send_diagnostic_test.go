package scsi

import "testing"

func TestSendDiagnostic(t *testing.T) {
	r := disk512(t)
	for _, cdb := range []string{"1D 04 00 0000 00", "1D 14 00 0000 00", "1D 07 00 0000 00", "1D 00 00 0000 00"} {
		r.good(cdb)
	}
	for _, bad := range []string{
		"1D 20 00 0000 00", "1D E0 00 0000 00", // short and other self-tests
		"1D 08 00 0000 00", "1D 04 01 0000 00",
		"1D 10 00 0004 00", // a diagnostic page
	} {
		r.sense(InvalidFieldInCDB, bad, 0, 0, 0, 0)
	}
	if len(r.mem.calls) != 0 || r.mem.reads.Load() != 0 {
		t.Error("the medium was used")
	}
}

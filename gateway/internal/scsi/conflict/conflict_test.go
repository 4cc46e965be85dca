package conflict

import (
	"testing"

	"github.com/ashlar-storage/ashlar/storage/reservation"
)

func TestClass(t *testing.T) {
	for _, c := range []struct {
		name   string
		cdb    []byte
		writes bool
		want   reservation.Class
	}{
		{"INQUIRY", []byte{0x12, 0, 0, 0, 0, 0}, false, reservation.Free},
		{"PERSISTENT RESERVE OUT", make10(0x5F), false, reservation.Free},
		{"PERSISTENT RESERVE IN", make10(0x5E), false, reservation.Query},
		{"START STOP UNIT, start", []byte{0x1B, 0, 0, 0, 1, 0}, false, reservation.Query},
		{"START STOP UNIT, stop", []byte{0x1B, 0, 0, 0, 0, 0}, false, reservation.Write},
		{"START STOP UNIT, standby", []byte{0x1B, 0, 0, 0, 0x31, 0}, false, reservation.Write},
		{"READ CAPACITY(16)", append([]byte{0x9E, 0x10}, make([]byte, 14)...), false, reservation.Free},
		{"GET LBA STATUS", append([]byte{0x9E, 0x12}, make([]byte, 14)...), false, reservation.Read},
		{"REPORT TARGET PORT GROUPS", append([]byte{0xA3, 0x0A}, make([]byte, 10)...), false, reservation.Query},
		{"REPORT SUPPORTED OPERATION CODES", append([]byte{0xA3, 0x0C}, make([]byte, 10)...), false, reservation.Read},
		{"EXTENDED COPY", append([]byte{0x83, 0}, make([]byte, 14)...), false, reservation.Write},
		{"POPULATE TOKEN", append([]byte{0x83, 0x10}, make([]byte, 14)...), false, reservation.Read},
		{"SEND DIAGNOSTIC", []byte{0x1D, 4, 0, 0, 0, 0}, false, reservation.Write},
		{"MODE SELECT(10)", make10(0x55), false, reservation.Write},
		{"MODE SENSE(10)", make10(0x5A), false, reservation.Read},
		{"READ(10)", make10(0x28), false, reservation.Read},
		{"WRITE(10)", make10(0x2A), true, reservation.Write},
	} {
		if got := Class(c.cdb, c.writes); got != c.want {
			t.Errorf("%s: class %d, want %d", c.name, got, c.want)
		}
	}
}

func make10(opcode byte) []byte { return append([]byte{opcode}, make([]byte, 9)...) }

func TestPermit(t *testing.T) {
	a, b := reservation.Nexus{Initiator: "iqn.a", Port: 1}, reservation.Nexus{Initiator: "iqn.b", Port: 1}
	s := &reservation.State{Type: reservation.WriteExclusive, Holder: a, Registrations: []reservation.Registration{{Nexus: a, Key: 1}}}
	for c := reservation.Read; c <= reservation.Free; c++ {
		if !NewPermit(s, a).Allows(c) || NewPermit(s, b).Allows(c) != (c != reservation.Write) {
			t.Errorf("class %d", c)
		}
	}
}

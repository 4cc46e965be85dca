package scsi

import (
	"strings"
	"testing"
)

func TestStatusNames(t *testing.T) {
	for status, want := range map[Status]string{
		0: "GOOD", 2: "CHECK CONDITION", 4: "CONDITION MET", 8: "BUSY", 0x18: "RESERVATION CONFLICT",
		0x28: "TASK SET FULL", 0x40: "TASK ABORTED", 0x99: "status 99h",
	} {
		if status.String() != want {
			t.Errorf("%02X: %v", byte(status), status)
		}
	}
}

func TestDescriptorSense(t *testing.T) {
	config := testConfig(64, 512)
	config.DescriptorSense = true
	r := newRig(t, config)
	wantBytes(t, r.sense(InvalidFieldInCDB, "12 00 01 00FF 00").Sense(), "72 05 2400 000000 08 02 06 0000 CF0002 00")
	copy(r.mem.data[7:], "x")
	wantBytes(t, r.sense(MiscompareDuringVerify, "2F 02 00000000 00 0001 00", fill(512, 0)...).Sense(),
		"72 0E 1D00 000000 0C 00 0A 80 00 0000000000000007")
}

func TestFailAndReset(t *testing.T) {
	c := Command{LUN: 1, CDB: []byte{0}, DataOut: []byte{1}, MaxDataIn: 4, Alloc: func(n int) []byte { return make([]byte, n) }}
	c.reply([]byte{1, 2, 3}, 2)
	if len(c.DataIn) != 2 || c.Transfer != 2 {
		t.Fatal(c.DataIn)
	}
	c.Fail(Sense(0x0B, 0x47, 0x05))
	wantBytes(t, c.Sense(), "70 00 0B 00000000 0A 00000000 4705 00 000000")
	if c.Status != StatusCheckCondition || c.DataIn != nil || c.Transfer != 0 {
		t.Error("Fail left a result")
	}
	c.Reset()
	if c.Sense() != nil || c.SenseCode() != NoSense || c.CDB != nil || c.DataOut != nil || c.MaxDataIn != 0 || c.LUN != 0 || c.Alloc == nil {
		t.Error("Reset left something")
	}
}

func TestConfigValidate(t *testing.T) {
	if err := testConfig(1, 512).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*UnitConfig){
		"naa":           func(c *UnitConfig) { c.Identity.NAA[0] = 0x50 },
		"no serial":     func(c *UnitConfig) { c.Identity.Serial = "" },
		"long serial":   func(c *UnitConfig) { c.Identity.Serial = strings.Repeat("x", 33) },
		"vendor":        func(c *UnitConfig) { c.Identity.Vendor = "123456789" },
		"product":       func(c *UnitConfig) { c.Identity.Product = "ü" },
		"revision":      func(c *UnitConfig) { c.Identity.Revision = "12345" },
		"block":         func(c *UnitConfig) { c.BlockLength = 520 },
		"empty":         func(c *UnitConfig) { c.Capacity = 0 },
		"odd":           func(c *UnitConfig) { c.Capacity = 513 },
		"limits":        func(c *UnitConfig) { c.Limits = Limits{} },
		"odd limit":     func(c *UnitConfig) { c.Limits.MaxUnmap = 4097 },
		"huge limit":    func(c *UnitConfig) { c.Limits.MaxUnmap = 1 << 41 },
		"huge transfer": func(c *UnitConfig) { c.Limits.MaxTransfer = 2 << 30 },
		"descriptors":   func(c *UnitConfig) { c.Limits.MaxUnmapDescriptors = 0 },
	} {
		c := testConfig(1, 512)
		spoil(&c)
		if _, err := NewLogicalUnit(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

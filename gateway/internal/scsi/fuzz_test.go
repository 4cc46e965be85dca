package scsi

import (
	"encoding/binary"
	"testing"
)

// FuzzCDB: whatever the CDB and the data, a command ends with a status, its data-in is bounded, sense data and status
// fit together, and the medium is touched only by commands that Classify says touch it.
func FuzzCDB(f *testing.F) {
	for _, op := range allOperations.All {
		p := make([]byte, 16)
		copy(p, op.usage[:2])
		if !op.action {
			p[1] = 0
		}
		f.Add(p, []byte{}, uint16(512), uint8(0))
		p = append([]byte{}, p...)
		p[len(op.usage)-2] = 1
		f.Add(p, make([]byte, 1024), uint16(0xFFFF), uint8(1))
	}
	list := unmapList(0, 8, 3, 9)
	f.Add(fromHex(f, cdbUnmap(len(list))), list, uint16(0), uint8(2))
	f.Add(fromHex(f, "15 10 00 00 5C 00"), fromHex(f, "00 00 10 00"+allModes), uint16(0), uint8(0))

	f.Fuzz(func(t *testing.T, cdb, data []byte, takes uint16, kind uint8) {
		config := testConfig(65, 512)
		if kind&1 != 0 {
			config = testConfig(9, 4096)
		}
		config.Limits.MaxTransfer, config.Limits.MaxWriteSame, config.Limits.MaxAtomic = 16384, 16384, 4096
		config.DescriptorSense = kind&2 != 0
		r := newRig(t, config, func(m *Mapping) { m.ReadOnly = kind&4 != 0 })
		lun := FlatLUN(uint16(kind >> 3 & 1))
		if kind&16 != 0 {
			r.unit.Attention(AttentionCapacityChanged, nil)
		}
		allocs := 0
		c := &Command{LUN: lun, CDB: cdb, DataOut: data, MaxDataIn: int(takes), Alloc: func(n int) []byte {
			allocs++
			if n <= 0 || n > int(takes) {
				t.Fatalf("asks for %d bytes, the initiator takes %d", n, takes)
			}
			return make([]byte, n)
		}}
		if err := r.nexus.Execute(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		checkOutcome(t, c, allocs)
		class := Classify(cdb)
		if r.mem.reads.Load() > 0 && !class.Medium || len(r.mem.calls) > 0 && (!class.Writes || kind&4 != 0) {
			t.Fatalf("% X: %+v reads %d, writes %v", cdb, class, r.mem.reads.Load(), r.mem.calls)
		}
	})
}

func checkOutcome(t *testing.T, c *Command, allocs int) {
	t.Helper()
	switch c.Status {
	case StatusGood:
		if c.Sense() != nil {
			t.Fatalf("% X: GOOD with sense data", c.CDB)
		}
	case StatusCheckCondition:
		n := len(c.Sense())
		if c.DataIn != nil || n < 8 || n != 8+int(c.Sense()[7]) {
			t.Fatalf("% X: sense % X", c.CDB, c.Sense())
		}
	default:
		t.Fatalf("% X: %v", c.CDB, c.Status)
	}
	if len(c.DataIn) > c.MaxDataIn || uint64(len(c.DataIn)) > c.Transfer || allocs > 1 {
		t.Fatalf("% X: %d bytes of data-in, transfer %d, %d buffers", c.CDB, len(c.DataIn), c.Transfer, allocs)
	}
	if c.Status != StatusGood {
		return // the CDB may be too short to have one
	}
	if most, ok := allocationLength(c.CDB); ok && uint64(len(c.DataIn)) > most {
		t.Fatalf("% X: %d bytes of data-in, allocation length %d", c.CDB, len(c.DataIn), most)
	}
}

// allocationLength reads the ALLOCATION LENGTH of a CDB that has one.
func allocationLength(cdb []byte) (uint64, bool) {
	switch Name(cdb) {
	case "REQUEST SENSE", "MODE SENSE(6)":
		return uint64(cdb[4]), true
	case "INQUIRY":
		return uint64(binary.BigEndian.Uint16(cdb[3:])), true
	case "MODE SENSE(10)", "LOG SENSE", "READ DEFECT DATA(10)":
		return uint64(binary.BigEndian.Uint16(cdb[7:])), true
	case "REPORT LUNS", "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
		"READ DEFECT DATA(12)":
		return uint64(binary.BigEndian.Uint32(cdb[6:])), true
	case "READ CAPACITY(16)", "GET LBA STATUS":
		return uint64(binary.BigEndian.Uint32(cdb[10:])), true
	}
	return 0, false
}

// FuzzParameters throws parameter lists at the commands that parse one.
func FuzzParameters(f *testing.F) {
	f.Add(unmapList(0, 8, 3, 9))
	f.Add(fromHex(f, "00 00 10 08 00000041 00000200"+allModes))
	f.Add(fromHex(f, "0000 0008 00000000 00000040"))
	f.Add(fromHex(f, "83 00 0002 5566"))
	f.Add(fromHex(f, "0000 00 10 01 00 0010 0000000000000041 00000000 00000200"+allModes))
	f.Fuzz(func(t *testing.T, list []byte) {
		if len(list) > 0xFFFF {
			return
		}
		r := newRig(t, testConfig(65, 512))
		for _, cdb := range []string{
			cdbUnmap(0), "55 10 00 00 000000 0000 00", "48 01 0000000000 0000 00", "15 10 00 00 00 00",
			"07 00 0000 00 00", "07 03 0000 00 00",
		} {
			p := fromHex(t, cdb)
			if len(p) == 10 {
				binary.BigEndian.PutUint16(p[7:], uint16(len(list)))
			} else if p[0] == 0x15 {
				p[4] = byte(len(list))
			}
			c := &Command{CDB: p, DataOut: list}
			if err := r.nexus.Execute(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			checkOutcome(t, c, 0)
		}
	})
}

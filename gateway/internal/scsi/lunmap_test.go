package scsi

import (
	"strings"
	"sync"
	"testing"
)

// at runs a command at a LUN of a nexus.
func at(t *testing.T, n *Nexus, lun LUN, cdb string) *Command {
	t.Helper()
	c := &Command{LUN: lun, CDB: fromHex(t, cdb), MaxDataIn: 1 << 20}
	if err := n.Execute(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	cdbTestUnitReady = "000000000000"
	cdbReportLUNs    = "A0 00 00 000000 00000100 00 00"
	cdbRequestSense  = "03 00 00 00 FF 00"
	cdbInquiry       = "12 00 00 00FF 00"
)

func TestLUNNumber(t *testing.T) {
	for _, test := range []struct {
		lun  LUN
		want uint16
		ok   bool
	}{
		{0, 0, true},
		{0x0001000000000000, 1, true},
		{0x00FF000000000000, 255, true},
		{0x0100000000000000, 0, false}, // another bus
		{0x4000000000000000, 0, true},
		{0x4001000000000000, 1, true},
		{0x7FFF000000000000, LUNMax, true},
		{0x8000000000000000, 0, false},
		{0xC101000000000000, 0, false}, // REPORT LUNS well known logical unit
		{0x0000000100000000, 0, false}, // second level
		{0x0000000000000001, 0, false},
	} {
		if n, ok := test.lun.Number(); ok != test.ok || ok && n != test.want {
			t.Errorf("%016X: %d %v", uint64(test.lun), n, ok)
		}
	}
	for n := range uint16(LUNMax + 1) {
		if got, ok := FlatLUN(n).Number(); got != n || !ok {
			t.Fatalf("LUN %d comes back as %d %v", n, got, ok)
		}
	}
	if FlatLUN(255) != 0x00FF000000000000 || FlatLUN(256) != 0x4100000000000000 {
		t.Errorf("encodings %016X %016X", uint64(FlatLUN(255)), uint64(FlatLUN(256)))
	}
}

func TestReportLUNs(t *testing.T) {
	r := disk512(t)
	wantBytes(t, r.good(cdbReportLUNs), "00000008 00000000 0000000000000000")
	m := Mapping{Unit: r.unit, Backend: r.mem}
	if unit, backend, ok := r.nexus.Unit(0); unit != r.unit || backend != Backend(r.mem) || !ok {
		t.Error("LUN 0 leads elsewhere")
	}
	if _, _, ok := r.nexus.Unit(FlatLUN(1)); ok {
		t.Error("LUN 1 is there")
	}
	two, five, big := m, m, m
	two.LUN, five.LUN, big.LUN = 2, 5, 300
	if err := r.luns.Update(big, five, two); err != nil {
		t.Fatal(err)
	}
	const all = "00000018 00000000 0002000000000000 0005000000000000 412C000000000000"
	wantBytes(t, at(t, r.nexus, FlatLUN(2), cdbReportLUNs).DataIn, all)
	wantBytes(t, at(t, r.nexus, 0, cdbReportLUNs).DataIn, all) // LUN 0 is not mapped and answers
	wantBytes(t, at(t, r.nexus, 0, "A0 00 02 000000 00000100 00 00").DataIn, all)
	wantBytes(t, at(t, r.nexus, 0, "A0 00 01 000000 00000100 00 00").DataIn, "00000000 00000000")
	c := at(t, r.nexus, 0, "A0 00 00 000000 00000010 00 00")
	wantBytes(t, c.DataIn, "00000018 00000000 0002000000000000")
	if c.Transfer != 16 {
		t.Errorf("transfer %d", c.Transfer)
	}
	wantSense(t, at(t, r.nexus, 0, "A0 00 03 000000 00000100 00 00"), InvalidFieldInCDB)
	wantSense(t, at(t, r.nexus, 0, "A0 00 10 000000 00000100 00 00"), InvalidFieldInCDB)
	wantSense(t, at(t, r.nexus, 0, "A0 00 00 000000 0000000F 00 00"), InvalidFieldInCDB)
	wantSense(t, at(t, r.nexus, FlatLUN(1), cdbReportLUNs), LogicalUnitNotSupported)
}

// Many LUNs do not fit the reply's inline buffer.
func TestReportLUNsMany(t *testing.T) {
	r := disk512(t)
	var mappings []Mapping
	for n := range uint16(256) {
		mappings = append(mappings, Mapping{LUN: n, Unit: r.unit, Backend: r.mem})
	}
	if err := r.luns.Update(mappings...); err != nil {
		t.Fatal(err)
	}
	data := at(t, r.nexus, 0, "A0 00 00 000000 00010000 00 00").DataIn
	if len(data) != 8+8*256 || data[8+8*255+1] != 255 {
		t.Errorf("%d bytes", len(data))
	}
}

func TestAbsentLUN(t *testing.T) {
	r := disk512(t)
	const rest = `00 06 12 5B 00 00 02 4153484C41522020 4E4F204C4F474943414C20554E495420 30202020
		0000000000000000000000000000000000000000 0000 00A0 0960 0460 04C0 0000 0000 0000 0000
		00000000000000000000000000000000000000000000`
	absent := FlatLUN(7)
	wantBytes(t, at(t, r.nexus, absent, cdbInquiry).DataIn, "7F"+rest)
	wantSense(t, at(t, r.nexus, absent, "12 01 00 00FF 00"), InvalidFieldInCDB)
	wantSense(t, at(t, r.nexus, absent, "12 00 80 00FF 00"), InvalidFieldInCDB)
	wantSense(t, at(t, r.nexus, absent, "12 00 00 00FF 04"), InvalidFieldInCDB)
	wantBytes(t, at(t, r.nexus, absent, cdbRequestSense).DataIn, "70 00 05 00000000 0A 00000000 2500 00 000000")
	wantBytes(t, at(t, r.nexus, absent, "03 01 00 00 FF 00").DataIn, "72 05 2500 000000 00")
	for _, cdb := range []string{
		cdbTestUnitReady, "28 00 00000000 00 0001 00", "FF0000000000", "12", "A3 0C 00 00 0000 00001000 00 00",
	} {
		wantSense(t, at(t, r.nexus, absent, cdb), LogicalUnitNotSupported)
	}
	wantSense(t, at(t, r.nexus, 0xC101<<48, cdbTestUnitReady), LogicalUnitNotSupported)

	if err := r.luns.Update(); err != nil { // nothing at all
		t.Fatal(err)
	}
	wantBytes(t, at(t, r.nexus, 0, cdbInquiry).DataIn, "3F"+rest)
	wantBytes(t, at(t, r.nexus, 0, cdbReportLUNs).DataIn, "00000000 00000000")
	wantSense(t, at(t, r.nexus, 0, cdbTestUnitReady), LogicalUnitNotSupported)
	if r.nexus.Present(0) || r.nexus.ResetLogicalUnit(0, func() {}) {
		t.Error("LUN 0 is still there")
	}
}

func TestUpdateTellsOnce(t *testing.T) {
	r := disk512(t)
	other, err := NewLogicalUnit(testConfig(16, 512))
	if err != nil {
		t.Fatal(err)
	}
	zero := Mapping{Unit: r.unit, Backend: r.mem}
	one := Mapping{LUN: 1, Unit: other, Backend: newMemory(16 * 512)}
	steps := []struct {
		name string
		to   []Mapping
		want SenseCode // at LUN 0, then nothing more
	}{
		{"the same", []Mapping{zero}, NoSense},
		{"one more", []Mapping{zero, one}, AttentionLUNsChanged},
		{"other backend", []Mapping{{Unit: r.unit, Backend: newMemory(8197 * 512)}, one}, NoSense},
		{"read-only", []Mapping{{Unit: r.unit, Backend: r.mem, ReadOnly: true}, one}, AttentionModeChanged},
		{"one less and writable", []Mapping{zero}, AttentionLUNsChanged},
	}
	for _, step := range steps {
		if err := r.luns.Update(step.to...); err != nil {
			t.Fatal(err)
		}
		if step.want != NoSense {
			wantSense(t, at(t, r.nexus, 0, cdbTestUnitReady), step.want)
		}
		if step.name == "one less and writable" {
			wantSense(t, at(t, r.nexus, 0, cdbTestUnitReady), AttentionModeChanged)
		}
		if c := at(t, r.nexus, 0, cdbTestUnitReady); c.Status != StatusGood {
			t.Fatalf("%s: left over %v", step.name, c.SenseCode())
		}
	}
	// A LUN that now leads to another logical unit is a new one.
	if err := r.luns.Update(Mapping{Unit: other, Backend: one.Backend}); err != nil {
		t.Fatal(err)
	}
	if r.unit.Listeners() != 0 || other.Listeners() != 1 {
		t.Errorf("listeners: %d and %d", r.unit.Listeners(), other.Listeners())
	}
	r.nexus.Close()
	if other.Listeners() != 0 || len(r.luns.mu.nexuses) != 0 {
		t.Error("a closed nexus is still known")
	}
	wantSense(t, at(t, r.nexus, 0, cdbTestUnitReady), LogicalUnitNotSupported)
}

func TestUpdateRefuses(t *testing.T) {
	r := disk512(t)
	m := Mapping{Unit: r.unit, Backend: r.mem}
	high := m
	high.LUN = LUNMax + 1
	for name, bad := range map[string][]Mapping{
		"twice": {m, m}, "no unit": {{Backend: r.mem}}, "no backend": {{Unit: r.unit}}, "high": {high},
	} {
		if err := r.luns.Update(bad...); err == nil || !strings.HasPrefix(err.Error(), "scsi: ") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := NewLUNMap(bad...); err == nil {
			t.Errorf("%s: made", name)
		}
	}
	if len(r.luns.Mappings()) != 1 {
		t.Error("a refused update changed the map")
	}
}

// TestReportLUNsAndChange: whoever reads the list while it changes has the new list, or the unit attention that tells of it.
func TestReportLUNsAndChange(t *testing.T) {
	r := disk512(t)
	zero := Mapping{Unit: r.unit, Backend: r.mem}
	maps := [2][]Mapping{{zero}, {zero, {LUN: 1, Unit: r.unit, Backend: r.mem}}}
	for i := range 20000 {
		next := maps[(i+1)%2]
		var list []byte
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.luns.Update(next...); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { list = at(t, r.nexus, 0, cdbReportLUNs).DataIn })
		wg.Wait()
		code, _ := r.nexus.PendingAttention(0)
		if len(list) != 8+8*len(next) && code != AttentionLUNsChanged {
			t.Fatalf("round %d: the list of %d bytes is old, and nothing tells of it", i, len(list))
		}
		at(t, r.nexus, 0, cdbReportLUNs)
	}
}

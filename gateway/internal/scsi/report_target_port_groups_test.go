package scsi

import (
	"fmt"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/alua"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

const (
	cdbPortGroups         = "A3 0A 00000000 00000400 00 00"
	cdbPortGroupsExtended = "A3 2A 00000000 00000400 00 00"
)

// TestReportTargetPortGroups: the group of page 83h is there, and more than one make a device with several ports.
func TestReportTargetPortGroups(t *testing.T) {
	r := disk512(t)
	wantBytes(t, r.good(cdbPortGroups), "0000000C 00 0B 0304 00 00 00 01 0000 0102") // its own, of testPort
	full := fromHex(t, "00000010 10 0A 0000 00 0B 0304 00 00 00 01 0000 0102")
	for n := range len(full) + 2 {
		c := r.run(fmt.Sprintf("A3 2A 00000000 %08X 00 00", n))
		wantGood(t, c)
		want := full[:min(n, len(full))]
		if string(c.DataIn) != string(want) || c.Transfer != uint64(len(want)) {
			t.Fatalf("allocation length %d: % X, transfer %d", n, c.DataIn, c.Transfer)
		}
	}
	for format := 2; format < 8; format++ {
		c := r.sense(InvalidFieldInCDB, fmt.Sprintf("A3 %02X 00000000 00000400 00 00", format<<5|0x0A))
		wantBytes(t, c.Sense(), "70 00 05 00000000 0A 00000000 2400 00 CF0001")
	}
	r.sense(InvalidFieldInCDB, "A3 0A 00000001 00000400 00 00")
	r.sense(InvalidOperationCode, "A4 0A 00000000 00000000 00 00") // SET TARGET PORT GROUPS

	many := newRig(t, testConfig(64, 512), func(m *Mapping) {
		m.Groups = []PortGroup{{Tag: 1, Port: 1, State: PortUnavailable}, {Tag: 0x0304, Port: 0x0102, State: PortNonOptimized}, {Tag: 0x0305, Port: 0x0103}}
	})
	wantBytes(t, many.good(cdbPortGroups), `00000024
		03 0B 0001 00 00 00 01 0000 0001
		01 0B 0304 00 00 00 01 0000 0102
		00 0B 0305 00 00 00 01 0000 0103`)
	if p := many.good("12 00 00 0060 00"); p[5]>>4&3 != 1 || p[6]&0x10 == 0 {
		t.Errorf("TPGS %02X, MULTIP %02X", p[5], p[6])
	}
	if p := r.good("12 00 00 0060 00"); p[5]>>4&3 != 1 || p[6]&0x10 != 0 {
		t.Errorf("one port: TPGS %02X, MULTIP %02X", p[5], p[6])
	}
}

// TestReportManyTargetPortGroups: more groups than fit the reply that needs no allocation.
func TestReportManyTargetPortGroups(t *testing.T) {
	const groups = 1000
	r := newRig(t, testConfig(64, 512), func(m *Mapping) {
		for i := range uint16(groups) {
			m.Groups = append(m.Groups, PortGroup{Tag: i + 1, Port: i + 1, State: PortNonOptimized})
		}
	})
	if p := r.good("A3 2A 00000000 0000FFFF 00 00"); len(p) != 8+12*groups {
		t.Fatalf("%d bytes", len(p))
	}
}

// TestPortGroupsWhoMayAsk: the report is there while a reservation of another host is, and needs no medium.
func TestPortGroupsWhoMayAsk(t *testing.T) {
	if c := Classify(fromHex(t, cdbPortGroupsExtended)); c.Medium || c.Writes || c.Direction != DirectionIn {
		t.Errorf("%+v", c)
	}
	r := disk512(t)
	holder := reservation.Nexus{Initiator: "iqn.x:other", Port: 1}
	state := &reservation.State{
		Version: 1, Registrations: []reservation.Registration{{Nexus: holder, Key: 1}},
		Type: reservation.ExclusiveAccess, Holder: holder,
	}
	r.unit.SetReservations(&Reservations{Access: 1, State: state})
	r.good(cdbPortGroups)
	if c := r.run("A3 0C 00 00 0000 0000FFFF 00 00"); c.Status != StatusReservationConflict {
		t.Errorf("REPORT SUPPORTED OPERATION CODES: %v", c.Status)
	}
}

// TestPortGroupsChange: a change is told once, to every nexus, also the one through whose port it was.
func TestPortGroupsChange(t *testing.T) {
	r := disk512(t)
	other := r.login(NoSense)
	defer other.Close()
	m := Mapping{Unit: r.unit, Backend: r.mem}
	own := PortGroup{Tag: testPort.Group, Port: testPort.RelativeID}
	second := func(s alua.State) []PortGroup { return []PortGroup{own, {Tag: 0x0305, Port: 0x0103, State: s}} }
	for _, step := range []struct {
		name   string
		groups []PortGroup
		want   []SenseCode
	}{
		{"the same, said aloud", []PortGroup{own}, nil},
		{"one more", second(PortNonOptimized), []SenseCode{AttentionAccessChanged, AttentionInquiryChanged}},
		{"nothing", second(PortNonOptimized), nil},
		{"down", second(PortUnavailable), []SenseCode{AttentionAccessChanged}},
		{"up", second(PortNonOptimized), []SenseCode{AttentionAccessChanged}},
		{"gone", nil, []SenseCode{AttentionAccessChanged, AttentionInquiryChanged}},
	} {
		m.Groups = step.groups
		if err := r.luns.Update(m); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*Nexus{r.nexus, other} {
			for _, want := range step.want {
				wantSense(t, at(t, n, 0, cdbTestUnitReady), want)
			}
			if c := at(t, n, 0, cdbTestUnitReady); c.Status != StatusGood {
				t.Fatalf("%s: left over %v", step.name, c.SenseCode())
			}
		}
	}
	// Changes that come together are told together.
	for _, s := range []alua.State{PortNonOptimized, PortUnavailable, PortNonOptimized, PortUnavailable} {
		m.Groups = second(s)
		if err := r.luns.Update(m); err != nil {
			t.Fatal(err)
		}
	}
	r.sense(AttentionAccessChanged, cdbTestUnitReady)
	r.sense(AttentionInquiryChanged, cdbTestUnitReady)
	r.good(cdbTestUnitReady)
}

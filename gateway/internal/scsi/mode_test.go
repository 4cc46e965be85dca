package scsi

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

var (
	caching    = "08 12" + strings.Repeat("00", 18)
	control    = "0A 0A 20 10 00 00 00 00 FFFF 0000"
	extension  = "4A 01 001C 01 00 1C" + strings.Repeat("00", 25)
	power      = "1A 26" + strings.Repeat("00", 38)
	exceptions = "1C 0A 08 00 00000000 00000000"
	firstModes = caching + control + power + exceptions // subpage 00h
	allModes   = caching + control + extension + power + exceptions

	// changeable are D_SENSE and SWP.
	changeable = strings.NewReplacer("0A 0A 20 10 00", "0A 0A 04 00 08", "FFFF", "0000", "0A 08", "0A 00", "01 00 1C", "00 00 00").
			Replace(allModes)
)

const descriptor512 = "00002005 00000200"

func TestModeSense(t *testing.T) {
	r := disk512(t)
	for _, test := range []struct{ cdb, want string }{
		{"1A 00 3F 00 FF 00", "5F 00 10 08" + descriptor512 + firstModes},
		{"1A 08 3F 00 FF 00", "57 00 10 00" + firstModes},
		{"1A 08 3F FF FF 00", "77 00 10 00" + allModes},
		{"1A 08 BF FF FF 00", "77 00 10 00" + allModes},   // default values
		{"1A 08 7F FF FF 00", "77 00 10 00" + changeable}, // changeable values
		{"1A 08 08 00 FF 00", "17 00 10 00" + caching},
		{"1A 08 0A 00 FF 00", "0F 00 10 00" + control},
		{"1A 08 0A FF FF 00", "2F 00 10 00" + control + extension},
		{"1A 08 0A 01 FF 00", "23 00 10 00" + extension},
		{"1A 08 08 FF FF 00", "17 00 10 00" + caching},
		{"1A 08 1A 00 FF 00", "2B 00 10 00" + power},
		{"1A 08 1C 00 FF 00", "0F 00 10 00" + exceptions},
		{"1A E8 1C 00 04 00", "0F 00 10 00"},
		{"5A 00 3F 00 000000 00FF 00", "0062 00 10 00 00 0008" + descriptor512 + firstModes},
		{"5A 10 3F FF 000000 00FF 00", "008A 00 10 01 00 0010 0000000000002005 00000000 00000200" + allModes},
		{"5A 18 0A 00 000000 00FF 00", "0012 00 10 00 00 0000" + control},
		{"5A 08 0A 00 000000 0002 00", "0012"},
	} {
		wantBytes(t, r.good(test.cdb), test.want)
	}
	wantBytes(t, disk4096(t).good("1A 00 08 00 0C 00"), "1F 00 10 08 00000401 00001000")

	config := testConfig(1<<33, 512)
	config.DescriptorSense = true
	unit, err := NewLogicalUnit(config)
	if err != nil {
		t.Fatal(err)
	}
	luns, err := NewLUNMap(Mapping{Unit: unit, Backend: newMemory(512)})
	if err != nil {
		t.Fatal(err)
	}
	big := &rig{t: t, unit: unit, luns: luns}
	big.nexus = big.login(NoSense)
	wantBytes(t, big.good("1A 00 0A 00 FF 00"), "17 00 10 08 FFFFFFFF 00000200 0A 0A 24 10 00 00 00 00 FFFF 0000")
	wantBytes(t, big.good("5A 10 0A 00 000000 0018 00")[8:], "0000000200000000 00000000 00000200")
}

func TestModeSenseRefuses(t *testing.T) {
	r := disk512(t)
	for _, page := range []string{"00", "01", "09", "3E"} {
		r.sense(InvalidFieldInCDB, "1A 08"+page+"00 FF 00")
		r.sense(InvalidFieldInCDB, "5A 08"+page+"00 000000 00FF 00")
	}
	r.sense(InvalidFieldInCDB, "1A 08 0A 02 FF 00")
	r.sense(InvalidFieldInCDB, "1A 08 08 01 FF 00")
	for _, subpage := range []string{"01", "02", "FE"} { // "all pages" has no subpages of its own but 00h and FFh
		wantBytes(t, r.sense(InvalidFieldInCDB, "1A 08 3F"+subpage+"FF 00").Sense(),
			"70 00 05 00000000 0A 00000000 2400 00 CF0003")
		r.sense(InvalidFieldInCDB, "5A 08 3F"+subpage+"000000 00FF 00")
	}
	r.sense(SavingNotSupported, "1A 08 FF 00 FF 00")
	r.sense(SavingNotSupported, "5A 08 CA 00 000000 00FF 00")
}

func TestModeSelect(t *testing.T) {
	r := disk512(t)
	six := func(list string) (string, []byte) {
		p := fromHex(t, list)
		return fmt.Sprintf("15 10 00 00 %02X 00", len(p)), p
	}
	ten := func(list string) (string, []byte) {
		p := fromHex(t, list)
		return fmt.Sprintf("55 10 00 00 000000 %04X 00", len(p)), p
	}
	for _, list := range []string{
		"", "00 00 00 00", "00 00 10 00" + allModes, "00 00 00 08" + descriptor512 + control,
		"00 00 90 08 00000000 00000200", "00 00 00 08 FFFFFFFF 00000200" + caching,
	} {
		cdb, p := six(list)
		r.good(cdb, p...)
	}
	for _, list := range []string{
		"", "0000 00 00 00 00 0000", "0000 00 10 00 00 0000" + allModes,
		"0000 00 00 01 00 0010 0000000000002005 00000000 00000200" + exceptions,
		"0000 00 00 00 00 0008" + descriptor512 + exceptions,
	} {
		cdb, p := ten(list)
		r.good(cdb, p...)
	}
	for _, test := range []struct {
		list string
		code SenseCode
		sks  string
	}{
		{"00 00 00", ParameterListLengthError, "000000"},
		{"00 00 00 08 000020", ParameterListLengthError, "000000"},
		{"00 00 00 00 0A", ParameterListLengthError, "000000"},
		{"00 00 00 00 0A 0A 20", ParameterListLengthError, "000000"},
		{"00 00 00 08 00002006 00000200", InvalidFieldInParameters, "800004"},
		{"00 00 00 08 00002005 00001000", InvalidFieldInParameters, "800004"},
		{"00 00 00 04 00002005", InvalidFieldInParameters, "800004"},
		{"00 00 00 00 0A 0B 20", InvalidFieldInParameters, "8F0005"},
		{"00 00 00 00 4A 0A 20 10 00 00 00 00 FFFF 0000", InvalidFieldInParameters, "8D0004"},
		{"00 00 00 00 09 00", InvalidFieldInParameters, "8D0004"},
		{"00 00 00 00" + control + "08 12 04" + strings.Repeat("00", 17), InvalidFieldInParameters, "800012"}, // WCE
		{"00 00 00 00 4A 01 001B" + strings.Repeat("00", 28), InvalidFieldInParameters, "8F0006"},
		{"00 00 00 00 4A 01 00", ParameterListLengthError, "000000"},
		{"00 00 00 00 4A 01 001C 01 00 1C 00", ParameterListLengthError, "000000"},
		{"00 00 00 00 4A 01 001C 03 00 1C" + strings.Repeat("00", 25), InvalidFieldInParameters, "800008"}, // SCSIP
		{"00 00 00 00 4A 00 0008 20 10 00 00 00 00 FFFF", InvalidFieldInParameters, "8D0004"},
		{"00 00 00 00 0A 0A 22 10 00 00 00 00 FFFF 0000", InvalidFieldInParameters, "800006"}, // GLTSD
		{"00 00 00 00 0A 0A 20 10 00 40 00 00 FFFF 0000", InvalidFieldInParameters, "800009"}, // TAS
	} {
		cdb, p := six(test.list)
		c := r.sense(test.code, cdb, p...)
		wantBytes(t, c.Sense()[15:18], test.sks)
	}
	cdb, p := ten("0000 00 00 00 00 00")
	r.sense(ParameterListLengthError, cdb, p...)
	r.sense(InvalidFieldInCDB, "15 11 00 00 00 00")             // SP
	r.sense(InvalidFieldInCDB, "15 00 00 00 04 00", 0, 0, 0, 0) // PF
	r.sense(InvalidFieldInCommandIU, "15 10 00 00 04 00", 0, 0, 0)
	// A list cut at every byte is refused or says nothing, and never read past its end.
	whole := fromHex(t, "00 00 10 08"+descriptor512+allModes)
	for n := range whole {
		c := r.run(fmt.Sprintf("15 10 00 00 %02X 00", n), whole[:n]...)
		if good := n == 0 || n == 12 || n == 32 || n == 44 || n == 76 || n == 116; good != (c.Status == StatusGood) {
			t.Errorf("%d bytes: %v %v", n, c.Status, c.SenseCode())
		}
	}
}

// TestModeSelectChanges: D_SENSE and SWP can be changed, all others are told, and a reset takes them back.
func TestModeSelectChanges(t *testing.T) {
	const (
		plain     = "00 00 00 00 0A 0A 20 10 00 00 00 00 FFFF 0000"
		dsense    = "00 00 00 00 0A 0A 24 10 00 00 00 00 FFFF 0000"
		swp       = "00 00 00 00 0A 0A 20 10 08 00 00 00 FFFF 0000"
		selectCDB = "15 10 00 00 10 00"
	)
	r := disk512(t)
	other := r.login(NoSense)
	defer other.Close()
	r.good(selectCDB, fromHex(t, plain)...)
	wantGood(t, at(t, other, 0, cdbTestUnitReady)) // nothing changed
	r.good(selectCDB, fromHex(t, dsense)...)
	wantGood(t, at(t, r.nexus, 0, cdbTestUnitReady)) // not told to whom it comes from
	wantBytes(t, at(t, other, 0, cdbTestUnitReady).Sense(), "72 06 2A01 000000 00")
	wantGood(t, at(t, other, 0, cdbTestUnitReady))
	wantBytes(t, r.good("1A 08 0A 00 FF 00"), "0F 00 10 00 0A 0A 24 10 00 00 00 00 FFFF 0000")
	wantBytes(t, r.good("1A 08 8A 00 FF 00"), "0F 00 10 00 0A 0A 20 10 00 00 00 00 FFFF 0000") // default
	// A list with a fault behind the change changes nothing.
	r.sense(InvalidFieldInParameters, "15 10 00 00 12 00", fromHex(t, swp+"09 00")...)
	r.good("2A 00 00000000 00 0001 00", fill(512, 1)...)

	r.good(selectCDB, fromHex(t, swp)...)
	wantBytes(t, r.good("1A 08 0A 00 FF 00"), "0F 00 90 00 0A 0A 20 10 08 00 00 00 FFFF 0000")
	wantSense(t, at(t, other, 0, cdbTestUnitReady), AttentionModeChanged)
	for i := range allOperations.All {
		op := &allOperations.All[i]
		if op.traits&writes == 0 {
			continue
		}
		p := make([]byte, len(op.usage))
		p[0] = op.opcode()
		if op.action {
			p[1] = byte(op.serviceAction())
		}
		c := &Command{CDB: p}
		if err := r.nexus.Execute(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		wantSense(t, c, SoftwareWriteProtected)
	}
	r.good("28 00 00000000 00 0001 00")
	r.good(selectCDB, fromHex(t, plain)...)
	r.good("2A 00 00000000 00 0001 00", fill(512, 1)...)

	r.good(selectCDB, fromHex(t, "00 00 00 00 0A 0A 24 10 08 00 00 00 FFFF 0000")...)
	r.nexus.ResetLogicalUnit(0, func() {})
	r.sense(AttentionDeviceReset, cdbTestUnitReady)
	wantBytes(t, r.good("1A 08 0A 00 FF 00"), "0F 00 10 00 0A 0A 20 10 00 00 00 00 FFFF 0000")
}

// TestSharedModes: where other processes serve the logical unit its settings are everybody's, and can be saved.
func TestSharedModes(t *testing.T) {
	const (
		head, page                  = "00 00 00 00", "00 00 00 00 FFFF 0000"
		plain                       = head + "0A 0A 20 10" + page
		swp                         = head + "0A 0A 20 10 08 00 00 00 FFFF 0000"
		dsense                      = head + "0A 0A 24 10" + page
		change, save, tur, select10 = "15 10 00 00 10 00", "15 11 00 00 10 00", "00 00000000 00", "55 11 00 00 000000 0000 00"
	)
	h := newHosts(t)
	sense := func(pc byte) string {
		c := &Command{CDB: fromHex(t, fmt.Sprintf("1A 08 %02X 00 FF 00", pc<<6|0x0A)), MaxDataIn: 255}
		if err := h.nexuses['a'].Execute(t.Context(), c); err != nil || c.Status != StatusGood {
			t.Fatal(err, c.SenseCode())
		}
		return fmt.Sprintf("%X", c.DataIn[4:9])
	}
	modes := func(current, saved string) {
		t.Helper()
		if got := []string{sense(0), sense(2), sense(3), sense(1)}; !slices.Equal(got, []string{current, "8A0A201000", saved, "8A0A040008"}) {
			t.Fatalf("current, default, saved, changeable: %v", got)
		}
	}
	modes("8A0A201000", "8A0A201000")
	h.want(h.as('a', change, fromHex(t, dsense)...), good)
	h.want(h.as('a', tur), good)
	h.want(h.as('b', tur), "06/2A/01")
	h.want(h.as('c', tur), "06/2A/01")
	modes("8A0A241000", "8A0A201000")
	h.want(h.as('b', select10), good) // saves what is
	h.want(h.as('a', tur), good)
	modes("8A0A241000", "8A0A241000")
	h.want(h.as('b', save, fromHex(t, plain)...), good)
	h.want(h.as('a', tur), "06/2A/01")
	h.want(h.as('c', tur), "06/2A/01")
	h.want(h.as('c', change, fromHex(t, swp)...), good)
	h.want(h.as('a', tur), "06/2A/01")
	h.want(h.as('b', tur), "06/2A/01")
	modes("8A0A201008", "8A0A201000")
	block := make([]byte, 512)
	h.want(h.as('a', "2A 00 00000000 00 0001 00", block...), "07/27/02")
	h.nexuses['b'].ResetLogicalUnit(0, func() {})
	h.want(h.as('a', tur), "06/29/03")
	modes("8A0A201000", "8A0A201000")
	h.want(h.as('a', "2A 00 00000000 00 0001 00", block...), good)

	// Another process: what this one knows is older. The store refuses the write, and then it is protected.
	res := h.shared.state.Apply(&reservation.Request{
		Action: reservation.ModeSelect, Nexus: reservation.Nexus{Initiator: "iqn.d", Port: 2}, Settings: mode.WriteProtect,
	})
	h.shared.state = res.State
	h.shared.access++
	h.want(h.as('a', "2A 00 00000000 00 0001 00", block...), "07/27/02")
	h.want(h.as('a', tur), "06/2A/01")
	h.want(h.as('b', tur), "06/29/03")
	h.want(h.as('b', tur), "06/2A/01")

	h.want(h.as('b', "16 00000000 00"), good)
	h.want(h.as('a', change, fromHex(t, plain)...), refused)
}

package scsi

import (
	"strings"
	"testing"
)

const standardInquiry = `00 00 06 12 5B 18 00 02
	4153484C41522020 383941424344454620766F6C756D6520 30303031
	0000000000000000000000000000000000000000 0000
	00A0 0960 0460 04C0 0000 0000 0000 0000
	00000000000000000000000000000000000000000000`

func TestInquiryStandard(t *testing.T) {
	r := disk512(t)
	wantBytes(t, r.good("12 00 00 0100 00"), standardInquiry)
	wantBytes(t, r.good("12 00 00 0060 00"), standardInquiry)
	full := fromHex(t, standardInquiry)
	for n := range full {
		c := r.run("12 00 00 00" + string("0123456789abcdef"[n>>4]) + string("0123456789abcdef"[n&15]) + "00")
		wantGood(t, c)
		if string(c.DataIn) != string(full[:n]) || c.Transfer != uint64(n) {
			t.Fatalf("allocation length %d: % X, transfer %d", n, c.DataIn, c.Transfer)
		}
	}
}

func TestInquiryVPD(t *testing.T) {
	for _, test := range []struct {
		name, page, want string
		block            int
	}{
		{"supported", "00", "00 00 0009 00 80 83 86 87 8F B0 B1 B2", 512},
		{"serial", "80", "00 80 0010 30313233343536373839616263646566", 512},
		{"identification", "83", `00 83 006C
			01 03 00 10 600102030405060708090A0B0C0D0E0F
			02 01 00 18 4153484C41522020 30313233343536373839616263646566
			51 94 00 04 0000 0102
			51 95 00 04 0000 0304
			53 98 00 28 69716E2E323032362D31312E6465762E6173686C61723A64656D6F2C742C307830303031 00000000`, 512},
		{"extended", "86", "00 86 003C 00 07" + strings.Repeat("00", 7) + "1C" + strings.Repeat("00", 50), 512},
		{"mode page policy", "87", "00 87 0004 3F FF 00 00", 512},
		{"block limits", "B0", `00 B0 003C
			01 01 0008 00004000 00000800 00000000 00080000 00000100 00000008 80000000 0000000000008000
			00000100 00000100 00000100 00000000 00000000`, 512},
		{"block limits", "B0", `00 B0 003C
			01 01 0001 00000800 00000100 00000000 00010000 00000100 00000001 80000000 0000000000001000
			00000020 00000020 00000020 00000000 00000000`, 4096},
		{"characteristics", "B1", "00 B1 003C 0001 00 40 01" + strings.Repeat("00", 55), 512},
		{"provisioning", "B2", "00 B2 0004 0F E4 02 00", 512},
		{"provisioning", "B2", "00 B2 0004 0C E4 02 00", 4096},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, testConfig(64, test.block))
			wantBytes(t, r.good("12 01"+test.page+"00FF 00"), test.want)
			full := fromHex(t, test.want)
			for n := range full {
				const digits = "0123456789ABCDEF"
				c := r.run("12 01" + test.page + "00" + digits[n>>4:n>>4+1] + digits[n&15:n&15+1] + "00")
				wantGood(t, c)
				if string(c.DataIn) != string(full[:n]) {
					t.Fatalf("allocation length %d: % X", n, c.DataIn)
				}
			}
		})
	}
}

func TestInquiryRefuses(t *testing.T) {
	r := disk512(t)
	wantBytes(t, r.sense(InvalidFieldInCDB, "12 00 01 00FF 00").Sense(),
		"70 00 05 00000000 0A 00000000 2400 00 CF0002")
	wantBytes(t, r.sense(InvalidFieldInCDB, "12 01 84 00FF 00").Sense(),
		"70 00 05 00000000 0A 00000000 2400 00 CF0002")
	// CMDDT of SPC-2
	wantBytes(t, r.sense(InvalidFieldInCDB, "12 02 00 00FF 00").Sense(),
		"70 00 05 00000000 0A 00000000 2400 00 C90001")
}

// A designator must not change its length byte's meaning when names are at their longest.
func TestInquiryLongNames(t *testing.T) {
	r := disk512(t)
	port := testPort
	port.Name = "iqn." + strings.Repeat("x", 219) + ",t,0xffff"
	config := NexusConfig{TargetPort: port}
	n := NewNexus(config, r.luns)
	defer n.Close()
	c := &Command{CDB: fromHex(t, "12 01 83 0400 00"), MaxDataIn: 1024}
	if err := n.Execute(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	wantGood(t, c)
	for p := c.DataIn[4:]; len(p) > 0; p = p[4+int(p[3]):] {
		if len(p) < 4+int(p[3]) {
			t.Fatalf("designator is cut: % X", p)
		}
		if p[1]&0x0F == 8 {
			if got := strings.TrimRight(string(p[4:4+p[3]]), "\x00"); got != port.Name || p[3]%4 != 0 {
				t.Errorf("name %q, length %d", got, p[3])
			}
		}
	}
}

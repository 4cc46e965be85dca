package selftest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// identityChecks are about who the logical unit is.
func identityChecks() map[string]check {
	return map[string]check{
		"inquiry": {
			area: "INQUIRY", title: "standard data", want: "a connected disk, VERSION 4 or more, response data format 2, printable names",
			advice: "The host does not take the device for a disk that it can use.", run: inquiryStandard,
		},
		"inquiry iscsi": {
			area: "INQUIRY", title: "iSCSI version descriptor", want: "version descriptor 0960h",
			advice: "The logo tests ask for it; hosts work without.", run: inquiryDescriptor,
		},
		"lun 0": {
			area: "INQUIRY", title: "LUN 0", want: "answers INQUIRY, peripheral qualifier 0 or 1",
			advice: "Without an answer from LUN 0 the host does not look for other LUNs.", run: inquiryLUN0,
		},
		"lun absent": {
			area: "INQUIRY", title: "LUN that is not mapped", want: "05/25/00",
			advice: "Only this sense tells the host that a device is gone for good.", run: lunAbsent,
		},
		"report luns": {
			area: "INQUIRY", title: "REPORT LUNS", want: "lists this LUN", advice: "The host finds LUNs by it.", run: reportLUNs,
		},
		"vpd 00": {
			area: "VPD", title: "page 00h", want: "lists 00h, 80h and 83h in ascending order, and every listed page can be read",
			advice: "The host reads only pages that are listed.", run: vpdList,
		},
		"vpd 80": {
			area: "VPD", title: "page 80h, serial number", want: "a printable serial number",
			advice: "Hosts tell devices apart by it; give each volume its own.", run: vpdSerial,
		},
		"vpd 83": {
			area: "VPD", title: "page 83h, designator of the logical unit", want: "a NAA, EUI-64 or name string designator of the logical unit",
			advice: "Without it the host makes up a name that two paths do not share.", run: vpdDesignator,
		},
		"vpd 83 paths": {
			area: "VPD", title: "page 83h on two paths", want: "the same designator of the logical unit",
			advice: "Multipath software sees two devices and corrupts both: every path must give one designator.", run: vpdPaths,
		},
		"vpd 83 port": {
			area: "VPD", title: "page 83h, target port", want: "a relative target port identifier and, if TPGS is not 0, a target port group",
			advice: "Multipath software can not tell the paths apart.", run: vpdPort,
		},
		"vpd b1": {
			area: "VPD", title: "page B1h, rotation rate", want: "length 3Ch",
			advice: "The host does not know whether to defragment or to trim.", run: vpdCharacteristics,
		},
		"product unique": {
			area: "INQUIRY", title: "product identification", want: "8 characters that are not blank",
			advice: "ESXi wants the first 8 characters to be unique to the volume.", run: inquiryProduct,
		},
	}
}

// inquiry reads standard data, or a page of vital product data.
func (p *probe) inquiry(h *wire.Host, page int, n int) ([]byte, error) {
	cdb := []byte{0x12, 0, 0, byte(n >> 8), byte(n), 0}
	if page >= 0 {
		cdb[1], cdb[2] = 1, byte(page)
	}
	return dataOf(h, cdb, n)
}

// vpd reads a page and checks its header.
func (p *probe) vpd(page byte) ([]byte, error) { return p.vpdOf(p.h, page) }

func (p *probe) vpdOf(h *wire.Host, page byte) ([]byte, error) {
	b, err := p.inquiry(h, int(page), 4096)
	switch {
	case err != nil:
		return nil, fmt.Errorf("page %02Xh: %w", page, err)
	case len(b) < 4 || b[1] != page || len(b) != 4+int(binary.BigEndian.Uint16(b[2:])):
		return nil, fmt.Errorf("page %02Xh: %d bytes whose header does not fit", page, len(b))
	}
	return b, nil
}

func printable(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c < 0x20 || c > 0x7e })
}

func inquiryStandard(p *probe) (string, error) {
	b, err := p.inquiry(p.h, -1, 96)
	switch {
	case err != nil:
		return "", err
	case len(b) < 36 || int(b[4])+5 < 36:
		return "", fmt.Errorf("%d bytes, additional length %d", len(b), b[4])
	case b[0] != 0:
		return "", fmt.Errorf("peripheral qualifier and type %02x", b[0])
	case b[2] < 4:
		return "", fmt.Errorf("VERSION %d", b[2])
	case b[3]&0x0f != 2:
		return "", fmt.Errorf("response data format %d", b[3]&0x0f)
	case !printable(b[8:36]):
		return "", fmt.Errorf("names %q", b[8:36])
	}
	return fmt.Sprintf("VERSION %d, %q", b[2], strings.Join(strings.Fields(string(b[8:36])), " ")), nil
}

func inquiryDescriptor(p *probe) (string, error) {
	b, err := p.inquiry(p.h, -1, 96)
	if err != nil {
		return "", err
	}
	var found []string
	for i := 58; i+2 <= min(len(b), 74); i += 2 {
		if d := binary.BigEndian.Uint16(b[i:]); d != 0 {
			found = append(found, fmt.Sprintf("%04Xh", d))
		}
	}
	if !slices.Contains(found, "0960h") {
		return "", fmt.Errorf("version descriptors %v", found)
	}
	return strings.Join(found, " "), nil
}

func inquiryLUN0(p *probe) (string, error) {
	was := p.h.LUN
	p.h.LUN = 0
	defer func() { p.h.LUN = was }()
	b, err := p.inquiry(p.h, -1, 36)
	switch {
	case err != nil:
		return "", err
	case len(b) == 0 || b[0]>>5 > 1:
		return "", fmt.Errorf("peripheral byte % x: the host stops here", b[:min(1, len(b))])
	}
	return fmt.Sprintf("peripheral qualifier %d, type %02Xh", b[0]>>5, b[0]&0x1f), nil
}

func lunAbsent(p *probe) (string, error) {
	was := p.h.LUN
	defer func() { p.h.LUN = was }()
	luns, err := p.luns()
	if err != nil {
		return "", err
	}
	n := uint16(255)
	for slices.Contains(luns, wire.LUN(n)) {
		n--
	}
	p.h.LUN = wire.LUN(n)
	return p.sense([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, 0, nil, 5, 0x25)
}

// luns reads the list of LUNs.
func (p *probe) luns() ([]uint64, error) {
	cdb := make([]byte, 12)
	cdb[0] = 0xa0
	binary.BigEndian.PutUint32(cdb[6:], 65536)
	b, err := p.data(cdb, 65536)
	if err != nil {
		return nil, err
	}
	if len(b) < 8 || len(b)%8 != 0 {
		return nil, fmt.Errorf("REPORT LUNS of %d bytes", len(b))
	}
	var out []uint64
	for b = b[8:]; len(b) >= 8; b = b[8:] {
		out = append(out, binary.BigEndian.Uint64(b))
	}
	return out, nil
}

func reportLUNs(p *probe) (string, error) {
	luns, err := p.luns()
	if err != nil {
		return "", err
	}
	if !slices.Contains(luns, p.h.LUN) {
		return "", fmt.Errorf("%d LUNs, %016x is not one of them", len(luns), p.h.LUN)
	}
	return fmt.Sprintf("%d LUNs", len(luns)), nil
}

func vpdList(p *probe) (string, error) {
	b, err := p.vpd(0)
	if err != nil {
		return "", err
	}
	pages := b[4:]
	if !slices.IsSorted(pages) || !slices.Contains(pages, 0) || !slices.Contains(pages, 0x80) || !slices.Contains(pages, 0x83) {
		return "", fmt.Errorf("pages % x", pages)
	}
	for _, page := range pages {
		if _, err := p.vpd(page); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("pages % x", pages), nil
}

func vpdSerial(p *probe) (string, error) {
	b, err := p.vpd(0x80)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b[4:]))
	if s == "" || !printable(b[4:]) {
		return "", fmt.Errorf("%q", b[4:])
	}
	return s, nil
}

// designator is one of page 83h.
type designator struct {
	association, kind, codeSet byte
	id                         []byte
}

// designators reads page 83h over a session.
func (p *probe) designators(h *wire.Host) ([]designator, error) {
	b, err := p.vpdOf(h, 0x83)
	if err != nil {
		return nil, err
	}
	var out []designator
	for d := b[4:]; len(d) > 0; d = d[4+int(d[3]):] {
		if len(d) < 4 || len(d) < 4+int(d[3]) {
			return nil, errors.New("page 83h: a designator is cut off")
		}
		out = append(out, designator{d[1] >> 4 & 3, d[1] & 15, d[0] & 15, d[4 : 4+int(d[3])]})
	}
	return out, nil
}

// name returns the best designator of the logical unit, as hosts choose it: NAA, EUI-64, name string.
func name(ds []designator) (string, error) {
	for _, kind := range []byte{3, 2, 8} {
		for _, d := range ds {
			if d.association != 0 || d.kind != kind {
				continue
			}
			if kind != 8 && d.codeSet != 1 {
				return "", fmt.Errorf("the designator of type %d has code set %d, not binary", kind, d.codeSet)
			}
			switch kind {
			case 3:
				if len(d.id) != 8 && len(d.id) != 16 {
					return "", fmt.Errorf("a NAA designator of %d bytes", len(d.id))
				}
				return "naa." + hex.EncodeToString(d.id), nil
			case 2:
				return "eui." + hex.EncodeToString(d.id), nil
			}
			return string(bytes.TrimRight(d.id, "\x00")), nil
		}
	}
	return "", fmt.Errorf("none of type 2, 3 or 8 among %d designators", len(ds))
}

func vpdDesignator(p *probe) (string, error) {
	ds, err := p.designators(p.h)
	if err != nil {
		return "", err
	}
	return name(ds)
}

func vpdPaths(p *probe) (string, error) {
	h, err := p.open()
	if err != nil {
		return "", err
	}
	var names [2]string
	for i, h := range []*wire.Host{p.h, h} {
		ds, err := p.designators(h)
		if err != nil {
			return "", err
		}
		if names[i], err = name(ds); err != nil {
			return "", err
		}
	}
	if names[0] != names[1] {
		return "", fmt.Errorf("%s and %s", names[0], names[1])
	}
	return names[0], nil
}

func vpdPort(p *probe) (string, error) {
	ds, err := p.designators(p.h)
	if err != nil {
		return "", err
	}
	tpgs, err := p.tpgs()
	if err != nil {
		return "", err
	}
	rel, group := ownPort(ds)
	if rel == 0 || tpgs != 0 && group == 0 {
		return "", fmt.Errorf("port %d, group %d, TPGS %d", rel, group, tpgs)
	}
	return fmt.Sprintf("port %d, group %d", rel, group), nil
}

func vpdCharacteristics(p *probe) (string, error) {
	b, err := p.vpd(0xb1)
	if err != nil {
		return "", err
	}
	if len(b) != 64 {
		return "", fmt.Errorf("%d bytes", len(b))
	}
	return fmt.Sprintf("medium rotation rate %d", binary.BigEndian.Uint16(b[4:])), nil
}

func inquiryProduct(p *probe) (string, error) {
	b, err := p.inquiry(p.h, -1, 36)
	if err != nil || len(b) < 32 {
		return "", fmt.Errorf("%d bytes: %w", len(b), orGood(err))
	}
	if bytes.Contains(b[16:24], []byte(" ")) {
		return "", fmt.Errorf("%q", b[16:32])
	}
	return fmt.Sprintf("%q", b[16:24]), nil
}

package selftest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// copyChecks are about copies that the target makes itself.
func copyChecks() map[string]check {
	return map[string]check{
		"xcopy": {
			area: "copy", title: "EXTENDED COPY of 1 MiB within the unit", want: "GOOD, the data are there",
			advice: "Clones and migrations go through the host.", writes: true, run: extendedCopy,
		},
		"copy results": {
			area: "copy", title: "RECEIVE COPY RESULTS, operating parameters", want: "segment descriptor 02h and CSCD descriptor E4h",
			advice: "The host does not use EXTENDED COPY.", run: copyParameters,
		},
		"odx page": {
			area: "ODX", title: "page 8Fh, third-party copy", want: "listed in page 00h if tokens work",
			advice: "Windows copies through the host; that is allowed.", run: odxPage,
		},
		"odx": {
			area: "ODX", title: "POPULATE TOKEN, RECEIVE ROD TOKEN INFORMATION, WRITE USING TOKEN", want: "the data are there, each command below 4 s",
			advice: "Windows falls back to reading and writing, after errors in its log.", writes: true, run: odxCopy,
		},
		"odx bad": {
			area: "ODX", title: "WRITE USING TOKEN with a token of nobody", want: "05/23", advice: "Windows does not find its way back to ordinary copies.",
			writes: true, run: odxBadToken,
		},
	}
}

// copyBytes is what the checks copy.
const copyBytes = 1 << 20

// copyList is the parameter list of EXTENDED COPY (LID1) within one logical unit (SPC-4 6.4.3, 6.4.6.2).
func (p *probe) copyList(naa []byte, from, to int) []byte {
	cscd := make([]byte, 32)
	cscd[0], cscd[4], cscd[5], cscd[7] = 0xe4, 1, 3, byte(len(naa))
	copy(cscd[8:28], naa)
	cscd[29], cscd[30], cscd[31] = byte(p.blockLen>>16), byte(p.blockLen>>8), byte(p.blockLen)
	seg := make([]byte, 28)
	seg[0], seg[3] = 0x02, 0x18
	binary.BigEndian.PutUint16(seg[10:], uint16(copyBytes/p.blockLen))
	binary.BigEndian.PutUint64(seg[12:], p.at(from))
	binary.BigEndian.PutUint64(seg[20:], p.at(to))
	head := make([]byte, 16)
	head[0] = 1
	binary.BigEndian.PutUint16(head[2:], uint16(len(cscd)))
	binary.BigEndian.PutUint32(head[8:], uint32(len(seg)))
	return slices.Concat(head, cscd, seg)
}

func extendedCopy(p *probe) (string, error) {
	ds, err := p.designators(p.h)
	if err != nil {
		return "", err
	}
	id, err := name(ds)
	if err != nil {
		return "", err
	}
	digits, ok := strings.CutPrefix(id, "naa.")
	if !ok {
		return "", skip("no NAA designator to name the unit with")
	}
	naa, err := hex.DecodeString(digits)
	if err != nil {
		return "", err
	}
	data := filled(copyBytes, 0x3c)
	if err := errors.Join(p.writeAt(0, data), p.writeAt(copyBytes, filled(copyBytes, 0))); err != nil {
		return "", err
	}
	list := p.copyList(naa, 0, copyBytes)
	took, err := timed(func() error { return p.run(service(0x83, 0, uint32(len(list))), list) })
	if err != nil {
		return "", needed("EXTENDED COPY", err)
	}
	return fmt.Sprintf("1 MiB in %v", took.Round(time.Microsecond)), p.same(copyBytes, data)
}

// same wants data at an offset of the allowed range.
func (p *probe) same(off int, data []byte) error {
	b, err := p.readAt(off, len(data))
	if err == nil && !bytes.Equal(b, data) {
		err = errors.New("the copy differs from the source")
	}
	return err
}

func copyParameters(p *probe) (string, error) {
	b, err := p.data(service(0x84, 3, 4096), 4096)
	if err != nil {
		return "", needed("RECEIVE COPY RESULTS", err)
	}
	if len(b) < 44 || len(b) < 44+int(b[43]) {
		return "", fmt.Errorf("%d bytes", len(b))
	}
	types := b[44 : 44+int(b[43])]
	if !slices.Contains(types, 0x02) || !slices.Contains(types, 0xe4) {
		return "", fmt.Errorf("descriptor types % x", types)
	}
	return fmt.Sprintf("descriptor types % x, %d segments, %d bytes each", types, binary.BigEndian.Uint16(b[10:]), binary.BigEndian.Uint32(b[16:])), nil
}

// odx skips a check if the target does not say that it has tokens.
func (p *probe) odx() error {
	b, err := p.vpd(0)
	if err == nil && !slices.Contains(b[4:], 0x8f) {
		err = skip("page 8Fh is not listed: Windows copies through the host")
	}
	return err
}

func odxPage(p *probe) (string, error) {
	if err := p.odx(); err != nil {
		return "", err
	}
	b, err := p.vpd(0x8f)
	if err != nil {
		return "", err
	}
	var types []string
	for d := b[4:]; len(d) >= 4; {
		n := 4 + int(binary.BigEndian.Uint16(d[2:]))
		if n > len(d) {
			return "", errors.New("a descriptor is cut off")
		}
		types = append(types, fmt.Sprintf("%04Xh", binary.BigEndian.Uint16(d)))
		d = d[n:]
	}
	if !slices.Contains(types, "0000h") {
		return "", fmt.Errorf("descriptors %v, without block device limits 0000h", types)
	}
	return strings.Join(types, " "), nil
}

// listID is the list identifier of the tokens of a run.
const listID = 0x0a51

// tokenCDB is POPULATE TOKEN or WRITE USING TOKEN (SBC-4 5.8, 5.58).
func tokenCDB(action byte, n int) []byte {
	cdb := service(0x83, action, uint32(n))
	binary.BigEndian.PutUint32(cdb[6:], listID)
	return cdb
}

// rangeOf is a block device range descriptor.
func (p *probe) rangeOf(off int) []byte {
	d := make([]byte, 16)
	binary.BigEndian.PutUint64(d, p.at(off))
	binary.BigEndian.PutUint32(d[8:], uint32(copyBytes/p.blockLen))
	return d
}

// tokenResult is RECEIVE ROD TOKEN INFORMATION: the copy status, and the token if there is one.
func (p *probe) tokenResult() (status byte, token []byte, err error) {
	cdb := service(0x84, 7, 4096)
	binary.BigEndian.PutUint32(cdb[2:], listID)
	b, err := p.data(cdb, 4096)
	if err != nil {
		return 0, nil, err
	}
	if len(b) < 36 {
		return 0, nil, fmt.Errorf("%d bytes", len(b))
	}
	at := 32 + int(b[13])
	if len(b) >= at+4+2+512 && binary.BigEndian.Uint32(b[at:]) >= 514 {
		token = b[at+6 : at+6+512]
	}
	return b[5] & 0x7f, token, nil
}

// useToken is WRITE USING TOKEN for the second MiB of the allowed range.
func (p *probe) useToken(token []byte) error {
	out := make([]byte, 536, 536+16)
	copy(out[16:], token)
	binary.BigEndian.PutUint16(out[534:], 16)
	out = append(out, p.rangeOf(copyBytes)...)
	binary.BigEndian.PutUint16(out, uint16(len(out)-2))
	return p.run(tokenCDB(0x11, len(out)), out)
}

func odxCopy(p *probe) (string, error) {
	if err := p.odx(); err != nil {
		return "", err
	}
	data := filled(copyBytes, 0x6d)
	if err := errors.Join(p.writeAt(0, data), p.writeAt(copyBytes, filled(copyBytes, 0))); err != nil {
		return "", err
	}
	out := make([]byte, 16, 32)
	binary.BigEndian.PutUint16(out[14:], 16)
	out = append(out, p.rangeOf(0)...)
	binary.BigEndian.PutUint16(out, uint16(len(out)-2))
	var worst time.Duration
	step := func(what string, f func() error) error {
		d, err := timed(f)
		if worst = max(worst, d); err == nil && d > 4*time.Second {
			err = fmt.Errorf("took %v", d)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	if err := step("POPULATE TOKEN", func() error { return p.run(tokenCDB(0x10, len(out)), out) }); err != nil {
		return "", err
	}
	var token []byte
	err := step("RECEIVE ROD TOKEN INFORMATION", func() error {
		status, t, err := p.tokenResult()
		if err == nil && (status != 1 || t == nil) {
			err = fmt.Errorf("copy status %02Xh, token: %v", status, t != nil)
		}
		token = t
		return err
	})
	if err != nil {
		return "", err
	}
	if err := step("WRITE USING TOKEN", func() error { return p.useToken(token) }); err != nil {
		return "", err
	}
	return "1 MiB, the slowest command " + worst.Round(time.Microsecond).String(), p.same(copyBytes, data)
}

func odxBadToken(p *probe) (string, error) {
	if err := p.odx(); err != nil {
		return "", err
	}
	err := p.useToken(filled(512, 0x5a))
	if err == nil || !strings.Contains(err.Error(), "05/23/") {
		return "", fmt.Errorf("%w", orGood(err))
	}
	return err.Error(), nil
}

package selftest

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// capacityChecks are about size, mode and log pages, and ordinary I/O.
func capacityChecks() map[string]check {
	return map[string]check{
		"capacity": {
			area: "capacity", title: "READ CAPACITY(10) and (16)", want: "they agree; (10) has FFFFFFFFh when the unit is larger",
			advice: "The host uses the wrong size.", run: capacities,
		},
		"mode 3f": modeCheck("MODE SENSE(6), all pages", 0x3f, 0),
		"mode 08": modeCheck("MODE SENSE(6), caching page 08h", 0x08, 20),
		"mode 0a": modeCheck("MODE SENSE(6), control page 0Ah", 0x0a, 12),
		"mode 1a": modeCheck("MODE SENSE(6), power page 1Ah", 0x1a, 0),
		"cache": {
			area: "mode", title: "write cache", want: "WCE and the answer to SYNCHRONIZE CACHE fit together",
			advice: "The host believes data to be safe which is not, or flushes in vain.", run: writeCache,
		},
		"log 0c": {
			area: "log", title: "LOG SENSE page 0Ch, provisioning", want: "DS=1, SPF=0, parameters of 8 bytes (thin units)",
			advice: "Windows reads used and available resources from it.", run: logProvisioning,
		},
		"request sense": {
			area: "SCSI", title: "REQUEST SENSE", want: "no sense", advice: "Path software polls with it.",
			run: func(p *probe) (string, error) {
				b, err := p.data([]byte{0x03, 0, 0, 0, 18, 0}, 18)
				if err == nil && (len(b) < 14 || b[0]&0x7f != 0x70 && b[0]&0x7f != 0x72) {
					err = fmt.Errorf("% x", b)
				}
				return fmt.Sprintf("%d bytes", len(b)), err
			},
		},
		"reads": {
			area: "SCSI", title: "READ(10), READ(16), VERIFY(10), VERIFY(16)", want: "GOOD at the first and the last block",
			advice: "The host can not use the unit.", run: ordinaryReads,
		},
		"beyond": {
			area: "SCSI", title: "READ(16) behind the end", want: "05/21/00", advice: "The host takes it for a broken disk.",
			run: func(p *probe) (string, error) {
				return p.sense(rw16(opRead16, 0, p.blocks, 1), p.blockLen, nil, 5, 0x21)
			},
		},
		"writes": {
			area: "SCSI", title: "WRITE(10), WRITE(16), with FUA, WRITE AND VERIFY(10)", want: "GOOD, and what was written is read",
			advice: "The host can not use the unit.", writes: true, run: ordinaryWrites,
		},
		"sync": {
			area: "SCSI", title: "SYNCHRONIZE CACHE(10) and (16)", want: "GOOD", advice: "File systems flush with it.",
			run: func(p *probe) (string, error) {
				if err := p.run(rw10(0x35, 0, 0, 0), nil); err != nil {
					return "", err
				}
				return "GOOD", optional("SYNCHRONIZE CACHE(16)", p.run(rw16(0x91, 0, 0, 0), nil))
			},
		},
		"opcodes": {
			area: "SCSI", title: "REPORT SUPPORTED OPERATION CODES", want: "lists READ(16) and WRITE(16)",
			advice: "Linux asks it before it uses WRITE SAME, ESXi before copy offload.", run: supportedOpcodes,
		},
	}
}

func capacities(p *probe) (string, error) {
	cdb := make([]byte, 10)
	cdb[0] = 0x25
	b, err := p.data(cdb, 8)
	if err != nil || len(b) != 8 {
		return "", fmt.Errorf("READ CAPACITY(10): %d bytes: %w", len(b), orGood(err))
	}
	last, length := uint64(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint32(b[4:]))
	if want := min(p.blocks-1, 0xffffffff); last != want || length != p.blockLen {
		return "", fmt.Errorf("(10): last block %d of %d bytes; (16): last block %d of %d bytes", last, length, p.blocks-1, p.blockLen)
	}
	return fmt.Sprintf("%d blocks of %d bytes", p.blocks, p.blockLen), nil
}

// modeSense reads a mode page without block descriptors and returns what is behind the header, and byte 2 of the header.
func (p *probe) modeSense(page byte) (pages []byte, device byte, err error) {
	b, err := p.data([]byte{0x1a, 0x08, page, 0, 255, 0}, 255)
	switch {
	case err != nil:
		return nil, 0, err
	case len(b) < 4 || int(b[0])+1 != len(b) || b[3] != 0:
		return nil, 0, fmt.Errorf("header % x and %d bytes in all", b[:min(4, len(b))], len(b))
	}
	return b[4:], b[2], nil
}

func modeCheck(title string, page byte, length int) check {
	return check{
		area: "mode", title: title, want: "without block descriptors (DBD), the lengths fit", advice: "The host reads cache and control bits from it.",
		run: func(p *probe) (string, error) {
			b, _, err := p.modeSense(page)
			if err != nil {
				return "", err
			}
			found := ""
			for len(b) > 0 {
				n := 2
				if len(b) >= 2 {
					n += int(b[1])
				}
				if b[0]&0x40 != 0 && len(b) >= 4 {
					n = 4 + int(binary.BigEndian.Uint16(b[2:]))
				}
				if n > len(b) {
					return "", fmt.Errorf("page %02Xh is cut off", b[0]&0x3f)
				}
				if b[0]&0x3f == page && length != 0 && n != length {
					return "", fmt.Errorf("page %02Xh of %d bytes, should be %d", page, n, length)
				}
				found += fmt.Sprintf(" %02Xh", b[0]&0x3f)
				b = b[n:]
			}
			if found == "" {
				return "", fmt.Errorf("no page")
			}
			return "pages" + found, nil
		},
	}
}

func writeCache(p *probe) (string, error) {
	b, device, err := p.modeSense(0x08)
	if err != nil || len(b) < 3 {
		return "", fmt.Errorf("caching page of %d bytes: %w", len(b), orGood(err))
	}
	if err := p.run(rw10(0x35, 0, 0, 0), nil); err != nil {
		return "", fmt.Errorf("SYNCHRONIZE CACHE: %w", err)
	}
	if b[2]&4 == 0 {
		return "no volatile write cache", nil
	}
	if device&0x10 == 0 {
		return "", fmt.Errorf("a write cache, but no FUA (DPOFUA is 0)")
	}
	return "a write cache, with FUA", nil
}

func logProvisioning(p *probe) (string, error) {
	thin, err := p.thin()
	if err != nil {
		return "", err
	}
	if !thin {
		return "", skip("the unit is not thin")
	}
	b, err := p.data([]byte{0x4d, 0, 0x4c, 0, 0, 0, 0, 0x10, 0, 0}, 4096)
	switch {
	case err != nil:
		return "", needed("LOG SENSE", err)
	case len(b) < 4 || b[0] != 0x8c || b[1] != 0 || int(binary.BigEndian.Uint16(b[2:]))+4 != len(b) || (len(b)-4)%12 != 0:
		return "", fmt.Errorf("header % x and %d bytes in all", b[:min(4, len(b))], len(b))
	}
	n := 0
	for d := b[4:]; len(d) >= 12; d = d[12:] {
		if d[2]&3 != 3 || d[3] != 8 {
			return "", fmt.Errorf("parameter %02x%02x: control byte %02x, length %d", d[0], d[1], d[2], d[3])
		}
		n++
	}
	if n == 0 {
		return "", fmt.Errorf("no parameter")
	}
	return fmt.Sprintf("%d parameters", n), nil
}

func ordinaryReads(p *probe) (string, error) {
	for _, lba := range []uint64{0, p.blocks - 1} {
		for _, op := range []byte{opRead16, 0x8f} {
			in := p.blockLen
			if op == 0x8f {
				in = 0
			}
			if b, err := p.data(rw16(op, 0, lba, 1), in); err != nil || len(b) != in {
				return "", fmt.Errorf("command %02Xh at %d: %d bytes: %w", op, lba, len(b), orGood(err))
			}
		}
		if lba > 0xffffffff {
			continue
		}
		for _, op := range []byte{0x28, 0x2f} {
			in := p.blockLen
			if op == 0x2f {
				in = 0
			}
			if b, err := p.data(rw10(op, 0, uint32(lba), 1), in); err != nil || len(b) != in {
				return "", fmt.Errorf("command %02Xh at %d: %d bytes: %w", op, lba, len(b), orGood(err))
			}
		}
	}
	return "GOOD", nil
}

func ordinaryWrites(p *probe) (string, error) {
	n := 8
	lba := p.at(0)
	for i, cdb := range [][]byte{
		rw16(opWrite16, 0, lba, uint32(n)), rw16(opWrite16, 0x08, lba, uint32(n)),
		rw10(0x2a, 0, uint32(lba), uint16(n)), rw10(0x2a, 0x08, uint32(lba), uint16(n)), rw10(0x2e, 0, uint32(lba), uint16(n)),
	} {
		if len(cdb) == 10 && lba > 0xffffff00 {
			continue
		}
		want := filled(n*p.blockLen, byte(i+1))
		if err := p.run(cdb, want); err != nil {
			return "", fmt.Errorf("command %02Xh, byte 1 %02x: %w", cdb[0], cdb[1], err)
		}
		if got, err := p.readAt(0, len(want)); err != nil || !bytes.Equal(got, want) {
			return "", fmt.Errorf("after command %02Xh other data is read: %w", cdb[0], orGood(err))
		}
	}
	return "GOOD", nil
}

func supportedOpcodes(p *probe) (string, error) {
	cdb := make([]byte, 12)
	cdb[0], cdb[1] = 0xa3, 0x0c
	binary.BigEndian.PutUint32(cdb[6:], 65536)
	b, err := p.data(cdb, 65536)
	if err != nil {
		return "", needed("the command", err)
	}
	if len(b) < 4 || int(binary.BigEndian.Uint32(b))+4 != len(b) {
		return "", fmt.Errorf("%d bytes", len(b))
	}
	seen, n := map[byte]bool{}, 0
	for d := b[4:]; len(d) >= 8; n++ {
		seen[d[0]] = true
		size := 8
		if d[5]&2 != 0 {
			size = 20
		}
		d = d[min(size, len(d)):]
	}
	if !seen[opRead16] || !seen[opWrite16] {
		return "", fmt.Errorf("%d commands, without READ(16) or WRITE(16)", n)
	}
	return fmt.Sprintf("%d commands", n), nil
}

package selftest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// provisionChecks are about thin provisioning.
func provisionChecks() map[string]check {
	return map[string]check{
		"vpd b0": {
			area: "VPD", title: "page B0h, block limits", want: "length 3Ch; on thin units UNMAP with count, descriptors and granularity",
			advice: "The host splits I/O badly, and does not send UNMAP.", run: blockLimits,
		},
		"granularity": {
			area: "VPD", title: "page B0h, UNMAP granularity", want: "1 MiB or less", advice: "VMFS 6 reclaims space by itself only then.", run: granularity,
		},
		"vpd b2": {
			area: "VPD", title: "page B2h, logical block provisioning", want: "on thin units LBPU=1 and provisioning type thin",
			advice: "The host does not give space back.", run: provisioningPage,
		},
		"lbprz": {
			area: "thin", title: "LBPRZ", want: "the same in READ CAPACITY(16) and page B2h", advice: "The host does not know what unmapped blocks read as.",
			run: readZeroes,
		},
		"unmap": {
			area: "thin", title: "UNMAP", want: "GOOD; reads zeroes if LBPRZ is 1; GET LBA STATUS says deallocated",
			advice: "Space is not given back.", writes: true, run: unmapRead,
		},
		"unmap latency": {
			area: "thin", title: "UNMAP and I/O together", want: "98.5 % of writes below 100 ms, all below 500 ms",
			advice: "The logo test for SSDs fails; see what the target does while it frees.", writes: true, run: unmapLatency,
		},
		"write same zeroes": {
			area: "offload", title: "WRITE SAME(16) with zeroes", want: "GOOD, reads zeroes", advice: "The host zeroes disks by writing, which is slow.",
			writes: true, run: writeSameZeroes,
		},
		"write same unmap": {
			area: "thin", title: "WRITE SAME(16) with UNMAP", want: "GOOD, reads zeroes (if LBPWS is 1)",
			advice: "Linux discards and zeroes with it.", writes: true, run: writeSameUnmap,
		},
	}
}

// thin tells whether the unit has LBPME.
func (p *probe) thin() (bool, error) {
	b, err := p.data(service(0x9e, 0x10, 32), 32)
	if err != nil || len(b) < 32 {
		return false, fmt.Errorf("READ CAPACITY(16): %d bytes: %w", len(b), orGood(err))
	}
	return b[14]&0x80 != 0, nil
}

func (p *probe) needThin() error {
	thin, err := p.thin()
	if err == nil && !thin {
		err = skip("the unit is not thin (LBPME is 0)")
	}
	return err
}

func blockLimits(p *probe) (string, error) {
	b, err := p.vpd(0xb0)
	if err != nil {
		return "", err
	}
	if len(b) != 64 {
		return "", fmt.Errorf("%d bytes", len(b))
	}
	thin, err := p.thin()
	if err != nil {
		return "", err
	}
	count, descriptors := binary.BigEndian.Uint32(b[20:]), binary.BigEndian.Uint32(b[24:])
	grain := binary.BigEndian.Uint32(b[28:])
	if thin && (count == 0 || descriptors == 0 || grain == 0) {
		return "", fmt.Errorf("UNMAP of %d blocks in %d descriptors, granularity %d", count, descriptors, grain)
	}
	return fmt.Sprintf("transfer %d blocks, UNMAP %d blocks in %d descriptors, granularity %d, UGAVALID %d, compare and write %d",
		binary.BigEndian.Uint32(b[8:]), count, descriptors, grain, b[32]>>7, b[5]), nil
}

func granularity(p *probe) (string, error) {
	if err := p.needThin(); err != nil {
		return "", err
	}
	b, err := p.vpd(0xb0)
	if err != nil || len(b) < 32 {
		return "", fmt.Errorf("%d bytes: %w", len(b), orGood(err))
	}
	n := uint64(binary.BigEndian.Uint32(b[28:])) * uint64(p.blockLen)
	if n == 0 || n > 1<<20 {
		return "", fmt.Errorf("%d bytes", n)
	}
	return fmt.Sprintf("%d bytes", n), nil
}

func provisioningPage(p *probe) (string, error) {
	if err := p.needThin(); err != nil {
		return "", err
	}
	b, err := p.vpd(0xb2)
	if err != nil {
		return "", err
	}
	if len(b) < 8 || b[5]&0x80 == 0 || b[6]&7 != 2 {
		return "", fmt.Errorf("% x", b[4:min(8, len(b))])
	}
	return fmt.Sprintf("LBPU=1, LBPWS=%d, LBPRZ=%d, threshold exponent %d, thin", b[5]>>6&1, b[5]>>2&7, b[4]), nil
}

func readZeroes(p *probe) (string, error) {
	if err := p.needThin(); err != nil {
		return "", err
	}
	c, err := p.data(service(0x9e, 0x10, 32), 32)
	if err != nil {
		return "", err
	}
	b, err := p.vpd(0xb2)
	if err != nil || len(b) < 8 {
		return "", fmt.Errorf("page B2h: %w", orGood(err))
	}
	x, y := c[14]>>6&1, b[5]>>2&1
	if x != y {
		return "", fmt.Errorf("%d in READ CAPACITY(16), %d in page B2h", x, y)
	}
	return fmt.Sprintf("LBPRZ=%d", x), nil
}

// unmap is UNMAP of n bytes at off of the allowed range.
func (p *probe) unmap(h *wire.Host, off, n int) error {
	out := make([]byte, 24)
	binary.BigEndian.PutUint16(out, 22)
	binary.BigEndian.PutUint16(out[2:], 16)
	binary.BigEndian.PutUint64(out[8:], p.at(off))
	binary.BigEndian.PutUint32(out[16:], uint32(n/p.blockLen))
	return runOn(h, []byte{0x42, 0, 0, 0, 0, 0, 0, 0, byte(len(out)), 0}, out)
}

// zeroes wants a part of the allowed range to read as zeroes.
func (p *probe) zeroes(off, n int) error {
	b, err := p.readAt(off, n)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, make([]byte, n)) {
		return fmt.Errorf("the blocks do not read as zeroes")
	}
	return nil
}

func unmapRead(p *probe) (string, error) {
	if err := p.needThin(); err != nil {
		return "", err
	}
	const n = 1 << 20
	if err := p.writeAt(0, filled(2*n, 0x77)[:n]); err != nil {
		return "", err
	}
	if err := p.writeAt(n, filled(n, 0x77)); err != nil {
		return "", err
	}
	if err := p.unmap(p.h, 0, 2*n); err != nil {
		return "", needed("UNMAP", err)
	}
	c, err := p.data(service(0x9e, 0x10, 32), 32)
	if err != nil {
		return "", err
	}
	if c[14]&0x40 != 0 {
		if err := p.zeroes(0, n); err != nil {
			return "", err
		}
	}
	cdb := rw16(0x9e, 0x12, p.at(n/2), 0)
	binary.BigEndian.PutUint32(cdb[10:], 4096)
	b, err := p.data(cdb, 4096)
	switch {
	case notThere(err):
		return "GOOD; no GET LBA STATUS", nil
	case err != nil:
		return "", fmt.Errorf("GET LBA STATUS: %w", err)
	case len(b) < 24 || b[20]&15 == 0:
		return "", fmt.Errorf("GET LBA STATUS says mapped: % x", b[:min(24, len(b))])
	}
	return "GOOD, deallocated", nil
}

// unmapLatency writes on one path while another one unmaps.
func unmapLatency(p *probe) (string, error) {
	if err := p.needThin(); err != nil {
		return "", err
	}
	other, err := p.open()
	if err != nil {
		return "", err
	}
	done := make(chan error, 1)
	stop := time.Now().Add(3 * time.Second)
	go func() {
		for time.Now().Before(stop) {
			if err := p.unmap(other, 2<<20, 2<<20); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var took []time.Duration
	data := filled(4096, 0x55)
	var failed error
	for i := 0; time.Now().Before(stop) && failed == nil; i++ {
		d, err := timed(func() error { return p.writeAt(i%256*4096, data) })
		took, failed = append(took, d), err
	}
	if err := <-done; failed == nil {
		failed = err
	}
	if failed != nil {
		return "", needed("UNMAP or WRITE(16)", failed)
	}
	slices.Sort(took)
	at, worst := took[len(took)*985/1000], took[len(took)-1]
	found := fmt.Sprintf("%d writes, 98.5 %% below %v, all below %v", len(took), at.Round(time.Microsecond), worst.Round(time.Microsecond))
	if at > 100*time.Millisecond || worst > 500*time.Millisecond {
		return "", fmt.Errorf("%s", found)
	}
	return found, nil
}

func writeSameZeroes(p *probe) (string, error) {
	const n = 1 << 20
	if err := p.writeAt(0, filled(n, 0x33)); err != nil {
		return "", err
	}
	err := p.run(rw16(0x93, 0, p.at(0), uint32(n/p.blockLen)), make([]byte, p.blockLen))
	if err != nil {
		return "", needed("WRITE SAME(16)", err)
	}
	return "GOOD, zeroes", p.zeroes(0, n)
}

func writeSameUnmap(p *probe) (string, error) {
	b, err := p.vpd(0xb2)
	if err != nil || len(b) < 8 || b[5]&0x40 == 0 {
		return "", skip("LBPWS is 0")
	}
	const n = 1 << 20
	if err := p.writeAt(0, filled(n, 0x33)); err != nil {
		return "", err
	}
	if err := p.run(rw16(0x93, 0x08, p.at(0), uint32(n/p.blockLen)), make([]byte, p.blockLen)); err != nil {
		return "", needed("WRITE SAME(16) with UNMAP", err)
	}
	return "GOOD, zeroes", p.zeroes(0, n)
}

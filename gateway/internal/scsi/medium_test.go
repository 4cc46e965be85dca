package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"testing"
)

// The CDBs of one family by their length; blocks of 0 in the 6-byte ones mean 256.
func cdb(opcode byte, size int, lba uint64, blocks uint32) string {
	p := make([]byte, size)
	p[0] = opcode
	switch size {
	case 6:
		binary.BigEndian.PutUint32(p, uint32(lba)|uint32(opcode)<<24)
		p[4] = byte(blocks)
	case 10:
		binary.BigEndian.PutUint32(p[2:], uint32(lba))
		binary.BigEndian.PutUint16(p[7:], uint16(blocks))
	case 12:
		binary.BigEndian.PutUint32(p[2:], uint32(lba))
		binary.BigEndian.PutUint32(p[6:], blocks)
	case 16:
		binary.BigEndian.PutUint64(p[2:], lba)
		binary.BigEndian.PutUint32(p[10:], blocks)
	}
	return hex.EncodeToString(p)
}

var (
	readFamily   = map[int]byte{6: 0x08, 10: 0x28, 12: 0xA8, 16: 0x88}
	writeFamily  = map[int]byte{6: 0x0A, 10: 0x2A, 12: 0xAA, 16: 0x8A}
	verifyFamily = map[int]byte{10: 0x2F, 12: 0xAF, 16: 0x8F}
	wrverFamily  = map[int]byte{10: 0x2E, 12: 0xAE, 16: 0x8E}
	rangeOnly    = map[int][]byte{10: {0x34, 0x35}, 16: {0x90, 0x91}}
)

func TestReadWrite(t *testing.T) {
	for _, block := range []int{512, 4096} {
		for size, write := range writeFamily {
			t.Run(fmt.Sprintf("%d/%d", block, size), func(t *testing.T) {
				r := newRig(t, testConfig(1024, block))
				data := pattern(3*block, byte(size))
				c := r.run(cdb(write, size, 5, 3), data...)
				wantGood(t, c)
				if c.Transfer != uint64(len(data)) || c.DataIn != nil {
					t.Errorf("transfer %d, data-in %d", c.Transfer, len(c.DataIn))
				}
				c = r.run(cdb(readFamily[size], size, 5, 3))
				wantGood(t, c)
				if !bytes.Equal(c.DataIn, data) || c.Transfer != uint64(len(data)) {
					t.Errorf("read %d bytes, transfer %d", len(c.DataIn), c.Transfer)
				}
				if !bytes.Equal(r.mem.data[5*block:8*block], data) {
					t.Error("the medium differs")
				}
				if size > 6 { // DPO FUA, and FUA_NV that is ignored
					flags := fromHex(t, cdb(readFamily[size], size, 5, 3))
					flags[1] |= 0x1A
					if got := r.good(hex.EncodeToString(flags)); !bytes.Equal(got, data) {
						t.Error("DPO and FUA read something else")
					}
				}
			})
		}
	}
}

func TestReadWrite6Zero(t *testing.T) {
	r := disk512(t)
	if n := len(r.good("08 000001 00 00")); n != 256*512 {
		t.Errorf("length 0 of READ(6) read %d bytes", n)
	}
	data := pattern(256*512, 9)
	r.good("0A 000001 00 00", data...)
	if !bytes.Equal(r.mem.data[512:512+len(data)], data) {
		t.Error("length 0 of WRITE(6) wrote something else")
	}
	// the LUN field of SCSI-2 is ignored, the LBA has 21 bits
	r.good("08 E00001 01 00")
	wantBytes(t, r.sense(LBAOutOfRange, "08 1FFFFF 01 00").Sense(),
		"70 00 05 00000000 0A 00000000 2100 00 C00001")
}

func TestRange(t *testing.T) {
	r := disk512(t)
	last := r.unit.Blocks()
	families := []map[int]byte{readFamily, verifyFamily}
	for size, ops := range rangeOnly {
		for _, op := range ops {
			families = append(families, map[int]byte{size: op})
		}
	}
	for _, family := range families {
		for size, op := range family {
			if size == 6 {
				continue
			}
			r.good(cdb(op, size, last-1, 1))
			r.good(cdb(op, size, last, 0))
			r.good(cdb(op, size, 0, 0))
			r.sense(LBAOutOfRange, cdb(op, size, last, 1))
			r.sense(LBAOutOfRange, cdb(op, size, last-1, 2))
			r.sense(LBAOutOfRange, cdb(op, size, last+1, 0))
			r.sense(LBAOutOfRange, cdb(op, size, 1<<31, 1))
			if size == 16 {
				r.sense(LBAOutOfRange, cdb(op, size, 1<<63, 1))
				r.sense(LBAOutOfRange, cdb(op, size, 1<<64-1, 0))
				r.sense(LBAOutOfRange, cdb(op, size, 1<<64-1, 1<<32-1))
			}
		}
	}
	for size, op := range writeFamily {
		if size > 6 {
			r.good(cdb(op, size, last-1, 1), fill(512, 1)...)
			r.good(cdb(op, size, last, 0))
			c := r.sense(LBAOutOfRange, cdb(op, size, last, 1), fill(512, 1)...)
			wantBytes(t, c.Sense(), "70 00 05 00000000 0A 00000000 2100 00 C00002")
		}
	}
}

func TestTransferLimit(t *testing.T) {
	config := testConfig(1<<20, 512)
	unit, err := NewLogicalUnit(config)
	if err != nil {
		t.Fatal(err)
	}
	luns, err := NewLUNMap(Mapping{Unit: unit, Backend: newMemory(16 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, unit: unit, luns: luns}
	r.nexus = r.login(NoSense)
	most := uint32(config.Limits.MaxTransfer / 512)
	r.good(cdb(0x88, 16, 0, most))
	wantBytes(t, r.sense(InvalidFieldInCDB, cdb(0x88, 16, 0, most+1)).Sense(),
		"70 00 05 00000000 0A 00000000 2400 00 C0000A")
	r.sense(InvalidFieldInCDB, cdb(0xA8, 12, 0, most+1))
	r.sense(InvalidFieldInCDB, cdb(0x8A, 16, 0, most+1), fill(512, 1)...)
	r.sense(InvalidFieldInCDB, cdb(0x8F, 16, 0, most+1))
	r.sense(InvalidFieldInCDB, cdb(0x8E, 16, 0, most+1))
}

func TestProtectIsRefused(t *testing.T) {
	r := disk512(t)
	for _, op := range []string{"28", "2A", "2E", "2F", "41"} {
		for protect := 1; protect < 8; protect++ {
			c := r.sense(InvalidFieldInCDB, fmt.Sprintf("%s %02X 00000000 00 0001 00", op, protect<<5), fill(512, 1)...)
			if p := c.Sense()[15]; p&0xF8 != 0xC8 || p&7 < 5 || c.Sense()[17] != 1 {
				t.Errorf("%s: field pointer % X", op, c.Sense()[15:])
			}
		}
	}
	for _, op := range []string{"88", "8A", "8E", "8F", "93", "89"} {
		r.sense(InvalidFieldInCDB, op+"20 0000000000000000 00000001 00 00", fill(1024, 1)...)
	}
}

// The initiator's expected transfer length differs from what the CDB asks for.
func TestResidualRead(t *testing.T) {
	r := disk512(t)
	copy(r.mem.data, pattern(1024, 3))
	for _, test := range []struct {
		takes, want int
		blocks      uint32
		transfer    uint64
	}{
		{0, 0, 1, 512}, {200, 200, 1, 512}, {512, 512, 2, 1024}, {10000, 512, 1, 512}, {512, 0, 0, 0}, {-1, 0, 1, 512},
	} {
		c := &Command{CDB: fromHex(t, cdb(0x28, 10, 0, test.blocks)), MaxDataIn: test.takes}
		if err := r.nexus.Execute(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		wantGood(t, c)
		if len(c.DataIn) != test.want || c.Transfer != test.transfer || !bytes.Equal(c.DataIn, r.mem.data[:test.want]) {
			t.Errorf("%+v: %d bytes, transfer %d", test, len(c.DataIn), c.Transfer)
		}
	}
}

func TestResidualWrite(t *testing.T) {
	for i, family := range []map[int]byte{writeFamily, wrverFamily, wrverFamily} {
		for size, op := range family {
			for _, test := range []struct {
				sent, written int
				blocks        uint32
				code          SenseCode
			}{
				{0, 0, 1, NoSense},
				{1024, 512, 1, NoSense},
				{512, 512, 2, NoSense},
				{10000, 512, 1, NoSense},
				{200, 0, 1, InvalidFieldInCommandIU},
				{513, 0, 2, InvalidFieldInCommandIU},
			} {
				r := disk512(t)
				p := fromHex(t, cdb(op, size, 0, test.blocks))
				if i == 2 {
					p[1] = bytchkCompare << 1
				}
				c := r.run(hex.EncodeToString(p), fill(test.sent, 'b')...)
				if c.SenseCode() != test.code {
					t.Errorf("%02X %+v: %v %v", op, test, c.Status, c.SenseCode())
				}
				want := append(fill(test.written, 'b'), fill(8, 0)...)
				if c.Transfer != uint64(test.blocks)*512 || !bytes.Equal(r.mem.data[:len(want)], want) {
					t.Errorf("%02X %+v: transfer %d", op, test, c.Transfer)
				}
			}
		}
	}
}

func TestVerify(t *testing.T) {
	r := newRig(t, testConfig(8192, 512)) // 4 MiB: more than one buffer
	data := pattern(3<<20, 5)
	copy(r.mem.data[512:], data)
	for size, op := range verifyFamily {
		options := func(bytchk byte) string {
			p := fromHex(t, cdb(op, size, 1, 3<<20/512))
			p[1] = 0x10 | bytchk<<1 // with DPO
			return hex.EncodeToString(p)
		}
		reads := r.mem.reads.Load()
		c := r.run(options(bytchkMedium))
		wantGood(t, c)
		if n := r.mem.reads.Load() - reads; n != 3 || c.Transfer != 0 {
			t.Errorf("%d reads, transfer %d", n, c.Transfer)
		}
		r.good(options(bytchkCompare), data...)
		for _, bad := range []int{0, 511, 1<<20 - 1, 1 << 20, 3<<20 - 1} {
			wrong := bytes.Clone(data)
			wrong[bad] ^= 0x80
			c := r.sense(MiscompareDuringVerify, options(bytchkCompare), wrong...)
			if got := binary.BigEndian.Uint32(c.Sense()[3:]); got != uint32(bad) || c.Sense()[0] != 0xF0 {
				t.Errorf("INFORMATION %d, want %d", got, bad)
			}
		}
		r.sense(InvalidFieldInCDB, options(bytchkReserved), data...)
		r.sense(InvalidFieldInCommandIU, options(bytchkCompare), data[:len(data)-1]...)
		r.sense(MiscompareDuringVerify, options(bytchkSame), data[:512]...)
	}
	copy(r.mem.data, bytes.Repeat(pattern(512, 8), 5))
	same := "2F 06 00000000 00 0005 00"
	r.good(same, pattern(512, 8)...)
	r.mem.data[3*512+7]++
	wantBytes(t, r.sense(MiscompareDuringVerify, same, pattern(512, 8)...).Sense(),
		"F0 00 0E 00000607 0A 00000000 1D00 00 000000")
}

func TestWriteAndVerify(t *testing.T) {
	for size, op := range wrverFamily {
		for _, bytchk := range []byte{bytchkMedium, bytchkCompare} {
			r := disk512(t)
			data := pattern(4*512, byte(size))
			p := fromHex(t, cdb(op, size, 2, 4))
			p[1] = 0x10 | bytchk<<1
			r.good(hex.EncodeToString(p), data...)
			if !bytes.Equal(r.mem.data[1024:1024+len(data)], data) || r.mem.reads.Load() != 1 {
				t.Errorf("%02X: not written, or not read back", op)
			}
		}
		r := disk512(t)
		p := fromHex(t, cdb(op, size, 2, 4))
		p[1] = bytchkSame << 1
		r.sense(InvalidFieldInCDB, hex.EncodeToString(p), fill(2048, 1)...)
		r.good(cdb(op, size, 0, 0))
	}
}

func TestReadOnly(t *testing.T) {
	r := newRig(t, testConfig(64, 512), func(m *Mapping) { m.ReadOnly = true })
	for _, op := range allOperations.All {
		p := make([]byte, len(op.usage))
		p[0] = op.opcode()
		if op.action {
			p[1] = byte(op.serviceAction())
		}
		c := r.run(hex.EncodeToString(p))
		if protected := c.SenseCode() == WriteProtected; protected != (op.traits&writes != 0) {
			t.Errorf("%s: %v", op.name, c.SenseCode())
		}
	}
	r.good("28 00 00000000 00 0001 00")
	if got := r.good("1A 08 08 00 04 00"); got[2] != 0x90 {
		t.Errorf("WP DPOFUA %02X", got[2])
	}
	if len(r.mem.calls) != 0 {
		t.Errorf("the medium changed: %v", r.mem.calls)
	}
}

func TestBackendErrors(t *testing.T) {
	const (
		read  = "28 00 00000000 00 0001 00"
		write = "2A 00 00000000 00 0001 00"
	)
	for _, test := range []struct {
		err         error
		read, write SenseCode
	}{
		{ErrStaleEpoch, 0x0B2F02, 0x0B2F02},
		{fmt.Errorf("copyset 7: %w", ErrNoSpace), 0x072707, 0x072707},
		{ErrMedium, 0x031100, 0x030C00},
		{&MediumError{Offset: 1024, Err: io.ErrUnexpectedEOF}, 0x031100, 0x030C00},
		{ErrAccessRevoked, 0x052002, 0x052002},
		{ErrGone, 0x052500, 0x052500},
		{context.DeadlineExceeded, 0x044400, 0x044400}, // the backend's own, not the command's
		{errors.New("anything else"), 0x044400, 0x044400},
	} {
		r := disk512(t)
		r.mem.fail = test.err
		c := r.sense(test.read, read)
		if c.Transfer != 0 {
			t.Errorf("%v: transfer %d of a failed READ", test.err, c.Transfer)
		}
		if _, ok := test.err.(*MediumError); ok {
			wantBytes(t, c.Sense(), "F0 00 03 00000002 0A 00000000 1100 00 000000")
		}
		r.sense(test.write, write, fill(512, 1)...)
		r.sense(test.read, "2F 00 00000000 00 0001 00")
		r.sense(test.write, "41 00 00000000 00 0001 00", fill(512, 1)...)
		r.sense(test.write, "42 00 00000000 00 0018 00", unmapList(0, 8)...)
		r.sense(test.write, "89 00 0000000000000000 000000 01 00 00", fill(1024, 1)...)
		r.sense(test.read, "9E 12 0000000000000000 00000100 00 00")
	}
	r := disk512(t)
	r.mem.fail = ErrReservationConflict
	c := r.run(read)
	if c.Status != StatusReservationConflict || c.Sense() != nil || c.DataIn != nil || c.Transfer != 0 {
		t.Errorf("%v, sense % X", c.Status, c.Sense())
	}
	if !errors.Is(&MediumError{Err: io.EOF}, io.EOF) {
		t.Error("a MediumError hides its cause")
	}
}

func TestAborted(t *testing.T) {
	r := disk512(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.mem.gate = func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ErrMedium // whatever it says, the command is over
	}
	c := &Command{CDB: fromHex(t, "28 00 00000000 00 0001 00"), MaxDataIn: 512}
	if err := r.nexus.Execute(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("aborted with %v", err)
	}
	if c.DataIn != nil || c.Sense() != nil {
		t.Error("an aborted command has a result")
	}
	// The same Command runs again.
	r.mem.gate = nil
	if err := r.nexus.Execute(t.Context(), c); err != nil || len(c.DataIn) != 512 {
		t.Errorf("%v, %d bytes", err, len(c.DataIn))
	}
}

func TestReadCapacity(t *testing.T) {
	const small, big = "25 00 00000000 0000 00 00", "9E 10 0000000000000000 00000020 00 00"
	r := disk512(t)
	wantBytes(t, r.good(small), "00002004 00000200")
	wantBytes(t, r.good(big), "0000000000002004 00000200 00 03 C000 00000000000000000000000000000000")
	for n := range 16 {
		if got := r.good(fmt.Sprintf("9E 10 0000000000000000 %08X 00 00", n)); len(got) != n {
			t.Errorf("allocation length %d: %d bytes", n, len(got))
		}
	}
	r.sense(InvalidFieldInCDB, "9E 10 0000000000000001 00000020 00 00")
	r.sense(InvalidFieldInCDB, "25 00 00000001 0000 00 00")
	r = disk4096(t)
	wantBytes(t, r.good(small), "00000400 00001000")
	wantBytes(t, r.good(big), "0000000000000400 00001000 00 00 C000 00000000000000000000000000000000")

	for _, test := range []struct {
		blocks int64
		small  string
	}{{1<<32 - 1, "FFFFFFFE"}, {1 << 32, "FFFFFFFF"}, {1<<32 + 1, "FFFFFFFF"}, {1 << 40, "FFFFFFFF"}} {
		unit, err := NewLogicalUnit(testConfig(test.blocks, 512))
		if err != nil {
			t.Fatal(err)
		}
		luns, err := NewLUNMap(Mapping{Unit: unit, Backend: newMemory(512)})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t, unit: unit, luns: luns}
		r.nexus = r.login(NoSense)
		wantBytes(t, r.good(small), test.small+"00000200")
		wantBytes(t, r.good(big)[:8], fmt.Sprintf("%016X", test.blocks-1))
	}
}

func TestStartStopUnit(t *testing.T) {
	r := disk512(t)
	for _, cdb := range []string{
		"1B 00 00 00 00 00", "1B 01 00 00 01 00", "1B 00 00 00 04 00", "1B 00 00 00 10 00", "1B 00 00 01 30 00", "1B 00 00 00 B0 00",
	} {
		r.good(cdb)
		r.good(cdbTestUnitReady)
	}
	wantBytes(t, r.sense(InvalidFieldInCDB, "1B 00 00 00 02 00").Sense(), "70 00 05 00000000 0A 00000000 2400 00 C90004")
	r.sense(InvalidFieldInCDB, "1B 00 00 00 03 00")
	r.sense(InvalidFieldInCDB, "1B 00 00 00 40 00")
}

func TestFrameChecks(t *testing.T) {
	r := disk512(t)
	wantBytes(t, r.sense(InvalidOperationCode, "1E 00 00 00 00 00").Sense(), // PREVENT ALLOW MEDIUM REMOVAL
		"70 00 05 00000000 0A 00000000 2000 00 CF0000")
	r.sense(InvalidOperationCode, "FF")
	r.sense(InvalidOperationCode, "")
	r.sense(InvalidFieldInCDB, "9E 1F 0000000000000000 00000020 00 00") // unknown service action
	r.sense(InvalidFieldInCDB, "9E")
	r.sense(InvalidFieldInCDB, "A3 00 00")
	wantBytes(t, r.sense(InvalidFieldInCDB, "00 00 00 00 00 04").Sense(), // NACA
		"70 00 05 00000000 0A 00000000 2400 00 CA0005")
	r.good("00 00 00 00 00 C3 0000 0000 0000 0000 0000")                          // vendor bits, and padding as iSCSI sends it
	r.good("28 00 00000000 00 0001 00 FFFFFFFFFFFF")                              // padding is not looked at
	wantBytes(t, r.sense(InvalidFieldInCDB, "28 01 00000000 00 0001 00").Sense(), // RELADR
		"70 00 05 00000000 0A 00000000 2400 00 C80001")
	// Every CDB cut at every byte is refused, never read past its end.
	for _, op := range allOperations.All {
		for n := 1; n < len(op.usage); n++ {
			p := make([]byte, n)
			copy(p, op.usage[:min(n, 2)])
			if n > 1 && !op.action {
				p[1] = 0
			}
			r.sense(InvalidFieldInCDB, hex.EncodeToString(p))
		}
	}
	// Every bit that the table does not know is refused, at its place.
	for _, op := range allOperations.All {
		for bit := 8; bit < 8*(len(op.usage)-1); bit++ {
			known := op.usage[bit/8]
			if bit < 16 {
				known |= op.ignored
				if op.action {
					known |= serviceActionMask
				}
			}
			p := make([]byte, len(op.usage))
			p[0] = op.opcode()
			if op.action {
				p[1] = byte(op.serviceAction())
			}
			p[bit/8] |= 0x80 >> (bit % 8)
			if known&(0x80>>(bit%8)) != 0 {
				continue
			}
			c := r.sense(InvalidFieldInCDB, hex.EncodeToString(p))
			if s := c.Sense(); s[15] != byte(0xC8|7-bit%8) || s[17] != byte(bit/8) {
				t.Errorf("%s: bit %d gave % X", op.name, bit, s[15:])
			}
		}
	}
}

func TestCompareAndWrite(t *testing.T) {
	const one = "89 00 0000000000000002 000000 01 00 00"
	r := disk512(t)
	copy(r.mem.data[1024:], pattern(512, 1))
	r.good(one, append(pattern(512, 1), pattern(512, 2)...)...)
	if !bytes.Equal(r.mem.data[1024:1536], pattern(512, 2)) {
		t.Fatal("not written")
	}
	wrong := pattern(512, 2)
	wrong[300]++
	c := r.sense(MiscompareDuringVerify, one, append(wrong, pattern(512, 3)...)...)
	wantBytes(t, c.Sense(), "F0 00 0E 0000012C 0A 00000000 1D00 00 000000")
	if !bytes.Equal(r.mem.data[1024:1536], pattern(512, 2)) {
		t.Fatal("written in spite of the difference")
	}
	r.good("89 18 0000000000000002 000000 00 00 00")
	r.good("89 1A 0000000000000002 000000 01 00 00", append(pattern(512, 2), pattern(512, 2)...)...)
	r.sense(InvalidFieldInCommandIU, one, fill(512, 0)...)
	r.sense(InvalidFieldInCommandIU, one, fill(2048, 0)...)
	r.sense(InvalidFieldInCDB, "89 00 0000000000000002 000000 02 00 00", fill(2048, 0)...)
	r.sense(LBAOutOfRange, "89 00 0000000000002005 000000 01 00 00", fill(1024, 0)...)
}

func TestGetLBAStatus(t *testing.T) {
	const status = "9E 12 %016X %08X 00 00"
	r := newRig(t, testConfig(64, 512))
	r.mem.allocated[1], r.mem.allocated[2] = true, true
	wantBytes(t, r.good(fmt.Sprintf(status, 0, 0x100)), `00000034 00000000
		0000000000000000 00000008 01 000000
		0000000000000008 00000010 00 000000
		0000000000000018 00000028 01 000000`)
	wantBytes(t, r.good(fmt.Sprintf(status, 11, 24)), `00000014 00000000 000000000000000B 0000000D 00 000000`)
	wantBytes(t, r.good(fmt.Sprintf(status, 63, 24)), `00000014 00000000 000000000000003F 00000001 01 000000`)
	wantBytes(t, r.good(fmt.Sprintf(status, 0, 10)), `00000014 00000000 0000`)
	for _, lba := range []uint64{64, 65, 1 << 63, 1<<64 - 1} {
		r.sense(LBAOutOfRange, fmt.Sprintf(status, lba, 24))
	}
}

// However fragmented the volume, one answer is bounded.
func TestGetLBAStatusBounded(t *testing.T) {
	r := newRig(t, testConfig(4096, 4096))
	for i := range r.mem.allocated {
		r.mem.allocated[i] = i%2 == 0
	}
	got := r.good("9E 12 0000000000000000 FFFFFFFF 00 00")
	if len(got) != 8+16*lbaStatusMax {
		t.Errorf("%d bytes", len(got))
	}
}

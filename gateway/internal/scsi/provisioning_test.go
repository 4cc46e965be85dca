package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// unmapList makes an UNMAP parameter list of (LBA, number of blocks) pairs.
func unmapList(pairs ...uint64) []byte {
	n := len(pairs) / 2 * 16
	p := binary.BigEndian.AppendUint16(nil, uint16(n+6))
	p = binary.BigEndian.AppendUint16(p, uint16(n))
	p = append(p, 0, 0, 0, 0)
	for i := 0; i < len(pairs); i += 2 {
		p = binary.BigEndian.AppendUint64(p, pairs[i])
		p = binary.BigEndian.AppendUint32(p, uint32(pairs[i+1]))
		p = append(p, 0, 0, 0, 0)
	}
	return p
}

func cdbUnmap(n int) string { return fmt.Sprintf("42 00 00000000 00 %04X 00", n) }

func (r *rig) unmap(pairs ...uint64) *Command {
	r.t.Helper()
	list := unmapList(pairs...)
	return r.run(cdbUnmap(len(list)), list...)
}

// wantZero checks that blocks [lba, lba+n) of 512 bytes are zero and all others are 'a'.
func wantZero(t *testing.T, r *rig, lba, n int) {
	t.Helper()
	want := fill(len(r.mem.data), 'a')
	clear(want[512*lba : 512*(lba+n)])
	if !bytes.Equal(r.mem.data, want) {
		t.Fatalf("unmapping %d blocks at %d left something else", n, lba)
	}
}

func TestUnmapAlignment(t *testing.T) {
	for _, test := range []struct {
		lba, blocks int
		calls       []string
	}{
		{0, 8, []string{"unmap"}},
		{0, 1, []string{"write"}},
		{7, 2, []string{"write"}},
		{1, 7, []string{"write"}},
		{8, 16, []string{"unmap"}},
		{7, 9, []string{"write", "unmap"}},
		{8, 9, []string{"unmap", "write"}},
		{7, 18, []string{"write", "unmap", "write"}},
		{56, 9, []string{"unmap", "write"}}, // the volume's end is not aligned
		{0, 0, nil},
	} {
		r := newRig(t, testConfig(65, 512))
		copy(r.mem.data, fill(len(r.mem.data), 'a'))
		wantGood(t, r.unmap(uint64(test.lba), uint64(test.blocks)))
		wantZero(t, r, test.lba, test.blocks)
		if !slices.Equal(r.mem.calls, test.calls) {
			t.Errorf("%d+%d: %v, want %v", test.lba, test.blocks, r.mem.calls, test.calls)
		}
	}
}

// Blocks that come one by one free the whole block when they meet.
func TestUnmapMerges(t *testing.T) {
	r := newRig(t, testConfig(64, 512))
	copy(r.mem.data, fill(len(r.mem.data), 'a'))
	var pairs []uint64
	for lba := range uint64(16) {
		pairs = append(pairs, lba, 1)
	}
	wantGood(t, r.unmap(pairs...))
	wantZero(t, r, 0, 16)
	if !slices.Equal(r.mem.calls, []string{"unmap"}) {
		t.Error(r.mem.calls)
	}
	wantGood(t, r.unmap(16, 8, 40, 8, 24, 8, 30, 0, 32, 8, 63, 1))
	wantZero(t, &rig{mem: &memory{data: r.mem.data[:48*512]}}, 0, 48)
	if !slices.Equal(r.mem.calls, []string{"unmap", "unmap", "unmap", "unmap", "unmap", "write"}) {
		t.Error(r.mem.calls)
	}
}

func TestUnmapLists(t *testing.T) {
	config := testConfig(1<<20, 512)
	config.Limits.MaxUnmapDescriptors = 3
	config.Limits.MaxUnmap = 16 * 4096
	r := newRig(t, config)
	r.good(cdbUnmap(0))
	r.good(cdbUnmap(8), unmapList()...)
	wantGood(t, r.unmap(1<<20, 0))
	wantGood(t, r.unmap(0, 64, 64, 64))
	for n := 1; n < 8; n++ {
		r.sense(ParameterListLengthError, cdbUnmap(n), make([]byte, n)...)
	}
	list := unmapList(0, 8, 8, 8)
	r.sense(InvalidFieldInCommandIU, cdbUnmap(len(list)), list[:len(list)-1]...)
	wantBytes(t, r.sense(InvalidFieldInCDB, "42 01 00000000 00 0018 00", unmapList(0, 8)...).Sense(), // ANCHOR
		"70 00 05 00000000 0A 00000000 2400 00 C80001")
	for _, test := range []struct {
		pairs []uint64
		code  SenseCode
		sks   string
	}{
		{[]uint64{0, 1, 2, 1, 4, 1, 6, 1}, InvalidFieldInParameters, "800002"},
		{[]uint64{0, 129}, InvalidFieldInParameters, "800010"},
		{[]uint64{0, 64, 64, 65}, InvalidFieldInParameters, "800020"},
		{[]uint64{0, 8, 1<<20 - 1, 2}, LBAOutOfRange, "800018"},
		{[]uint64{1<<64 - 1, 1}, LBAOutOfRange, "800008"},
		{[]uint64{1<<20 + 1, 0}, LBAOutOfRange, "800008"},
	} {
		r.mem.calls = nil
		c := r.unmap(test.pairs...)
		wantSense(t, c, test.code)
		wantBytes(t, c.Sense()[15:18], test.sks)
		if len(r.mem.calls) != 0 {
			t.Errorf("%v: a part was unmapped", test.pairs)
		}
	}
	// Cut at every byte: what is not a whole descriptor is ignored, as is what the list's own length leaves out.
	list = unmapList(0, 8, 16, 8)
	for n := 8; n <= len(list); n++ {
		r.mem.calls = nil
		r.good(cdbUnmap(n), list[:n]...)
		if got, want := len(r.mem.calls), (n-8)/16; got != want {
			t.Errorf("%d bytes: %d descriptors, want %d", n, got, want)
		}
	}
	list[3] = 31
	r.mem.calls = nil
	r.good(cdbUnmap(len(list)), list...)
	if len(r.mem.calls) != 1 {
		t.Errorf("BLOCK DESCRIPTOR DATA LENGTH 31: %v", r.mem.calls)
	}
}

func TestWriteSame(t *testing.T) {
	const (
		ten   = "41 00 %08X 00 %04X 00"
		unmap = "41 08 %08X 00 %04X 00"
		long  = "93 00 %016X %08X 00 00"
		ndob  = "93 01 %016X %08X 00 00"
		both  = "93 09 %016X %08X 00 00"
	)
	for _, test := range []struct {
		cdb      string
		data     []byte
		lba, n   int
		want     []byte // repeated
		unmapped bool
	}{
		{ten, pattern(512, 1), 3, 9, pattern(512, 1), false},
		{ten, fill(512, 0), 0, 8, fill(512, 0), false},
		{unmap, pattern(512, 1), 0, 8, pattern(512, 1), false},
		{unmap, fill(512, 0), 0, 8, fill(512, 0), true},
		{unmap, fill(512, 0), 3, 20, fill(512, 0), true},
		{unmap, fill(512, 0), 1, 7, fill(512, 0), false},
		{long, pattern(512, 4), 1, 64, pattern(512, 4), false},
		{ndob, nil, 1, 64, fill(512, 0), false},
		{both, nil, 8, 64, fill(512, 0), true},
	} {
		r := newRig(t, testConfig(128, 512))
		copy(r.mem.data, fill(len(r.mem.data), 'a'))
		want := bytes.Clone(r.mem.data)
		copy(want[512*test.lba:], bytes.Repeat(test.want, test.n))
		c := r.run(fmt.Sprintf(test.cdb, test.lba, test.n), test.data...)
		wantGood(t, c)
		if !bytes.Equal(r.mem.data, want) || c.Transfer != uint64(len(test.data)) {
			t.Errorf("%s: wrong bytes, transfer %d", test.cdb, c.Transfer)
		}
		if got := slices.Contains(r.mem.calls, "unmap"); got != test.unmapped {
			t.Errorf("%s %d+%d: %v", test.cdb, test.lba, test.n, r.mem.calls)
		}
	}
}

func TestWriteSameLimits(t *testing.T) {
	config := testConfig(16384, 512)
	config.Limits.MaxWriteSame = 4 << 20
	r := newRig(t, config)
	most := uint32(config.Limits.MaxWriteSame / 512)
	r.good(cdb(0x93, 16, 1, most), pattern(512, 2)...)
	if !bytes.Equal(r.mem.data[512:512+4<<20], bytes.Repeat(pattern(512, 2), int(most))) {
		t.Error("wrong bytes")
	}
	if r.mem.largest > 1<<20 {
		t.Errorf("a piece of %d bytes", r.mem.largest)
	}
	r.sense(InvalidFieldInCDB, cdb(0x93, 16, 1, most+1), fill(512, 0)...)
	for _, lba := range []uint64{0, 16383, 16384} { // WSNZ: a length of 0 never means to the end
		r.sense(InvalidFieldInCDB, cdb(0x93, 16, lba, 0), fill(512, 0)...)
		r.sense(InvalidFieldInCDB, cdb(0x41, 10, lba, 0), fill(512, 0)...)
	}
	r.sense(LBAOutOfRange, cdb(0x41, 10, 16385, 0), fill(512, 0)...)
	r.sense(LBAOutOfRange, cdb(0x41, 10, 16383, 2), fill(512, 0)...)
	for _, n := range []int{0, 256, 511, 513, 1024} {
		r.sense(InvalidFieldInCommandIU, cdb(0x41, 10, 0, 1), fill(n, 0)...)
	}
	r.sense(InvalidFieldInCDB, "41 10 00000000 00 0001 00", fill(512, 0)...) // ANCHOR
	r.sense(InvalidFieldInCDB, "41 18 00000000 00 0001 00", fill(512, 0)...)
	r.sense(InvalidFieldInCDB, "41 01 00000000 00 0001 00", fill(512, 0)...) // WRITE SAME(10) has no NDOB
	r.sense(InvalidFieldInCDB, "41 04 00000000 00 0001 00", fill(512, 0)...) // PBDATA
}
